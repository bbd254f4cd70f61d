// Reads everything in a data folder and says what does not fit together.
#include <rocksdb/sst_file_reader.h>

#include <algorithm>
#include <map>
#include <set>

#include "userspace/base/strings.h"
#include "userspace/store/cells.h"
#include "userspace/store/embedded_store.h"
#include "userspace/store/function_index.h"
#include "userspace/store/group_totals.h"
#include "userspace/store/keys.h"
#include "userspace/store/rollup.h"

namespace pyrometer::store {
namespace {

// Ids that are there, of one kind.
class IdSet {
 public:
  void Add(uint32_t id) {
    if (id >= bits_.size()) bits_.resize(std::max<size_t>(id + 1, bits_.size() * 2));
    bits_[id] = true;
  }
  // 0 is "none" and always there.
  bool Has(uint32_t id) const { return id == 0 || (id < bits_.size() && bits_[id]); }

 private:
  std::vector<bool> bits_;
};

class Checker {
 public:
  Checker(Database* database, FsckReport* report) : database_(*database), report_(*report) {}

  void Run() {
    CheckFiles();
    CheckMeta();
    CheckNames();
    CheckTries();
    CheckSeries();
    CheckWindows();
    CheckCells();
    CheckOffsets();
    CheckPoints(Family::kTotals);
    CheckPoints(Family::kHistograms);
    CheckRollups();
    CheckFunctions();
    CheckAgents();
    CompareSums();
  }

 private:
  void Problem(std::string place, std::string what, std::string_view affects) {
    ++report_.problem_count;
    if (report_.problems.size() < kMaxFsckProblems) {
      report_.problems.push_back({std::move(place), std::move(what), std::string(affects)});
    }
  }
  void Problem(Family family, std::string_view key, std::string_view what) {
    Problem(StrFormat("%s, key %s", FamilyName(family), HexEncode(key)), std::string(what), BlastRadius(family));
  }
  void Problem(Family family, std::string_view key, const Status& status) { Problem(family, key, Message(status)); }

  // Calls visit(key, value) -> Status for each record; an error of one is noted and the next one is looked at.
  template <typename Visit>
  void Each(Family family, std::string_view prefix, Visit visit) {
    const std::string end = prefix.empty() ? std::string() : PrefixEnd(std::string(prefix));
    const Status scanned =
        database_.Scan(family, prefix, end, [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
          ++report_.records;
          if (Status status = visit(key, value); !status.ok()) Problem(family, key, status);
          return true;
        });
    if (!scanned.ok()) Problem(std::string(FamilyName(family)), std::string(Message(scanned)), BlastRadius(family));
  }

  void CheckFiles() {
    std::vector<rocksdb::LiveFileMetaData> files;
    database_.rocks()->GetLiveFilesMetaData(&files);
    for (const rocksdb::LiveFileMetaData& file : files) {
      ++report_.files;
      Family family = Family::kMeta;
      for (size_t i = 0; i < kFamilies; ++i) {
        if (FamilyName(static_cast<Family>(i)) == file.column_family_name) family = static_cast<Family>(i);
      }
      rocksdb::Options options;
      rocksdb::SstFileReader reader(options);
      rocksdb::Status status = reader.Open(file.db_path + file.name);
      if (status.ok()) status = reader.VerifyChecksum(rocksdb::ReadOptions());
      if (!status.ok()) {
        Problem(StrFormat("%s, file %s", FamilyName(family), file.name.substr(file.name.rfind('/') + 1)),
                status.ToString(), BlastRadius(family));
      }
    }
  }

  static Status BadKey() { return DataLossError("malformed key"); }

  void CheckMeta() {
    std::string bytes;
    const StatusOr<bool> found = database_.Get(Family::kMeta, kCountersKey, &bytes);
    if (!found.ok()) {
      Problem(Family::kMeta, kCountersKey, found.status());
    } else if (*found) {
      const StatusOr<Counters> counters = DecodeCounters(bytes);
      if (counters.ok()) {
        counters_ = *counters;
      } else {
        Problem(Family::kMeta, kCountersKey, counters.status());
      }
    }
    Each(Family::kMeta, "T", [&](std::string_view key, std::string_view value) -> Status {
      Decoder in(key.substr(1));
      tenants_.Add(in.BigEndian32());
      RETURN_IF_ERROR(DecodeTenant(value).status());
      return in.ok() && in.done() ? OkStatus() : BadKey();
    });
    Each(Family::kMeta, "F", [&](std::string_view key, std::string_view value) -> Status {
      RETURN_IF_ERROR(DecodeFresh(value).status());
      return key.size() == 9 ? OkStatus() : BadKey();
    });
    Each(Family::kMeta, "y", [&](std::string_view key, std::string_view) -> Status {
      Decoder in(key.substr(1));
      const uint32_t day = in.BigEndian32();
      summed_days_.insert({in.BigEndian32(), day});
      return in.ok() && in.done() ? OkStatus() : BadKey();
    });
  }

  Status Known(const IdSet& ids, std::string_view what, uint32_t id) const {
    return ids.Has(id) ? OkStatus() : DataLossError(StrFormat("refers to %s %d, which is not there", what, id));
  }
  static Status Below(std::string_view what, uint32_t id, uint64_t next) {
    return id != 0 && id < next ? OkStatus()
                                : DataLossError(StrFormat("%s %d, but the next to give out is %d", what, id, next));
  }

  void CheckNames() {
    const auto forward = [&](NameTable table, std::string_view what, uint64_t next, IdSet* ids, auto check) {
      const std::string prefix(1, static_cast<char>(table));
      Each(Family::kNames, prefix, [&](std::string_view key, std::string_view value) -> Status {
        Decoder in(key.substr(1));
        const uint32_t id = in.BigEndian32();
        if (!in.ok() || !in.done()) return BadKey();
        ids->Add(id);
        RETURN_IF_ERROR(Below(what, id, next));
        ASSIGN_OR_RETURN(const std::string identity, check(value));
        // And the way back from content to id.
        std::string bucket;
        ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameBucketKey(identity), &bucket));
        if (found) {
          ASSIGN_OR_RETURN(const std::vector<uint32_t> candidates, NameCandidates(table, identity, bucket));
          if (std::find(candidates.begin(), candidates.end(), id) != candidates.end()) return OkStatus();
        }
        return DataLossError(StrFormat("%s %d is not in the index by content", what, id));
      });
    };
    forward(NameTable::kStrings, "string", counters_.next_name, &names_,
            [](std::string_view value) -> StatusOr<std::string> { return std::string(value); });
    forward(NameTable::kFunctions, "function", counters_.next_function, &functions_,
            [&](std::string_view value) -> StatusOr<std::string> {
              ASSIGN_OR_RETURN(const FunctionRecord function, DecodeFunction(value));
              for (const NameId id : {function.name, function.system_name, function.file}) {
                RETURN_IF_ERROR(Known(names_, "string", id));
              }
              return std::string(value);
            });
    forward(NameTable::kFrames, "frame", counters_.next_frame, &frames_,
            [&](std::string_view value) -> StatusOr<std::string> {
              ASSIGN_OR_RETURN(const FrameRecord frame, DecodeFrame(value));
              for (const NameId id : {frame.build_id, frame.file, frame.miss}) {
                RETURN_IF_ERROR(Known(names_, "string", id));
              }
              for (const FrameRecord::Line& line : frame.lines) {
                RETURN_IF_ERROR(Known(functions_, "function", line.function));
              }
              return FrameIdentity(frame);
            });
  }

  void CheckTries() {
    Each(Family::kTries, "I", [&](std::string_view key, std::string_view value) -> Status {
      Decoder in(key.substr(1));
      const TrieId id = in.BigEndian32();
      if (!in.ok() || !in.done()) return BadKey();
      ASSIGN_OR_RETURN(const TrieRecord record, DecodeTrieRecord(value));
      RETURN_IF_ERROR(Known(tenants_, "tenant", record.tenant));
      RETURN_IF_ERROR(Below("service", id, counters_.next_trie));
      tries_[id];
      std::string bytes;
      ASSIGN_OR_RETURN(const bool found,
                       database_.Get(Family::kTries, TrieIndexKey(record.tenant, record.name), &bytes));
      // The newest of its service is, and the others are older.
      const TrieId newest = found ? Decoder(bytes).Varint32() : 0;
      if (newest < id) return DataLossError("the service is not in the index by name");
      RETURN_IF_ERROR(Below("service", newest, counters_.next_trie));
      if (newest > id) replaced_.insert(id);
      return OkStatus();
    });
    for (auto& [id, leaves] : tries_) {
      StackTrie trie;
      bool damaged = false;
      Each(Family::kTries, LetterKey('n', {id}), [&](std::string_view key, std::string_view value) -> Status {
        if (damaged) return OkStatus();
        Decoder in(key.substr(5));
        TrieSpan begin;
        begin.first_node = in.BigEndian32();
        begin.first_leaf = in.BigEndian32();
        if (!in.ok() || !in.done()) return BadKey();
        const Status loaded = trie.Load(begin, value);
        damaged = !loaded.ok();
        RETURN_IF_ERROR(loaded);
        for (NodeId node = begin.first_node; node < trie.size(); ++node) {
          RETURN_IF_ERROR(Known(frames_, "frame", trie.frame(node)));
        }
        return OkStatus();
      });
      leaves = trie.leaf_count();
    }
  }

  void CheckSeries() {
    for (const SeriesKind kind : {SeriesKind::kGroup, SeriesKind::kSeries}) {
      const std::string prefix = SeriesRecordKey(kind, 0).substr(0, 1);
      Each(Family::kSeries, prefix, [&](std::string_view key, std::string_view value) -> Status {
        Decoder in(key.substr(1));
        const uint32_t id = in.BigEndian32();
        if (!in.ok() || !in.done()) return BadKey();
        (kind == SeriesKind::kGroup ? groups_ : series_).Add(id);
        RETURN_IF_ERROR(Below(kind == SeriesKind::kGroup ? "group" : "series", id,
                              kind == SeriesKind::kGroup ? counters_.next_group : counters_.next_series));
        ASSIGN_OR_RETURN(const SeriesRecord record, DecodeSeries(value));
        RETURN_IF_ERROR(Known(tenants_, "tenant", record.tenant));
        if (!tries_.contains(record.trie)) return DataLossError("refers to a service that is not there");
        if (kind == SeriesKind::kSeries) {
          if (record.group == 0) return DataLossError("has no group");
          RETURN_IF_ERROR(Known(groups_, "group", record.group));
        }
        RETURN_IF_ERROR(Known(names_, "string", record.type));
        std::vector<Posting> postings = {{.tenant = record.tenant, .type = record.type, .id = id}};
        for (const SeriesRecord::Label& label : record.labels) {
          RETURN_IF_ERROR(Known(names_, "string", label.name));
          RETURN_IF_ERROR(Known(names_, "string", label.value));
          postings.push_back({record.tenant, record.type, label.name, label.value, id});
        }
        std::string bytes;
        for (const Posting& posting : postings) {
          ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kSeries, EncodePosting(kind, posting), &bytes));
          if (!found) return DataLossError("is missing in the index by label");
        }
        // What refers to an older trie of its service is not, once it comes again.
        if (replaced_.contains(record.trie)) return OkStatus();
        ASSIGN_OR_RETURN(const bool found,
                         database_.Get(Family::kSeries, SeriesIndexKey(kind, SeriesIdentity(record)), &bytes));
        return found ? OkStatus() : DataLossError("is missing in the index by content");
      });
    }
  }

  Status CheckLeaf(TrieId trie, LeafId leaf) const {
    const auto found = tries_.find(trie);
    if (found == tries_.end()) return DataLossError(StrFormat("refers to service %d, which is not there", trie));
    return leaf < found->second
               ? OkStatus()
               : DataLossError(StrFormat("refers to stack %d of service %d, which has %d", leaf, trie, found->second));
  }

  void CheckWindows() {
    Each(Family::kWindows, "", [&](std::string_view key_bytes, std::string_view value) -> Status {
      ASSIGN_OR_RETURN(const WindowKey key, DecodeWindowKey(key_bytes));
      WindowHeader header;
      std::vector<StackSum> rows;
      RETURN_IF_ERROR(DecodeWindowChunk(value, &header, &rows));
      if (!rows.empty()) RETURN_IF_ERROR(CheckLeaf(key.trie, rows.back().leaf));
      for (const StackSum& row : rows) stack_sums_[{key.hour, key.trie}] += row.count;
      return OkStatus();
    });
  }

  void CheckCells() {
    Each(Family::kCells, "", [&](std::string_view key_bytes, std::string_view value) -> Status {
      ASSIGN_OR_RETURN(const CellsKey key, DecodeCellsKey(key_bytes));
      CellsReader reader;
      RETURN_IF_ERROR(reader.Open(value));
      LeafId highest = 0;
      uint64_t count_sum = 0;
      RETURN_IF_ERROR(reader.Read([&](LeafId leaf, uint32_t, uint64_t count, uint64_t) {
        highest = leaf;
        count_sum += count;
      }));
      RETURN_IF_ERROR(CheckLeaf(key.trie, highest));
      stack_sums_[{key.hour, key.trie}] += count_sum;
      cell_sums_[{key.hour, key.trie}] += count_sum;
      return OkStatus();
    });
  }

  void CheckOffsets() {
    Each(Family::kOffsets, "", [&](std::string_view key_bytes, std::string_view value) -> Status {
      ASSIGN_OR_RETURN(const WindowKey key, DecodeWindowKey(key_bytes));
      ASSIGN_OR_RETURN(const OffsetsChunk chunk, DecodeOffsetsChunk(value));
      return chunk.rows.empty() ? OkStatus() : CheckLeaf(key.trie, chunk.rows.back().leaf);
    });
  }

  void CheckPoints(Family family) {
    Each(family, std::string(1, kSeriesLetter), [&](std::string_view key_bytes, std::string_view value) -> Status {
      ASSIGN_OR_RETURN(const PointKey key, DecodePointKey(key_bytes));
      if (family == Family::kTotals) {
        ASSIGN_OR_RETURN(const TotalsRecord totals, DecodeTotals(value, key.hour));
        if (totals.kind != PointKind::kProfile) return OkStatus();
        for (const TotalRecord& window : totals.windows) total_sums_[{key.hour, key.trie}] += window.count;
        return OkStatus();
      }
      ASSIGN_OR_RETURN(const std::vector<HistogramChunk> chunks, DecodeHistograms(value, key.hour));
      for (const HistogramChunk& chunk : chunks) {
        for (const StoredHistogramExemplar& exemplar : chunk.exemplars) {
          RETURN_IF_ERROR(CheckLeaf(key.trie, exemplar.leaf));
          RETURN_IF_ERROR(Known(names_, "string", exemplar.comm));
          for (const auto& [cause, ns] : exemplar.split) RETURN_IF_ERROR(Known(names_, "string", cause));
          if (exemplar.waker.wait_ns == 0) continue;
          RETURN_IF_ERROR(CheckLeaf(key.trie, exemplar.waker.leaf));
          RETURN_IF_ERROR(Known(names_, "string", exemplar.waker.comm));
          RETURN_IF_ERROR(Known(names_, "string", exemplar.waker.cause));
        }
      }
      return OkStatus();
    });
    Each(family, std::string(1, kGroupLetter), [&](std::string_view key_bytes, std::string_view value) -> Status {
      ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(key_bytes));
      RETURN_IF_ERROR(Known(groups_, "group", key.group));
      return family == Family::kTotals ? DecodeGroupTotal(value).status() : DecodeHistograms(value, key.hour).status();
    });
  }

  void CheckRollups() {
    Each(Family::kRollups, "", [&](std::string_view key_bytes, std::string_view value) -> Status {
      ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(key_bytes));
      Rollup rollup;
      RETURN_IF_ERROR(DecodeRollup(value, &rollup));
      RETURN_IF_ERROR(Known(groups_, "group", key.group));
      if (!rollup.rows.empty()) RETURN_IF_ERROR(CheckLeaf(key.trie, rollup.rows.back().leaf));
      uint64_t count = 0;
      for (const StackSum& row : rollup.rows) count += row.count;
      if (count != rollup.header.count) return DataLossError("its rows do not add up to its total");
      const uint32_t day = key.hour / kHoursPerDay * kHoursPerDay;
      if (key.letter == kHourLetter) {
        rollup_sums_[{key.hour, key.trie}] += count;
        if (summed_days_.contains({key.trie, day})) day_hours_[{key.trie, key.group, day}] += count;
      } else if (key.letter == kDayLetter) {
        days_[{key.trie, key.group, day}] += count;
      } else {
        return BadKey();
      }
      return OkStatus();
    });
  }

  void CheckFunctions() {
    Each(Family::kFunctions, "", [&](std::string_view key, std::string_view value) -> Status {
      Decoder in(key);
      in.BigEndian32();
      RETURN_IF_ERROR(Known(names_, "string", in.BigEndian32()));
      RETURN_IF_ERROR(Known(names_, "string", in.BigEndian32()));
      in.BigEndian32();
      if (!in.ok() || !in.done()) return BadKey();
      return DecodeFunctionEntries(value).status();
    });
  }

  void CheckAgents() {
    Each(Family::kAgents, "",
         [&](std::string_view key, std::string_view value) -> Status { return DecodeAgent(key, value).status(); });
  }

  // Numbers that are kept twice must agree. Only where both are kept: retention takes them at different times.
  void CompareSums() {
    for (const auto& [place, count] : stack_sums_) {
      report_.samples += count;
      const auto total = total_sums_.find(place);
      if (total == total_sums_.end() || total->second == count) continue;
      Problem(StrFormat("service %d, hour %d", place.second, place.first),
              StrFormat("stacks add up to %d samples, totals to %d", count, total->second),
              "either the stacks or the time lines of this service and hour");
    }
    for (const auto& [place, count] : cell_sums_) {
      const auto rollup = rollup_sums_.find(place);
      if (rollup == rollup_sums_.end() || rollup->second == count) continue;
      Problem(StrFormat("service %d, hour %d", place.second, place.first),
              StrFormat("cells add up to %d samples, sums of groups to %d", count, rollup->second),
              "stacks of this service and hour when asked for as a whole");
    }
    for (const auto& [place, count] : days_) {
      const auto hours = day_hours_.find(place);
      if (hours == day_hours_.end() || hours->second == count) continue;
      Problem(StrFormat("service %d, group %d, day %d", std::get<0>(place), std::get<1>(place),
                        std::get<2>(place) / kHoursPerDay),
              StrFormat("the day's sum is %d samples, its hours' %d", count, hours->second),
              "stacks of this day when asked for as a whole");
    }
  }

  Database& database_;
  FsckReport& report_;
  Counters counters_;
  IdSet names_, functions_, frames_, tenants_, series_, groups_;
  std::map<TrieId, size_t> tries_;            // -> number of leaves
  std::set<TrieId> replaced_;                 // not the newest of their services
  using Place = std::pair<uint32_t, TrieId>;  // hour, service
  std::map<Place, uint64_t> stack_sums_, cell_sums_, total_sums_, rollup_sums_;
  std::set<std::pair<TrieId, uint32_t>> summed_days_;
  std::map<std::tuple<TrieId, GroupId, uint32_t>, uint64_t> days_, day_hours_;
};

}  // namespace

StatusOr<FsckReport> Fsck(const std::string& path) {
  FsckReport report;
  StoreOptions options;
  options.create_if_missing = false;
  StatusOr<std::unique_ptr<Database>> database = Database::Open(path, options, nullptr, OpenMode::kReadOnly);
  if (!database.ok()) {
    if (database.status().code() != StatusCode::kDataLoss) return database.status();
    report.problems.push_back({"opening", std::string(Message(database.status())),
                               "the store does not open; if the log is what is damaged, batches after the damage"});
    report.problem_count = 1;
    // Is the rest sound? Then it is the log.
    database = Database::Open(path, options, nullptr, OpenMode::kReadOnlySalvage);
    if (!database.ok()) return report;
  }
  Checker(database->get(), &report).Run();
  return report;
}

}  // namespace pyrometer::store

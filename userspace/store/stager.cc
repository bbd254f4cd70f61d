#include "userspace/store/stager.h"

#include <algorithm>
#include <unordered_set>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {
namespace {

// Nodes for visible folds beyond a tenant's limit: an eighth of it. After that a fold goes to an ancestor that has one.
constexpr uint64_t kFoldShare = 8;
// A trie that is added to takes up to 32 bytes per node: so large, one takes at most an eighth of the share of tries
// (memory_shares.h); grown kMostGrowth times as large, half.
constexpr uint64_t kBudgetPerTrieNode = 2048;
constexpr uint64_t kLeastTrieNodes = 64u << 10;
constexpr uint64_t kMostTrieNodes = 1u << 20;
constexpr uint64_t kMostGrowth = 4;

profile::LabelSet FoldedLabels(const profile::LabelSet& labels) {
  profile::LabelSet folded;
  for (const std::string_view name : {profile::kLabelService, profile::kLabelContainerName}) {
    if (const std::string_view value = labels.Get(name); !value.empty()) folded = folded.With(name, value);
  }
  return folded.With(kFoldedLabel, kFoldedSeriesValue);
}

}  // namespace

uint64_t Memo::bytes() const {
  uint64_t total = sizeof(*this) + checked.depths.capacity() * sizeof(uint16_t) +
                   series.capacity() * sizeof(series[0]) + names.bytes() + functions.bytes() + frames.bytes();
  for (const auto& [trie, pages] : nodes) total += pages.bytes() + 64;
  return total;
}

void Memo::Reset(uint64_t new_epoch) {
  epoch = new_epoch;
  tenant = 0;
  agent = 0;
  series.clear();
  names = {};
  functions = {};
  frames = {};
  nodes.clear();
  folded_day = 0;
  folded_series.clear();
}

class BatchStager {
 public:
  BatchStager(Stager* stager, const profile::BatchView& batch, Memo* memo)
      : stager_(*stager), log_(stager->definitions_), batch_(batch), definitions_(*batch.definitions), memo_(*memo) {}

  StatusOr<StagedBatch> Stage() {
    staged_.epoch = memo_.epoch;
    RETURN_IF_ERROR(FindTenant());
    if (stale_) return std::move(staged_);
    RETURN_IF_ERROR(FindSeries());
    if (stale_) return std::move(staged_);
    // Trie by trie.
    std::vector<TrieId> tries;
    for (const profile::ProfilePoint& point : batch_.profiles) tries.push_back(SeriesOf(point.series).trie);
    for (const profile::HistogramPoint& point : batch_.histograms) tries.push_back(SeriesOf(point.series).trie);
    std::sort(tries.begin(), tries.end());
    tries.erase(std::unique(tries.begin(), tries.end()), tries.end());
    for (const TrieId trie : tries) {
      RETURN_IF_ERROR(StageTrie(trie));
      if (stale_) return std::move(staged_);
    }
    for (const profile::CounterPoint& point : batch_.counters) {
      Put(PointAt(PointKind::kCounter, point.series, {point.time_ns, point.duration_ns, 0, point.value}));
    }
    staged_.usage.samples = staged_.samples;
    return std::move(staged_);
  }

 private:
  // With the log's lock, each time that it was taken: whether a write failed since the batch's first id was looked up.
  // Nothing may be defined by ids that are lost. What is staged so far is thrown away then, as its epoch says.
  bool IsStale() {
    stale_ = log_.epoch.load() != memo_.epoch;
    return stale_;
  }

  const SeriesWriter::Found& SeriesOf(uint32_t index) const { return memo_.series[index]; }

  Status FindTenant() {
    if (memo_.tenant == 0) {
      const std::lock_guard lock(log_.mutex);
      const size_t before = stager_.tenants_.size();
      ASSIGN_OR_RETURN(memo_.tenant, stager_.tenants_.FindOrAdd(batch_.tenant));
      // A new one is written with the next group, as every tenant that something changed for.
      if (stager_.tenants_.size() != before) log_.pending_usage[memo_.tenant];
    }
    staged_.tenant = memo_.tenant;
    staged_.sequence = batch_.sequence;
    if (stager_.encoder_.NamesAgents() && memo_.agent == 0) {
      const std::lock_guard lock(log_.mutex);
      if (IsStale()) return OkStatus();
      ASSIGN_OR_RETURN(memo_.agent, log_.names.Intern(batch_.agent_id, &log_.pending));
    }
    staged_.agent = memo_.agent;
    return OkStatus();
  }

  // ---- series -------------------------------------------------------------------------------------------

  Status FindSeries() {
    // What was folded may be whole on another day.
    if (memo_.folded_day != 0 && stager_.NodesCountByDay() && memo_.folded_day != stager_.tenants_.Today()) {
      memo_.nodes.clear();
      memo_.folded_day = 0;
    }
    if (memo_.turnovers != log_.turnovers.load()) {
      const std::lock_guard lock(log_.mutex);
      for (; memo_.turnovers < log_.turned_over.size(); ++memo_.turnovers) {
        const TrieId replaced = log_.turned_over[memo_.turnovers];
        memo_.nodes.erase(replaced);
        for (SeriesWriter::Found& known : memo_.series) {
          if (known.trie == replaced) known = {};
        }
      }
    }
    if (memo_.series.size() < batch_.series.size()) {
      memo_.series.resize(batch_.series.size());
      memo_.folded_series.resize(batch_.series.size());
    }
    std::vector<uint32_t> unknown;
    const auto look = [&](uint32_t index) {
      if (memo_.series[index].id == 0) unknown.push_back(index);
    };
    for (const profile::ProfilePoint& point : batch_.profiles) look(point.series);
    for (const profile::HistogramPoint& point : batch_.histograms) look(point.series);
    for (const profile::CounterPoint& point : batch_.counters) look(point.series);
    if (!unknown.empty()) {
      const std::lock_guard lock(log_.mutex);
      if (IsStale()) return OkStatus();
      for (const uint32_t index : unknown) {
        if (memo_.series[index].id == 0) RETURN_IF_ERROR(DefineSeries(index));
      }
    }
    uint64_t folded = 0;
    const auto count = [&](uint32_t index) { folded += memo_.folded_series[index] ? 1 : 0; };
    for (const profile::ProfilePoint& point : batch_.profiles) count(point.series);
    for (const profile::HistogramPoint& point : batch_.histograms) count(point.series);
    for (const profile::CounterPoint& point : batch_.counters) count(point.series);
    if (folded > 0) {
      staged_.usage.folded_points = folded;
      const TenantLimits& limits = stager_.tenants_.Limits(memo_.tenant);
      Notice(StrFormat(
          "%d points went to the series {%s=\"%s\"}: tenant '%s' has %s series, its limit is %s; raise it with "
          "--max-series or use fewer distinct labels",
          folded, kFoldedLabel, kFoldedSeriesValue, batch_.tenant,
          FormatCount(stager_.tenants_.Usage(memo_.tenant).series), FormatCount(limits.max_series)));
    }
    return OkStatus();
  }

  Status DefineSeries(uint32_t index) {
    const profile::SeriesKey& key = batch_.series[index];
    const TenantLimits& limits = stager_.tenants_.Limits(memo_.tenant);
    profile::SeriesKey folded_key;
    const profile::SeriesKey* wanted = &key;
    memo_.folded_series[index] = false;
    if (stager_.tenants_.Usage(memo_.tenant).series >= limits.max_series) {
      ASSIGN_OR_RETURN(const SeriesWriter::Found known, log_.series.Find(memo_.tenant, key));
      if (known.id == 0) {
        folded_key = {key.type, FoldedLabels(key.labels)};
        wanted = &folded_key;
        memo_.folded_series[index] = true;
      }
    }
    const uint64_t text_before = log_.names.added_text_bytes;
    const TrieId trie_before = log_.series.next_trie;
    bool added = false;
    ASSIGN_OR_RETURN(memo_.series[index], log_.series.FindOrAdd(memo_.tenant, *wanted, &log_.pending, &added));
    if (log_.series.next_trie != trie_before) log_.pending_services[memo_.series[index].trie] = memo_.tenant;
    CountNew({.series = added ? uint64_t{1} : 0, .name_bytes = log_.names.added_text_bytes - text_before});
    return OkStatus();
  }

  void CountNew(const TenantUsage& usage) {
    log_.pending_usage[memo_.tenant].Plus(usage);
    stager_.tenants_.AddUsage(memo_.tenant, usage);
  }

  void Notice(std::string text) {
    if (!staged_.notice.empty()) staged_.notice += "; ";
    staged_.notice += std::move(text);
  }

  // ---- stacks -------------------------------------------------------------------------------------------

  // Everything of one trie: stacks that are not known yet, then the points.
  Status StageTrie(TrieId trie_id) {
    ASSIGN_OR_RETURN(trie_, stager_.tries_.Get(trie_id));
    trie_id_ = trie_id;
    nodes_ = &memo_.nodes[trie_id];
    unknown_.clear();
    {
      const std::shared_lock lock(trie_->mutex);
      const auto look = [&](profile::StackId stack) {
        if (stack == profile::kEmptyStack) return;
        const NodeId node = nodes_->Get(stack);
        if (node == 0 || trie_->KnownLeaf(node) == 0) unknown_.push_back(stack);
      };
      for (const profile::ProfilePoint& point : batch_.profiles) {
        if (SeriesOf(point.series).trie != trie_id) continue;
        for (const profile::ProfilePoint::Sample& sample : point.samples) look(sample.stack);
      }
      for (const profile::HistogramPoint& point : batch_.histograms) {
        if (SeriesOf(point.series).trie != trie_id) continue;
        for (const profile::Exemplar& exemplar : point.exemplars) {
          look(exemplar.stack);
          look(exemplar.waker.stack);
        }
      }
    }
    comms_.clear();
    if (!unknown_.empty() || HasExemplars()) {
      const std::lock_guard lock(log_.mutex);
      if (IsStale()) return OkStatus();
      RETURN_IF_ERROR(DefineStacks());
      if (stale_) return OkStatus();
      RETURN_IF_ERROR(DefineComms());
    }
    const uint64_t folded_before = staged_.usage.folded_samples;
    for (const profile::ProfilePoint& point : batch_.profiles) {
      if (SeriesOf(point.series).trie == trie_id) PutProfile(point);
    }
    for (const profile::HistogramPoint& point : batch_.histograms) {
      if (SeriesOf(point.series).trie == trie_id) PutHistogram(point);
    }
    if (staged_.usage.folded_samples != folded_before) {
      const TenantLimits& limits = stager_.tenants_.Limits(memo_.tenant);
      const TenantUsage usage = stager_.tenants_.Usage(memo_.tenant);
      Notice(StrFormat(
          "%s samples were folded under %s: tenant '%s' has %s stack nodes%s (limit %s, --max-stacks) and %s of "
          "names (limit %s, --max-names)",
          FormatCount(staged_.usage.folded_samples - folded_before), kFoldedStacksName, batch_.tenant,
          FormatCount(stager_.BoundedNodes(memo_.tenant)), stager_.NodesCountByDay() ? " new today" : "",
          FormatCount(limits.max_nodes), FormatBytes(usage.name_bytes), FormatBytes(limits.max_name_bytes)));
    }
    return OkStatus();
  }

  bool HasExemplars() const {
    return std::any_of(batch_.histograms.begin(), batch_.histograms.end(), [&](const profile::HistogramPoint& point) {
      return SeriesOf(point.series).trie == trie_id_ && !point.exemplars.empty();
    });
  }

  // With the log's lock held, as all Define… below.
  Status DefineComms() {
    const uint64_t text_before = log_.names.added_text_bytes;
    for (const profile::HistogramPoint& point : batch_.histograms) {
      if (SeriesOf(point.series).trie != trie_id_) continue;
      for (const profile::Exemplar& exemplar : point.exemplars) {
        RETURN_IF_ERROR(DefineComm(exemplar.comm));
        for (const profile::TimePart& part : exemplar.split) RETURN_IF_ERROR(DefineComm(part.cause));
        if (exemplar.waker.wait_ns == 0) continue;
        RETURN_IF_ERROR(DefineComm(exemplar.waker.comm));
        RETURN_IF_ERROR(DefineComm(exemplar.waker.cause));
      }
    }
    CountNew({.name_bytes = log_.names.added_text_bytes - text_before});
    return OkStatus();
  }

  Status DefineComm(const std::string& text) {
    NameId& id = comms_[text];
    if (id == 0) {
      ASSIGN_OR_RETURN(id, log_.names.Intern(text, &log_.pending));
    }
    return OkStatus();
  }

  Status DefineStacks() {
    std::sort(unknown_.begin(), unknown_.end());
    unknown_.erase(std::unique(unknown_.begin(), unknown_.end()), unknown_.end());
    const TenantLimits& limits = stager_.tenants_.Limits(memo_.tenant);
    uint64_t text_before = log_.names.added_text_bytes;
    FrameKeyId frame_before = log_.names.next_frame;
    const auto count = [&](uint64_t nodes) {
      CountNew({.nodes = nodes,
                .frames = log_.names.next_frame - frame_before,
                .name_bytes = log_.names.added_text_bytes - text_before});
    };
    // Frames first: they need names, and those the disk. Beyond the limit of nodes nothing new can hang anywhere: new
    // frames are not written, and not looked for below one that is not known.
    const bool full = stager_.BoundedNodes(memo_.tenant) >= limits.max_nodes;
    std::vector<profile::StackId> path;
    for (const profile::StackId leaf : unknown_) {
      path.clear();
      for (profile::StackId stack = leaf; stack != profile::kEmptyStack && nodes_->Get(stack) == 0;
           stack = definitions_.stack(stack).parent) {
        path.push_back(stack);
        if (!visited_.insert(stack).second) break;
      }
      for (size_t i = path.size(); i > 0; --i) {
        const profile::FrameId frame = definitions_.stack(path[i - 1]).frame;
        if (memo_.frames.Get(frame) != 0) continue;
        const TenantUsage usage = stager_.tenants_.Usage(memo_.tenant);
        const uint64_t text = usage.name_bytes + (log_.names.added_text_bytes - text_before);
        RETURN_IF_ERROR(DefineFrame(frame, full || text >= limits.max_name_bytes));
        if (log_.mutex.contended()) {
          count(0);
          log_.mutex.Yield();
          if (IsStale()) return OkStatus();
          text_before = log_.names.added_text_bytes;
          frame_before = log_.names.next_frame;
        }
        if (memo_.frames.Get(frame) == 0) break;
      }
    }
    const uint64_t most_new = visited_.size();
    visited_.clear();
    uint64_t used = stager_.BoundedNodes(memo_.tenant);
    RETURN_IF_ERROR(ExpectFold(used + most_new));
    TrieSpan end;
    bool grew = false;
    for (size_t next = 0; next < unknown_.size();) {
      std::string record;
      TrieSpan begin;
      {
        const std::unique_lock lock(trie_->mutex);
        begin = trie_->end();
        do {
          AddStack(unknown_[next++], limits.max_nodes, &used, &path);
        } while (next < unknown_.size() && !log_.mutex.contended());
        end = trie_->end();
        if (end != begin) record = trie_->EncodeFresh(begin, end);
      }
      const uint64_t added = end.first_node - begin.first_node;
      count(added);
      log_.pending_nodes += added;
      log_.pending_leaves += end.first_leaf - begin.first_leaf;
      if (!record.empty()) {
        grew = true;
        log_.pending_tries[trie_id_] = trie_;
        RETURN_IF_ERROR(stager_.database_.FromRocks(
            log_.pending.Put(stager_.database_.family(Family::kTries),
                             LetterKey('n', {trie_id_, begin.first_node, begin.first_leaf}), record),
            "writing"));
      }
      if (next == unknown_.size()) break;
      log_.mutex.Yield();
      if (IsStale()) return OkStatus();
      text_before = log_.names.added_text_bytes;
      frame_before = log_.names.next_frame;
      // Others of this tenant may have come near its limit meanwhile.
      used = stager_.BoundedNodes(memo_.tenant);
      RETURN_IF_ERROR(ExpectFold(used + most_new));
    }
    if (!grew) return OkStatus();
    // A successor has to take every stack that is still in use once more: not when the tenant's limit is near.
    const uint64_t free = limits.max_nodes - std::min(limits.max_nodes, used);
    const DefinitionLog::TrieStart start =
        log_.trie_starts.try_emplace(trie_id_, DefinitionLog::TrieStart{log_.names.next_frame, stager_.MostTrieNodes()})
            .first->second;
    if (end.first_node < start.most_nodes || end.first_node > free) return OkStatus();
    TrieId successor = 0;
    RETURN_IF_ERROR(log_.series.TurnOver(trie_id_, &log_.pending, &successor));
    if (successor == 0) return OkStatus();
    log_.trie_starts.erase(trie_id_);
    const bool churn = FramesAreNew(start.first_frame);
    log_.trie_starts[successor] = {log_.names.next_frame, churn ? stager_.MostTrieNodes() : Larger(start.most_nodes)};
    log_.pending_services[successor] = memo_.tenant;
    log_.turned_over.push_back(trie_id_);
    log_.turnovers = log_.turned_over.size();
    return OkStatus();
  }

  // Defines the frame of folds when the tenant may come to have so many nodes.
  Status ExpectFold(uint64_t most_nodes) {
    if (log_.folded_frame != 0) return OkStatus();
    if (most_nodes <= stager_.tenants_.Limits(memo_.tenant).max_nodes && !frames_unknown_) return OkStatus();
    FrameRecord record{.kind = profile::FrameKind::kSynthetic};
    record.lines.emplace_back();
    FunctionRecord function;
    ASSIGN_OR_RETURN(function.name, log_.names.Intern(kFoldedStacksName, &log_.pending));
    ASSIGN_OR_RETURN(record.lines[0].function, log_.names.InternFunction(function, &log_.pending));
    ASSIGN_OR_RETURN(log_.folded_frame, log_.names.InternFrame(record, std::nullopt, &log_.pending));
    return OkStatus();
  }

  // With the trie's mutex held too. `path` is reused.
  void AddStack(profile::StackId leaf, uint64_t max_nodes, uint64_t* used, std::vector<profile::StackId>* path) {
    path->clear();
    profile::StackId stack = leaf;
    for (; stack != profile::kEmptyStack && nodes_->Get(stack) == 0; stack = definitions_.stack(stack).parent) {
      path->push_back(stack);
    }
    NodeId node = stack == profile::kEmptyStack ? 0 : nodes_->Get(stack);
    for (size_t i = path->size(); i > 0; --i) {
      node = Descend(node, memo_.frames.Get(definitions_.stack((*path)[i - 1]).frame), max_nodes, used);
      nodes_->Set((*path)[i - 1], node);
    }
    if (log_.folded_frame != 0 && trie_->frame(node) == log_.folded_frame) memo_.folded_day = stager_.tenants_.Today();
    trie_->FindOrAddLeaf(node);
  }

  // Most nodes of the trie at hand are of frames from `first` on, or below such: a deploy made them. Else code that was
  // there before has more stacks than fit, and a successor of the same size would have to take them over and over.
  bool FramesAreNew(FrameKeyId first) const {
    size_t count = 0;  // no lock: only who holds that of the log adds
    std::vector<bool> fresh(trie_->size());
    for (NodeId node = 1; node < trie_->size(); ++node) {
      fresh[node] = trie_->frame(node) >= first || fresh[trie_->parent(node)];
      count += fresh[node] ? 1 : 0;
    }
    return count > trie_->size() / 2;
  }
  uint64_t Larger(uint64_t nodes) const {
    return std::min(nodes * 2, stager_.MostTrieNodes() * kMostGrowth);  // never with UINT64_MAX: no successor then
  }

  // The child of `node` for a frame, made when it is not there and the tenant may have one more; else the fold.
  NodeId Descend(NodeId node, FrameKeyId frame, uint64_t max_nodes, uint64_t* used) {
    // Below a fold everything is the fold.
    if (log_.folded_frame != 0 && trie_->frame(node) == log_.folded_frame) return node;
    if (frame != 0) {
      const NodeId known = trie_->Find(node, frame);
      if (known != 0) return known;
      if (*used < max_nodes) {
        ++*used;
        return trie_->Add(node, frame);
      }
    }
    for (;; node = trie_->parent(node)) {
      const NodeId fold = trie_->Find(node, log_.folded_frame);
      if (fold != 0) return fold;
      if (*used < max_nodes + max_nodes / kFoldShare || node == 0) {
        ++*used;
        return trie_->Add(node, log_.folded_frame);
      }
    }
  }

  // `only_known`: the tenant may add no more names; then a frame that the store does not have stays 0.
  // Known code of a binary is known by its place alone, whatever else there is by its lines.
  Status DefineFrame(profile::FrameId id, bool only_known) {
    const profile::FrameView frame = definitions_.frame(id);
    const profile::Mapping mapping = definitions_.mapping(frame.mapping);
    FrameRecord record;
    record.kind = frame.kind;
    record.address = frame.address.value;
    const auto name = [&](profile::StringId string, NameId* out) -> Status {
      if (string == 0) return OkStatus();
      *out = memo_.names.Get(string);
      if (*out != 0) return OkStatus();
      if (only_known) {
        ASSIGN_OR_RETURN(*out, log_.names.Find(definitions_.string(string)));
        if (*out == 0 && !definitions_.string(string).empty()) frames_unknown_ = true;
      } else {
        ASSIGN_OR_RETURN(*out, log_.names.Intern(definitions_.string(string), &log_.pending));
      }
      if (*out != 0) memo_.names.Set(string, *out);
      return OkStatus();
    };
    const bool unknown_before = frames_unknown_;
    frames_unknown_ = false;
    RETURN_IF_ERROR(name(mapping.build_id, &record.build_id));
    std::optional<NameWriter::FrameEntry> place;
    if (!only_known) {
      ASSIGN_OR_RETURN(place, log_.names.FindPlace(record));
      if (place && place->id != 0 && place->rank >= DescriptionRank(frame.lines)) {
        memo_.frames.Set(id, place->id);
        frames_unknown_ = unknown_before;
        return OkStatus();
      }
    }
    RETURN_IF_ERROR(name(mapping.file, &record.file));
    RETURN_IF_ERROR(name(frame.miss, &record.miss));
    for (const profile::Line& line : frame.lines) {
      if (frames_unknown_ || (only_known && frame.kind == profile::FrameKind::kNative)) break;
      FunctionId function_id = memo_.functions.Get(line.function);
      if (function_id == 0) {
        const profile::Function function = definitions_.function(line.function);
        FunctionRecord stored{.start_line = function.start_line};
        RETURN_IF_ERROR(name(function.name, &stored.name));
        RETURN_IF_ERROR(name(function.system_name, &stored.system_name));
        RETURN_IF_ERROR(name(function.file, &stored.file));
        if (!only_known) {
          ASSIGN_OR_RETURN(function_id, log_.names.InternFunction(stored, &log_.pending));
        } else if (!frames_unknown_) {
          ASSIGN_OR_RETURN(function_id, log_.names.FindFunction(stored));
        }
        frames_unknown_ = frames_unknown_ || function_id == 0;
        if (function_id != 0) memo_.functions.Set(line.function, function_id);
      }
      record.lines.push_back({function_id, line.line, line.column});
    }
    FrameKeyId frame_id = 0;
    if (!only_known) {
      ASSIGN_OR_RETURN(frame_id, log_.names.InternFrame(record, place, &log_.pending));
    } else if (!frames_unknown_) {
      ASSIGN_OR_RETURN(frame_id, log_.names.FindFrame(record));
    }
    if (frame_id != 0) memo_.frames.Set(id, frame_id);
    frames_unknown_ = unknown_before || frame_id == 0;
    return OkStatus();
  }

  // ---- points -------------------------------------------------------------------------------------------

  StagedPoint PointAt(PointKind kind, uint32_t series, const TotalRecord& total) const {
    return {.kind = kind, .place = SeriesOf(series), .hour = HourOf(total.time_ns), .total = total};
  }
  void Put(StagedPoint point) {
    ++staged_.hours[{point.hour, point.place.trie}].points;
    stager_.encoder_.Encode(std::move(point), &staged_);
  }

  void PutProfile(const profile::ProfilePoint& point) {
    const uint32_t hour = HourOf(point.time_ns);
    WindowChunk chunk{.offset_ns = static_cast<uint64_t>(point.time_ns - HourStart(hour)),
                      .duration_ns = point.duration_ns,
                      .period_ns = point.period_ns};
    TotalRecord total{.time_ns = point.time_ns, .duration_ns = point.duration_ns};
    chunk.rows.reserve(point.samples.size());
    const bool offsets = !point.offsets_ms.empty() && stager_.tenants_.Limits(memo_.tenant).offsets_retention_ns != 0;
    std::vector<std::pair<LeafId, std::pair<size_t, size_t>>> offset_rows;  // leaf, range in offsets_ms
    size_t offset_at = 0;
    {
      const std::shared_lock lock(trie_->mutex);
      for (const profile::ProfilePoint::Sample& sample : point.samples) {
        if (sample.count == 0 && sample.value == 0) continue;
        const NodeId node = nodes_->Get(sample.stack);
        const LeafId leaf = trie_->KnownLeaf(node);
        chunk.rows.push_back({leaf, sample.count, sample.value});
        total.count += sample.count;
        total.value += sample.value;
        if (log_.folded_frame != 0 && trie_->frame(node) == log_.folded_frame) {
          staged_.usage.folded_samples += sample.count;
        }
        if (offsets && sample.count > 0) offset_rows.push_back({leaf, {offset_at, offset_at + sample.count}});
        offset_at += sample.count;
      }
    }
    const auto by_leaf = [](const StackSum& a, const StackSum& b) { return a.leaf < b.leaf; };
    if (!std::is_sorted(chunk.rows.begin(), chunk.rows.end(), by_leaf)) {
      std::sort(chunk.rows.begin(), chunk.rows.end(), by_leaf);
    }
    size_t kept = 0;
    for (const StackSum& row : chunk.rows) {
      if (kept > 0 && chunk.rows[kept - 1].leaf == row.leaf) {
        chunk.rows[kept - 1].count += row.count;
        chunk.rows[kept - 1].value += row.value;
      } else {
        chunk.rows[kept++] = row;
      }
    }
    chunk.rows.resize(kept);
    staged_.samples += total.count;
    StagedPoint staged = PointAt(PointKind::kProfile, point.series, total);
    staged.offsets = {.offset_ns = chunk.offset_ns, .duration_ns = chunk.duration_ns, .period_ns = chunk.period_ns};
    staged.window = std::move(chunk);
    std::vector<OffsetsChunk::Row>& rows = staged.offsets.rows;
    std::sort(offset_rows.begin(), offset_rows.end());
    for (const auto& [leaf, range] : offset_rows) {
      if (rows.empty() || rows.back().leaf != leaf) rows.push_back({.leaf = leaf});
      std::vector<uint16_t>& all = rows.back().offsets_ms;
      all.insert(all.end(), point.offsets_ms.begin() + static_cast<ptrdiff_t>(range.first),
                 point.offsets_ms.begin() + static_cast<ptrdiff_t>(range.second));
    }
    for (OffsetsChunk::Row& row : rows) std::sort(row.offsets_ms.begin(), row.offsets_ms.end());
    Put(std::move(staged));
  }

  void PutHistogram(const profile::HistogramPoint& point) {
    HistogramChunk chunk{.time_ns = point.time_ns,
                         .duration_ns = point.duration_ns,
                         .histogram = point.histogram,
                         .errors = point.errors};
    if (!point.exemplars.empty()) {
      const std::shared_lock lock(trie_->mutex);
      for (const profile::Exemplar& exemplar : point.exemplars) {
        const NodeId node = nodes_->Get(exemplar.stack);
        StoredHistogramExemplar& stored = chunk.exemplars.emplace_back();
        stored = {exemplar.time_ns, exemplar.value, trie_->KnownLeaf(node), comms_.at(exemplar.comm),
                  exemplar.tid,     exemplar.call,  exemplar.weight,        exemplar.typical};
        for (const profile::TimePart& part : exemplar.split) stored.split.emplace_back(comms_.at(part.cause), part.ns);
        const profile::Waker& waker = exemplar.waker;
        if (waker.wait_ns == 0) continue;
        stored.waker = {waker.wait_ns, trie_->KnownLeaf(nodes_->Get(waker.stack)), comms_.at(waker.comm),
                        comms_.at(waker.cause), waker.tid};
      }
    }
    StagedPoint staged = PointAt(PointKind::kHistogram, point.series,
                                 {point.time_ns, point.duration_ns, point.histogram.count(), point.histogram.sum()});
    staged.histogram = std::move(chunk);
    Put(std::move(staged));
  }

  Stager& stager_;
  DefinitionLog& log_;
  const profile::BatchView& batch_;
  const profile::Definitions& definitions_;
  Memo& memo_;
  StagedBatch staged_;
  // Of the trie at hand.
  TrieId trie_id_ = 0;
  std::shared_ptr<StackTrie> trie_;
  IdPages* nodes_ = nullptr;
  std::vector<profile::StackId> unknown_;
  std::unordered_set<profile::StackId> visited_;
  std::unordered_map<std::string, NameId> comms_;
  bool frames_unknown_ = false;
  bool stale_ = false;
};

uint64_t Stager::MostTrieNodes() const {
  if (options_.max_trie_nodes != 0) return options_.max_trie_nodes;
  return std::clamp<uint64_t>(options_.memory_budget_bytes / kBudgetPerTrieNode, kLeastTrieNodes, kMostTrieNodes);
}

StatusOr<StagedBatch> Stager::Stage(const profile::BatchView& batch, Memo* memo) {
  return BatchStager(this, batch, memo).Stage();
}

}  // namespace pyrometer::store

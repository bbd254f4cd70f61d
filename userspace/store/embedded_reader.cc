// The reading half of EmbeddedStore.

#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/store/embedded_store.h"

namespace pyrometer::store {
namespace {

// Adds up stacks of one trie. Starts as a list of rows; becomes two arrays indexed by node once the
// list would be longer than the arrays are wide: dense adding costs ~5 ns per row however many
// stacks there are, sorting costs more, and clearing wide arrays for three rows most of all.
class StackAccumulator {
 public:
  explicit StackAccumulator(size_t nodes) : nodes_(nodes), sparse_limit_(std::max<size_t>(4096, nodes / 4)) {}

  Status Add(const std::vector<StackSum>& rows) {
    if (!rows.empty() && rows.back().node >= nodes_) return DataLossError("damaged profile chunk: unknown stack");
    if (counts_.empty()) {
      sparse_.insert(sparse_.end(), rows.begin(), rows.end());
      if (sparse_.size() > sparse_limit_) MakeDense();
      return OkStatus();
    }
    for (const StackSum& row : rows) AddDense(row);
    return OkStatus();
  }

  std::vector<StackSum> Finish() {
    if (counts_.empty()) {
      std::sort(sparse_.begin(), sparse_.end(), [](const StackSum& a, const StackSum& b) { return a.node < b.node; });
      size_t kept = 0;
      for (const StackSum& row : sparse_) {
        if (kept > 0 && sparse_[kept - 1].node == row.node) {
          sparse_[kept - 1].count = SaturatingAdd(sparse_[kept - 1].count, row.count);
          sparse_[kept - 1].value = SaturatingAdd(sparse_[kept - 1].value, row.value);
        } else {
          sparse_[kept++] = row;
        }
      }
      sparse_.resize(kept);
      return std::move(sparse_);
    }
    std::vector<StackSum> result;
    for (NodeId node = 0; node < counts_.size(); ++node) {
      if (counts_[node] != 0 || values_[node] != 0) result.push_back({node, counts_[node], values_[node]});
    }
    return result;
  }

 private:
  void AddDense(const StackSum& row) {
    counts_[row.node] = SaturatingAdd(counts_[row.node], row.count);
    values_[row.node] = SaturatingAdd(values_[row.node], row.value);
  }
  void MakeDense() {
    counts_.resize(nodes_);
    values_.resize(nodes_);
    for (const StackSum& row : sparse_) AddDense(row);
    sparse_ = {};
  }

  const size_t nodes_;
  const size_t sparse_limit_;
  std::vector<StackSum> sparse_;
  std::vector<uint64_t> counts_;
  std::vector<uint64_t> values_;
};

int64_t WindowEnd(int64_t time_ns, uint64_t duration_ns) {
  int64_t end = 0;
  const bool over =
      __builtin_add_overflow(time_ns, static_cast<int64_t>(std::min<uint64_t>(duration_ns, INT64_MAX)), &end);
  return over ? INT64_MAX : end;
}

}  // namespace

Status EmbeddedStore::LoadTrie(TrieId id, StackTrie* trie) const {
  std::string from = "n";
  PutBigEndian32(id, &from);
  std::string to = "n";
  PutBigEndian32(id + 1, &to);
  return database_->Scan(Family::kTries, from, to, [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
    Decoder in(key.substr(5));
    const NodeId first = in.BigEndian32();
    if (!in.ok() || !in.done()) return DataLossError("damaged stack trie: key");
    RETURN_IF_ERROR(trie->LoadSegment(first, value));
    return true;
  });
}

template <typename Visit>
Status EmbeddedStore::ScanPoints(SeriesId series, TimeRange range, rocksdb::Iterator* it, Visit visit) const {
  const std::string from = PointKeyPrefix(series, range.from_ns);
  if (range.to_ns <= 0) return OkStatus();
  const std::string to = PointKeyPrefix(series, range.to_ns);
  for (it->Seek(from); it->Valid() && ToView(it->key()) < to; it->Next()) {
    ASSIGN_OR_RETURN(const PointKey key, DecodePointKey(ToView(it->key())));
    RETURN_IF_ERROR(visit(key.time_ns, ToView(it->value())));
  }
  return database_->FromRocks(it->status(), "reading");
}

StatusOr<std::vector<Series>> EmbeddedStore::FindSeries(const SeriesFilter& filter) const {
  return series_reader_.Find(filter);
}

StatusOr<StackSums> EmbeddedStore::SumStacks(TrieId trie_id, std::span<const SeriesId> series, TimeRange range) const {
  // The state of the data first, the size of the trie afterwards: then every node in the data is in the trie.
  const std::unique_ptr<rocksdb::Iterator> it = database_->NewIterator(Family::kProfiles);
  size_t nodes = 0;
  {
    ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, tries_.Get(trie_id));
    const std::shared_lock lock(trie->mutex);
    nodes = trie->size();
  }
  StackSums result;
  StackAccumulator accumulator(nodes);
  std::vector<StackSum> rows;
  bool same_period = true;
  const auto add = [&](int64_t time_ns, std::string_view bytes) -> Status {
    ProfileChunkHeader header;
    RETURN_IF_ERROR(DecodeProfileChunk(bytes, &header, &rows));
    RETURN_IF_ERROR(accumulator.Add(rows));
    if (result.points == 0) {
      result.period_ns = header.period_ns;
      result.first_ns = time_ns;
    }
    same_period = same_period && header.period_ns == result.period_ns;
    result.first_ns = std::min(result.first_ns, time_ns);
    result.end_ns = std::max(result.end_ns, WindowEnd(time_ns, header.duration_ns));
    ++result.points;
    return OkStatus();
  };
  for (const SeriesId id : series) RETURN_IF_ERROR(ScanPoints(id, range, it.get(), add));
  if (!same_period) result.period_ns = 0;
  result.sums = accumulator.Finish();
  return result;
}

StatusOr<std::vector<profile::StackId>> EmbeddedStore::ResolveStacks(TrieId trie_id, std::span<const NodeId> nodes,
                                                                     profile::Dictionary* dictionary) const {
  if (nodes.empty()) return std::vector<profile::StackId>();
  // 1. Which nodes lie on the way to the root; parents have smaller ids.
  struct Node {
    NodeId id;
    NodeId parent;
    FrameKeyId frame;
  };
  std::vector<Node> path;
  const NodeId highest = *std::max_element(nodes.begin(), nodes.end());
  std::vector<uint32_t> stack_of(size_t{highest} + 1);  // first: 1 = seen; later: stack id + 1
  {
    ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, tries_.Get(trie_id));
    const std::shared_lock lock(trie->mutex);
    if (highest >= trie->size()) {
      return OutOfRangeError(StrFormat("stack node %d of trie %d, which has %d", highest, trie_id, trie->size()));
    }
    for (NodeId node : nodes) {
      for (; node != 0 && stack_of[node] == 0; node = trie->parent(node)) {
        stack_of[node] = 1;
        path.push_back({node, trie->parent(node), trie->frame(node)});
      }
    }
  }
  std::sort(path.begin(), path.end(), [](const Node& a, const Node& b) { return a.id < b.id; });

  // 2. Their frames and those frames' names, each once.
  std::vector<FrameKeyId> frame_ids;
  frame_ids.reserve(path.size());
  for (const Node& node : path) frame_ids.push_back(node.frame);
  std::sort(frame_ids.begin(), frame_ids.end());
  frame_ids.erase(std::unique(frame_ids.begin(), frame_ids.end()), frame_ids.end());
  if (!frame_ids.empty() && frame_ids.front() == 0) return DataLossError("damaged stack trie: a dead node is in use");
  ASSIGN_OR_RETURN(const auto records, name_reader_.Frames(frame_ids));
  std::vector<NameId> name_ids;
  for (const auto& record : records) {
    name_ids.insert(name_ids.end(), {record->build_id, record->file, record->miss});
    for (const FrameRecord::Line& line : record->lines) {
      name_ids.insert(name_ids.end(), {line.name, line.system_name, line.file});
    }
  }
  std::sort(name_ids.begin(), name_ids.end());
  name_ids.erase(std::unique(name_ids.begin(), name_ids.end()), name_ids.end());
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, name_reader_.Names(name_ids));

  // 3. Into the caller's dictionary.
  std::vector<profile::StringId> strings(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) strings[i] = dictionary->InternString(texts[i]);
  const auto string_of = [&](NameId id) {
    return strings[static_cast<size_t>(std::lower_bound(name_ids.begin(), name_ids.end(), id) - name_ids.begin())];
  };
  std::vector<profile::FrameId> frames(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    const FrameRecord& record = *records[i];
    profile::Frame frame{.kind = record.kind, .address = ElfAddress(record.address), .miss = string_of(record.miss)};
    frame.mapping = dictionary->InternMapping({.build_id = string_of(record.build_id), .file = string_of(record.file)});
    for (const FrameRecord::Line& line : record.lines) {
      const profile::FunctionId function = dictionary->InternFunction({.name = string_of(line.name),
                                                                       .system_name = string_of(line.system_name),
                                                                       .file = string_of(line.file),
                                                                       .start_line = line.start_line});
      frame.lines.push_back({.function = function, .line = line.line, .column = line.column});
    }
    frames[i] = dictionary->InternFrame(std::move(frame));
  }
  for (const Node& node : path) {
    const size_t frame =
        static_cast<size_t>(std::lower_bound(frame_ids.begin(), frame_ids.end(), node.frame) - frame_ids.begin());
    const profile::StackId parent = node.parent == 0 ? profile::kEmptyStack : stack_of[node.parent] - 1;
    stack_of[node.id] = dictionary->InternStack(parent, frames[frame]) + 1;
  }
  std::vector<profile::StackId> result;
  result.reserve(nodes.size());
  for (const NodeId node : nodes) result.push_back(node == 0 ? profile::kEmptyStack : stack_of[node] - 1);
  return result;
}

Status EmbeddedStore::ScanTotals(std::span<const SeriesId> series, TimeRange range,
                                 const std::function<void(const WindowTotal&)>& sink) const {
  const std::unique_ptr<rocksdb::Iterator> it = database_->NewIterator(Family::kTotals);
  for (const SeriesId id : series) {
    RETURN_IF_ERROR(ScanPoints(id, range, it.get(), [&](int64_t time_ns, std::string_view bytes) -> Status {
      ASSIGN_OR_RETURN(const TotalRecord total, DecodeTotal(bytes));
      sink({.series = id,
            .time_ns = time_ns,
            .duration_ns = total.duration_ns,
            .count = total.count,
            .value = total.value});
      return OkStatus();
    }));
  }
  return OkStatus();
}

Status EmbeddedStore::ScanHistograms(std::span<const SeriesId> series, TimeRange range,
                                     const std::function<void(const HistogramWindow&)>& sink) const {
  const std::unique_ptr<rocksdb::Iterator> it = database_->NewIterator(Family::kHistograms);
  for (const SeriesId id : series) {
    RETURN_IF_ERROR(ScanPoints(id, range, it.get(), [&](int64_t time_ns, std::string_view bytes) -> Status {
      ASSIGN_OR_RETURN(HistogramChunk chunk, DecodeHistogramChunk(bytes, time_ns));
      HistogramWindow window{.series = id, .time_ns = time_ns, .duration_ns = chunk.duration_ns};
      window.histogram = std::move(chunk.histogram);
      window.errors = std::move(chunk.errors);
      std::vector<NameId> comm_ids;
      for (const StoredHistogramExemplar& exemplar : chunk.exemplars) comm_ids.push_back(exemplar.comm);
      ASSIGN_OR_RETURN(std::vector<std::string> comms, name_reader_.Names(comm_ids));
      for (size_t i = 0; i < chunk.exemplars.size(); ++i) {
        const StoredHistogramExemplar& exemplar = chunk.exemplars[i];
        window.exemplars.push_back(
            {exemplar.time_ns, exemplar.value, exemplar.node, std::move(comms[i]), exemplar.tid});
      }
      sink(window);
      return OkStatus();
    }));
  }
  return OkStatus();
}

StatusOr<std::vector<std::string>> EmbeddedStore::ProfileTypes() const { return series_reader_.Types(); }

StatusOr<std::vector<std::string>> EmbeddedStore::LabelNames(const SeriesFilter& filter) const {
  return series_reader_.LabelNames(filter);
}

StatusOr<std::vector<std::string>> EmbeddedStore::LabelValues(std::string_view name, const SeriesFilter& filter) const {
  return series_reader_.LabelValues(name, filter);
}

StatusOr<std::vector<AgentInfo>> EmbeddedStore::Agents() const {
  std::vector<AgentInfo> result;
  {
    const std::lock_guard lock(state_mutex_);
    for (const auto& [id, agent] : agents_) result.push_back(agent);
  }
  std::sort(result.begin(), result.end(),
            [](const AgentInfo& a, const AgentInfo& b) { return a.agent_id < b.agent_id; });
  return result;
}

StatusOr<StoreStats> EmbeddedStore::Stats() const {
  StoreStats stats;
  {
    const std::lock_guard lock(state_mutex_);
    stats.series = durable_counters_.live_series;
    stats.tries = durable_counters_.next_trie - 1;
    stats.stacks = durable_counters_.nodes;
    stats.frames = durable_counters_.next_frame - 1;
    stats.strings = durable_counters_.next_name - 1;
    stats.agents = agents_.size();
    stats.batches = durable_counters_.batches;
    stats.samples = durable_counters_.samples;
    stats.folded_samples = durable_counters_.folded_samples;
    stats.duplicates = duplicates_;
    for (const auto& [id, agent] : agents_) stats.gaps += agent.gaps;
    stats.memory_bytes = writer_bytes_;
  }
  stats.disk_bytes = database_->DiskBytes();
  stats.memory_bytes += database_->MemoryBytes() + name_reader_.bytes() + series_reader_.bytes() + tries_.bytes();
  return stats;
}

}  // namespace pyrometer::store

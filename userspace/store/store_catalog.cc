// What every store says of series, stacks, names, agents and tenants.

#include <algorithm>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/store/keys.h"
#include "userspace/store/store_base.h"

namespace pyrometer::store {
namespace {

// Nodes that are taken out of a trie at a time, to be named.
constexpr size_t kExtendNodes = 64u << 10;
// Roughly what a node or leaf of a trie takes in it and in its view.
constexpr uint64_t kBytesPerNode = 24;

}  // namespace

Status StoreBase::LoadTrie(TrieId id, StackTrie* trie, const ReadView* view) const {
  const std::string prefix = LetterKey('n', {id});
  return database_->Scan(
      Family::kTries, prefix, PrefixEnd(prefix),
      [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        ASSIGN_OR_RETURN(const TrieSpan begin, DecodeTrieSpan(key.substr(prefix.size())));
        RETURN_IF_ERROR(trie->Load(begin, value));
        return true;
      },
      view);
}

StatusOr<TrieSpan> StoreBase::TrieEnd(TrieId id) const {
  const std::string prefix = LetterKey('n', {id});
  const auto it = database_->NewIterator(Family::kTries);
  it->SeekForPrev(LetterKey('n', {id, UINT32_MAX, UINT32_MAX}));
  RETURN_IF_ERROR(database_->FromRocks(it->status(), "reading"));
  if (!it->Valid() || !ToView(it->key()).starts_with(prefix)) return TrieSpan{1, 1};  // the empty stack
  ASSIGN_OR_RETURN(const TrieSpan begin, DecodeTrieSpan(ToView(it->key()).substr(prefix.size())));
  return StackTrie::EndOf(begin, ToView(it->value()));
}

StatusOr<std::vector<Series>> StoreBase::FindSeries(const SeriesFilter& filter) const {
  return series_reader_.Find(SeriesKind::kSeries, tenants_.Find(filter.tenant), filter);
}

StatusOr<std::vector<Group>> StoreBase::FindGroups(const SeriesFilter& filter) const {
  ASSIGN_OR_RETURN(std::vector<Series> found,
                   series_reader_.Find(SeriesKind::kGroup, tenants_.Find(filter.tenant), filter));
  std::vector<Group> groups;
  groups.reserve(found.size());
  for (Series& one : found) groups.push_back({one.id, std::move(one.type), std::move(one.labels), one.trie});
  return groups;
}

StatusOr<std::vector<profile::StackId>> StoreBase::ResolveStacks(TrieId trie_id, std::span<const LeafId> leaves,
                                                                 profile::Dictionary* dictionary,
                                                                 ReadBudget* budget) const {
  if (leaves.empty()) return std::vector<profile::StackId>();
  // 1. Which nodes lie on the way to the root; parents have smaller ids.
  struct Node {
    NodeId id;
    NodeId parent;
    FrameKeyId frame;
  };
  std::vector<Node> path;
  std::vector<NodeId> nodes(leaves.size());
  std::vector<uint32_t> stack_of;  // by node; first: 1 = seen; later: stack id + 1
  {
    ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, tries_.Get(trie_id));
    const std::shared_lock lock(trie->mutex);
    NodeId highest = 0;
    for (size_t i = 0; i < leaves.size(); ++i) {
      if (leaves[i] >= trie->leaf_count()) {
        return OutOfRangeError(StrFormat("stack %d of trie %d, which has %d", leaves[i], trie_id, trie->leaf_count()));
      }
      nodes[i] = trie->leaf_node(leaves[i]);
      highest = std::max(highest, nodes[i]);
    }
    RETURN_IF_ERROR(Charge(budget, (uint64_t{highest} + 1) * sizeof(uint32_t)));
    stack_of.resize(size_t{highest} + 1);
    for (NodeId node : nodes) {
      for (; node != 0 && stack_of[node] == 0; node = trie->parent(node)) {
        stack_of[node] = 1;
        path.push_back({node, trie->parent(node), trie->frame(node)});
      }
    }
  }
  // A node, its frame's share and the caller's dictionary entry.
  constexpr uint64_t kBytesPerNode = 64;
  RETURN_IF_ERROR(Charge(budget, path.size() * kBytesPerNode));
  std::sort(path.begin(), path.end(), [](const Node& a, const Node& b) { return a.id < b.id; });

  // 2. Their frames, functions and names, each once.
  const auto unique = [](std::vector<uint32_t>* ids) {
    std::sort(ids->begin(), ids->end());
    ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
  };
  const auto index_of = [](const std::vector<uint32_t>& ids, uint32_t id) {
    return static_cast<size_t>(std::lower_bound(ids.begin(), ids.end(), id) - ids.begin());
  };
  std::vector<FrameKeyId> frame_ids;
  frame_ids.reserve(path.size());
  for (const Node& node : path) frame_ids.push_back(node.frame);
  unique(&frame_ids);
  if (!frame_ids.empty() && frame_ids.front() == 0) return DataLossError("damaged stack trie: a dead node is in use");
  RETURN_IF_ERROR(Check(budget));
  ASSIGN_OR_RETURN(const auto records, name_reader_.Frames(frame_ids));
  std::vector<FunctionId> function_ids;
  std::vector<NameId> name_ids;
  for (const auto& record : records) {
    name_ids.insert(name_ids.end(), {record->build_id, record->file, record->miss});
    for (const FrameRecord::Line& line : record->lines) function_ids.push_back(line.function);
  }
  unique(&function_ids);
  ASSIGN_OR_RETURN(const std::vector<FunctionRecord> functions, name_reader_.Functions(function_ids));
  for (const FunctionRecord& function : functions) {
    name_ids.insert(name_ids.end(), {function.name, function.system_name, function.file});
  }
  unique(&name_ids);
  RETURN_IF_ERROR(Check(budget));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, name_reader_.Names(name_ids));

  // 3. Into the caller's dictionary.
  std::vector<profile::StringId> strings(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) strings[i] = dictionary->InternString(texts[i]);
  const auto string_of = [&](NameId id) { return strings[index_of(name_ids, id)]; };
  std::vector<profile::FunctionId> functions_there(functions.size());
  for (size_t i = 0; i < functions.size(); ++i) {
    functions_there[i] = dictionary->InternFunction({.name = string_of(functions[i].name),
                                                     .system_name = string_of(functions[i].system_name),
                                                     .file = string_of(functions[i].file),
                                                     .start_line = functions[i].start_line});
  }
  std::vector<profile::FrameId> frames(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    const FrameRecord& record = *records[i];
    profile::Frame frame{.kind = record.kind, .address = ElfAddress(record.address), .miss = string_of(record.miss)};
    frame.mapping = dictionary->InternMapping({.build_id = string_of(record.build_id), .file = string_of(record.file)});
    for (const FrameRecord::Line& line : record.lines) {
      frame.lines.push_back({.function = functions_there[index_of(function_ids, line.function)],
                             .line = line.line,
                             .column = line.column});
    }
    frames[i] = dictionary->InternFrame(std::move(frame));
  }
  for (const Node& node : path) {
    const profile::StackId parent = node.parent == 0 ? profile::kEmptyStack : stack_of[node.parent] - 1;
    stack_of[node.id] = dictionary->InternStack(parent, frames[index_of(frame_ids, node.frame)]) + 1;
  }
  std::vector<profile::StackId> result;
  result.reserve(nodes.size());
  for (const NodeId node : nodes) result.push_back(node == 0 ? profile::kEmptyStack : stack_of[node] - 1);
  return result;
}

StatusOr<std::vector<std::vector<Symbol>>> StoreBase::DescribeFrames(const std::vector<uint32_t>& frames,
                                                                     LateNames* late) const {
  ASSIGN_OR_RETURN(const auto records, name_reader_.WrittenFrames(frames));
  std::vector<FunctionId> function_ids;
  for (const auto& record : records) {
    if (record == nullptr) continue;
    for (const FrameRecord::Line& line : record->lines) function_ids.push_back(line.function);
  }
  std::sort(function_ids.begin(), function_ids.end());
  function_ids.erase(std::unique(function_ids.begin(), function_ids.end()), function_ids.end());
  ASSIGN_OR_RETURN(const std::vector<FunctionRecord> functions, name_reader_.Functions(function_ids));
  std::unordered_map<NameId, std::string> build_ids;
  if (late != nullptr) {
    std::vector<NameId> ids;
    for (const auto& record : records) {
      if (record != nullptr) ids.push_back(record->build_id);
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    ASSIGN_OR_RETURN(std::vector<std::string> texts, name_reader_.Names(ids));
    for (size_t i = 0; i < ids.size(); ++i) build_ids.emplace(ids[i], std::move(texts[i]));
  }
  std::vector<std::vector<Symbol>> result(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    if (records[i] == nullptr) continue;
    const FrameRecord& record = *records[i];
    // What has no name is shown by place, or all alike where there is none to show.
    const bool has_place = record.file != 0 && record.kind != profile::FrameKind::kJit;
    const uint64_t address = has_place ? record.address : 0;
    const NameId build_id = record.kind == profile::FrameKind::kNative ? record.build_id : 0;
    const auto clip = [](int64_t line) {
      return static_cast<int32_t>(std::clamp<int64_t>(line, 0, std::numeric_limits<int32_t>::max()));
    };
    if (late != nullptr && record.kind == profile::FrameKind::kNative &&
        (record.lines.empty() || record.lines.front().line == 0)) {
      bool complete = true;
      for (const LateNames::Line& line :
           late->Find(build_ids[record.build_id], ElfAddress(record.address), !record.lines.empty())) {
        Symbol symbol{.module = record.file, .kind = record.kind, .line = clip(line.line)};
        if (line.line == 0) symbol.build_id = build_id;
        ASSIGN_OR_RETURN(const bool name, LateText(line.name, &symbol.name));
        ASSIGN_OR_RETURN(const bool file, LateText(line.file, &symbol.file));
        complete = complete && name && file && symbol.name != 0;
        result[i].push_back(symbol);
      }
      if (!complete) result[i].clear();
      if (!result[i].empty()) continue;
    }
    for (const FrameRecord::Line& line : record.lines) {
      const FunctionRecord& function = functions[static_cast<size_t>(
          std::lower_bound(function_ids.begin(), function_ids.end(), line.function) - function_ids.begin())];
      result[i].push_back({.name = function.name,
                           .module = record.file,
                           .kind = record.kind,
                           .address = function.name == 0 ? address : 0,
                           .build_id = function.name == 0 || line.line == 0 ? build_id : 0,
                           .file = function.file,
                           .line = clip(function.start_line != 0 ? function.start_line : line.line)});
    }
    if (!result[i].empty()) continue;
    result[i].push_back({.module = record.file, .kind = record.kind, .address = address, .build_id = build_id});
  }
  return result;
}

StatusOr<bool> StoreBase::LateText(std::string_view text, uint32_t* id) const {
  ASSIGN_OR_RETURN(*id, name_reader_.Find(text));
  if (*id != 0 || text.empty()) return true;
  const std::lock_guard lock(late_texts_mutex_);
  const auto known = late_text_ids_.find(text);
  if (known != late_text_ids_.end()) {
    *id = known->second;
    return true;
  }
  if (late_texts_.size() == kMaxLateTexts) return false;
  *id = kFirstLateText + static_cast<uint32_t>(late_texts_.size());
  late_texts_.push_back(&late_text_ids_.emplace(std::string(text), *id).first->first);
  return true;
}

StatusOr<std::shared_ptr<FunctionTrie>> StoreBase::Functions(TrieId trie_id, LateNames* late) const {
  const uint64_t generation = late == nullptr ? 0 : late->generation();
  if (generation == 0) late = nullptr;
  bool replaced = false;
  {
    const std::lock_guard lock(functions_mutex_);
    replaced = replaced_tries_.contains(trie_id);
  }
  std::optional<TrieSpan> end;  // what a sealed view has to have: all that was written until now
  if (replaced) {
    ASSIGN_OR_RETURN(end, TrieEnd(trie_id));
  }
  std::shared_ptr<FunctionTrie> functions;
  uint64_t redescribed = 0;
  {
    const std::lock_guard lock(functions_mutex_);
    FunctionView& entry = functions_[ViewKey(trie_id, late != nullptr)];
    bool stale =
        entry.functions == nullptr || entry.generation != generation || (entry.sealed_at && entry.sealed_at != end);
    entry.generation = generation;
    for (; !stale && entry.redescribed < redescribed_.size(); ++entry.redescribed) {
      const std::shared_lock functions_lock(entry.functions->mutex);
      stale = entry.functions->Shows(redescribed_[entry.redescribed]);
    }
    // Those who read the old one go on with it.
    if (stale) {
      entry.functions = std::make_shared<FunctionTrie>();
      entry.sealed_at.reset();
    }
    redescribed = redescribed_.size();
    entry.redescribed = redescribed;
    functions = entry.functions;
    if (entry.sealed_at) return functions;
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, tries_.Get(trie_id));
  std::vector<NodeId> parents, leaves;
  std::vector<uint32_t> frames;
  size_t asked_for = 0;  // nodes, by us
  for (;;) {
    size_t nodes = 0, leaf_count = 0;
    bool sealed = false;
    {
      const std::shared_lock lock(functions->mutex);
      nodes = functions->nodes();
      leaf_count = functions->leaf_count();
      sealed = functions->sealed();
    }
    // By another thread meanwhile: does it have all that we need?
    if (sealed) return Functions(trie_id, late);
    // The trie has what is staged too. What is not written yet cannot be named, and nobody can have read it.
    if (nodes < asked_for) return functions;
    {
      const std::shared_lock lock(trie->mutex);
      if (nodes >= trie->size() && leaf_count >= trie->leaf_count()) break;
      parents.clear();
      frames.clear();
      leaves.clear();
      const size_t piece_end = std::min(trie->size(), nodes + kExtendNodes);
      for (size_t node = nodes; node < piece_end; ++node) {
        parents.push_back(trie->parent(static_cast<NodeId>(node)));
        frames.push_back(trie->frame(static_cast<NodeId>(node)));
      }
      for (size_t leaf = leaf_count; leaf < trie->leaf_count(); ++leaf) {
        leaves.push_back(trie->leaf_node(static_cast<LeafId>(leaf)));
        if (leaves.back() < piece_end) continue;
        leaves.pop_back();
        break;
      }
    }
    ASSIGN_OR_RETURN(const bool extended, functions->Extend(nodes, leaf_count, parents, frames, leaves,
                                                            [this, late](const std::vector<uint32_t>& ids) {
                                                              return DescribeFrames(ids, late);
                                                            }));
    if (extended) asked_for = nodes + parents.size();
    BroughtIn((parents.size() + leaves.size()) * kBytesPerNode);
  }
  if (!end) return functions;
  const std::lock_guard lock(functions_mutex_);
  const auto entry = functions_.find(ViewKey(trie_id, late != nullptr));
  if (entry != functions_.end() && entry->second.functions == functions) {
    functions->Seal();
    entry->second.sealed_at = end;
  }
  return functions;
}

Status StoreBase::Parallel(size_t pieces, const std::function<Status(size_t)>& piece) const {
  return read_pool_.Run(pieces, piece);
}

StatusOr<std::vector<std::string>> StoreBase::Texts(std::span<const uint32_t> ids) const {
  std::vector<uint32_t> stored(ids.begin(), ids.end());
  for (uint32_t& id : stored) id = id >= kFirstLateText ? 0 : id;
  ASSIGN_OR_RETURN(std::vector<std::string> texts, name_reader_.Names(stored));
  const std::lock_guard lock(late_texts_mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= kFirstLateText && ids[i] - kFirstLateText < late_texts_.size()) {
      texts[i] = *late_texts_[ids[i] - kFirstLateText];
    }
  }
  return texts;
}

StatusOr<std::vector<std::string>> StoreBase::ProfileTypes(std::string_view tenant) const {
  const TenantId id = tenants_.Find(tenant);
  if (id == 0) return std::vector<std::string>();
  return series_reader_.Types(id);
}

StatusOr<std::vector<std::string>> StoreBase::LabelNames(const SeriesFilter& filter) const {
  const TenantId id = tenants_.Find(filter.tenant);
  if (id == 0) return std::vector<std::string>();
  return series_reader_.LabelNames(id, filter);
}

StatusOr<std::vector<std::string>> StoreBase::LabelValues(std::string_view name, const SeriesFilter& filter) const {
  const TenantId id = tenants_.Find(filter.tenant);
  if (id == 0) return std::vector<std::string>();
  return series_reader_.LabelValues(id, name, filter);
}

StatusOr<std::vector<AgentInfo>> StoreBase::Agents() const {
  std::vector<AgentInfo> result;
  {
    const std::lock_guard lock(state_mutex_);
    for (const auto& [id, agent] : agents_) result.push_back(agent);
  }
  std::sort(result.begin(), result.end(), [](const AgentInfo& a, const AgentInfo& b) {
    return std::tie(a.tenant, a.agent_id) < std::tie(b.tenant, b.agent_id);
  });
  return result;
}

StatusOr<std::vector<TenantInfo>> StoreBase::Tenants() const {
  std::vector<TenantInfo> tenants = tenants_.List();
  for (TenantInfo& tenant : tenants) {
    tenant.kept_since_ns = HourStart(CutoffsOf(tenants_.Find(tenant.tenant)).windows);
  }
  return tenants;
}

StatusOr<int64_t> StoreBase::HousekeptUntil() const {
  const std::lock_guard lock(state_mutex_);
  return HourStart(static_cast<uint32_t>(durable_counters_.housekept_until_hour));
}

StatusOr<StoreStats> StoreBase::Stats() const {
  StoreStats stats;
  for (const TenantInfo& tenant : tenants_.List()) {
    stats.series += tenant.series;
    stats.folded_samples += tenant.folded_samples;
  }
  {
    const std::lock_guard lock(state_mutex_);
    stats.tries = durable_counters_.next_trie - 1;
    stats.nodes = durable_counters_.nodes;
    stats.stacks = durable_counters_.leaves;
    stats.frames = durable_counters_.next_frame - 1;
    stats.strings = durable_counters_.next_name - 1;
    stats.agents = agents_.size();
    stats.batches = durable_counters_.batches;
    stats.samples = durable_counters_.samples;
    stats.duplicates = duplicates_;
    stats.fresh_points = durable_fresh_points_;
    for (const auto& [id, agent] : agents_) stats.gaps += agent.gaps;
    stats.memory_bytes = writer_bytes_;
  }
  {
    const std::lock_guard lock(functions_mutex_);
    for (const auto& [id, entry] : functions_) {
      const std::shared_lock functions_lock(entry.functions->mutex, std::try_to_lock);
      if (functions_lock.owns_lock()) stats.memory_bytes += entry.functions->bytes();
    }
  }
  stats.memory_budget = options_.memory_budget_bytes;
  stats.disk_bytes = database_->DiskBytes();
  stats.memory_bytes += database_->MemoryBytes() + name_reader_.bytes() + series_reader_.bytes() + tries_.bytes();
  stats.syncs = database_->syncs();
  stats.write_errors = database_->write_errors();
  return stats;
}

}  // namespace pyrometer::store

#include "userspace/store/trie.h"

#include <algorithm>
#include <bit>

#include "userspace/base/check.h"
#include "userspace/store/bits.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

// First byte of a record.
constexpr uint8_t kFresh = 0;
constexpr uint8_t kDense = 1;
// Callees remembered per caller; more are spelt out. Bounds what a hostile trie costs to decode.
constexpr size_t kMaxCallees = 64;

Status Damaged(std::string_view what) { return DataLossError("damaged stack trie: " + std::string(what)); }

// A call tree repeats the edges of a call graph: which function calls which. So a dense record names a node's frame by
// its rank among the frames that its parent's frame has had as children so far, most recent first. Both sides keep
// these lists, one per frame. A frame not in the list is named by its index in the record's table of frames, most of
// which come in order of first use.
class CalleeLists {
 public:
  // `callers`: how many lists; grows by Add.
  explicit CalleeLists(size_t callers) : lists_(callers) {}
  size_t Add() {
    lists_.emplace_back();
    return lists_.size() - 1;
  }
  // Rank of `callee`, or the size of the list when it is not there; moves it to the front.
  size_t Use(size_t caller, uint32_t callee) {
    std::vector<uint32_t>& list = lists_[caller];
    const auto found = std::find(list.begin(), list.end(), callee);
    const auto rank = static_cast<size_t>(found - list.begin());
    if (found == list.end()) {
      Insert(caller, callee);
    } else {
      std::rotate(list.begin(), found, found + 1);
    }
    return rank;
  }
  size_t size(size_t caller) const { return lists_[caller].size(); }
  uint32_t UseRank(size_t caller, size_t rank) {
    std::vector<uint32_t>& list = lists_[caller];
    std::rotate(list.begin(), list.begin() + static_cast<ptrdiff_t>(rank),
                list.begin() + static_cast<ptrdiff_t>(rank) + 1);
    return list.front();
  }
  void Insert(size_t caller, uint32_t callee) {
    std::vector<uint32_t>& list = lists_[caller];
    if (list.size() == kMaxCallees) list.pop_back();
    list.insert(list.begin(), callee);
  }

 private:
  std::vector<std::vector<uint32_t>> lists_;
};

// Which list belongs to a node's parent. Frames of the record's own nodes have the lists 0 … table-1; parents outside
// (and the root) get one when they first come.
class CallerIndex {
 public:
  explicit CallerIndex(CalleeLists* lists) : lists_(*lists) {}
  size_t OfOutside(uint32_t frame) {
    const auto [entry, added] = outside_.try_emplace(frame, 0);
    if (added) entry->second = lists_.Add();
    return entry->second;
  }

 private:
  CalleeLists& lists_;
  std::unordered_map<uint32_t, size_t> outside_;
};

struct DenseCodes {
  AdaptiveRice chains{3, 3};  // nodes in a row that hang under the node before them
  AdaptiveRice ranks{1};
  AdaptiveRice leaf_runs{8, 3};
  AdaptiveRice leaves{3};
  AdaptiveRice table{8};
};

uint64_t ZigzagOf(int64_t value) { return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63); }
int64_t UnZigzag(uint64_t value) { return static_cast<int64_t>(value >> 1 ^ (~(value & 1) + 1)); }

}  // namespace

StatusOr<TrieSpan> DecodeTrieSpan(std::string_view key_end) {
  Decoder in(key_end);
  TrieSpan span;
  span.first_node = in.BigEndian32();
  span.first_leaf = in.BigEndian32();
  if (!in.ok() || !in.done()) return Damaged("key");
  return span;
}

StackTrie::StackTrie() : parents_(1, 0), frames_(1, 0), leaves_(1, 0) {}

uint64_t StackTrie::bytes() const {
  return sizeof(*this) + parents_.capacity() * sizeof(NodeId) + frames_.capacity() * sizeof(uint32_t) +
         leaves_.capacity() * sizeof(NodeId) + slots_.capacity() * sizeof(NodeId) +
         leaf_of_.capacity() * sizeof(LeafId);
}

size_t StackTrie::SlotOf(NodeId parent, uint32_t frame) const {
  uint64_t hash = (uint64_t{parent} << 32 | frame) * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 29;
  hash *= 0xBF58476D1CE4E5B9u;
  return static_cast<size_t>(hash >> 32) & (slots_.size() - 1);
}

void StackTrie::Rehash(size_t slots) {
  slots_.assign(slots, 0);
  for (NodeId node = 1; node < parents_.size(); ++node) {
    if (frames_[node] == 0) continue;  // dead
    size_t slot = SlotOf(parents_[node], frames_[node]);
    while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = node;
  }
}

void StackTrie::EnsureIndex() {
  // At most half full.
  if (slots_.size() >= parents_.size() * 2) return;
  size_t slots = 64;
  while (slots < parents_.size() * 2 + 2) slots *= 2;
  Rehash(slots);
}

NodeId StackTrie::Find(NodeId parent, uint32_t frame) {
  EnsureIndex();
  for (size_t slot = SlotOf(parent, frame); slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
    const NodeId node = slots_[slot];
    if (parents_[node] == parent && frames_[node] == frame) return node;
  }
  return 0;
}

NodeId StackTrie::Add(NodeId parent, uint32_t frame) {
  DCHECK(parent < parents_.size() && frame != 0);
  const NodeId node = static_cast<NodeId>(parents_.size());
  parents_.push_back(parent);
  frames_.push_back(frame);
  const size_t before = slots_.size();
  EnsureIndex();
  if (slots_.size() != before) return node;  // the rehash took it in
  size_t slot = SlotOf(parent, frame);
  while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = node;
  return node;
}

LeafId StackTrie::FindLeaf(NodeId node) {
  if (leaf_of_.size() < size()) {
    const bool first = leaf_of_.empty();
    leaf_of_.resize(size());
    if (first) {
      for (LeafId leaf = 1; leaf < leaves_.size(); ++leaf) leaf_of_[leaves_[leaf]] = leaves_[leaf] == 0 ? 0 : leaf;
    }
  }
  return leaf_of_[node];
}

LeafId StackTrie::FindOrAddLeaf(NodeId node) {
  if (node == 0) return 0;
  const LeafId known = FindLeaf(node);
  if (known != 0) return known;
  const LeafId leaf = static_cast<LeafId>(leaves_.size());
  leaves_.push_back(node);
  leaf_of_[node] = leaf;
  return leaf;
}

std::string StackTrie::EncodeFresh(TrieSpan begin, TrieSpan end) const {
  std::string out(1, static_cast<char>(kFresh));
  PutVarint(end.first_node - begin.first_node, &out);
  PutVarint(end.first_leaf - begin.first_leaf, &out);
  // Most nodes hang under the node before them: distance 1.
  for (NodeId node = begin.first_node; node < end.first_node; ++node) PutVarint(node - parents_[node], &out);
  uint32_t previous = 0;
  for (NodeId node = begin.first_node; node < end.first_node; ++node) {
    PutZigzag(static_cast<int64_t>(frames_[node]) - static_cast<int64_t>(previous), &out);
    previous = frames_[node];
  }
  NodeId previous_node = begin.first_node;
  for (LeafId leaf = begin.first_leaf; leaf < end.first_leaf; ++leaf) {
    PutZigzag(static_cast<int64_t>(leaves_[leaf]) - static_cast<int64_t>(previous_node), &out);
    previous_node = leaves_[leaf];
  }
  return out;
}

std::string StackTrie::EncodeDense(TrieSpan begin, TrieSpan end) const {
  std::string out(1, static_cast<char>(kDense));
  const NodeId first = begin.first_node;
  const size_t count = end.first_node - first;
  std::vector<uint32_t> table;         // frames, in the order in which they first occur
  std::vector<uint32_t> local(count);  // by node of the record: index of its frame in the table
  {
    std::unordered_map<uint32_t, uint32_t> index;
    for (size_t i = 0; i < count; ++i) {
      const auto [entry, added] = index.try_emplace(frames_[first + i], static_cast<uint32_t>(table.size()));
      if (added) table.push_back(entry->first);
      local[i] = entry->second;
    }
  }
  PutVarint(count, &out);
  PutVarint(end.first_leaf - begin.first_leaf, &out);
  PutVarint(table.size(), &out);

  BitWriter bits(&out);
  DenseCodes codes;
  uint32_t previous_frame = 0;
  for (const uint32_t frame : table) {
    codes.table.Put(ZigzagOf(static_cast<int64_t>(frame) - static_cast<int64_t>(previous_frame) - 1), &bits);
    previous_frame = frame;
  }
  const int index_bits = BitWidth(table.empty() ? 0 : table.size() - 1);
  CalleeLists lists(table.size());
  CallerIndex callers(&lists);
  uint32_t next_unused = 0;
  uint64_t chain = 0;  // so many nodes more hang under the one before them, then one that does not
  bool in_chain = false;
  for (NodeId node = first; node < end.first_node; ++node) {
    if (!in_chain) {
      NodeId next = node;
      while (next < end.first_node && parents_[next] == next - 1) ++next;
      chain = next - node;
      codes.chains.Put(chain, &bits);
      in_chain = true;
    }
    const uint32_t mine = local[node - first];
    const NodeId parent = parents_[node];
    if (chain > 0) {
      --chain;
    } else {
      in_chain = false;
      bits.Put(parent, BitWidth(node - 2u));
    }
    const size_t caller = parent >= first ? local[parent - first] : callers.OfOutside(frames_[parent]);
    const size_t known = lists.size(caller);
    const size_t rank = lists.Use(caller, mine);
    codes.ranks.Put(rank, &bits);
    if (rank < known) continue;
    const bool in_order = mine == next_unused;
    bits.Put(in_order ? 1 : 0, 1);
    if (in_order) {
      ++next_unused;
    } else {
      bits.Put(mine, index_bits);
    }
  }
  // Most leaves are the end of a chain that was new with them: runs of those, each by its distance to the one before;
  // between runs one node that had been there.
  NodeId newest = first - 1;
  for (LeafId leaf = begin.first_leaf; leaf < end.first_leaf;) {
    LeafId run_end = leaf;
    NodeId run_newest = newest;
    while (run_end < end.first_leaf && leaves_[run_end] > run_newest) run_newest = leaves_[run_end++];
    codes.leaf_runs.Put(run_end - leaf, &bits);
    for (; leaf < run_end; ++leaf) {
      codes.leaves.Put(leaves_[leaf] - newest - 1, &bits);
      newest = leaves_[leaf];
    }
    if (leaf < end.first_leaf) bits.Put(leaves_[leaf++], BitWidth(newest));
  }
  bits.Finish();
  return out;
}

Status StackTrie::Load(TrieSpan begin, std::string_view record) {
  if (begin.first_node < size() || begin.first_leaf < leaf_count()) return Damaged("records overlap");
  PadTo(begin);
  Decoder in(record);
  const uint8_t form = in.Byte();
  if (!in.ok() || form > kDense) return Damaged("form of a record");
  // An index that is there already must learn of the new nodes: rebuilt at its next use.
  slots_.clear();
  leaf_of_.clear();
  return form == kFresh ? LoadFresh(&in) : LoadDense(&in);
}

StatusOr<TrieSpan> StackTrie::EndOf(TrieSpan begin, std::string_view record) {
  Decoder in(record);
  const uint8_t form = in.Byte();
  const uint64_t nodes = in.Varint(), leaves = in.Varint();
  if (!in.ok() || form > kDense || nodes > UINT32_MAX - begin.first_node || leaves > UINT32_MAX - begin.first_leaf) {
    return Damaged("counts");
  }
  return TrieSpan{static_cast<NodeId>(begin.first_node + nodes), static_cast<LeafId>(begin.first_leaf + leaves)};
}

// For a record that is larger than all before it. A trie comes in hundreds of records: room for exactly one more each
// time would copy all of it as often.
void StackTrie::MakeRoom(size_t count) {
  if (count < size()) return;
  parents_.reserve(size() + count);
  frames_.reserve(size() + count);
}

Status StackTrie::LoadFresh(Decoder* in) {
  const size_t first = size();
  const size_t first_leaf = leaf_count();
  const uint64_t count = in->Varint();
  const uint64_t leaf_count = in->Varint();
  if (!in->ok() || count > in->remaining() / 2 || leaf_count > in->remaining() || count > UINT32_MAX - first ||
      leaf_count > UINT32_MAX - first_leaf) {
    return Damaged("counts");
  }
  MakeRoom(count);
  for (size_t node = first; node < first + count; ++node) {
    const uint64_t distance = in->Varint();
    if (distance == 0 || distance > node) return Damaged("parent after child");
    parents_.push_back(static_cast<NodeId>(node - distance));
  }
  // A step between two 32-bit numbers; anything else is refused before it is added.
  const auto step = [in](int64_t from) -> int64_t {
    const int64_t delta = in->Zigzag();
    if (delta > int64_t{UINT32_MAX} || delta < -int64_t{UINT32_MAX}) return -1;
    return from + delta;
  };
  int64_t frame = 0;
  for (size_t i = 0; i < count; ++i) {
    frame = step(frame);
    if (frame <= 0 || frame > int64_t{UINT32_MAX}) return Damaged("frame");
    frames_.push_back(static_cast<uint32_t>(frame));
  }
  auto node = static_cast<int64_t>(first);
  for (size_t i = 0; i < leaf_count; ++i) {
    node = step(node);
    if (node <= 0 || node >= static_cast<int64_t>(size())) return Damaged("leaf");
    leaves_.push_back(static_cast<NodeId>(node));
  }
  return in->ok() && in->done() ? OkStatus() : Damaged("length of a record");
}

Status StackTrie::LoadDense(Decoder* in) {
  const size_t first = size();
  const size_t first_leaf = leaf_count();
  const uint64_t count = in->Varint();
  const uint64_t leaf_count = in->Varint();
  const uint64_t table_size = in->Varint();
  BitReader bits(in->Rest());
  // A node takes a bit for its rank, a leaf and an entry of the table one each.
  if (!in->ok() || count > bits.remaining() || leaf_count > bits.remaining() || table_size > count ||
      count > UINT32_MAX - first || leaf_count > UINT32_MAX - first_leaf) {
    return Damaged("counts");
  }
  DenseCodes codes;
  std::vector<uint32_t> table(table_size);
  int64_t frame = 0;
  for (uint32_t& entry : table) {
    const uint64_t step = codes.table.Get(&bits);
    if (step > uint64_t{UINT32_MAX} * 2) return Damaged("table of frames");
    frame += UnZigzag(step) + 1;
    if (frame <= 0 || frame > int64_t{UINT32_MAX} || !bits.ok()) return Damaged("table of frames");
    entry = static_cast<uint32_t>(frame);
  }
  const int index_bits = BitWidth(table.empty() ? 0 : table.size() - 1);
  CalleeLists lists(table.size());
  CallerIndex callers(&lists);
  std::vector<uint32_t> local(count);
  MakeRoom(count);
  uint32_t next_unused = 0;
  uint64_t chain = 0;
  bool in_chain = false;
  for (size_t i = 0; i < count; ++i) {
    const size_t node = first + i;
    if (!in_chain) {
      chain = codes.chains.Get(&bits);
      in_chain = true;
    }
    NodeId parent = static_cast<NodeId>(node - 1);
    if (chain > 0) {
      --chain;
    } else {
      in_chain = false;
      parent = static_cast<NodeId>(node < 2 ? bits.Fail() : bits.Get(BitWidth(node - 2)));
      if (parent + 1 >= node) return Damaged("parent after child");
    }
    const size_t caller = parent >= first ? local[parent - first] : callers.OfOutside(frames_[parent]);
    const uint64_t rank = codes.ranks.Get(&bits);
    if (rank > lists.size(caller)) return Damaged("rank of a frame");
    uint32_t mine = 0;
    if (rank < lists.size(caller)) {
      mine = lists.UseRank(caller, rank);
    } else {
      const bool in_order = bits.Get(1) != 0;
      mine = in_order ? next_unused++ : static_cast<uint32_t>(bits.Get(index_bits));
      if (mine >= table.size()) return Damaged("index of a frame");
      lists.Insert(caller, mine);
    }
    if (!bits.ok()) return Damaged("nodes");
    local[i] = mine;
    parents_.push_back(parent);
    frames_.push_back(table[mine]);
  }
  if (in_chain && chain > 0) return Damaged("nodes");
  uint64_t newest = first - 1;
  for (size_t done = 0; done < leaf_count;) {
    const uint64_t run = codes.leaf_runs.Get(&bits);
    if (run > leaf_count - done) return Damaged("run of leaves");
    for (uint64_t i = 0; i < run; ++i) {
      const uint64_t gap = codes.leaves.Get(&bits);
      if (!bits.ok() || gap >= size() - 1 - newest) return Damaged("leaf");
      newest += gap + 1;
      leaves_.push_back(static_cast<NodeId>(newest));
    }
    done += run;
    if (done == leaf_count) break;
    const uint64_t known = bits.Get(BitWidth(newest));
    if (!bits.ok() || known == 0 || known > newest) return Damaged("leaf");
    leaves_.push_back(static_cast<NodeId>(known));
    ++done;
  }
  return bits.done() ? OkStatus() : Damaged("length of a record");
}

void StackTrie::PadTo(TrieSpan end) {
  if (end.first_node > size()) {
    parents_.resize(end.first_node, 0);
    frames_.resize(end.first_node, 0);
  }
  if (end.first_leaf > leaf_count()) leaves_.resize(end.first_leaf, 0);
}

StatusOr<std::shared_ptr<StackTrie>> TrieCache::Get(TrieId id) {
  std::shared_ptr<Entry> entry;
  TrieSpan first_free;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Entry>& slot = entries_[id];
    if (slot == nullptr) slot = std::make_shared<Entry>();
    slot->last_use = ++clock_;
    entry = slot;
    if (const auto found = first_free_.find(id); found != first_free_.end()) first_free = found->second;
  }
  const std::lock_guard load_lock(entry->load_mutex);
  if (!entry->loaded) {
    if (Status loaded = loader_(id, entry->trie.get()); !loaded.ok()) {
      entry->trie = std::make_shared<StackTrie>();
      return loaded;
    }
    entry->trie->PadTo(first_free);
    entry->loaded = true;
  }
  return entry->trie;
}

void TrieCache::Drop(TrieId id, TrieSpan first_free) {
  const std::lock_guard lock(mutex_);
  entries_.erase(id);
  TrieSpan& floor = first_free_[id];
  floor.first_node = std::max(floor.first_node, first_free.first_node);
  floor.first_leaf = std::max(floor.first_leaf, first_free.first_leaf);
}

void TrieCache::TrimTo(uint64_t most_bytes) {
  const std::lock_guard lock(mutex_);
  uint64_t total = 0;
  struct Candidate {
    uint64_t last_use;
    TrieId id;
    uint64_t bytes;
  };
  std::vector<Candidate> candidates;
  for (const auto& [id, entry] : entries_) {
    if (entry.use_count() > 1) continue;  // being loaded: counted next time
    // Held by nobody but us: then nobody adds or walks either.
    if (entry->trie.use_count() == 1) {
      candidates.push_back({entry->last_use, id, entry->trie->bytes()});
      total += candidates.back().bytes;
    } else if (const std::shared_lock trie_lock(entry->trie->mutex, std::try_to_lock); trie_lock.owns_lock()) {
      total += entry->trie->bytes();
    }
  }
  if (total <= most_bytes) return;
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.last_use < b.last_use; });
  for (const Candidate& candidate : candidates) {
    if (total <= most_bytes) return;
    entries_.erase(candidate.id);
    total -= candidate.bytes;
  }
}

uint64_t TrieCache::bytes() const {
  const std::lock_guard lock(mutex_);
  uint64_t total = 0;
  for (const auto& [id, entry] : entries_) {
    const std::unique_lock load_lock(entry->load_mutex, std::try_to_lock);
    if (!load_lock.owns_lock()) continue;  // being loaded: counted next time
    const std::shared_lock trie_lock(entry->trie->mutex);
    total += entry->trie->bytes();
  }
  return total;
}

}  // namespace pyrometer::store

#include "userspace/store/function_trie.h"

#include <algorithm>

#include "userspace/base/check.h"

namespace pyrometer::store {

namespace {

// Sorted, each once. Most come many times.
std::vector<uint32_t> Distinct(const std::vector<uint32_t>& ids) {
  size_t slots = 64;
  while (slots < ids.size() * 2) slots *= 2;
  std::vector<uint32_t> seen(slots), distinct;
  for (const uint32_t id : ids) {
    size_t slot = static_cast<size_t>(id * 0x9E3779B97F4A7C15u >> 32) & (slots - 1);
    while (seen[slot] != 0 && seen[slot] != id) slot = (slot + 1) & (slots - 1);
    if (seen[slot] == id) continue;
    seen[slot] = id;
    distinct.push_back(id);
  }
  std::sort(distinct.begin(), distinct.end());
  return distinct;
}

// By quarters: many views wait for a next node that may never come.
template <typename T>
void MakeRoom(size_t more, std::vector<T>* values) {
  if (values->capacity() - values->size() < more) {
    values->reserve(std::max(values->size() + more, values->size() / 4 * 5));
  }
}

// `= {}` would keep its memory.
template <typename T>
void Free(T* container) {
  T().swap(*container);
}

}  // namespace

FunctionTrie::FunctionTrie()
    : parents_(1, 0),
      symbols_of_(1, 0),
      flags_(1, 0),
      first_child_(1, 0),
      function_of_(1, 0),
      leaves_(1, 0),
      symbols_(1),
      marks_(1, 0) {}

size_t FunctionTrie::SymbolHash::operator()(const Symbol& symbol) const {
  uint64_t hash = (uint64_t{symbol.name} << 32 | symbol.module) * 0x9E3779B97F4A7C15u;
  hash ^= (symbol.address << 3 | static_cast<uint64_t>(symbol.kind)) * 0xC2B2AE3D27D4EB4Fu;
  return hash ^ hash >> 29;
}
bool FunctionTrie::SymbolEqual::operator()(const Symbol& a, const Symbol& b) const {
  return a.name == b.name && a.module == b.module && a.kind == b.kind && a.address == b.address;
}

uint64_t FunctionTrie::bytes() const {
  return sizeof(*this) +
         (parents_.capacity() + symbols_of_.capacity() + first_child_.capacity() + slots_.capacity() +
          function_of_.capacity() + leaves_.capacity() + shown_.capacity() + place_symbols_.capacity() +
          marks_.capacity()) *
             sizeof(uint32_t) +
         flags_.capacity() + symbols_.capacity() * sizeof(Symbol) + symbol_ids_.size() * (sizeof(Symbol) + 32) +
         places_.capacity() * sizeof(Place);
}

size_t FunctionTrie::SlotOf(uint32_t parent, uint32_t symbol) const {
  uint64_t hash = (uint64_t{parent} << 32 | symbol) * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 29;
  hash *= 0xBF58476D1CE4E5B9u;
  return static_cast<size_t>(hash >> 32) & (slots_.size() - 1);
}

uint32_t FunctionTrie::Child(uint32_t parent, uint32_t symbol, bool inlined) {
  const auto found = [&](uint32_t node) {
    if (!inlined) flags_[node] &= static_cast<uint8_t>(~kInlined);
    return node;
  };
  const auto node = static_cast<uint32_t>(parents_.size());
  const uint32_t first = first_child_[parent];
  if (first == 0) {
    first_child_[parent] = node;
  } else {
    if (symbols_of_[first] == symbol) return found(first);
    if (slots_.size() < (in_slots_ + 1) * 2) {
      std::vector<uint32_t> old(std::max<size_t>(64, slots_.size() * 2));
      old.swap(slots_);
      for (const uint32_t other : old) {
        if (other == 0) continue;
        size_t slot = SlotOf(parents_[other], symbols_of_[other]);
        while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
        slots_[slot] = other;
      }
    }
    size_t slot = SlotOf(parent, symbol);
    for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
      const uint32_t other = slots_[slot];
      if (parents_[other] == parent && symbols_of_[other] == symbol) return found(other);
    }
    slots_[slot] = node;
    ++in_slots_;
  }
  const bool recursive = OnTheWay(parent, symbol);
  parents_.push_back(parent);
  symbols_of_.push_back(symbol);
  first_child_.push_back(0);
  flags_.push_back(static_cast<uint8_t>((inlined ? kInlined : 0) | (recursive ? kRecursive : 0)));
  marked_node_ = node;
  return node;
}

// Then marks it: a stack adds its nodes one below the other, so that only the first of them needs the way to the root.
bool FunctionTrie::OnTheWay(uint32_t parent, uint32_t symbol) {
  if (parent != marked_node_ || mark_ == 0) {
    if (++mark_ == 0) {
      std::fill(marks_.begin(), marks_.end(), 0);
      mark_ = 1;
    }
    for (uint32_t node = parent; node != 0; node = parents_[node]) marks_[symbols_of_[node]] = mark_;
  }
  const bool marked = marks_[symbol] == mark_;
  marks_[symbol] = mark_;
  return marked;
}

uint32_t FunctionTrie::SymbolIndex(const Symbol& symbol) {
  const auto [entry, added] = symbol_ids_.try_emplace(symbol, static_cast<uint32_t>(symbols_.size()));
  if (added) {
    symbols_.push_back(symbol);
    marks_.push_back(0);
  }
  return entry->second;
}

size_t FunctionTrie::PlaceSlot(uint32_t frame) const {
  const uint64_t hash = frame * 0x9E3779B97F4A7C15u;
  size_t slot = static_cast<size_t>(hash >> 32) & (places_.size() - 1);
  while (places_[slot].frame != 0 && places_[slot].frame != frame) slot = (slot + 1) & (places_.size() - 1);
  return slot;
}

void FunctionTrie::AddPlace(uint32_t frame, const std::vector<Symbol>& functions) {
  if (places_.size() < (place_count_ + 1) * 2) {
    std::vector<Place> old(std::max<size_t>(64, places_.size() * 2));
    old.swap(places_);
    for (const Place& place : old) {
      if (place.frame != 0) places_[PlaceSlot(place.frame)] = place;
    }
  }
  ++place_count_;
  places_[PlaceSlot(frame)] = {frame, static_cast<uint32_t>(place_symbols_.size()),
                               static_cast<uint32_t>(functions.size())};
  for (const Symbol& symbol : functions) place_symbols_.push_back(SymbolIndex(symbol));
}

StatusOr<bool> FunctionTrie::Extend(size_t first_node, size_t first_leaf, const std::vector<NodeId>& parents,
                                    const std::vector<uint32_t>& frames, const std::vector<NodeId>& leaves,
                                    const Describe& describe) {
  CHECK(parents.size() == frames.size());
  const std::unique_lock lock(mutex);
  if (sealed_ || nodes() != first_node || leaf_count() != first_leaf) return false;
  std::vector<uint32_t> unknown;
  for (const uint32_t frame : frames) {
    if (frame != 0 && !Shows(frame)) unknown.push_back(frame);
  }
  if (!unknown.empty()) {
    unknown = Distinct(unknown);
    ASSIGN_OR_RETURN(const std::vector<std::vector<Symbol>> described, describe(unknown));
    for (size_t i = 0; i < unknown.size(); ++i) {
      if (!described[i].empty()) AddPlace(unknown[i], described[i]);
    }
  }
  for (std::vector<uint32_t>* by_node : {&parents_, &symbols_of_, &first_child_, &function_of_}) {
    MakeRoom(parents.size(), by_node);
  }
  MakeRoom(parents.size(), &flags_);
  MakeRoom(leaves.size(), &leaves_);
  const size_t first = function_of_.size();
  for (size_t i = 0; i < parents.size(); ++i) {
    if (frames[i] == 0 || parents[i] >= first + i) {
      function_of_.push_back(0);  // dead: nothing refers to it
      continue;
    }
    if (!Shows(frames[i])) break;  // not written yet
    const Place& place = places_[PlaceSlot(frames[i])];
    uint32_t node = function_of_[parents[i]];
    // Outermost function first; those inside it were inlined.
    for (size_t line = place.count; line > 0; --line) {
      node = Child(node, place_symbols_[place.begin + line - 1], line < place.count);
    }
    function_of_.push_back(node);
  }
  for (const NodeId node : leaves) {
    if (node >= function_of_.size()) break;
    leaves_.push_back(function_of_[node]);
  }
  return true;
}

bool FunctionTrie::Shows(uint32_t frame) const {
  if (sealed_) return std::binary_search(shown_.begin(), shown_.end(), frame);
  return frame != 0 && !places_.empty() && places_[PlaceSlot(frame)].frame == frame;
}

void FunctionTrie::Seal() {
  const std::unique_lock lock(mutex);
  if (sealed_) return;
  shown_.reserve(place_count_);
  for (const Place& place : places_) {
    if (place.frame != 0) shown_.push_back(place.frame);
  }
  std::sort(shown_.begin(), shown_.end());
  sealed_ = true;
  Free(&places_);
  Free(&symbol_ids_);
  for (std::vector<uint32_t>* gone : {&place_symbols_, &first_child_, &slots_, &function_of_, &marks_}) Free(gone);
  for (std::vector<uint32_t>* kept : {&parents_, &symbols_of_, &leaves_}) kept->shrink_to_fit();
  flags_.shrink_to_fit();
  symbols_.shrink_to_fit();
}

}  // namespace pyrometer::store

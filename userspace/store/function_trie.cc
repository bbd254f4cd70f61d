#include "userspace/store/function_trie.h"

#include <algorithm>

#include "userspace/base/check.h"

namespace pyrometer::store {

FunctionTrie::FunctionTrie()
    : parents_(1, 0), symbols_of_(1, 0), flags_(1, 0), function_of_(1, 0), leaves_(1, 0), symbols_(1) {}

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
         (parents_.capacity() + symbols_of_.capacity() + slots_.capacity() + function_of_.capacity() +
          leaves_.capacity() + shown_.capacity()) *
             sizeof(uint32_t) +
         flags_.capacity() + symbols_.capacity() * sizeof(Symbol) + symbol_ids_.size() * (sizeof(Symbol) + 32) +
         place_symbols_.capacity() * sizeof(uint32_t) + places_.size() * (sizeof(Place) + 48);
}

size_t FunctionTrie::SlotOf(uint32_t parent, uint32_t symbol) const {
  uint64_t hash = (uint64_t{parent} << 32 | symbol) * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 29;
  hash *= 0xBF58476D1CE4E5B9u;
  return static_cast<size_t>(hash >> 32) & (slots_.size() - 1);
}

uint32_t FunctionTrie::Child(uint32_t parent, uint32_t symbol, bool inlined) {
  if (slots_.size() < parents_.size() * 2 + 2) {
    size_t slots = std::max<size_t>(64, slots_.size());
    while (slots < parents_.size() * 2 + 2) slots *= 2;
    slots_.assign(slots, 0);
    for (uint32_t node = 1; node < parents_.size(); ++node) {
      size_t slot = SlotOf(parents_[node], symbols_of_[node]);
      while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = node;
    }
  }
  size_t slot = SlotOf(parent, symbol);
  for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
    const uint32_t node = slots_[slot];
    if (parents_[node] != parent || symbols_of_[node] != symbol) continue;
    if (!inlined) flags_[node] &= static_cast<uint8_t>(~kInlined);
    return node;
  }
  const auto node = static_cast<uint32_t>(parents_.size());
  parents_.push_back(parent);
  symbols_of_.push_back(symbol);
  // Recursion mostly finds itself within a few steps; stacks have at most kMaxStackDepth frames.
  uint32_t above = parent;
  while (above != 0 && symbols_of_[above] != symbol) above = parents_[above];
  flags_.push_back(static_cast<uint8_t>((inlined ? kInlined : 0) | (above != 0 ? kRecursive : 0)));
  slots_[slot] = node;
  return node;
}

uint32_t FunctionTrie::SymbolIndex(const Symbol& symbol) {
  const auto [entry, added] = symbol_ids_.try_emplace(symbol, static_cast<uint32_t>(symbols_.size()));
  if (added) symbols_.push_back(symbol);
  return entry->second;
}

StatusOr<bool> FunctionTrie::Extend(size_t first_node, size_t first_leaf, const std::vector<NodeId>& parents,
                                    const std::vector<uint32_t>& frames, const std::vector<NodeId>& leaves,
                                    const Describe& describe) {
  CHECK(parents.size() == frames.size());
  const std::unique_lock lock(mutex);
  if (sealed_ || nodes() != first_node || leaf_count() != first_leaf) return false;
  std::vector<uint32_t> unknown;
  for (const uint32_t frame : frames) {
    if (frame != 0 && !places_.contains(frame)) unknown.push_back(frame);
  }
  std::sort(unknown.begin(), unknown.end());
  unknown.erase(std::unique(unknown.begin(), unknown.end()), unknown.end());
  if (!unknown.empty()) {
    ASSIGN_OR_RETURN(const std::vector<std::vector<Symbol>> described, describe(unknown));
    for (size_t i = 0; i < unknown.size(); ++i) {
      if (described[i].empty()) continue;
      places_[unknown[i]] = {static_cast<uint32_t>(place_symbols_.size()), static_cast<uint32_t>(described[i].size())};
      for (const Symbol& symbol : described[i]) place_symbols_.push_back(SymbolIndex(symbol));
    }
  }
  const size_t first = function_of_.size();
  for (size_t i = 0; i < parents.size(); ++i) {
    if (frames[i] == 0 || parents[i] >= first + i) {
      function_of_.push_back(0);  // dead: nothing refers to it
      continue;
    }
    uint32_t node = function_of_[parents[i]];
    const auto known = places_.find(frames[i]);
    if (known == places_.end()) break;  // not written yet
    const Place place = known->second;
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
  return sealed_ ? std::binary_search(shown_.begin(), shown_.end(), frame) : places_.contains(frame);
}

void FunctionTrie::Seal() {
  const std::unique_lock lock(mutex);
  if (sealed_) return;
  sealed_ = true;
  shown_.reserve(places_.size());
  for (const auto& [frame, place] : places_) shown_.push_back(frame);
  std::sort(shown_.begin(), shown_.end());
  places_ = {};
  place_symbols_ = {};
  symbol_ids_ = {};
  slots_ = {};
  function_of_ = {};
  for (std::vector<uint32_t>* kept : {&parents_, &symbols_of_, &leaves_}) kept->shrink_to_fit();
  flags_.shrink_to_fit();
  symbols_.shrink_to_fit();
}

}  // namespace pyrometer::store

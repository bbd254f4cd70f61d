#include "userspace/symbolize/symbol_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <utility>

#include "userspace/base/check.h"

namespace pyrometer::symbolize {
namespace {

constexpr size_t kMaxNameBytes = 8 << 10;
constexpr uint64_t kMaxRangeBytes = (1u << 31) - 1;

void AppendName(std::string& pool, std::string_view name) {
  const uint16_t length = static_cast<uint16_t>(std::min(name.size(), kMaxNameBytes));
  pool.append(reinterpret_cast<const char*>(&length), sizeof(length));
  pool.append(name.substr(0, length));
}

std::string_view NameIn(const std::string& pool, uint32_t offset) {
  uint16_t length;
  std::memcpy(&length, pool.data() + offset, sizeof(length));
  return {pool.data() + offset + sizeof(length), length};
}

uint64_t SaturatedAdd(uint64_t a, uint64_t b) {
  return a > std::numeric_limits<uint64_t>::max() - b ? std::numeric_limits<uint64_t>::max() : a + b;
}

size_t LeadingUnderscores(std::string_view name) {
  const size_t n = name.find_first_not_of('_');
  return n == std::string_view::npos ? name.size() : n;
}

}  // namespace

std::optional<SymbolIndex::Hit> SymbolIndex::Find(ElfAddress address) const {
  const Span* span = nullptr;
  for (const Span& candidate : spans_) {  // one, but for hand-made files
    if (address.value < candidate.base) break;
    span = &candidate;
  }
  if (span == nullptr) return std::nullopt;
  const uint64_t distance = address.value - span->base;
  uint32_t low, high;
  if (distance <= span->last_start) {
    const uint32_t* bucket = &guide_[span->first_guide + (distance >> span->shift)];
    low = bucket[0];
    high = bucket[1];
  } else {
    low = high = span->end_range;
  }
  // The first range in [low, high) that starts behind the address; ranges before `low` start before it.
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (ranges_[middle].start <= distance) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == span->first_range) return std::nullopt;
  const Range& range = ranges_[low - 1];
  const uint64_t offset = distance - range.start;
  if (offset >= (range.size & ~kResumed)) return std::nullopt;
  if ((range.size & kResumed) != 0) [[unlikely]] {
    return Hit{range.name, offset + DistanceToFunctionStart(low - 1)};
  }
  return Hit{range.name, offset};
}

uint64_t SymbolIndex::DistanceToFunctionStart(uint32_t range) const {
  const auto found = std::lower_bound(resumed_.begin(), resumed_.end(), range,
                                      [](const Resumed& resumed, uint32_t wanted) { return resumed.range < wanted; });
  DCHECK(found != resumed_.end() && found->range == range);
  return found->distance;
}

std::string_view SymbolIndex::name(uint32_t id) const { return NameIn(names_, id); }

size_t SymbolIndex::memory_bytes() const {
  return sizeof(*this) + spans_.capacity() * sizeof(Span) + ranges_.capacity() * sizeof(Range) +
         guide_.capacity() * sizeof(uint32_t) + resumed_.capacity() * sizeof(Resumed) + names_.capacity();
}

void SymbolIndexBuilder::AddCode(ElfAddress start, uint64_t size) {
  if (size != 0) code_.push_back({start.value, SaturatedAdd(start.value, size)});
}

void SymbolIndexBuilder::AddBoundary(ElfAddress address) { boundaries_.push_back(address.value); }

bool SymbolIndexBuilder::Add(ElfAddress start, uint64_t size, SymbolRank rank, std::string_view name) {
  if (name.empty()) return true;
  if (symbols_.size() >= kMaxSymbols || names_.size() + name.size() > kMaxNamesBytes) {
    ++dropped_;
    return false;
  }
  symbols_.push_back({start.value, size, static_cast<uint32_t>(names_.size()), rank});
  AppendName(names_, name);
  return true;
}

size_t SymbolIndexBuilder::memory_bytes() const {
  return symbols_.capacity() * sizeof(Pending) + names_.capacity() + boundaries_.capacity() * sizeof(uint64_t);
}

std::string_view SymbolIndexBuilder::NameAt(uint32_t offset) const { return NameIn(names_, offset); }

bool SymbolIndexBuilder::Better(const Pending& a, const Pending& b) const {
  if (a.rank.typed != b.rank.typed) return a.rank.typed;
  if ((a.size != 0) != (b.size != 0)) return a.size != 0;
  if (a.rank.exported != b.rank.exported) return a.rank.exported;
  const std::string_view name_a = NameAt(a.name), name_b = NameAt(b.name);
  const size_t underscores_a = LeadingUnderscores(name_a), underscores_b = LeadingUnderscores(name_b);
  if (underscores_a != underscores_b) return underscores_a < underscores_b;
  if (a.rank.global != b.rank.global) return a.rank.global;
  if (name_a.size() != name_b.size()) return name_a.size() < name_b.size();
  return name_a < name_b;
}

// One symbol per start address, sizes filled in, sorted.
std::vector<SymbolIndexBuilder::Pending> SymbolIndexBuilder::ChooseNames() {
  std::sort(symbols_.begin(), symbols_.end(), [](const Pending& a, const Pending& b) { return a.start < b.start; });
  std::sort(boundaries_.begin(), boundaries_.end());
  std::sort(code_.begin(), code_.end(), [](const CodeRange& a, const CodeRange& b) { return a.start < b.start; });
  std::vector<Pending> chosen;
  chosen.reserve(symbols_.size());
  for (size_t i = 0; i < symbols_.size();) {
    Pending best = symbols_[i];
    uint64_t largest = best.size;
    size_t end = i + 1;
    for (; end < symbols_.size() && symbols_[end].start == best.start; ++end) {
      largest = std::max(largest, symbols_[end].size);
      if (Better(symbols_[end], best)) best = symbols_[end];
    }
    i = end;
    if (best.size == 0) best.size = largest;
    // The last code range that starts at or before the symbol.
    uint64_t code_end = std::numeric_limits<uint64_t>::max();
    if (!code_.empty()) {
      const auto after = std::upper_bound(code_.begin(), code_.end(), best.start,
                                          [](uint64_t start, const CodeRange& range) { return start < range.start; });
      if (after == code_.begin() || best.start >= std::prev(after)->end) continue;  // not code
      code_end = std::prev(after)->end;
    }
    if (best.size == 0) {
      uint64_t limit = std::min(code_end, SaturatedAdd(best.start, max_extension_));
      if (end < symbols_.size()) limit = std::min(limit, symbols_[end].start);
      const auto boundary = std::upper_bound(boundaries_.begin(), boundaries_.end(), best.start);
      if (boundary != boundaries_.end()) limit = std::min(limit, *boundary);
      best.size = limit - best.start;
    }
    best.size = std::min({best.size, code_end - best.start, kMaxRangeBytes});
    chosen.push_back(best);
  }
  return chosen;
}

std::vector<SymbolIndexBuilder::Flat> SymbolIndexBuilder::Flatten(const std::vector<Pending>& symbols) {
  std::vector<Flat> flat;
  flat.reserve(symbols.size());
  std::vector<const Pending*> open;  // enclosing symbols, innermost last
  uint64_t cursor = 0;               // everything before is decided
  const auto emit = [&](const Pending& symbol, uint64_t until) {
    if (cursor < until) flat.push_back({cursor, until, symbol.start, symbol.name});
    cursor = std::max(cursor, until);
  };
  for (const Pending& symbol : symbols) {
    while (!open.empty() && open.back()->start + open.back()->size <= symbol.start) {
      emit(*open.back(), open.back()->start + open.back()->size);
      open.pop_back();
    }
    if (!open.empty()) {
      if (!symbol.rank.typed && open.back()->rank.typed) continue;  // a label inside a function
      emit(*open.back(), symbol.start);
    }
    cursor = symbol.start;
    open.push_back(&symbol);
  }
  while (!open.empty()) {
    emit(*open.back(), open.back()->start + open.back()->size);
    open.pop_back();
  }
  return flat;
}

SymbolIndex SymbolIndexBuilder::Build() && {
  std::vector<Flat> flat;
  {
    const std::vector<Pending> chosen = ChooseNames();
    std::vector<Pending>().swap(symbols_);
    flat = Flatten(chosen);
  }
  SymbolIndex index;
  index.ranges_.reserve(flat.size());
  // Names of the symbols that were chosen, in order of address: neighbours share cache lines.
  std::unordered_map<uint32_t, uint32_t> moved_resumed;
  uint32_t last_old = std::numeric_limits<uint32_t>::max(), last_new = 0;
  for (const Flat& range : flat) {
    const bool resumed = range.start != range.function_start;
    if (index.spans_.empty() ||
        range.start - index.spans_.back().base > std::numeric_limits<uint32_t>::max() - kMaxRangeBytes) {
      SymbolIndex::Span span;
      span.base = range.start;
      span.first_range = static_cast<uint32_t>(index.ranges_.size());
      index.spans_.push_back(span);
    }
    SymbolIndex::Span& span = index.spans_.back();
    uint32_t name;
    if (range.name == last_old) {
      name = last_new;
    } else if (const auto known = resumed ? moved_resumed.find(range.name) : moved_resumed.end();
               known != moved_resumed.end()) {
      name = known->second;
    } else {
      name = static_cast<uint32_t>(index.names_.size());
      AppendName(index.names_, NameAt(range.name));
      if (resumed) moved_resumed.emplace(range.name, name);
      last_old = range.name;
      last_new = name;
    }
    uint32_t size = static_cast<uint32_t>(range.end - range.start);
    if (resumed) {
      size |= SymbolIndex::kResumed;
      index.resumed_.push_back({static_cast<uint32_t>(index.ranges_.size()), range.start - range.function_start});
    }
    span.last_start = static_cast<uint32_t>(range.start - span.base);
    index.ranges_.push_back({span.last_start, size, name});
    span.end_range = static_cast<uint32_t>(index.ranges_.size());
  }
  index.names_.shrink_to_fit();
  index.resumed_.shrink_to_fit();
  // Buckets: as many as ranges, rounded up to a power of two.
  for (SymbolIndex::Span& span : index.spans_) {
    const uint32_t wanted_bits = std::bit_width(span.end_range - span.first_range);
    const uint32_t address_bits = std::bit_width(span.last_start);
    span.shift = address_bits > wanted_bits ? address_bits - wanted_bits : 0;
    span.first_guide = static_cast<uint32_t>(index.guide_.size());
    uint32_t range = span.first_range;
    const uint32_t buckets = (span.last_start >> span.shift) + 1;
    for (uint32_t bucket = 0; bucket < buckets; ++bucket) {
      while (range < span.end_range && (index.ranges_[range].start >> span.shift) < bucket) ++range;
      index.guide_.push_back(range);
    }
    index.guide_.push_back(span.end_range);
  }
  index.guide_.shrink_to_fit();
  return index;
}

}  // namespace pyrometer::symbolize

#include "userspace/symbolize/symbol_index.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::symbolize {
namespace {

using format::Header;
using format::SectionEntry;

constexpr uint32_t kResumedFlag = 1u << 31;
// Addresses of a batch that are worked on together: their waits for memory overlap.
constexpr size_t kGroup = 32;

Status Damaged(std::string_view what) { return DataLossError(StrFormat("a symbol index is damaged: %s", what)); }

// The entries of one section as an array; empty when they are not of that size.
template <typename T>
std::span<const T> View(std::string_view file, const SectionEntry& section) {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 8);
  if (section.entry_bytes != sizeof(T)) return {};
  return {reinterpret_cast<const T*>(file.data() + section.offset), section.bytes / sizeof(T)};
}

uint32_t EntryBytes(uint32_t kind) {
  switch (kind) {
    case format::kFunctions:
      return sizeof(format::Function);
    case format::kSpans:
    case format::kPlaceSpans:
      return sizeof(format::Span);
    case format::kRanges:
      return sizeof(format::Range);
    case format::kRangeGuide:
    case format::kPlaceGuide:
    case format::kFiles:
      return sizeof(uint32_t);
    case format::kResumed:
      return sizeof(format::Resumed);
    case format::kInlined:
      return sizeof(format::Inlined);
    case format::kPlaceBlocks:
      return sizeof(format::PlaceBlock);
    case format::kSegments:
      return sizeof(format::Segment);
    default:
      return 1;
  }
}

// One look-up in a table with guide, in two steps so that a batch can do the first for many addresses.
struct Search {
  uint32_t low = 0, high = 0;  // where the first entry behind the address may be
  uint32_t first = 0;          // of the span
  uint64_t distance = 0;       // from the span's base
  bool found = false;
};

const format::Span* SpanOf(std::span<const format::Span> spans, uint64_t address) {
  const auto after = std::upper_bound(spans.begin(), spans.end(), address,
                                      [](uint64_t wanted, const format::Span& span) { return wanted < span.base; });
  return after == spans.begin() ? nullptr : &*std::prev(after);
}

// The place in the guide, or null when the answer does not need it (then *search is complete).
const uint32_t* GuideOf(std::span<const format::Span> spans, std::span<const uint32_t> guide, size_t entries,
                        uint64_t address, Search* search) {
  const format::Span* span = SpanOf(spans, address);
  if (span == nullptr || span->first >= span->end || span->end > entries) return nullptr;
  search->found = true;
  search->first = span->first;
  search->distance = address - span->base;
  search->low = search->high = span->end;
  if (search->distance > span->last_start) return nullptr;
  const uint64_t bucket = search->distance >> (span->shift & 63);
  if (bucket + 1 >= span->guides || span->first_guide > guide.size() ||
      guide.size() - span->first_guide < span->guides) {
    search->found = false;
    return nullptr;
  }
  search->low = span->first;
  return &guide[span->first_guide + bucket];
}

void ReadGuide(const uint32_t* place, Search* search) {
  const uint32_t end = search->high;
  search->low = std::clamp(place[0], search->first, end);
  search->high = std::clamp(place[1], search->low, end);
}

// The last entry that starts at or before the address; entries before `low` do.
template <typename Entry>
bool Finish(std::span<const Entry> entries, const Search& search, uint32_t* index) {
  if (!search.found) return false;
  uint32_t low = search.low, high = search.high;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (entries[middle].start <= search.distance) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == search.first) return false;
  *index = low - 1;
  return true;
}

uint64_t TakeVarint(const char** at, const char* end) {
  if (*at < end) [[likely]] {
    const uint8_t first = static_cast<uint8_t>(**at);
    if (first < 0x80) [[likely]] {
      ++*at;
      return first;
    }
  }
  uint64_t value = 0;
  for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
    const uint8_t byte = static_cast<uint8_t>(*(*at)++);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) break;
  }
  return value;
}

uint32_t UnZigZag(uint64_t value, uint32_t before) {
  return before + static_cast<uint32_t>((value >> 1) ^ (~(value & 1) + 1));
}

}  // namespace

StatusOr<SymbolIndex> SymbolIndex::FromBytes(std::shared_ptr<const std::string> bytes) {
  const std::string_view view = *bytes;
  return FromView(std::move(bytes), view);
}

StatusOr<SymbolIndex> SymbolIndex::FromFile(MappedFile file) {
  auto owner = std::make_shared<const MappedFile>(std::move(file));
  const std::string_view view(reinterpret_cast<const char*>(owner->bytes().data()), owner->bytes().size());
  return FromView(std::move(owner), view);
}

StatusOr<SymbolIndex> SymbolIndex::FromView(std::shared_ptr<const void> owner, std::string_view bytes) {
  Header header;
  if (bytes.size() < sizeof(Header)) return Damaged("it is shorter than its header");
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(uint64_t) != 0) return Damaged("it is not aligned");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, format::kMagic, sizeof(header.magic)) != 0) return Damaged("it has no mark");
  if (header.version != format::kVersion || header.header_bytes != sizeof(Header)) {
    return FailedPreconditionError(
        StrFormat("a symbol index of version %d; this is version %d", header.version, format::kVersion));
  }
  const uint64_t checksum = std::exchange(header.checksum, 0);
  if (XXH3_64bits(&header, sizeof(header)) != checksum) return Damaged("its header");
  if (header.file_bytes != bytes.size()) return Damaged("its length");
  for (uint32_t kind = 0; kind < format::kSectionCount; ++kind) {
    const SectionEntry& section = header.sections[kind];
    if (section.kind != kind || section.entry_bytes != EntryBytes(kind) || section.offset % 8 != 0 ||
        section.bytes > bytes.size() || section.offset > bytes.size() - section.bytes ||
        section.bytes % section.entry_bytes != 0) {
      return Damaged("its table of sections");
    }
  }
  const auto text = [&](uint32_t kind) {
    return bytes.substr(header.sections[kind].offset, header.sections[kind].bytes);
  };
  SymbolIndex index;
  index.owner_ = std::move(owner);
  index.bytes_ = bytes;
  index.functions_ = View<format::Function>(bytes, header.sections[format::kFunctions]);
  index.spans_ = View<format::Span>(bytes, header.sections[format::kSpans]);
  index.ranges_ = View<format::Range>(bytes, header.sections[format::kRanges]);
  index.guide_ = View<uint32_t>(bytes, header.sections[format::kRangeGuide]);
  index.resumed_ = View<format::Resumed>(bytes, header.sections[format::kResumed]);
  index.files_ = View<uint32_t>(bytes, header.sections[format::kFiles]);
  index.inlined_ = View<format::Inlined>(bytes, header.sections[format::kInlined]);
  index.place_spans_ = View<format::Span>(bytes, header.sections[format::kPlaceSpans]);
  index.blocks_ = View<format::PlaceBlock>(bytes, header.sections[format::kPlaceBlocks]);
  index.place_guide_ = View<uint32_t>(bytes, header.sections[format::kPlaceGuide]);
  index.segments_ = View<format::Segment>(bytes, header.sections[format::kSegments]);
  index.place_data_ = text(format::kPlaceData);
  index.strings_ = text(format::kStrings);
  index.about_ = text(format::kAbout);
  index.origin_ = header.origin;
  return index;
}

Status SymbolIndex::Verify() const {
  if (bytes_.empty()) return OkStatus();
  Header header;
  std::memcpy(&header, bytes_.data(), sizeof(header));
  for (const SectionEntry& section : header.sections) {
    if (XXH3_64bits(bytes_.data() + section.offset, section.bytes) != section.checksum) {
      return Damaged(StrFormat("the checksum of section %d", section.kind));
    }
  }
  return OkStatus();
}

std::optional<SymbolIndex::Hit> SymbolIndex::HitAt(uint32_t index, uint64_t distance) const {
  const format::Range& range = ranges_[index];
  const uint64_t offset = distance - range.start;
  if (offset >= (range.size & ~kResumedFlag)) return std::nullopt;
  if ((range.size & kResumedFlag) != 0) [[unlikely]] {
    return Hit{range.function, offset + DistanceToFunctionStart(index)};
  }
  return Hit{range.function, offset};
}

uint64_t SymbolIndex::DistanceToFunctionStart(uint32_t range) const {
  const auto found =
      std::lower_bound(resumed_.begin(), resumed_.end(), range,
                       [](const format::Resumed& resumed, uint32_t wanted) { return resumed.range < wanted; });
  return found != resumed_.end() && found->range == range ? found->distance : 0;
}

std::optional<SymbolIndex::Hit> SymbolIndex::Find(ElfAddress address) const {
  Search search;
  if (const uint32_t* place = GuideOf(spans_, guide_, ranges_.size(), address.value, &search)) {
    ReadGuide(place, &search);
  }
  uint32_t range;
  if (!Finish(ranges_, search, &range)) return std::nullopt;
  return HitAt(range, search.distance);
}

void SymbolIndex::Find(std::span<const ElfAddress> addresses, std::vector<Hit>* hits) const {
  hits->resize(addresses.size());
  for (size_t from = 0; from < addresses.size(); from += kGroup) {
    const size_t count = std::min(kGroup, addresses.size() - from);
    Search searches[kGroup];
    const uint32_t* places[kGroup];
    for (size_t i = 0; i < count; ++i) {
      places[i] = GuideOf(spans_, guide_, ranges_.size(), addresses[from + i].value, &searches[i]);
      if (places[i] != nullptr) __builtin_prefetch(places[i]);
    }
    for (size_t i = 0; i < count; ++i) {
      if (places[i] == nullptr) continue;
      ReadGuide(places[i], &searches[i]);
      __builtin_prefetch(ranges_.data() + (searches[i].low == 0 ? 0 : searches[i].low - 1));
    }
    for (size_t i = 0; i < count; ++i) {
      uint32_t range;
      std::optional<Hit> hit;
      if (Finish(ranges_, searches[i], &range)) hit = HitAt(range, searches[i].distance);
      (*hits)[from + i] = hit.value_or(Hit{});
    }
  }
}

SymbolIndex::Place SymbolIndex::Unpack(uint32_t block, uint64_t distance) const {
  const uint64_t begin = blocks_[block].data;
  const uint64_t end = block + 1 < blocks_.size() ? blocks_[block + 1].data : place_data_.size();
  if (begin > end || end > place_data_.size()) return {};
  const char* at = place_data_.data() + begin;
  const char* const last = place_data_.data() + end;
  Place place;
  place.inlined = static_cast<uint32_t>(TakeVarint(&at, last));
  place.file = static_cast<uint32_t>(TakeVarint(&at, last));
  place.line = static_cast<uint32_t>(TakeVarint(&at, last));
  uint64_t position = blocks_[block].start;
  while (at < last) {
    const uint64_t head = TakeVarint(&at, last);
    position += head >> 3;
    if (position > distance) break;
    if ((head & format::kInlinedChanges) != 0) place.inlined = UnZigZag(TakeVarint(&at, last), place.inlined);
    if ((head & format::kFileChanges) != 0) place.file = UnZigZag(TakeVarint(&at, last), place.file);
    if ((head & format::kLineChanges) != 0) place.line = UnZigZag(TakeVarint(&at, last), place.line);
  }
  return place;
}

SymbolIndex::Place SymbolIndex::PlaceAt(ElfAddress address) const {
  Search search;
  if (const uint32_t* place = GuideOf(place_spans_, place_guide_, blocks_.size(), address.value, &search)) {
    ReadGuide(place, &search);
  }
  uint32_t block;
  if (!Finish(blocks_, search, &block)) return {};
  return Unpack(block, search.distance);
}

size_t SymbolIndex::AppendFrames(const Place& place, uint32_t outermost, std::vector<Frame>* frames) const {
  const size_t before = frames->size();
  uint32_t file = place.file, line = place.line;
  uint32_t next = place.inlined;
  while (next != 0 && next < inlined_.size() && frames->size() - before < kMaxFrames) {
    const format::Inlined& call = inlined_[next];
    frames->push_back({call.function, file, line});
    file = call.call_file;
    line = call.call_line;
    if (call.parent >= next) break;  // never in a file that we wrote
    next = call.parent;
  }
  if (outermost != 0 || file != 0 || frames->size() != before) frames->push_back({outermost, file, line});
  return frames->size() - before;
}

size_t SymbolIndex::Frames(ElfAddress address, std::vector<Frame>* frames, uint64_t* offset) const {
  const std::optional<Hit> hit = Find(address);
  if (offset != nullptr) *offset = hit.has_value() ? hit->offset : 0;
  return AppendFrames(PlaceAt(address), hit.has_value() ? hit->function : 0, frames);
}

void SymbolIndex::Frames(std::span<const ElfAddress> addresses, FrameLists* lists) const {
  lists->frames.clear();
  lists->first.clear();
  lists->first.reserve(addresses.size() + 1);
  lists->offsets.clear();
  lists->offsets.reserve(addresses.size());
  for (size_t from = 0; from < addresses.size(); from += kGroup) {
    const size_t count = std::min(kGroup, addresses.size() - from);
    Search functions[kGroup], blocks[kGroup];
    const uint32_t *function_guides[kGroup], *block_guides[kGroup];
    uint32_t block[kGroup];
    Place places[kGroup];
    for (size_t i = 0; i < count; ++i) {
      const uint64_t address = addresses[from + i].value;
      function_guides[i] = GuideOf(spans_, guide_, ranges_.size(), address, &functions[i]);
      block_guides[i] = GuideOf(place_spans_, place_guide_, blocks_.size(), address, &blocks[i]);
      if (function_guides[i] != nullptr) __builtin_prefetch(function_guides[i]);
      if (block_guides[i] != nullptr) __builtin_prefetch(block_guides[i]);
    }
    for (size_t i = 0; i < count; ++i) {
      if (function_guides[i] != nullptr) {
        ReadGuide(function_guides[i], &functions[i]);
        __builtin_prefetch(ranges_.data() + (functions[i].low == 0 ? 0 : functions[i].low - 1));
      }
      if (block_guides[i] != nullptr) {
        ReadGuide(block_guides[i], &blocks[i]);
        __builtin_prefetch(blocks_.data() + (blocks[i].low == 0 ? 0 : blocks[i].low - 1));
      }
    }
    for (size_t i = 0; i < count; ++i) {
      if (!Finish(blocks_, blocks[i], &block[i])) {
        blocks[i].found = false;
        continue;
      }
      blocks[i].found = true;
      if (blocks_[block[i]].data < place_data_.size()) __builtin_prefetch(place_data_.data() + blocks_[block[i]].data);
    }
    for (size_t i = 0; i < count; ++i) {
      places[i] = blocks[i].found ? Unpack(block[i], blocks[i].distance) : Place{};
      if (places[i].inlined < inlined_.size()) __builtin_prefetch(inlined_.data() + places[i].inlined);
    }
    for (size_t i = 0; i < count; ++i) {
      uint32_t range;
      std::optional<Hit> hit;
      if (Finish(ranges_, functions[i], &range)) hit = HitAt(range, functions[i].distance);
      lists->first.push_back(static_cast<uint32_t>(lists->frames.size()));
      lists->offsets.push_back(hit.has_value() ? hit->offset : 0);
      AppendFrames(places[i], hit.has_value() ? hit->function : 0, &lists->frames);
    }
  }
  lists->first.push_back(static_cast<uint32_t>(lists->frames.size()));
}

std::string_view SymbolIndex::name(uint32_t function) const {
  return function < functions_.size() ? StringPool::At(strings_, functions_[function].name) : std::string_view();
}

uint32_t SymbolIndex::start_line(uint32_t function) const {
  return function < functions_.size() ? functions_[function].start_line : 0;
}

std::string_view SymbolIndex::file(uint32_t file) const {
  return file < files_.size() ? StringPool::At(strings_, files_[file]) : std::string_view();
}

}  // namespace pyrometer::symbolize

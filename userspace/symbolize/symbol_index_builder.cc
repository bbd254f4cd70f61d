#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "userspace/base/check.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {
namespace {

constexpr uint64_t kMaxRangeBytes = (1u << 31) - 1;
constexpr uint32_t kResumedFlag = 1u << 31;

uint64_t SaturatedAdd(uint64_t a, uint64_t b) {
  return a > std::numeric_limits<uint64_t>::max() - b ? std::numeric_limits<uint64_t>::max() : a + b;
}

size_t LeadingUnderscores(std::string_view name) {
  const size_t n = name.find_first_not_of('_');
  return n == std::string_view::npos ? name.size() : n;
}

void PutVarint(std::string* data, uint64_t value) {
  while (value >= 0x80) {
    data->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  data->push_back(static_cast<char>(value));
}

uint64_t ZigZag(uint32_t now, uint32_t before) {
  const int64_t difference = int64_t{now} - int64_t{before};
  return (static_cast<uint64_t>(difference) << 1) ^ static_cast<uint64_t>(difference >> 63);
}

// The spans of a table that grows in order of address.
class SpanWriter {
 public:
  // The start of the next entry from its span's base.
  uint32_t Place(uint64_t address, size_t entries) {
    if (spans_.empty() || address - spans_.back().base > std::numeric_limits<uint32_t>::max() - kMaxRangeBytes) {
      format::Span span = {};
      span.base = address;
      span.first = static_cast<uint32_t>(entries);
      spans_.push_back(span);
    }
    format::Span& span = spans_.back();
    span.last_start = static_cast<uint32_t>(address - span.base);
    span.end = static_cast<uint32_t>(entries + 1);
    return span.last_start;
  }
  // Fills in the guide: as many buckets as entries, rounded up to a power of two.
  template <typename Entry>
  std::vector<uint32_t> MakeGuide(const std::vector<Entry>& entries) {
    std::vector<uint32_t> guide;
    for (format::Span& span : spans_) {
      const uint32_t wanted_bits = static_cast<uint32_t>(std::bit_width(span.end - span.first));
      const uint32_t address_bits = static_cast<uint32_t>(std::bit_width(span.last_start));
      span.shift = address_bits > wanted_bits ? address_bits - wanted_bits : 0;
      span.first_guide = static_cast<uint32_t>(guide.size());
      uint32_t entry = span.first;
      const uint32_t buckets = (span.last_start >> span.shift) + 1;
      for (uint32_t bucket = 0; bucket < buckets; ++bucket) {
        while (entry < span.end && (entries[entry].start >> span.shift) < bucket) ++entry;
        guide.push_back(entry);
      }
      guide.push_back(span.end);
      span.guides = buckets + 1;
    }
    return guide;
  }
  const std::vector<format::Span>& spans() const { return spans_; }

 private:
  std::vector<format::Span> spans_;
};

// Packs changes into blocks.
class PlaceWriter {
 public:
  void Add(const PlaceRow& row) {
    if (in_block_ == format::kChangesPerBlock || blocks_.empty() ||
        row.address - spans_.spans().back().base > std::numeric_limits<uint32_t>::max() - kMaxRangeBytes) {
      // A block's data offset has 32 bits; no binary has 4 GiB of changes [libwebkit: 180 MiB].
      if (data_.size() > std::numeric_limits<uint32_t>::max() - 4096) return;
      const uint32_t start = spans_.Place(row.address, blocks_.size());
      blocks_.push_back({start, static_cast<uint32_t>(data_.size())});
      PutVarint(&data_, row.inlined);
      PutVarint(&data_, row.file);
      PutVarint(&data_, row.line);
      in_block_ = 1;
    } else {
      const uint32_t flags = (row.inlined != last_.inlined ? format::kInlinedChanges : 0) |
                             (row.file != last_.file ? format::kFileChanges : 0) |
                             (row.line != last_.line ? format::kLineChanges : 0);
      PutVarint(&data_, (row.address - last_.address) << 3 | flags);
      if ((flags & format::kInlinedChanges) != 0) PutVarint(&data_, ZigZag(row.inlined, last_.inlined));
      if ((flags & format::kFileChanges) != 0) PutVarint(&data_, ZigZag(row.file, last_.file));
      if ((flags & format::kLineChanges) != 0) PutVarint(&data_, ZigZag(row.line, last_.line));
      ++in_block_;
    }
    last_ = row;
  }
  SpanWriter& spans() { return spans_; }
  const std::vector<format::PlaceBlock>& blocks() const { return blocks_; }
  const std::string& data() const { return data_; }

 private:
  SpanWriter spans_;
  std::vector<format::PlaceBlock> blocks_;
  std::string data_;
  PlaceRow last_;
  uint32_t in_block_ = 0;
};

// Puts sections one behind the other and the header before them.
class ImageWriter {
 public:
  explicit ImageWriter(const IndexFacts& facts) : bytes_(sizeof(format::Header), '\0') {
    std::memcpy(header_.magic, format::kMagic, sizeof(header_.magic));
    header_.version = format::kVersion;
    header_.header_bytes = sizeof(format::Header);
    header_.origin = facts.origin;
    header_.machine = facts.machine;
  }
  void Add(uint32_t kind, std::string_view bytes, uint32_t entry_bytes = 1) {
    bytes_.resize((bytes_.size() + 7) / 8 * 8, '\0');
    format::SectionEntry& section = header_.sections[kind];
    section = {bytes_.size(), bytes.size(), XXH3_64bits(bytes.data(), bytes.size()), entry_bytes, kind};
    bytes_.append(bytes);
  }
  template <typename T>
  void Add(uint32_t kind, const std::vector<T>& entries) {
    Add(kind, std::string_view(reinterpret_cast<const char*>(entries.data()), entries.size() * sizeof(T)), sizeof(T));
  }
  // Room for `bytes` more: growing step by step would hold everything twice.
  void Reserve(size_t bytes) { bytes_.reserve(bytes_.size() + bytes + size_t{format::kSectionCount} * 8); }
  std::shared_ptr<const std::string> Finish() && {
    bytes_.resize((bytes_.size() + 7) / 8 * 8, '\0');
    header_.file_bytes = bytes_.size();
    header_.checksum = XXH3_64bits(&header_, sizeof(header_));
    std::memcpy(bytes_.data(), &header_, sizeof(header_));
    return std::make_shared<const std::string>(std::move(bytes_));
  }

 private:
  format::Header header_ = {};
  std::string bytes_;
};

}  // namespace

void SymbolIndexBuilder::AddCode(ElfAddress start, uint64_t size) {
  if (size != 0) code_.push_back({start.value, SaturatedAdd(start.value, size)});
}

void SymbolIndexBuilder::AddBoundary(ElfAddress address) { boundaries_.push_back(address.value); }

bool SymbolIndexBuilder::Add(ElfAddress start, uint64_t size, SymbolRank rank, std::string_view name) {
  if (name.empty()) return true;
  const std::optional<uint32_t> interned =
      symbols_.size() < kMaxSymbols ? pool_.Intern(name, kMaxNamesBytes) : std::nullopt;
  if (!interned.has_value()) {
    ++dropped_;
    return false;
  }
  symbols_.push_back({start.value, size, *interned, rank});
  return true;
}

size_t SymbolIndexBuilder::memory_bytes() const {
  return symbols_.capacity() * sizeof(Pending) + pool_.memory_bytes() + boundaries_.capacity() * sizeof(uint64_t);
}

bool SymbolIndexBuilder::Better(const Pending& a, const Pending& b) const {
  if (a.rank.typed != b.rank.typed) return a.rank.typed;
  if ((a.size != 0) != (b.size != 0)) return a.size != 0;
  if (a.rank.exported != b.rank.exported) return a.rank.exported;
  const std::string_view name_a = StringPool::At(pool_.bytes(), a.name), name_b = StringPool::At(pool_.bytes(), b.name);
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
    if (cursor < until) flat.push_back({cursor, until, symbol.start, symbol.name, 0});
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

// Functions that only debug information knows, where no symbol is.
std::vector<SymbolIndexBuilder::Flat> SymbolIndexBuilder::FillGaps(
    const std::vector<Flat>& symbols, const std::vector<PlaceBuilder::OutermostFunction>& functions,
    const std::vector<PlaceBuilder::NamedFunction>& names) {
  std::vector<Flat> all;
  all.reserve(symbols.size());
  size_t next = 0;
  uint64_t decided = 0;  // everything before has a function or stays without
  const auto fill = [&](uint64_t until) {
    // Functions are sorted by start; of overlapping ones the first keeps its code.
    while (next < functions.size() && functions[next].start < until) {
      const PlaceBuilder::OutermostFunction& function = functions[next];
      const uint64_t start = std::max(function.start, decided);
      const uint64_t end = std::min(function.end, until);
      // As with symbols, no function is longer than a range can be.
      // DWARF may leave a function without a name (0 is the empty string): as good as unknown.
      if (start < end && names[function.function].name != 0) {
        all.push_back(
            {start, std::min(end, SaturatedAdd(start, kMaxRangeBytes)), function.start, 0, function.function});
      }
      decided = std::max(decided, end);
      if (function.end > until) return;  // its rest may fill the next gap
      ++next;
    }
  };
  for (const Flat& symbol : symbols) {
    fill(symbol.start);
    all.push_back(symbol);
    decided = std::max(decided, symbol.end);
    while (next < functions.size() && functions[next].end <= decided) ++next;
  }
  fill(std::numeric_limits<uint64_t>::max());
  return all;
}

SymbolIndex SymbolIndexBuilder::Build(PlaceBuilder* places, const IndexFacts& facts) && {
  std::vector<Flat> flat;
  if (places != nullptr) {
    places->Finish();
    for (const PlaceBuilder::OutermostFunction& function : places->outermost()) boundaries_.push_back(function.start);
  }
  {
    const std::vector<Pending> chosen = ChooseNames();
    std::vector<Pending>().swap(symbols_);
    flat = Flatten(chosen);
    if (places != nullptr) flat = FillGaps(flat, places->outermost(), places->functions());
  }

  StringPool own_pool;
  StringPool& pool = places != nullptr ? places->pool() : own_pool;
  std::vector<format::Function> functions(1);
  FlatMap function_of_name;
  if (places != nullptr) {
    functions.reserve(places->functions().size());
    for (size_t i = 1; i < places->functions().size(); ++i) {
      const PlaceBuilder::NamedFunction& function = places->functions()[i];
      functions.push_back({function.name, function.start_line});
      uint32_t& known = function_of_name[function.name];
      if (known == 0) known = static_cast<uint32_t>(i);
    }
  }
  std::vector<format::Range> ranges;
  std::vector<format::Resumed> resumed;
  SpanWriter spans;
  ranges.reserve(flat.size());
  for (const Flat& range : flat) {
    uint32_t function = range.function;
    if (function == 0) {
      // Names in order of address: neighbours share cache lines.
      const std::optional<uint32_t> name = pool.Intern(StringPool::At(pool_.bytes(), range.name));
      if (!name.has_value()) continue;
      uint32_t& known = function_of_name[*name];
      if (known == 0) {
        known = static_cast<uint32_t>(functions.size());
        functions.push_back({*name, 0});
      }
      function = known;
    }
    uint32_t size = static_cast<uint32_t>(range.end - range.start);
    if (range.start != range.function_start) {
      size |= kResumedFlag;
      resumed.push_back({static_cast<uint32_t>(ranges.size()), 0, range.start - range.function_start});
    }
    const uint32_t start = spans.Place(range.start, ranges.size());
    ranges.push_back({start, size, function});
  }
  std::vector<Flat>().swap(flat);

  std::vector<CodeRange>().swap(code_);
  std::vector<uint64_t>().swap(boundaries_);
  pool_ = StringPool();
  function_of_name = FlatMap();

  PlaceWriter rows;
  std::vector<uint32_t> place_guide, files;
  std::vector<InlinedCall> inlined;
  std::string strings;
  if (places != nullptr) {
    places->ForEachRow([&](const PlaceRow& row) { rows.Add(row); });
    place_guide = rows.spans().MakeGuide(rows.blocks());
    files = places->files();
    inlined = places->TakeInlined();
  }
  const std::vector<uint32_t> guide = spans.MakeGuide(ranges);
  strings = std::move(pool).TakeBytes();
  const auto bytes_of = [](const auto& entries) { return entries.size() * sizeof(entries[0]); };
  ImageWriter image(facts);
  image.Reserve(bytes_of(guide) + bytes_of(ranges) + bytes_of(spans.spans()) + bytes_of(resumed) + bytes_of(functions) +
                bytes_of(facts.segments) + facts.about.size() + bytes_of(place_guide) + bytes_of(rows.spans().spans()) +
                bytes_of(rows.blocks()) + rows.data().size() + bytes_of(files) + bytes_of(inlined) + strings.size());
  // What is asked together lies together: the tables that every question needs come first.
  image.Add(format::kSpans, spans.spans());
  image.Add(format::kRangeGuide, guide);
  image.Add(format::kRanges, ranges);
  image.Add(format::kResumed, resumed);
  image.Add(format::kFunctions, functions);
  image.Add(format::kSegments, facts.segments);
  image.Add(format::kAbout, facts.about);
  image.Add(format::kPlaceSpans, rows.spans().spans());
  image.Add(format::kPlaceGuide, place_guide);
  image.Add(format::kPlaceBlocks, rows.blocks());
  image.Add(format::kPlaceData, rows.data());
  rows = PlaceWriter();
  image.Add(format::kFiles, files);
  static_assert(sizeof(InlinedCall) == sizeof(format::Inlined));
  image.Add(format::kInlined, inlined);
  std::vector<InlinedCall>().swap(inlined);
  image.Add(format::kStrings, strings);
  std::string().swap(strings);
  StatusOr<SymbolIndex> index = SymbolIndex::FromBytes(std::move(image).Finish());
  CHECK(index.ok());
  return *std::move(index);
}

}  // namespace pyrometer::symbolize

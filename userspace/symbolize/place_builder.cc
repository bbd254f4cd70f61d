#include "userspace/symbolize/place_builder.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace pyrometer::symbolize {
namespace {

void Put(std::string* data, uint64_t value) {
  while (value >= 0x80) {
    data->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  data->push_back(static_cast<char>(value));
}

// Only for what Put() wrote.
uint64_t Take(const std::string& data, uint64_t* at) {
  uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    const uint8_t byte = static_cast<uint8_t>(data[(*at)++]);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

// Differences of either sign as small numbers: 0, -1, 1, -2 …
uint64_t ZigZag(uint32_t now, uint32_t before) {
  const int64_t difference = int64_t{now} - int64_t{before};
  return (static_cast<uint64_t>(difference) << 1) ^ static_cast<uint64_t>(difference >> 63);
}
uint32_t UnZigZag(uint64_t value, uint32_t before) {
  return before + static_cast<uint32_t>((value >> 1) ^ (~(value & 1) + 1));
}

struct LineState {
  uint32_t file = 0, line = 0;
  // Packs the change to `next`, `distance` bytes on.
  void PutRow(uint64_t distance, const LineState& next, std::string* data) {
    Put(data, distance << 1 | (next.file != file ? 1 : 0));
    if (next.file != file) Put(data, ZigZag(next.file, file));
    Put(data, ZigZag(next.line, line));
    *this = next;
  }
  // The opposite; gives the distance.
  uint64_t TakeRow(const std::string& data, uint64_t* at) {
    const uint64_t head = Take(data, at);
    if ((head & 1) != 0) file = UnZigZag(Take(data, at), file);
    line = UnZigZag(Take(data, at), line);
    return head >> 1;
  }
};

struct ScopeState {
  uint32_t inlined = 0;
  void PutRow(uint64_t distance, const ScopeState& next, std::string* data) {
    Put(data, distance);
    Put(data, ZigZag(next.inlined, inlined));
    *this = next;
  }
  uint64_t TakeRow(const std::string& data, uint64_t* at) {
    const uint64_t distance = Take(data, at);
    inlined = UnZigZag(Take(data, at), inlined);
    return distance;
  }
};

template <typename Chunk>
bool Earlier(const Chunk& a, const Chunk& b) {
  return a.start != b.start ? a.start < b.start : a.order < b.order;
}

}  // namespace

void PlaceBuilder::AddCode(uint64_t start, uint64_t size) {
  if (size == 0) return;
  const uint64_t end = size > std::numeric_limits<uint64_t>::max() - start ? ~uint64_t{0} : start + size;
  code_.push_back({start, end});
  std::sort(code_.begin(), code_.end(), [](const Code& a, const Code& b) { return a.start < b.start; });
  last_code_ = 0;
}

const PlaceBuilder::Code* PlaceBuilder::CodeAt(uint64_t address) {
  static constexpr Code kAnything{1, ~uint64_t{0}};
  if (code_.empty()) return address >= kAnything.start && address < kAnything.end ? &kAnything : nullptr;
  const Code& last = code_[last_code_];
  if (address >= last.start && address < last.end) return &last;
  const auto after = std::upper_bound(code_.begin(), code_.end(), address,
                                      [](uint64_t wanted, const Code& code) { return wanted < code.start; });
  if (after == code_.begin() || address >= std::prev(after)->end) return nullptr;
  last_code_ = static_cast<size_t>(std::prev(after) - code_.begin());
  return &code_[last_code_];
}

bool PlaceBuilder::IsCode(uint64_t address) { return CodeAt(address) != nullptr; }

size_t PlaceBuilder::memory_bytes() const {
  size_t owed = 0;
  for (const auto& [source, map] : owed_) owed += map.memory_bytes();
  return pool_.memory_bytes() + files_.capacity() * sizeof(uint32_t) + file_ids_.memory_bytes() +
         functions_.capacity() * sizeof(NamedFunction) + function_ids_.memory_bytes() + owed +
         inlined_.capacity() * sizeof(InlinedCall) + outermost_.capacity() * sizeof(OutermostFunction) +
         (lines_.capacity() + scopes_.capacity()) * sizeof(Chunk) + line_data_.capacity() + scope_data_.capacity();
}

size_t PlaceBuilder::index_bytes() const {
  return pool_.bytes().size() + files_.size() * sizeof(uint32_t) + functions_.size() * sizeof(NamedFunction) +
         inlined_.size() * sizeof(InlinedCall) + line_data_.size() + scope_data_.size();
}

bool PlaceBuilder::WithinLimits() {
  if (complete_ && memory_bytes() > max_memory_bytes_) complete_ = false;
  return complete_;
}

uint32_t PlaceBuilder::File(std::string_view path) {
  const std::optional<uint32_t> name = pool_.Intern(path);
  if (!name.has_value()) {
    complete_ = false;
    return 0;
  }
  uint32_t& id = file_ids_[*name];
  if (id == 0 && *name != 0) {
    id = static_cast<uint32_t>(files_.size());
    files_.push_back(*name);
  }
  return id;
}

uint32_t PlaceBuilder::Function(std::string_view name, uint32_t start_line) {
  const std::optional<uint32_t> interned = pool_.Intern(name);
  if (!interned.has_value() || functions_.size() >= kMaxFunctions) {
    complete_ = false;
    return 0;
  }
  uint32_t& id = function_ids_[uint64_t{*interned} << 32 | start_line];
  if (id == 0) {
    id = static_cast<uint32_t>(functions_.size());
    functions_.push_back({*interned, start_line});
  }
  return id;
}

uint32_t PlaceBuilder::FunctionNamedLater(uint32_t source, uint64_t offset, uint32_t start_line) {
  uint32_t& id = owed_[source][offset];
  if (id == 0) {
    if (functions_.size() >= kMaxFunctions) {
      complete_ = false;
      return 0;
    }
    id = static_cast<uint32_t>(functions_.size());
    functions_.push_back({0, start_line});
  }
  return id;
}

Status PlaceBuilder::ResolveNames(uint32_t source, dwarf::Section strings) {
  std::vector<std::pair<uint64_t, uint32_t>> wanted;
  wanted.reserve(owed_[source].size());
  owed_[source].ForEach([&](uint64_t offset, uint32_t function) { wanted.emplace_back(offset, function); });
  owed_.erase(source);
  std::sort(wanted.begin(), wanted.end());
  dwarf::Window window(strings);
  for (const auto& [offset, function] : wanted) {
    const std::optional<uint32_t> name = pool_.Intern(window.String(offset));
    if (!name.has_value()) {
      complete_ = false;
      break;
    }
    functions_[function].name = *name;
  }
  return window.status();
}

uint32_t PlaceBuilder::Inline(uint32_t parent, uint32_t function, uint32_t call_file, uint32_t call_line) {
  if (inlined_.size() >= kMaxInlined) {
    complete_ = false;
    return parent;
  }
  inlined_.push_back({parent, function, call_file, call_line});
  return static_cast<uint32_t>(inlined_.size() - 1);
}

bool PlaceBuilder::Sequence(const std::vector<dwarf::LineRow>& rows, uint64_t end) {
  if (rows.empty() || !WithinLimits()) return complete_;
  const Code* code = CodeAt(rows.front().address);
  if (code == nullptr) return true;
  end = std::min(end, code->end);
  const uint64_t data = line_data_.size();
  uint64_t address = rows.front().address;
  LineState state;
  for (const dwarf::LineRow& row : rows) {
    if (row.address >= end) break;
    state.PutRow(row.address - address, {row.file, row.line}, &line_data_);
    address = row.address;
  }
  lines_.push_back({rows.front().address, end, data, line_data_.size(), static_cast<uint32_t>(lines_.size())});
  return true;
}

void PlaceBuilder::Scopes(uint32_t function, std::span<const AddressRange> own, std::span<const ScopeRange> inlined) {
  if (!WithinLimits()) return;
  intervals_.clear();
  const auto add = [this](uint64_t low, uint64_t high, uint32_t inlined_id) {
    const Code* code = CodeAt(low);
    if (code == nullptr || high <= low) return false;
    intervals_.push_back({low, std::min(high, code->end), static_cast<uint32_t>(intervals_.size()), inlined_id});
    return true;
  };
  for (const AddressRange& range : own) {
    if (add(range.low, range.high, 0)) outermost_.push_back({range.low, intervals_.back().end, function});
  }
  if (intervals_.empty() && inlined.empty()) return;
  for (const ScopeRange& range : inlined) add(range.low, range.high, range.inlined);
  AddScopeChunks();
}

// Paints the intervals one over the other in the order they were added, and packs what is then to be seen.
void PlaceBuilder::AddScopeChunks() {
  std::sort(intervals_.begin(), intervals_.end(), Earlier<Interval>);
  open_.clear();
  const auto later_first = [](const Interval& a, const Interval& b) { return a.order < b.order; };
  size_t next = 0;
  uint64_t position = 0, written = 0, chunk_start = 0, data = scope_data_.size();
  ScopeState shown;
  bool in_chunk = false;
  const auto close = [&](uint64_t end) {
    // Nothing inlined anywhere is what no chunk means, too.
    if (scope_data_.size() > data) {
      scopes_.push_back({chunk_start, end, data, scope_data_.size(), static_cast<uint32_t>(scopes_.size())});
    }
    data = scope_data_.size();
    in_chunk = false;
  };
  while (true) {
    for (; next < intervals_.size() && intervals_[next].start <= position; ++next) {
      open_.push_back(intervals_[next]);
      std::push_heap(open_.begin(), open_.end(), later_first);
    }
    while (!open_.empty() && open_.front().end <= position) {
      std::pop_heap(open_.begin(), open_.end(), later_first);
      open_.pop_back();
    }
    if (open_.empty()) {
      if (in_chunk) close(position);
      if (next == intervals_.size()) return;
      position = intervals_[next].start;
      continue;
    }
    const Interval& top = open_.front();
    if (!in_chunk) {
      in_chunk = true;
      chunk_start = written = position;
      shown = {};
    }
    if (top.inlined != shown.inlined) {
      shown.PutRow(position - written, {top.inlined}, &scope_data_);
      written = position;
    }
    position = next < intervals_.size() ? std::min(top.end, intervals_[next].start) : top.end;
  }
}

// Walks sorted chunks as if they were one list of changes. Where chunks overlap the earlier keeps its code. Several
// changes may have the same address; then the last counts.
template <typename Codec>
class PlaceBuilder::Stream {
 public:
  Stream(const std::vector<Chunk>& chunks, const std::string& data) : chunks_(chunks), data_(data) { Step(); }

  // Of the change at hand; ~0 behind the last.
  uint64_t address() const { return address_; }
  const Codec& state() const { return state_; }

  void Step() {
    if (inside_) {
      const Chunk& chunk = chunks_[chunk_];
      if (at_ < chunk.data_end) {
        row_address_ += state_.TakeRow(data_, &at_);
        address_ = std::max(row_address_, decided_);  // rows before belong to the chunk before
        return;
      }
      inside_ = false;
      state_ = Codec();
      address_ = decided_ = chunk.end;
      return;
    }
    while (chunk_ < chunks_.size() && chunks_[chunk_].end <= decided_) ++chunk_;
    if (chunk_ == chunks_.size()) {
      address_ = ~uint64_t{0};
      return;
    }
    inside_ = true;
    at_ = chunks_[chunk_].data;
    row_address_ = chunks_[chunk_].start;
    address_ = std::max(row_address_, decided_);
  }

 private:
  const std::vector<Chunk>& chunks_;
  const std::string& data_;
  size_t chunk_ = 0;
  bool inside_ = false;
  uint64_t at_ = 0;
  uint64_t decided_ = 0;  // everything before has been told
  uint64_t row_address_ = 0;
  uint64_t address_ = 0;
  Codec state_;
};

void PlaceBuilder::ForEachRow(const std::function<void(const PlaceRow&)>& visit) const {
  Stream<LineState> lines(lines_, line_data_);
  Stream<ScopeState> scopes(scopes_, scope_data_);
  PlaceRow told;
  while (true) {
    const uint64_t address = std::min(lines.address(), scopes.address());
    if (address == ~uint64_t{0}) return;
    PlaceRow row = told;
    row.address = address;
    for (; lines.address() == address; lines.Step()) {
      row.file = lines.state().file;
      row.line = lines.state().line;
    }
    for (; scopes.address() == address; scopes.Step()) row.inlined = scopes.state().inlined;
    if (row.inlined != told.inlined || row.file != told.file || row.line != told.line) visit(row);
    told = row;
  }
}

std::vector<InlinedCall> PlaceBuilder::TakeInlined() {
  // Assigning {} would keep the memory.
  std::vector<Chunk>().swap(lines_);
  std::vector<Chunk>().swap(scopes_);
  std::vector<OutermostFunction>().swap(outermost_);
  std::string().swap(line_data_);
  std::string().swap(scope_data_);
  return std::move(inlined_);
}

void PlaceBuilder::Finish() {
  std::sort(lines_.begin(), lines_.end(), Earlier<Chunk>);
  std::sort(scopes_.begin(), scopes_.end(), Earlier<Chunk>);
  std::stable_sort(outermost_.begin(), outermost_.end(),
                   [](const OutermostFunction& a, const OutermostFunction& b) { return a.start < b.start; });
}

}  // namespace pyrometer::symbolize

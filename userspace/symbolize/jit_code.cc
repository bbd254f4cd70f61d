#include "userspace/symbolize/jit_code.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>

#include "userspace/symbolize/demangle.h"

namespace pyrometer::symbolize {

void JitCode::Clear() {
  entries_.clear();
  names_ = StringPool();
  lines_.clear();
  made_.clear();
  made_files_.clear();
}

uint32_t JitCode::File(std::string_view path) {
  return names_.Intern(path.substr(0, kMaxNameBytes), limits_.max_names_bytes).value_or(0);
}

bool JitCode::Add(uint64_t start, uint64_t size, std::string_view name, const std::vector<Line>& lines) {
  if (size == 0 || start > std::numeric_limits<uint64_t>::max() - size) return true;
  if (entries_.size() >= limits_.max_entries) return false;
  const std::optional<uint32_t> interned = names_.Intern(name.substr(0, kMaxNameBytes), limits_.max_names_bytes);
  if (!interned.has_value()) return false;
  Entry entry{start + size, start, start, *interned, static_cast<uint32_t>(lines_.size()), 0};
  if (lines_.size() + lines.size() <= limits_.max_lines) {
    for (const Line& line : lines) {
      if (line.address < start || line.address - start >= size ||
          line.address - start > std::numeric_limits<uint32_t>::max()) {
        continue;
      }
      lines_.push_back({static_cast<uint32_t>(line.address - start), line.file, line.line});
    }
    entry.line_count = static_cast<uint32_t>(lines_.size()) - entry.first_line;
    std::stable_sort(lines_.begin() + entry.first_line, lines_.end(),
                     [](const PackedLine& a, const PackedLine& b) { return a.offset < b.offset; });
  }
  Insert(start, entry);
  return true;
}

void JitCode::Insert(uint64_t start, const Entry& entry) {
  const uint64_t end = entry.end;
  // Cut what lies there: the entry that reaches into [start, end) from before, then those within.
  auto next = entries_.lower_bound(start);
  if (next != entries_.begin()) {
    const auto before = std::prev(next);
    Entry& old = before->second;
    if (old.end > start) {
      const uint64_t old_end = std::exchange(old.end, start);
      if (old_end > end) {
        Entry tail = old;
        tail.end = old_end;
        entries_.emplace_hint(next, end, tail);
        next = entries_.lower_bound(start);
      }
    }
  }
  while (next != entries_.end() && next->first < end) {
    if (next->second.end > end) {
      const Entry tail = next->second;
      entries_.erase(next);
      entries_.emplace(end, tail);
      break;
    }
    next = entries_.erase(next);
  }
  entries_[start] = entry;
}

void JitCode::Move(uint64_t from, uint64_t to, uint64_t size) {
  const auto found = entries_.find(from);
  if (found == entries_.end() || size == 0 || to > std::numeric_limits<uint64_t>::max() - size) return;
  Entry entry = found->second;
  if (entry.start_of_code != from) return;  // the rest of something overwritten
  entries_.erase(found);
  entry.end = to + size;
  entry.start_of_code = entry.lines_base = to;
  Insert(to, entry);
}

Symbol JitCode::Symbolize(VirtualAddress address) {
  const auto after = entries_.upper_bound(address.value);
  if (after == entries_.begin()) return Symbol::Miss(MissReason::kJitUnknown);
  const Entry& entry = std::prev(after)->second;
  if (address.value >= entry.end) return Symbol::Miss(MissReason::kJitUnknown);
  std::shared_ptr<const FunctionName>& name = made_[entry.name];
  if (name == nullptr) {
    const std::string_view raw = StringPool::At(names_.bytes(), entry.name);
    FunctionName made;
    made.name = Demangle(raw);
    if (made.name != raw) made.system_name = PrintableName(raw);
    name = std::make_shared<const FunctionName>(std::move(made));
  }
  Symbol symbol;
  symbol.function = name;
  symbol.offset = address.value - entry.start_of_code;
  const auto lines = lines_.begin() + entry.first_line;
  const auto line = std::upper_bound(lines, lines + entry.line_count, address.value - entry.lines_base,
                                     [](uint64_t offset, const PackedLine& packed) { return offset < packed.offset; });
  if (line == lines) return symbol;
  const PackedLine& packed = *std::prev(line);
  symbol.line = packed.line;
  if (packed.file != 0) {
    std::shared_ptr<const std::string>& file = made_files_[packed.file];
    if (file == nullptr) {
      file = std::make_shared<const std::string>(PrintableName(StringPool::At(names_.bytes(), packed.file)));
    }
    symbol.file = file;
  }
  return symbol;
}

size_t JitCode::memory_bytes() const {
  constexpr size_t kNodeBytes = sizeof(std::pair<const uint64_t, Entry>) + 32;  // tree links and allocator
  return sizeof(*this) + entries_.size() * kNodeBytes + names_.memory_bytes() + lines_.capacity() * sizeof(PackedLine) +
         (made_.size() + made_files_.size()) * 200;
}

}  // namespace pyrometer::symbolize

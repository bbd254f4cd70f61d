#include "userspace/symbolize/perf_map.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_source.h"
#include "userspace/symbolize/demangle.h"

namespace pyrometer::symbolize {
namespace {

constexpr size_t kMaxNameBytes = 4096;
constexpr size_t kPieceBytes = 256u << 10;
constexpr size_t kMaxStatusBytes = 64u << 10;

bool TakeHex(std::string_view* text, uint64_t* value) {
  if (text->starts_with("0x") || text->starts_with("0X")) text->remove_prefix(2);
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *value, 16);
  if (error != std::errc()) return false;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return true;
}

// What /proc/PID tells of the process whose map we want.
struct ProcessFacts {
  uint64_t inner_pid = 0;  // its number in its own PID namespace
  uint64_t real_uid = 0, effective_uid = 0;
};

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    const size_t start = text.find_first_not_of(" \t");
    if (start == std::string_view::npos) return words;
    text.remove_prefix(start);
    const size_t end = std::min(text.find_first_of(" \t"), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::optional<ProcessFacts> ReadFacts(const std::string& folder, uint32_t tgid) {
  const StatusOr<std::string> status = ReadFile(folder + "/status", kMaxStatusBytes);
  if (!status.ok()) return std::nullopt;
  ProcessFacts facts;
  facts.inner_pid = tgid;  // kernels before 4.1 have no NSpid
  bool has_uid = false;
  for (const std::string_view line : Split(*status, '\n')) {
    if (line.starts_with("NSpid:")) {
      const auto words = Words(line.substr(6));
      if (!words.empty()) facts.inner_pid = ParseUint64(words.back()).value_or(tgid);
    } else if (line.starts_with("Uid:")) {
      const auto words = Words(line.substr(4));
      if (words.size() < 2) continue;
      const auto real = ParseUint64(words[0]), effective = ParseUint64(words[1]);
      if (!real.has_value() || !effective.has_value()) continue;
      facts.real_uid = *real;
      facts.effective_uid = *effective;
      has_uid = true;
    }
  }
  if (!has_uid) return std::nullopt;
  return facts;
}

// Whether the process of this number is still the one meant (numbers are used again).
bool SameStart(const std::string& folder, uint64_t start_time_ns) {
  if (start_time_ns == 0) return true;  // the caller does not know
  const StatusOr<std::string> stat = ReadFile(folder + "/stat", kMaxStatusBytes);
  if (!stat.ok()) return false;
  const size_t paren = stat->rfind(')');  // the name before it may hold anything
  if (paren == std::string::npos) return false;
  const auto words = Words(std::string_view(*stat).substr(paren + 1));
  constexpr size_t kStartTimeWord = 19;  // field 22, counted from the one behind the name
  if (words.size() <= kStartTimeWord) return false;
  const auto ticks = ParseUint64(words[kStartTimeWord]);
  if (!ticks.has_value()) return false;
  const uint64_t tick_ns = kNsPerSecond / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
  const uint64_t start = *ticks * tick_ns;
  return (start > start_time_ns ? start - start_time_ns : start_time_ns - start) <= 2 * tick_ns;
}

int64_t ModifiedNs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * static_cast<int64_t>(kNsPerSecond) + info.st_mtim.tv_nsec;
}

}  // namespace

std::unique_ptr<PerfMap> PerfMap::Open(const ProcessKey& process, const Options& options, MissReason* why) {
  *why = MissReason::kPerfMapAbsent;
  const std::string folder = StrFormat("%s/%d", options.proc_root, process.tgid);
  const auto facts = ReadFacts(folder, process.tgid);
  if (!facts.has_value()) return nullptr;
  std::unique_ptr<PerfMap> map(new PerfMap(options));
  map->root_ = folder + "/root";
  map->path_ = StrFormat("/tmp/perf-%d.map", facts->inner_pid);
  StatusOr<UniqueFd> fd = OpenInRoot(map->root_, map->path_, {.follow_last_symlink = false});
  if (!fd.ok()) {
    if (fd.status().code() == StatusCode::kPermissionDenied) *why = MissReason::kNoPermission;
    // ELOOP: the last component is a symlink.
    struct stat link;
    if (fd.status().code() != StatusCode::kNotFound && ::lstat((map->root_ + map->path_).c_str(), &link) == 0 &&
        S_ISLNK(link.st_mode)) {
      *why = MissReason::kPerfMapRefused;
    }
    return nullptr;
  }
  struct stat info;
  if (::fstat(fd->get(), &info) != 0) return nullptr;
  const bool owner_fits = info.st_uid == 0 || info.st_uid == facts->real_uid || info.st_uid == facts->effective_uid;
  if (!S_ISREG(info.st_mode) || !owner_fits) {
    *why = MissReason::kPerfMapRefused;
    return nullptr;
  }
  if (!SameStart(folder, process.start_time_ns)) return nullptr;
  map->owner_ = info.st_uid;
  map->fd_ = *std::move(fd);
  map->Refresh();
  *why = MissReason::kNone;
  return map;
}

std::unique_ptr<PerfMap> PerfMap::Empty(const Options& options) {
  return std::unique_ptr<PerfMap>(new PerfMap(options));
}

void PerfMap::Clear() {
  entries_.clear();
  names_.clear();
  made_.clear();
  consumed_ = 0;
  seen_bytes_ = ~uint64_t{0};
}

void PerfMap::Refresh() {
  last_refresh_ns_ = MonotonicNowNs();
  if (!fd_) return;
  struct stat info;
  if (::fstat(fd_.get(), &info) != 0) return;
  if (info.st_nlink == 0) {  // removed; perhaps a new one took its place
    StatusOr<UniqueFd> fresh = OpenInRoot(root_, path_, {.follow_last_symlink = false});
    struct stat fresh_info;
    if (fresh.ok() && ::fstat(fresh->get(), &fresh_info) == 0 && S_ISREG(fresh_info.st_mode) &&
        fresh_info.st_uid == owner_) {
      fd_ = *std::move(fresh);
      info = fresh_info;
      Clear();
    }
  }
  const int64_t modified_ns = ModifiedNs(info);
  const uint64_t size = static_cast<uint64_t>(std::max<off_t>(info.st_size, 0));
  if (size == seen_bytes_ && modified_ns == modified_ns_) return;
  seen_bytes_ = size;
  // Written anew from the start: shorter, or other content of the same length.
  if (size < consumed_ || (size == consumed_ && modified_ns != modified_ns_ && modified_ns_ != -1)) Clear();
  modified_ns_ = modified_ns;
  counters_.truncated = size > options_.max_bytes;
  std::string pending;
  std::string piece;
  uint64_t at = consumed_;
  while (at < options_.max_bytes) {
    piece.resize(std::min<uint64_t>(kPieceBytes, options_.max_bytes - at));
    const ssize_t n = ::pread(fd_.get(), piece.data(), piece.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // an error here shows as missing names; the next look tries again
    at += static_cast<uint64_t>(n);
    pending.append(piece, 0, static_cast<size_t>(n));
    const size_t newline = pending.rfind('\n');
    if (newline != std::string::npos) {
      Parse(std::string_view(pending).substr(0, newline + 1));
      consumed_ += newline + 1;
      pending.erase(0, newline + 1);
    } else if (pending.size() > 16 * kMaxNameBytes) {  // no line is that long: pass over it
      ++counters_.bad_lines;
      consumed_ += pending.size();
      pending.clear();
    }
  }
}

void PerfMap::Parse(std::string_view text) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++counters_.lines;
    uint64_t start = 0, size = 0;
    bool good = TakeHex(&line, &start) && line.starts_with(' ');
    if (good) line.remove_prefix(1);
    good = good && TakeHex(&line, &size) && line.starts_with(' ');
    const std::string_view name = good ? StripWhitespace(line) : std::string_view();
    if (!good || size == 0 || name.empty() || start > std::numeric_limits<uint64_t>::max() - size) {
      ++counters_.bad_lines;
      continue;
    }
    Insert(start, size, name.substr(0, kMaxNameBytes));
  }
}

void PerfMap::Insert(uint64_t start, uint64_t size, std::string_view name) {
  if (entries_.size() >= options_.max_entries || names_.size() > options_.max_bytes) {
    ++counters_.over_limit;
    return;
  }
  const uint64_t end = start + size;
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
      Entry tail = next->second;
      entries_.erase(next);
      entries_.emplace(end, tail);
      break;
    }
    next = entries_.erase(next);
  }
  entries_[start] = {end, start, static_cast<uint32_t>(names_.size()), static_cast<uint32_t>(name.size())};
  names_.append(name);
}

Symbol PerfMap::Symbolize(VirtualAddress address) {
  if (MonotonicNowNs() - last_refresh_ns_ >= options_.refresh_ns) Refresh();
  const auto after = entries_.upper_bound(address.value);
  if (after == entries_.begin()) return Symbol::Miss(MissReason::kJitUnknown);
  const auto found = std::prev(after);
  const Entry& entry = found->second;
  if (address.value >= entry.end) return Symbol::Miss(MissReason::kJitUnknown);
  std::shared_ptr<const FunctionName>& name = made_[entry.name];
  if (name == nullptr) {
    const std::string_view raw = std::string_view(names_).substr(entry.name, entry.name_bytes);
    FunctionName made;
    made.name = Demangle(raw);
    if (made.name != raw) made.system_name = PrintableName(raw);
    name = std::make_shared<const FunctionName>(std::move(made));
  }
  Symbol symbol;
  symbol.function = name;
  symbol.offset = address.value - entry.start_of_code;
  return symbol;
}

size_t PerfMap::memory_bytes() const {
  constexpr size_t kNodeBytes = sizeof(std::pair<const uint64_t, Entry>) + 32;  // tree links and allocator
  return sizeof(*this) + entries_.size() * kNodeBytes + names_.capacity() + made_.size() * 200;
}

}  // namespace pyrometer::symbolize

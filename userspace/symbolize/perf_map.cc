#include "userspace/symbolize/perf_map.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_source.h"
#include "userspace/symbolize/jit_process.h"

namespace pyrometer::symbolize {
namespace {

constexpr size_t kPieceBytes = 256u << 10;

bool TakeHex(std::string_view* text, uint64_t* value) {
  if (text->starts_with("0x") || text->starts_with("0X")) text->remove_prefix(2);
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *value, 16);
  if (error != std::errc()) return false;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return true;
}

int64_t ModifiedNs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * static_cast<int64_t>(kNsPerSecond) + info.st_mtim.tv_nsec;
}

}  // namespace

std::unique_ptr<PerfMap> PerfMap::Open(const ProcessKey& process, const Options& options, MissReason* why) {
  *why = MissReason::kPerfMapAbsent;
  const std::optional<JitProcess> facts = JitProcess::Find(process, options.proc_root);
  if (!facts.has_value()) return nullptr;
  std::unique_ptr<PerfMap> map(new PerfMap(options));
  map->root_ = facts->root();
  map->path_ = StrFormat("/tmp/perf-%d.map", facts->inner_pid);
  struct stat info;
  map->fd_ = OpenOwnedFile(*facts, map->path_, &info, why);
  if (!map->fd_) return nullptr;
  map->owner_ = info.st_uid;
  map->Refresh();
  return map;
}

std::unique_ptr<PerfMap> PerfMap::Empty(const Options& options) {
  return std::unique_ptr<PerfMap>(new PerfMap(options));
}

void PerfMap::Clear() {
  code_.Clear();
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
    } else if (pending.size() > 16 * JitCode::kMaxNameBytes) {  // no line is that long: pass over it
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
    if (!code_.Add(start, size, name)) ++counters_.over_limit;
  }
}

Symbol PerfMap::Symbolize(VirtualAddress address) {
  if (MonotonicNowNs() - last_refresh_ns_ >= options_.refresh_ns) Refresh();
  return code_.Symbolize(address);
}

}  // namespace pyrometer::symbolize

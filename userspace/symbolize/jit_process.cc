#include "userspace/symbolize/jit_process.h"

#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_source.h"

namespace pyrometer::symbolize {
namespace {

constexpr size_t kMaxStatusBytes = 64u << 10;

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

std::optional<JitProcess> ReadFacts(const std::string& folder, uint32_t tgid) {
  const StatusOr<std::string> status = ReadFile(folder + "/status", kMaxStatusBytes);
  if (!status.ok()) return std::nullopt;
  JitProcess facts;
  facts.folder = folder;
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

}  // namespace

std::optional<JitProcess> JitProcess::Find(const ProcessKey& process, const std::string& proc_root) {
  const std::string folder = StrFormat("%s/%d", proc_root, process.tgid);
  std::optional<JitProcess> found = ReadFacts(folder, process.tgid);
  if (!found.has_value() || !SameStart(folder, process.start_time_ns)) return std::nullopt;
  return found;
}

bool JitProcess::MayOwn(const struct stat& info) const {
  return S_ISREG(info.st_mode) && (info.st_uid == 0 || info.st_uid == real_uid || info.st_uid == effective_uid);
}

UniqueFd OpenOwnedFile(const JitProcess& process, const std::string& path, struct stat* info, MissReason* why) {
  *why = MissReason::kPerfMapAbsent;
  StatusOr<UniqueFd> fd = OpenInRoot(process.root(), path, {.follow_last_symlink = false});
  if (!fd.ok()) {
    if (fd.status().code() == StatusCode::kPermissionDenied) *why = MissReason::kNoPermission;
    // ELOOP: the last component is a symlink.
    struct stat link;
    if (fd.status().code() != StatusCode::kNotFound && ::lstat((process.root() + path).c_str(), &link) == 0 &&
        S_ISLNK(link.st_mode)) {
      *why = MissReason::kPerfMapRefused;
    }
    return {};
  }
  if (::fstat(fd->get(), info) != 0) return {};
  if (!process.MayOwn(*info)) {
    *why = MissReason::kPerfMapRefused;
    return {};
  }
  *why = MissReason::kNone;
  return *std::move(fd);
}

}  // namespace pyrometer::symbolize

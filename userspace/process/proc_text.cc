#include "userspace/process/proc_text.h"

#include <unistd.h>

#include <algorithm>
#include <limits>

#include "userspace/base/strings.h"

namespace pyrometer::process {
namespace {

constexpr uint32_t kTaskIsKernelThread = 0x00200000;  // PF_KTHREAD, the same since Linux 2.6
// Namespaces nest at most 32 deep (MAX_PID_NS_LEVEL).
constexpr size_t kMaxPidNamespaceDepth = 33;
// The kernel allows 12 v1 hierarchies or so; a longer list is not one of ours.
constexpr size_t kMaxCgroupLines = 64;

// Cuts the text up to the next `separator` off the front of `rest`.
std::string_view Take(std::string_view& rest, char separator) {
  const size_t end = rest.find(separator);
  std::string_view part = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return part;
}

std::optional<uint32_t> ParseUint32(std::string_view text, int base = 10) {
  const std::optional<uint64_t> value = ParseUint64(text, base);
  if (!value || *value > std::numeric_limits<uint32_t>::max()) return std::nullopt;
  return static_cast<uint32_t>(*value);
}

// "Key:\tvalue" of /proc/PID/status; the value of the first line with that key. The name line comes
// first and has its newlines escaped by the kernel, so it cannot forge another line.
std::string_view StatusField(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = Take(text, '\n');
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ':') {
      return StripWhitespace(line.substr(key.size() + 1));
    }
  }
  return {};
}

std::vector<uint32_t> ParseNumbers(std::string_view text, size_t limit) {
  std::vector<uint32_t> numbers;
  while (!text.empty() && numbers.size() < limit) {
    const size_t end = text.find_first_of("\t ");
    const std::optional<uint32_t> number = ParseUint32(text.substr(0, end));
    if (number) numbers.push_back(*number);
    text = end == std::string_view::npos ? std::string_view() : StripWhitespace(text.substr(end));
  }
  return numbers;
}

}  // namespace

std::optional<MapsEntry> ParseMapsLine(std::string_view line) {
  // 7f5f-7f60 r-xp 00026000 fe:00 332835      /usr/lib/libc.so.6
  MapsEntry entry;
  const std::optional<uint64_t> start = ParseUint64(Take(line, '-'), 16);
  const std::optional<uint64_t> end = ParseUint64(Take(line, ' '), 16);
  const std::string_view protection = Take(line, ' ');
  const std::optional<uint64_t> offset = ParseUint64(Take(line, ' '), 16);
  const std::optional<uint32_t> device_major = ParseUint32(Take(line, ':'), 16);
  const std::optional<uint32_t> device_minor = ParseUint32(Take(line, ' '), 16);
  const std::optional<uint64_t> inode = ParseUint64(Take(line, ' '));
  if (!start || !end || *end <= *start || protection.size() != 4 || !offset || !device_major || !device_minor ||
      !inode) {
    return std::nullopt;
  }
  entry.start = VirtualAddress(*start);
  entry.end = VirtualAddress(*end);
  if (protection[0] == 'r') entry.protection |= kProtRead;
  if (protection[1] == 'w') entry.protection |= kProtWrite;
  if (protection[2] == 'x') entry.protection |= kProtExec;
  entry.shared = protection[3] == 's';
  entry.offset = FileOffset(*offset);
  entry.device_major = *device_major;
  entry.device_minor = *device_minor;
  entry.inode = *inode;
  // The name is padded with blanks; a path that itself begins with one does not exist, as every name
  // begins with '/', '[' or a letter of a pseudo file.
  const size_t name = line.find_first_not_of(' ');
  if (name != std::string_view::npos) entry.path = line.substr(name);
  return entry;
}

size_t ForEachMap(std::string_view text, const std::function<bool(const MapsEntry&)>& visit) {
  size_t bad_lines = 0;
  while (!text.empty()) {
    const std::string_view line = Take(text, '\n');
    if (line.empty()) continue;
    const std::optional<MapsEntry> entry = ParseMapsLine(line);
    if (!entry) {
      ++bad_lines;
    } else if (!visit(*entry)) {
      break;
    }
  }
  return bad_lines;
}

std::string UnescapeMapsPath(std::string_view path) {
  std::string result;
  result.reserve(path.size());
  for (size_t i = 0; i < path.size(); ++i) {
    if (path.substr(i, 4) == "\\012") {
      result.push_back('\n');
      i += 3;
    } else {
      result.push_back(path[i]);
    }
  }
  return result;
}

StatusOr<ProcStat> ParseStat(std::string_view text) {
  // PID (comm) state ppid …: comm may hold ") R 1 (", so it ends at the *last* parenthesis.
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open || open < 2) {
    return DataLossError("not a /proc/PID/stat line: no parentheses around the name");
  }
  ProcStat stat;
  const std::optional<uint32_t> pid = ParseUint32(StripWhitespace(text.substr(0, open)));
  if (!pid) return DataLossError("not a /proc/PID/stat line: no pid");
  stat.pid = *pid;
  stat.comm = std::string(text.substr(open + 1, close - open - 1));

  // Field 3 (state) is fields[0]; the start time is field 22.
  const std::vector<std::string_view> fields = Split(StripWhitespace(text.substr(close + 1)), ' ');
  constexpr size_t kState = 0, kParent = 1, kFlags = 6, kStart = 19;
  if (fields.size() <= kStart || fields[kState].size() != 1) {
    return DataLossError("not a /proc/PID/stat line: too few fields");
  }
  const std::optional<uint32_t> parent = ParseUint32(fields[kParent]);
  const std::optional<uint32_t> flags = ParseUint32(fields[kFlags]);
  const std::optional<uint64_t> start = ParseUint64(fields[kStart]);
  if (!parent || !flags || !start || *start > std::numeric_limits<uint64_t>::max() / NsPerTick()) {
    return DataLossError("not a /proc/PID/stat line: a number does not parse");
  }
  stat.state = fields[kState][0];
  stat.parent_pid = *parent;
  stat.flags = *flags;
  stat.start_ticks = *start;
  stat.kernel_thread = (*flags & kTaskIsKernelThread) != 0;
  return stat;
}

uint64_t NsPerTick() {
  static const uint64_t ns_per_tick = [] {
    const long ticks = ::sysconf(_SC_CLK_TCK);
    return 1'000'000'000ull / static_cast<uint64_t>(ticks > 0 ? ticks : 100);
  }();
  return ns_per_tick;
}

StatusOr<ProcStatus> ParseStatus(std::string_view text) {
  ProcStatus status;
  const std::optional<uint32_t> tgid = ParseUint32(StatusField(text, "Tgid"));
  const std::optional<uint32_t> parent = ParseUint32(StatusField(text, "PPid"));
  const std::vector<uint32_t> uids = ParseNumbers(StatusField(text, "Uid"), 4);
  if (!tgid || !parent || uids.size() < 2)
    return DataLossError("not a /proc/PID/status text: Tgid, PPid or Uid missing");
  status.tgid = *tgid;
  status.parent_pid = *parent;
  status.real_uid = uids[0];
  status.effective_uid = uids[1];
  status.namespace_tgids = ParseNumbers(StatusField(text, "NStgid"), kMaxPidNamespaceDepth);
  return status;
}

std::vector<CgroupLine> ParseCgroupLines(std::string_view text) {
  std::vector<CgroupLine> lines;
  while (!text.empty() && lines.size() < kMaxCgroupLines) {
    std::string_view line = Take(text, '\n');
    const std::optional<uint32_t> hierarchy = ParseUint32(Take(line, ':'));
    const size_t colon = line.find(':');
    if (!hierarchy || colon == std::string_view::npos || line.substr(colon + 1, 1) != "/") continue;
    lines.push_back({*hierarchy, line.substr(0, colon), line.substr(colon + 1)});
  }
  return lines;
}

std::optional<std::string> CgroupV2Path(std::string_view text) {
  for (const CgroupLine& line : ParseCgroupLines(text)) {
    if (line.hierarchy == 0 && line.controllers.empty()) return std::string(line.path);
  }
  return std::nullopt;
}

std::optional<std::string> CgroupV1Path(std::string_view text, std::string_view controller) {
  for (const CgroupLine& line : ParseCgroupLines(text)) {
    if (line.hierarchy == 0) continue;
    for (std::string_view name : Split(line.controllers, ',')) {
      if (name == controller) return std::string(line.path);
    }
  }
  return std::nullopt;
}

}  // namespace pyrometer::process

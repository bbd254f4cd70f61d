// Parsers of the text files of /proc that tell about one process: maps, stat, status, cgroup.
//
//   ForEachMap(text, [&](const MapsEntry& entry) { ...; return true; });
//   StatusOr<ProcStat> stat = ParseStat("1234 (a) b) S 1 …");
//
// All of it is written by the kernel but carries text that a stranger chose: a process name may hold
// blanks, parentheses and newlines, a path any byte, a line may be cut by a race. So nothing here
// trusts a count, a column or a character; what does not parse is skipped or refused, never guessed.
// Views in the results point into the text that was passed. Threads: pure functions.
// Cost: one pass; 0.1 µs per maps line. Does not promise: text of other kernels' extra fields.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/process/events.h"

namespace pyrometer::process {

// One line of /proc/PID/maps.
struct MapsEntry {
  VirtualAddress start;
  VirtualAddress end;       // behind the last byte; > start
  uint32_t protection = 0;  // ProtectionBits
  bool shared = false;      // MAP_SHARED
  FileOffset offset;        // of start in the file
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  uint64_t inode = 0;  // 0 = anonymous
  // As printed, still escaped: empty, "[heap]", "/usr/bin/x", "/gone (deleted)", …. Unescape with UnescapeMapsPath.
  std::string_view path;
};

// nullopt when the line is not one of maps.
std::optional<MapsEntry> ParseMapsLine(std::string_view line);
// Calls `visit` for each good line until it returns false; returns how many lines did not parse (the
// empty one at the end does not count).
size_t ForEachMap(std::string_view text, const std::function<bool(const MapsEntry&)>& visit);
// The kernel prints a newline in a path as \012, and nothing else escaped: the file "a\012b" with a
// real backslash cannot be told apart.
std::string UnescapeMapsPath(std::string_view path);

// What we use of /proc/PID/stat.
struct ProcStat {
  uint32_t pid = 0;
  std::string comm;            // may hold any byte but NUL
  char state = '?';            // R S D Z T …
  uint32_t parent_pid = 0;     // 0 = none
  uint32_t flags = 0;          // task flags
  uint64_t start_ticks = 0;    // start time in clock ticks since boot
  bool kernel_thread = false;  // PF_KTHREAD
};
StatusOr<ProcStat> ParseStat(std::string_view text);

// Clock ticks (sysconf(_SC_CLK_TCK) a second, always 100 on Linux as far as user space sees) to
// nanoseconds. The kernel rounds down: the true start lies in [result, result + NsPerTick()).
uint64_t NsPerTick();
inline uint64_t TicksToNs(uint64_t ticks) { return ticks * NsPerTick(); }

// What we use of /proc/PID/status.
struct ProcStatus {
  uint32_t tgid = 0;
  uint32_t parent_pid = 0;
  uint32_t real_uid = 0;
  uint32_t effective_uid = 0;
  // The process's ids from the reader's pid namespace to its own, outermost first. Empty on kernels
  // before 4.1.
  std::vector<uint32_t> namespace_tgids;
};
StatusOr<ProcStatus> ParseStatus(std::string_view text);

// One line of /proc/PID/cgroup.
struct CgroupLine {
  uint32_t hierarchy = 0;        // 0 = cgroup2
  std::string_view controllers;  // "cpu,cpuacct", "name=systemd"; empty for cgroup2
  std::string_view path;         // "/…"
};
std::vector<CgroupLine> ParseCgroupLines(std::string_view text);
// Path in the cgroup2 hierarchy; nullopt on a v1-only host.
std::optional<std::string> CgroupV2Path(std::string_view text);
// Path in the v1 hierarchy that has `controller`; nullopt without one.
std::optional<std::string> CgroupV1Path(std::string_view text, std::string_view controller);

}  // namespace pyrometer::process

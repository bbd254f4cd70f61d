#include "userspace/agent/cpu_time.h"

#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "userspace/agent/process_tree.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

uint64_t TicksToNs(uint64_t ticks) { return ticks * (kNsPerSecond / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK))); }

// Sum of the words at `indexes`.
std::optional<uint64_t> SumOf(const std::vector<std::string_view>& words, std::initializer_list<size_t> indexes) {
  uint64_t sum = 0;
  for (const size_t index : indexes) {
    const auto number = index < words.size() ? ParseUint64(words[index]) : std::nullopt;
    if (!number) return std::nullopt;
    sum += *number;
  }
  return sum;
}

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  for (const std::string_view word : Split(line, ' ')) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

}  // namespace

std::optional<uint64_t> ParseStatCpuTicks(std::string_view proc_stat) {
  const std::vector<std::string_view> words = Words(proc_stat.substr(0, proc_stat.find('\n')));
  if (words.empty() || words[0] != "cpu") return std::nullopt;
  // user, nice, system, irq, softirq; guests' time is within user and nice.
  return SumOf(words, {1, 2, 3, 6, 7});
}

std::optional<uint64_t> ParseProcessCpuTicks(std::string_view proc_pid_stat) {
  // The name, in parentheses, may hold anything; what follows does not hold ')'.
  const size_t name_end = proc_pid_stat.rfind(')');
  if (name_end == std::string_view::npos) return std::nullopt;
  const std::vector<std::string_view> words = Words(StripWhitespace(proc_pid_stat.substr(name_end + 1)));
  return SumOf(words, {11, 12, 13, 14});  // fields 14 to 17: utime, stime, cutime, cstime
}

StatusOr<uint64_t> MachineCpuTimeNs() {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/stat"));
  const std::optional<uint64_t> ticks = ParseStatCpuTicks(text);
  if (!ticks) return DataLossError("/proc/stat does not begin with the times of all CPUs");
  return TicksToNs(*ticks);
}

StatusOr<uint64_t> ProcessCpuTimeNs(pid_t pid) {
  const std::string path = StrFormat("/proc/%d/stat", pid);
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::optional<uint64_t> ticks = ParseProcessCpuTicks(text);
  if (!ticks) return DataLossError(StrFormat("%s is not what proc(5) describes", path));
  return TicksToNs(*ticks);
}

uint64_t ProcessTreeCpuTimeNs(pid_t root) {
  uint64_t sum_ns = 0;
  for (const pid_t pid : ProcessTree(root)) {
    // One that ended meanwhile is in its parent's account.
    if (const auto cpu_ns = ProcessCpuTimeNs(pid); cpu_ns.ok()) sum_ns += *cpu_ns;
  }
  return sum_ns;
}

uint64_t EndedChildrenCpuTimeNs() {
  rusage usage{};
  if (::getrusage(RUSAGE_CHILDREN, &usage) != 0) return 0;
  const auto ns = [](const timeval& time) {
    return static_cast<uint64_t>(time.tv_sec) * kNsPerSecond + static_cast<uint64_t>(time.tv_usec) * 1000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

uint64_t ExpectedSamples(uint64_t cpu_ns, uint32_t frequency_hz) {
  return static_cast<uint64_t>(static_cast<double>(cpu_ns) / static_cast<double>(kNsPerSecond) * frequency_hz + 0.5);
}

}  // namespace pyrometer::agent

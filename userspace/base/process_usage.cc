#include "userspace/base/process_usage.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer {

uint64_t ProcessCpuNs() {
  timespec now;
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t ResidentBytes() {
  const StatusOr<std::string> statm = ReadFile("/proc/self/statm", 4096);
  if (!statm.ok()) return 0;
  const auto fields = Split(*statm, ' ');
  const auto pages = fields.size() > 1 ? ParseUint64(fields[1]) : std::nullopt;
  return pages.value_or(0) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

void RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // raising it to the hard limit needs no rights
}

}  // namespace pyrometer

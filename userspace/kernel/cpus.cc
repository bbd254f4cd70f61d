#include "userspace/kernel/cpus.h"

#include <algorithm>
#include <optional>
#include <string>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::kernel {

StatusOr<std::vector<uint32_t>> ParseCpuList(std::string_view text) {
  std::vector<uint32_t> cpus;
  text = StripWhitespace(text);
  if (text.empty()) return cpus;
  for (const std::string_view part : Split(text, ',')) {
    const size_t dash = part.find('-');
    const std::optional<uint64_t> first = ParseUint64(part.substr(0, dash));
    const std::optional<uint64_t> last = dash == std::string_view::npos ? first : ParseUint64(part.substr(dash + 1));
    if (!first || !last || *first > *last || *last >= kMaxCpus) {
      return InvalidArgumentError(StrFormat("malformed CPU list \"%s\"", text));
    }
    for (uint64_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(static_cast<uint32_t>(cpu));
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

StatusOr<std::vector<uint32_t>> OnlineCpus() {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("/sys/devices/system/cpu/online"));
  return ParseCpuList(text);
}

}  // namespace pyrometer::kernel

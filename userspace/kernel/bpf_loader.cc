#include "userspace/kernel/bpf_loader.h"

#include <bpf/btf.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "userspace/base/strings.h"
#include "userspace/kernel/features.h"

namespace pyrometer::kernel {
namespace {

// A verifier log of a program at the complexity limit is megabytes; only its end is shown.
constexpr size_t kMaxLogBytes = 1u << 20;
constexpr size_t kTailLines = 8;

thread_local std::string* current_log = nullptr;

int CollectPrint(enum libbpf_print_level level, const char* format, va_list arguments) {
  if (current_log == nullptr || level == LIBBPF_DEBUG) return 0;
  va_list copy;
  va_copy(copy, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, copy);
  va_end(copy);
  if (length <= 0) return 0;
  std::string line(static_cast<size_t>(length) + 1, '\0');
  std::vsnprintf(line.data(), line.size(), format, arguments);
  line.pop_back();
  current_log->append(line);
  if (current_log->size() > kMaxLogBytes) current_log->erase(0, current_log->size() - kMaxLogBytes / 2);
  return 0;
}

}  // namespace

BpfLog::BpfLog() : outer_(current_log) {
  static std::once_flag once;
  std::call_once(once, [] { libbpf_set_print(CollectPrint); });
  current_log = &text_;
}

BpfLog::~BpfLog() { current_log = outer_; }

std::string BpfLog::Tail() const {
  std::vector<std::string> lines;
  for (const std::string_view raw : Split(text_, '\n')) {
    const std::string_view line = StripWhitespace(raw);
    if (line.empty() || line.starts_with("-- ")) continue;
    lines.emplace_back(line);
  }
  if (lines.size() > kTailLines) lines.erase(lines.begin(), lines.end() - kTailLines);
  return Join(lines, " | ");
}

Status BpfError(int error, std::string_view probe, std::string_view action, const BpfLog& log) {
  if (error == 0) error = EIO;
  if (error == EPERM || error == EACCES) {
    const std::vector<std::string> missing = MissingCapabilities();
    if (!missing.empty() || geteuid() != 0) {
      return PermissionDeniedError(
          StrFormat("cannot %s the probe %s: this process lacks %s; run as root, or give the binary the capabilities: "
                    "setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep PATH",
                    action, probe, missing.empty() ? "privileges" : Join(missing, ", ")));
    }
  }
  const std::string tail = log.Tail();
  return FailedPreconditionError(
      StrFormat("cannot %s the probe %s: %s; `pyrometer doctor` shows what this kernel supports%s%s", action, probe,
                Message(ErrnoError(error, "the kernel refused it")), tail.empty() ? "" : "; last messages: ", tail));
}

uint32_t RingBytes(uint32_t bytes) {
  const auto page = static_cast<uint32_t>(sysconf(_SC_PAGESIZE));
  return std::bit_ceil(std::clamp<uint32_t>(bytes, page, 1u << 30));
}

StatusOr<size_t> PossibleCpus() {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus < 0) return ErrnoError(-cpus, "cannot read the number of possible CPUs");
  return static_cast<size_t>(cpus);
}

std::vector<int> TracepointArguments(const std::vector<std::string>& names) {
  BpfLog quiet;
  std::vector<int> arguments(names.size(), 0);
  btf* kernel = btf__load_vmlinux_btf();
  if (kernel == nullptr) return arguments;
  for (size_t i = 0; i < names.size(); ++i) {
    const int id = btf__find_by_name_kind(kernel, ("btf_trace_" + names[i]).c_str(), BTF_KIND_TYPEDEF);
    if (id <= 0) continue;
    const btf_type* type = btf__type_by_id(kernel, btf__type_by_id(kernel, static_cast<uint32_t>(id))->type);
    if (btf_is_ptr(type)) type = btf__type_by_id(kernel, type->type);
    // The first one is the tracepoint's own.
    if (btf_is_func_proto(type)) arguments[i] = btf_vlen(type) - 1;
  }
  btf__free(kernel);
  return arguments;
}

StatusOr<UniqueBpfLink> AttachProgram(const bpf_program* program, std::string_view probe) {
  BpfLog log;
  bpf_link* link = bpf_program__attach(program);
  if (link == nullptr) {
    return BpfError(errno, probe, StrFormat("attach program %s of", bpf_program__name(program)), log);
  }
  return UniqueBpfLink(link);
}

}  // namespace pyrometer::kernel

#include "userspace/kernel/features.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/kernel/io_uring_latency.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

// Inode of the initial PID namespace (PROC_PID_INIT_INO of the kernel).
constexpr uint64_t kInitialPidNamespace = 0xEFFFFFFC;

constexpr char kRootRemedy[] =
    "run as root, or give the binary the capabilities: setcap cap_bpf,cap_perfmon,cap_sys_ptrace,"
    "cap_dac_read_search+ep PATH";

// `return 0;`
constexpr std::array<bpf_insn, 2> kReturnZero = {
    bpf_insn{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .src_reg = 0, .off = 0, .imm = 0},
    bpf_insn{.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};

std::string ErrnoName(int error) { return std::string(std::strerror(error)); }

// Loads `return 0;` as a program of this type; the error of the attempt in *error.
UniqueFd LoadTrivial(bpf_prog_type type, int expected_attach_type, int btf_id, int* error) {
  LIBBPF_OPTS(bpf_prog_load_opts, options);
  options.expected_attach_type = static_cast<bpf_attach_type>(expected_attach_type);
  options.attach_btf_id = static_cast<uint32_t>(btf_id);
  const int fd = bpf_prog_load(type, "pyro_probe", "GPL", kReturnZero.data(), kReturnZero.size(), &options);
  *error = fd < 0 ? -fd : 0;
  return UniqueFd(fd < 0 ? -1 : fd);
}

// Loads a tracing program for the kernel's own test tracepoint or function and attaches it for an instant.
bool CanTrace(const char* target, bpf_attach_type attach, int* error) {
  const int id = libbpf_find_vmlinux_btf_id(target, attach);
  if (id < 0) {
    *error = -id;
    return false;
  }
  const UniqueFd program = LoadTrivial(BPF_PROG_TYPE_TRACING, attach, id, error);
  if (!program) return false;
  const UniqueFd link(bpf_raw_tracepoint_open(nullptr, program.get()));
  if (!link) {
    *error = errno;
    return false;
  }
  return true;
}

bool OpensPerf(uint32_t type, uint64_t config, pid_t pid, int cpu, bool exclude_kernel, bool build_id, int* error) {
  perf_event_attr attr;
  std::memset(&attr, 0, sizeof(attr));
  attr.size = sizeof(attr);
  attr.type = type;
  attr.config = config;
  attr.disabled = 1;
  attr.exclude_kernel = exclude_kernel ? 1 : 0;
  attr.exclude_hv = exclude_kernel ? 1 : 0;
  if (build_id) {
    attr.mmap = 1;
    attr.mmap2 = 1;
    attr.build_id = 1;
  }
  const UniqueFd fd(static_cast<int>(syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
  *error = fd ? 0 : errno;
  return static_cast<bool>(fd);
}

std::optional<int64_t> ReadNumber(const std::string& path) {
  const StatusOr<std::string> text = ReadFile(path, 4096);
  if (!text.ok()) return std::nullopt;
  return ParseInt64(StripWhitespace(*text));
}

// Effective capabilities as a bit set.
uint64_t EffectiveCapabilities() {
  const StatusOr<std::string> status = ReadFile("/proc/self/status", 1 << 20);
  if (!status.ok()) return 0;
  for (const std::string_view line : Split(*status, '\n')) {
    if (line.starts_with("CapEff:")) return ParseUint64(StripWhitespace(line.substr(7)), 16).value_or(0);
  }
  return 0;
}

struct Capability {
  int bit;
  const char* name;
  const char* key;
  bool part_of_sys_admin;  // CAP_SYS_ADMIN includes it
  const char* effect;
};
constexpr Capability kCapabilities[] = {
    {CAP_BPF, "CAP_BPF", "cap_bpf", true,
     "no BPF probe can be loaded: only `record -- CMD` works, through plain perf events"},
    {CAP_PERFMON, "CAP_PERFMON", "cap_perfmon", true, "no system-wide sampling and no tracing programs"},
    {CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "cap_sys_ptrace", false,
     "mappings and binaries of other users' processes cannot be read: their frames stay addresses"},
    {CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", "cap_dac_read_search", false,
     "binaries that only their owner may read stay without symbols"},
};

bool Has(uint64_t capabilities, int bit) { return (capabilities >> bit & 1) != 0; }

Feature Make(std::string name, std::string title, bool ok, std::string detail, std::string effect, std::string remedy) {
  return {.name = std::move(name),
          .title = std::move(title),
          .state = ok ? FeatureState::kOk : FeatureState::kMissing,
          .detail = std::move(detail),
          .effect = ok ? "" : std::move(effect),
          .remedy = ok ? "" : std::move(remedy)};
}

// Why a BPF attempt failed, and what to do about it.
std::string BpfRemedy(int error, std::string otherwise) {
  return error == EPERM || error == EACCES ? kRootRemedy : std::move(otherwise);
}

std::string Detail(bool ok, int error) { return ok ? "works" : ErrnoName(error); }

// Mount point of the first file system of this type.
std::string MountPoint(std::string_view type) {
  const StatusOr<std::string> mounts = ReadFile("/proc/self/mountinfo");
  if (!mounts.ok()) return "";
  for (const std::string_view line : Split(*mounts, '\n')) {
    if (line.find(StrFormat(" - %s ", type)) == std::string_view::npos) continue;
    const std::vector<std::string_view> fields = Split(line, ' ');
    if (fields.size() > 4) return std::string(fields[4]);
  }
  return "";
}

void AddBpfFeatures(std::vector<Feature>& out) {
  int error = 0;
  const bool btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
  out.push_back(Make("btf", "BPF type information (BTF)", btf, btf ? "/sys/kernel/btf/vmlinux" : "absent",
                     "no probe can be loaded on this kernel", "use a kernel built with CONFIG_DEBUG_INFO_BTF=y"));

  UniqueFd program = LoadTrivial(BPF_PROG_TYPE_PERF_EVENT, 0, 0, &error);
  out.push_back(Make("bpf_perf_event", "BPF programs on perf events", static_cast<bool>(program),
                     Detail(static_cast<bool>(program), error),
                     "no CPU profiles, except of one's own processes through plain perf events",
                     BpfRemedy(error, "use a kernel with CONFIG_BPF_EVENTS=y")));

  bool ok = CanTrace("sched_process_exit", BPF_TRACE_RAW_TP, &error);
  out.push_back(
      Make("tp_btf", "BPF programs on BTF tracepoints", ok, Detail(ok, error),
           "no system call latency, no TCP latency, no process events",
           BpfRemedy(error, "use a kernel from 5.15 on with CONFIG_DEBUG_INFO_BTF=y and CONFIG_BPF_EVENTS=y")));

  const auto map = [&](const char* name, const char* title, bpf_map_type type, const char* effect) {
    const int result = libbpf_probe_bpf_map_type(type, nullptr);
    const int map_error = result < 0 ? -result : EOPNOTSUPP;
    // The probe answers 0 both for "unknown" and for "not permitted".
    const bool permitted = Has(EffectiveCapabilities(), CAP_BPF) || Has(EffectiveCapabilities(), CAP_SYS_ADMIN);
    out.push_back(Make(name, title, result == 1, result == 1 ? "works" : ErrnoName(permitted ? map_error : EPERM),
                       effect, permitted ? "use a kernel from 5.15 on" : kRootRemedy));
  };
  map("task_storage", "BPF task storage", BPF_MAP_TYPE_TASK_STORAGE, "no system call latency");
  map("sk_storage", "BPF socket storage", BPF_MAP_TYPE_SK_STORAGE, "no TCP latency");
  map("ring_buffer", "BPF ring buffer", BPF_MAP_TYPE_RINGBUF, "no probe can be loaded on this kernel");

  Feature task_work = Make("task_work", "BPF task work (deferred stack walks)", HasTaskWork(),
                           HasTaskWork() ? "works" : "absent", "", "");
  if (!HasTaskWork()) {
    task_work.state = FeatureState::kDegraded;
    task_work.effect = "the few stacks with a page that is not in memory stay incomplete";
    task_work.remedy = "use a kernel from 6.18 on";
  }
  out.push_back(std::move(task_work));

  const std::string cgroup2 = MountPoint("cgroup2");
  program = LoadTrivial(BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS, 0, &error);
  ok = false;
  if (program && !cgroup2.empty()) {
    const StatusOr<UniqueFd> root = OpenForReading(cgroup2);
    if (root.ok()) {
      const UniqueFd link(bpf_link_create(program.get(), root->get(), BPF_CGROUP_SOCK_OPS, nullptr));
      ok = static_cast<bool>(link);
      if (!ok) error = errno;
    }
  } else if (program) {
    error = ENOENT;
  }
  Feature sock_ops = Make("sock_ops", "BPF sock_ops on the cgroup2 root", ok, Detail(ok, error), "", "");
  if (!ok) sock_ops.effect = "none: TCP latency uses tracepoints and iterators";
  out.push_back(std::move(sock_ops));

  const int iterator = libbpf_find_vmlinux_btf_id("bpf_sk_storage_map", BPF_TRACE_ITER);
  ok = iterator >= 0 && LoadTrivial(BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER, iterator, &error);
  if (iterator < 0) error = -iterator;
  Feature sockets =
      Make("socket_iterator", "BPF iterator over sockets", ok,
           ok ? "works: where many packets come, sockets are polled and tcp_probe is not attached" : Detail(ok, error),
           "", "");
  if (!ok) {
    sockets.state = FeatureState::kDegraded;
    sockets.effect = "RTTs always come from tcp_probe, at some 190 ns for each TCP packet received";
    sockets.remedy = BpfRemedy(error, "use a kernel from 5.15 on with BTF");
  }
  out.push_back(std::move(sockets));

  ok = CanTrace("tcp_probe", BPF_TRACE_RAW_TP, &error);
  out.push_back(Make("tcp_probe", "Tracepoint tcp:tcp_probe", ok, Detail(ok, error),
                     "RTTs come from polls of the sockets, if at all",
                     BpfRemedy(error, "use a kernel from 5.15 on with BTF")));

  const Status io_uring = IoUringLatency::Supported();
  const int64_t disabled = ReadNumber("/proc/sys/kernel/io_uring_disabled").value_or(0);
  Feature rings = Make("io_uring", "Tracepoints of io_uring", true, "works", "", "");
  if (!io_uring.ok()) {
    rings.state = FeatureState::kDegraded;
    rings.detail = std::string(Message(io_uring));
    rings.effect = "io_uring's operations are not seen, only the calls that submit them";
    rings.remedy = "use a kernel from 6.0 on with CONFIG_IO_URING=y";
  } else if (disabled == 2) {
    rings.detail = "kernel.io_uring_disabled = 2: there is nothing to see";
  }
  out.push_back(std::move(rings));
}

void AddHookFeatures(std::vector<Feature>& out) {
  int error = 0;
  bool ok = OpensPerf(PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES, 0, -1, true, false, &error);
  Feature cycles = Make("hardware_cycles", "Hardware cycle counter (PMU)", ok, Detail(ok, error), "", "");
  if (!ok) {
    cycles.state = FeatureState::kDegraded;
    cycles.effect =
        "the software clock samples instead: code that runs with interrupts off shows where they are switched on again";
    cycles.remedy = error == EACCES || error == EPERM ? kRootRemedy : "on a virtual machine, ask for a virtual PMU";
  }
  out.push_back(std::move(cycles));

  ok = access("/sys/bus/event_source/devices/kprobe/type", R_OK) == 0;
  Feature kprobe =
      Make("kprobe", "Kernel probes (kprobe)", ok, ok ? "available" : "CONFIG_KPROBE_EVENTS is off", "", "");
  if (!ok) kprobe.effect = "none today: every built-in probe uses tracepoints";
  out.push_back(std::move(kprobe));

  ok = CanTrace("bpf_fentry_test1", BPF_TRACE_FENTRY, &error);
  Feature fentry = Make("fentry", "BPF on function entry (fentry)", ok, Detail(ok, error), "", "");
  if (!ok) fentry.effect = "none today: every built-in probe uses tracepoints";
  out.push_back(std::move(fentry));
}

void AddSettings(std::vector<Feature>& out) {
  int error = 0;
  const std::optional<int64_t> paranoid = ReadNumber("/proc/sys/kernel/perf_event_paranoid");
  Feature paranoia = Make("perf_event_paranoid", "kernel.perf_event_paranoid", paranoid.has_value(),
                          paranoid ? StrFormat("%d", *paranoid) : "not readable", "no perf events at all",
                          "use a kernel with CONFIG_PERF_EVENTS=y");
  if (paranoid && *paranoid > 2) {
    paranoia.state = FeatureState::kDegraded;
    paranoia.effect = "users without privileges cannot profile even their own programs";
    paranoia.remedy = "sysctl kernel.perf_event_paranoid=2";
  } else if (paranoid && *paranoid == 2) {
    paranoia.effect = "users without privileges see no kernel frames";
    paranoia.remedy = "sysctl kernel.perf_event_paranoid=1, if kernel frames are wanted without privileges";
  }
  out.push_back(std::move(paranoia));

  const std::optional<int64_t> restrict = ReadNumber("/proc/sys/kernel/kptr_restrict");
  const bool syslog = Has(EffectiveCapabilities(), CAP_SYSLOG);
  Feature kptr = Make("kptr_restrict", "kernel.kptr_restrict", true,
                      restrict ? StrFormat("%d", * restrict) : "not readable", "", "");
  // 0 shows addresses to whoever has CAP_SYSLOG (or where paranoid allows), 1 to CAP_SYSLOG, 2 to nobody.
  if (restrict && (*restrict >= 2 || !syslog)) {
    kptr.state = FeatureState::kDegraded;
    kptr.effect = "kernel frames may stay addresses: /proc/kallsyms shows none";
    kptr.remedy = * restrict >= 2 ? "sysctl kernel.kptr_restrict=1" : "run as root, or add cap_syslog";
  }
  out.push_back(std::move(kptr));

  rlimit limit{};
  const bool known = getrlimit(RLIMIT_MEMLOCK, &limit) == 0;
  out.push_back(Make("memlock_limit", "Limit of locked memory", known,
                     !known                            ? "not readable"
                     : limit.rlim_cur == RLIM_INFINITY ? "unlimited"
                                                       : FormatBytes(limit.rlim_cur),
                     "", ""));

  const uint64_t capabilities = EffectiveCapabilities();
  const bool admin = Has(capabilities, CAP_SYS_ADMIN);
  for (const Capability& capability : kCapabilities) {
    const bool direct = Has(capabilities, capability.bit);
    const bool ok = direct || (capability.part_of_sys_admin && admin);
    out.push_back(Make(capability.key, capability.name, ok,
                       direct ? "held"
                       : ok   ? "included in CAP_SYS_ADMIN"
                              : "not held",
                       capability.effect, kRootRemedy));
  }
  Feature sys_admin = Make("cap_sys_admin", "CAP_SYS_ADMIN", admin, admin ? "held" : "not held", "", "");
  if (!admin) {
    sys_admin.state = FeatureState::kDegraded;
    sys_admin.effect = "not needed on kernels from 5.8 on; network namespaces of containers cannot be entered";
  }
  out.push_back(std::move(sys_admin));

  const std::string cgroup2 = MountPoint("cgroup2");
  const pyro_v1_controller v1 = MountedV1Controller();
  Feature two =
      Make("cgroup2", "cgroup2 hierarchy", !cgroup2.empty(), cgroup2.empty() ? "not mounted" : cgroup2, "", "");
  if (cgroup2.empty()) {
    two.state = v1 != PYRO_V1_NONE ? FeatureState::kDegraded : FeatureState::kMissing;
    two.effect = v1 != PYRO_V1_NONE
                     ? "containers are told apart by cgroup1; TCP connections older than the probe have no owner"
                     : "containers cannot be told apart";
    two.remedy = "mount -t cgroup2 none /sys/fs/cgroup/unified";
  }
  out.push_back(std::move(two));
  Feature one = Make("cgroup1", "cgroup1 controller for container ids", true,
                     v1 == PYRO_V1_NONE ? "none mounted, none needed" : std::string(V1ControllerName(v1)), "", "");
  out.push_back(std::move(one));

  const std::optional<int64_t> stats = ReadNumber("/proc/sys/kernel/bpf_stats_enabled");
  Feature bpf_stats =
      Make("bpf_stats", "kernel.bpf_stats_enabled", true, stats ? StrFormat("%d", *stats) : "absent", "", "");
  if (stats.value_or(0) != 0) {
    bpf_stats.state = FeatureState::kDegraded;
    bpf_stats.effect = "each run of each probe costs about 90 ns more";
    bpf_stats.remedy = "sysctl kernel.bpf_stats_enabled=0";
  }
  out.push_back(std::move(bpf_stats));

  const bool user = OpensPerf(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, 0, -1, true, false, &error);
  // With privileges the attempt says nothing about users without; the setting does.
  const bool unprivileged = user && paranoid.value_or(3) <= 2;
  out.push_back(Make("unprivileged_perf", "Profiling one's own programs without privileges", unprivileged,
                     unprivileged ? "allowed"
                     : user       ? "forbidden by kernel.perf_event_paranoid"
                                  : ErrnoName(error),
                     "`record -- CMD` needs root", "sysctl kernel.perf_event_paranoid=2"));

  const bool build_id = OpensPerf(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, 0, -1, true, true, &error);
  Feature side_band =
      Make("side_band_build_id", "Build IDs in mapping records", build_id, Detail(build_id, error), "", "");
  if (!build_id) {
    side_band.state = FeatureState::kDegraded;
    side_band.effect = "build IDs are read from the files instead; a file replaced at once may be missed";
  }
  out.push_back(std::move(side_band));

  struct stat ns {};
  const bool readable = stat("/proc/self/ns/pid", &ns) == 0;
  const bool initial = readable && ns.st_ino == kInitialPidNamespace;
  Feature pids = Make("pid_namespace", "Initial PID namespace", initial,
                      initial    ? "yes"
                      : readable ? "no"
                                 : "not readable",
                      "process ids of samples do not match those in /proc: nothing can be symbolized",
                      "start it with the host's PID namespace (docker: --pid=host; Kubernetes: hostPID: true)");
  out.push_back(std::move(pids));

  const StatusOr<std::string> lockdown = ReadFile("/sys/kernel/security/lockdown", 256);
  const bool confidential = lockdown.ok() && lockdown->find("[confidentiality]") != std::string::npos;
  out.push_back(Make("lockdown", "Kernel lockdown", !confidential,
                     lockdown.ok() ? std::string(StripWhitespace(*lockdown)) : "off",
                     "BPF programs may not read memory: no stacks, no process names",
                     "boot with lockdown=integrity or without lockdown"));
}

}  // namespace

bool HasTaskWork() {
  BpfLog quiet;
  return libbpf_find_vmlinux_btf_id("bpf_task_work_schedule_resume_impl", BPF_TRACE_FENTRY) > 0;
}

std::string_view FeatureStateName(FeatureState state) {
  switch (state) {
    case FeatureState::kOk:
      return "ok";
    case FeatureState::kDegraded:
      return "degraded";
    case FeatureState::kMissing:
      return "missing";
  }
  return "missing";
}

std::vector<Feature> ProbeFeatures() {
  BpfLog quiet;  // libbpf's own messages are of no use here
  std::vector<Feature> out;
  AddBpfFeatures(out);
  AddHookFeatures(out);
  AddSettings(out);
  return out;
}

const Feature* FindFeature(const std::vector<Feature>& features, std::string_view name) {
  for (const Feature& feature : features) {
    if (feature.name == name) return &feature;
  }
  return nullptr;
}

std::vector<std::string> MissingCapabilities() {
  const uint64_t capabilities = EffectiveCapabilities();
  const bool admin = Has(capabilities, CAP_SYS_ADMIN);
  std::vector<std::string> missing;
  for (const Capability& capability : kCapabilities) {
    if (Has(capabilities, capability.bit) || (capability.part_of_sys_admin && admin)) continue;
    missing.emplace_back(capability.name);
  }
  return missing;
}

}  // namespace pyrometer::kernel

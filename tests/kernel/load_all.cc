// Loads every program of BPF objects, each by itself and in each variant its constants allow, and prints what the
// verifier needed for it:
//
//   load_all [--limit N] OBJECT.bpf.o…
//
//   cpu_sampler pyro_cpu_sample: 9030 instructions, 160 states at peak, stack 96+24 bytes, … (dearest of 12: …)
//
// Ends with 1 when a program does not load (its verifier log follows, the last lines) or when the verifier looked at
// more than --limit instructions (default 250,000, a quarter of what the kernel allows: room for older verifiers,
// which prune less); with 77 when this kernel or user cannot load anything. It opens objects and not skeletons, so a
// probe that is new needs no line here. Nothing is attached.
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bpf/abi/types.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"

namespace {

using pyrometer::Split;
using pyrometer::StrFormat;

constexpr int kExitSkipped = 77;
constexpr uint64_t kDefaultInstructionLimit = 250'000;
constexpr uint32_t kLogLevelStats = 4;                // BPF_LOG_STATS of the kernel's bpf_verifier.h
constexpr size_t kStatsBytes = 1u << 16;              // six lines
constexpr size_t kFailureLogBytes = 16u * (1 << 20);  // the kernel's own maximum in older versions
constexpr size_t kFailureLines = 80;

// Constants whose value decides which code the verifier sees at all. An object without the constant has one variant
// less.
struct Setting {
  const char* name;
  std::vector<uint32_t> values;
};
const Setting kSettings[] = {
    {"pyro_filter", {0, 1, 2}},        {"pyro_v1_controller", {PYRO_V1_NONE, PYRO_V1_MEMORY}},
    {"pyro_kernel_stacks", {0, 1}},    {"pyro_split", {0, 1}},
    {"pyro_switch_has_state", {0, 1}}, {"pyro_sampling", {0, 1}},
    {"pyro_hot_shift", {0, 56}},
};

struct ObjectDeleter {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
using UniqueObject = std::unique_ptr<bpf_object, ObjectDeleter>;

std::string libbpf_messages;

int Collect(libbpf_print_level level, const char* format, va_list arguments) {
  if (level == LIBBPF_DEBUG) return 0;
  char line[1024];
  const int length = std::vsnprintf(line, sizeof(line), format, arguments);
  // Libbpf repeats the verifier's log between two such lines; it is printed from its own buffer.
  if (length > 0 && libbpf_messages.size() < kStatsBytes) libbpf_messages += line;
  return 0;
}

struct ObjectConstant {
  bpf_map* rodata = nullptr;
  uint32_t offset = 0;  // of its four bytes in the initial value of `rodata`
};

std::optional<ObjectConstant> FindConstant(bpf_object* object, std::string_view name) {
  const btf* types = bpf_object__btf(object);
  const int section_id = types ? btf__find_by_name_kind(types, ".rodata", BTF_KIND_DATASEC) : -1;
  if (section_id < 0) return std::nullopt;
  ObjectConstant found;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (std::string_view(bpf_map__name(map)).ends_with(".rodata")) found.rodata = map;
  }
  const btf_type* section = btf__type_by_id(types, static_cast<uint32_t>(section_id));
  const btf_var_secinfo* variable = btf_var_secinfos(section);
  for (int i = 0; found.rodata && i < btf_vlen(section); ++i, ++variable) {
    const btf_type* type = btf__type_by_id(types, variable->type);
    if (btf__name_by_offset(types, type->name_off) != name || variable->size != sizeof(uint32_t)) continue;
    found.offset = variable->offset;
    return found;
  }
  return std::nullopt;
}

// False when libbpf does not accept it.
bool SetConstant(bpf_object* object, std::string_view name, uint32_t value) {
  const std::optional<ObjectConstant> place = FindConstant(object, name);
  size_t bytes = 0;
  const auto* initial = place ? static_cast<const char*>(bpf_map__initial_value(place->rodata, &bytes)) : nullptr;
  if (initial == nullptr || place->offset + sizeof(value) > bytes) return false;
  std::vector<char> values(initial, initial + bytes);
  std::memcpy(values.data() + place->offset, &value, sizeof(value));
  return bpf_map__set_initial_value(place->rodata, values.data(), bytes) == 0;
}

struct Choice {
  const char* name;
  uint32_t value;
};
using Variant = std::vector<Choice>;

// Every combination of the settings that `object` has.
std::vector<Variant> Variants(bpf_object* object, std::vector<bool>& seen) {
  std::vector<Variant> variants = {{}};
  for (size_t s = 0; s < std::size(kSettings); ++s) {
    if (!FindConstant(object, kSettings[s].name)) continue;
    seen[s] = true;
    std::vector<Variant> longer;
    for (const Variant& variant : variants) {
      for (const uint32_t value : kSettings[s].values) {
        longer.push_back(variant);
        longer.back().push_back({kSettings[s].name, value});
      }
    }
    variants = std::move(longer);
  }
  return variants;
}

struct Cost {
  uint64_t instructions = 0, peak_states = 0, micros = 0;
  std::string stack;
};

// The numbers after `key` in the verifier's statistics.
std::optional<uint64_t> NumberAfter(std::string_view log, std::string_view key) {
  const size_t at = log.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  return std::strtoull(std::string(log.substr(at + key.size(), 20)).c_str(), nullptr, 10);
}

UniqueObject Open(const std::string& path, const std::string& only, const Variant& variant) {
  UniqueObject object(bpf_object__open_file(path.c_str(), nullptr));
  if (!object) return nullptr;
  for (const Choice& choice : variant) {
    if (!SetConstant(object.get(), choice.name, choice.value)) return nullptr;
  }
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object.get()) {
    bpf_program__set_autoload(program, only == bpf_program__name(program));
  }
  return object;
}

// Loads one program with the verifier's `level`; its log into `log`. 0 or a positive errno.
int Load(const std::string& path, const std::string& name, const Variant& variant, uint32_t level, std::string& log) {
  const UniqueObject object = Open(path, name, variant);
  if (!object) return errno;
  bpf_program* program = bpf_object__find_program_by_name(object.get(), name.c_str());
  bpf_program__set_log_level(program, level);
  if (bpf_program__set_log_buf(program, log.data(), log.size()) != 0) return EINVAL;
  libbpf_messages.clear();
  const int error = bpf_object__load(object.get());
  log.resize(std::strlen(log.c_str()));
  return -error;
}

void PrintFailure(const std::string& path, const std::string& name, const Variant& variant) {
  std::string log(kFailureLogBytes, '\0');
  const int error = Load(path, name, variant, 1 | kLogLevelStats, log);
  std::printf("  the kernel refused it: %s\n", std::strerror(error));
  std::vector<std::string_view> lines = Split(log.empty() ? libbpf_messages : log, '\n');
  if (lines.size() > kFailureLines) lines.erase(lines.begin(), lines.end() - kFailureLines);
  for (const std::string_view line : lines) std::printf("  | %.*s\n", static_cast<int>(line.size()), line.data());
}

std::string Describe(const Variant& variant) {
  std::string text;
  for (const Choice& choice : variant) text += StrFormat(" %s=%d", choice.name, static_cast<int>(choice.value));
  return text;
}

// What `variant` of a program costs; nullopt, and a report, when it does not load.
std::optional<Cost> Measure(const std::string& path, const std::string& name, const Variant& variant) {
  std::string log(kStatsBytes, '\0');
  if (Load(path, name, variant, kLogLevelStats, log) != 0) {
    std::printf("%s%s: DOES NOT LOAD\n", name.c_str(), Describe(variant).c_str());
    PrintFailure(path, name, variant);
    return std::nullopt;
  }
  const std::optional<uint64_t> instructions = NumberAfter(log, "processed ");
  const size_t stack = log.find("stack depth ");
  if (!instructions || stack == std::string::npos) {
    std::printf("%s: loaded, but the verifier's statistics could not be read: %s\n", name.c_str(), log.c_str());
    return std::nullopt;
  }
  return Cost{.instructions = *instructions,
              .peak_states = NumberAfter(log, "peak_states ").value_or(0),
              .micros = NumberAfter(log, "verification time ").value_or(0),
              .stack = log.substr(stack + 12, log.find('\n', stack) - stack - 12)};
}

// What a program needs of the kernel; without it, its loader does not load it either (userspace/kernel/cpu_sampler.cc,
// io_uring_latency.cc).
struct Need {
  std::string_view program;
  const char* function;    // or:
  const char* tracepoint;  // with so many arguments
  int least, most;
};
const Need kNeeds[] = {
    {"pyro_cpu_sample_deferring", "bpf_task_work_schedule_resume_impl", nullptr, 0, 0},
    {"pyro_submit_req", nullptr, "io_uring_submit_req", 1, 1},
    {"pyro_submit_sqe", nullptr, "io_uring_submit_sqe", 2, 2},
    {"pyro_complete", nullptr, "io_uring_complete", 3, 3},
    {"pyro_complete_values", nullptr, "io_uring_complete", 5, 7},
    {"pyro_refused", nullptr, "io_uring_req_failed", 3, 3},
    {"pyro_overflow", nullptr, "io_uring_cqe_overflow", 5, 5},
};

// What this kernel lacks of it; "" if nothing.
std::string Lacks(std::string_view program) {
  for (const Need& need : kNeeds) {
    if (need.program != program) continue;
    if (need.function != nullptr) {
      return libbpf_find_vmlinux_btf_id(need.function, BPF_TRACE_FENTRY) > 0 ? "" : need.function;
    }
    const int arguments = pyrometer::kernel::TracepointArguments({need.tracepoint}).front();
    if (arguments < need.least || arguments > need.most) {
      return StrFormat("%s of %d arguments", need.tracepoint, need.least);
    }
  }
  return "";
}

// Prints the dearest variant of a program. False when one does not load or costs more than `limit`.
bool Check(const std::string& path, const std::string& name, const std::vector<Variant>& variants, uint64_t limit) {
  std::optional<Cost> dearest;
  std::string which;
  bool good = true;
  for (const Variant& variant : variants) {
    std::optional<Cost> cost = Measure(path, name, variant);
    good = good && cost && cost->instructions <= limit;
    if (!cost || (dearest && cost->instructions <= dearest->instructions)) continue;
    dearest = std::move(cost);
    which = Describe(variant);
  }
  if (!dearest) return false;
  std::printf(
      "%s %s: %llu instructions, %llu states at peak, stack %s bytes, verified in %.1f ms (dearest of %zu:%s)%s\n",
      std::filesystem::path(path).stem().stem().c_str(), name.c_str(),
      static_cast<unsigned long long>(dearest->instructions), static_cast<unsigned long long>(dearest->peak_states),
      dearest->stack.c_str(), static_cast<double>(dearest->micros) / 1000, variants.size(), which.c_str(),
      dearest->instructions > limit ? " MORE THAN THE LIMIT" : "");
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t limit = kDefaultInstructionLimit;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--limit" && i + 1 < argc) {
      limit = std::strtoull(argv[++i], nullptr, 10);
    } else {
      paths.emplace_back(argv[i]);
    }
  }
  if (paths.empty() || limit == 0) {
    std::fprintf(stderr, "usage: load_all [--limit INSTRUCTIONS] OBJECT.bpf.o…\n");
    return 2;
  }
  if (geteuid() != 0) {
    std::printf("SKIP: needs root\n");
    return kExitSkipped;
  }
  if (access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
    std::printf("SKIP: btf: this kernel does not publish its types\n");
    return kExitSkipped;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  libbpf_set_print(Collect);
  utsname kernel{};
  uname(&kernel);
  std::printf("Linux %s, at most %llu instructions a program\n", kernel.release,
              static_cast<unsigned long long>(limit));

  size_t programs = 0, bad = 0;
  std::vector<bool> seen(std::size(kSettings), false);
  for (const std::string& path : paths) {
    const UniqueObject object(bpf_object__open_file(path.c_str(), nullptr));
    if (!object) {
      std::printf("%s: cannot be opened: %s\n", path.c_str(), std::strerror(errno));
      return 1;
    }
    const std::vector<Variant> variants = Variants(object.get(), seen);
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, object.get()) {
      if (const std::string lacks = Lacks(bpf_program__name(program)); !lacks.empty()) {
        std::printf("%s %s: left out, this kernel has no %s\n", std::filesystem::path(path).stem().stem().c_str(),
                    bpf_program__name(program), lacks.c_str());
        continue;
      }
      ++programs;
      if (!Check(path, bpf_program__name(program), variants, limit)) ++bad;
    }
  }
  for (size_t s = 0; s < seen.size(); ++s) {
    // A renamed constant would silently leave code unseen.
    if (seen[s] || paths.size() == 1) continue;
    std::printf("no object has the constant %s: mend kSettings in load_all.cc\n", kSettings[s].name);
    ++bad;
  }
  std::printf("%zu programs, %zu bad\n", programs, bad);
  return bad == 0 && programs > 0 ? 0 : 1;
}

#include "tests/support/step_oracle.h"

#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "tests/support/x86_step.h"
#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::testing {
namespace {

constexpr uint64_t kStackReach = 256 << 10;  // how far below what was seen of a stack its pointer may jump
constexpr uint64_t kContextRoom = 4096;      // how far above its first use a new stack may be used
constexpr size_t kCodeBytes = 16;            // an instruction has 15 at most
constexpr size_t kEpilogueInstructions = 12;
constexpr uint32_t kPrologueInstructions = 16;
// mov $15,%rax; syscall: what a signal handler returns to.
constexpr uint8_t kSignalReturn[] = {0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05};

struct Call {
  uint64_t return_address = 0;
  uint64_t slot = 0;  // where it lies
};

// The calls of one stack. A signal handler's has what was interrupted below it.
struct CallStack {
  std::vector<Call> calls;
  uint64_t low = 0, high = 0;  // what was seen of it; a live entry's slot is not below the stack pointer
  bool fresh = false;          // switched to, and nothing entered on it yet
  bool handler = false;
  uint64_t interrupted_ip = 0, interrupted_sp = 0;
  CallStack* interrupted = nullptr;

  bool Holds(uint64_t sp) const { return sp + kStackReach >= low && sp <= high; }
};

struct Region {
  uint64_t start = 0, end = 0, offset = 0;
  std::string path;
};

StepRegisters ToDwarf(const user_regs_struct& r) {
  return {r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8,
          r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rip};
}

// Offsets in the file of the sections that hold PLT stubs.
std::vector<std::pair<uint64_t, uint64_t>> PltRanges(const std::string& path) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || elf_version(EV_CURRENT) == EV_NONE) return ranges;
  Elf* elf = elf_begin(fd.get(), ELF_C_READ, nullptr);
  size_t names = 0;
  if (elf != nullptr && elf_getshdrstrndx(elf, &names) == 0) {
    Elf_Scn* section = nullptr;
    while ((section = elf_nextscn(elf, section)) != nullptr) {
      GElf_Shdr header;
      if (gelf_getshdr(section, &header) == nullptr) continue;
      const char* name = elf_strptr(elf, names, header.sh_name);
      if (name != nullptr && std::string_view(name).starts_with(".plt")) {
        ranges.emplace_back(header.sh_offset, header.sh_offset + header.sh_size);
      }
    }
  }
  elf_end(elf);
  return ranges;
}

class Stepper : public StepPoint {
 public:
  Stepper(const StepOptions& options, const StepVisitor& visit) : options_(options), visit_(visit) {}
  ~Stepper() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (pinned_) sched_setaffinity(0, sizeof(affinity_), &affinity_);
  }
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  Status Start();
  StatusOr<StepSummary> Run();

  pid_t pid() const override { return pid_; }
  const StepRegisters& registers() const override { return registers_; }
  std::span<const TrueFrame> frames() const override { return frames_; }
  PointKind kind() const override { return kind_; }
  bool crosses_signal() const override { return crosses_signal_; }
  bool Read(uint64_t address, void* to, size_t bytes) const override {
    const iovec local{to, bytes}, remote{reinterpret_cast<void*>(address), bytes};
    return process_vm_readv(pid_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes);
  }
  std::string Describe() const override;

 private:
  Status RunToEntry();
  Status ReadRegisters();
  // The code at the instruction pointer; fewer bytes at the end of a mapping.
  size_t ReadCode(uint64_t address, uint8_t (&code)[kCodeBytes]) const;
  // One instruction, with `signal` delivered before it. False when the program has ended.
  StatusOr<bool> Step(int& signal);
  void Follow(const Instruction& executed, const StepRegisters& before, bool delivered);
  bool EnterHandler(const StepRegisters& before);
  void SwitchStack(uint64_t sp, const Instruction& executed);
  void Reset();
  bool BuildFrames();  // false: uncertain
  PointKind Classify();
  const Region* RegionOf(uint64_t address);

  const StepOptions& options_;
  const StepVisitor& visit_;
  pid_t pid_ = -1;
  cpu_set_t affinity_{};
  bool pinned_ = false;
  StepRegisters registers_{};
  uint8_t code_[kCodeBytes] = {};
  Instruction next_;

  std::vector<std::unique_ptr<CallStack>> stacks_;
  CallStack* current_ = nullptr;
  bool uncertain_ = false;
  bool in_prologue_ = true;
  uint32_t since_entry_ = 0;

  std::vector<TrueFrame> frames_;
  std::vector<Call> live_;
  bool crosses_signal_ = false;
  PointKind kind_ = PointKind::kBody;
  std::unordered_map<uint64_t, uint32_t> visits_;
  std::unordered_set<uint64_t> uncertain_addresses_;
  std::vector<Region> regions_;
  std::map<std::string, std::vector<std::pair<uint64_t, uint64_t>>> plts_;
  bool regions_stale_ = true;
  StepSummary summary_;
};

Status Stepper::Start() {
  if (options_.arguments.empty()) return InvalidArgumentError("the step oracle needs a program");
  // Tracer and tracee on one CPU: a stop is then a switch and no wake-up of another CPU (three times as fast).
  if (sched_getaffinity(0, sizeof(affinity_), &affinity_) == 0) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(sched_getcpu()), &one);
    pinned_ = sched_setaffinity(0, sizeof(one), &one) == 0;
  }
  std::vector<std::string> arguments = options_.arguments, environment = options_.environment;
  std::vector<char*> argv, envp;
  for (std::string& a : arguments) argv.push_back(a.data());
  for (std::string& e : environment) envp.push_back(e.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  pid_ = fork();
  if (pid_ < 0) return ErrnoError(errno, "cannot fork for the step oracle");
  if (pid_ == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  int status = 0;
  if (waitpid(pid_, &status, 0) != pid_ || !WIFSTOPPED(status)) {
    pid_ = -1;
    return FailedPreconditionError(StrFormat("%s cannot be started under ptrace", options_.arguments[0]));
  }
  ptrace(PTRACE_SETOPTIONS, pid_, nullptr, PTRACE_O_EXITKILL);
  if (options_.from_entry) RETURN_IF_ERROR(RunToEntry());
  RETURN_IF_ERROR(ReadRegisters());
  Reset();
  return OkStatus();
}

// By a breakpoint at the address that the kernel told ld.so.
Status Stepper::RunToEntry() {
  const StatusOr<std::string> auxv = ReadFile(StrFormat("/proc/%d/auxv", static_cast<int>(pid_)));
  if (!auxv.ok()) return auxv.status();
  uint64_t entry = 0;
  for (size_t at = 0; at + 16 <= auxv->size(); at += 16) {
    uint64_t pair[2];
    std::memcpy(pair, auxv->data() + at, sizeof(pair));
    if (pair[0] == AT_ENTRY) entry = pair[1];
  }
  RETURN_IF_ERROR(ReadRegisters());
  if (registers_[kDwarfRip] == entry) return OkStatus();  // static
  errno = 0;
  const long word = ptrace(PTRACE_PEEKTEXT, pid_, entry, nullptr);
  if (errno != 0) return ErrnoError(errno, "cannot read the entry point");
  constexpr long kBreakpoint = 0xcc;
  int status = 0;
  user_regs_struct raw{};
  if (ptrace(PTRACE_POKETEXT, pid_, entry, (word & ~0xffl) | kBreakpoint) != 0 ||
      ptrace(PTRACE_CONT, pid_, nullptr, nullptr) != 0 || waitpid(pid_, &status, 0) != pid_) {
    return ErrnoError(errno, "cannot run to the entry point");
  }
  if (!WIFSTOPPED(status)) {
    pid_ = -1;
    return FailedPreconditionError(StrFormat("%s ended before its entry point", options_.arguments[0]));
  }
  if (ptrace(PTRACE_GETREGS, pid_, nullptr, &raw) != 0 || raw.rip != entry + 1) {
    return FailedPreconditionError(StrFormat("%s was stopped before its entry point", options_.arguments[0]));
  }
  raw.rip = entry;
  if (ptrace(PTRACE_POKETEXT, pid_, entry, word) != 0 || ptrace(PTRACE_SETREGS, pid_, nullptr, &raw) != 0) {
    return ErrnoError(errno, "cannot take the breakpoint away");
  }
  return OkStatus();
}

Status Stepper::ReadRegisters() {
  user_regs_struct raw{};
  if (ptrace(PTRACE_GETREGS, pid_, nullptr, &raw) != 0) return ErrnoError(errno, "cannot read the registers");
  registers_ = ToDwarf(raw);
  return OkStatus();
}

size_t Stepper::ReadCode(uint64_t address, uint8_t (&code)[kCodeBytes]) const {
  if (Read(address, code, kCodeBytes)) return kCodeBytes;
  const size_t to_page = 4096 - (address & 4095);
  return to_page < kCodeBytes && Read(address, code, to_page) ? to_page : 0;
}

// A new program: one stack, nothing called.
void Stepper::Reset() {
  stacks_.clear();
  stacks_.push_back(std::make_unique<CallStack>());
  current_ = stacks_.back().get();
  current_->low = registers_[kDwarfRsp];
  current_->high = current_->low + kContextRoom;  // _start pops the number of arguments
  uncertain_ = false;
  in_prologue_ = false;
  regions_stale_ = true;
}

StatusOr<bool> Stepper::Step(int& signal) {
  if (ptrace(PTRACE_SINGLESTEP, pid_, nullptr, static_cast<long>(signal)) != 0) {
    return ErrnoError(errno, "cannot step");
  }
  int status = 0;
  if (waitpid(pid_, &status, 0) != pid_) return ErrnoError(errno, "lost the program under the step oracle");
  if (WIFEXITED(status) || WIFSIGNALED(status)) {
    pid_ = -1;
    return false;
  }
  signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
  return true;
}

// The kernel has put a frame for a handler on the stack, if the code at the address on top is the one that handlers
// return to. Layout: that address, then the ucontext with the interrupted registers.
bool Stepper::EnterHandler(const StepRegisters& before) {
  const uint64_t sp = registers_[kDwarfRsp];
  uint64_t restorer = 0;
  uint8_t code[sizeof(kSignalReturn)];
  ucontext_t context;
  if (sp == before[kDwarfRsp] || !Read(sp, &restorer, sizeof(restorer)) || !Read(restorer, code, sizeof(code)) ||
      std::memcmp(code, kSignalReturn, sizeof(code)) != 0 ||
      !Read(sp + 8, &context, offsetof(ucontext_t, uc_mcontext) + sizeof(context.uc_mcontext.gregs))) {
    return false;
  }
  auto stack = std::make_unique<CallStack>();
  stack->handler = true;
  stack->low = sp;
  stack->high = sp + 8;
  stack->interrupted = current_;
  stack->interrupted_ip = static_cast<uint64_t>(context.uc_mcontext.gregs[REG_RIP]);
  stack->interrupted_sp = static_cast<uint64_t>(context.uc_mcontext.gregs[REG_RSP]);
  stack->calls.push_back({restorer, sp});
  current_ = stack.get();
  stacks_.push_back(std::move(stack));
  in_prologue_ = true;
  since_entry_ = 0;
  ++summary_.signals;
  return true;
}

// The stack pointer has left the current stack.
void Stepper::SwitchStack(uint64_t sp, const Instruction& executed) {
  // Out of handlers, by longjmp: they are over.
  for (CallStack* s = current_; s->handler; s = s->interrupted) {
    if (s->interrupted->Holds(sp)) {
      current_ = s->interrupted;
      uncertain_ = executed.transfer == Transfer::kNone;
      return;
    }
  }
  for (const auto& stack : stacks_) {
    if (!stack->handler && stack.get() != current_ && stack->Holds(sp)) {
      current_ = stack.get();
      uncertain_ = executed.transfer == Transfer::kNone;
      return;
    }
  }
  auto stack = std::make_unique<CallStack>();
  stack->low = sp;
  stack->high = sp + kContextRoom;
  stack->fresh = true;
  current_ = stack.get();
  stacks_.push_back(std::move(stack));
  ++summary_.stacks;
  uncertain_ = true;
}

void Stepper::Follow(const Instruction& executed, const StepRegisters& before, bool delivered) {
  const uint64_t sp = registers_[kDwarfRsp];
  if (delivered && EnterHandler(before)) return;
  if (executed.transfer == Transfer::kSystemCall) {
    regions_stale_ = true;
    if (before[0] == SYS_execve && registers_[0] == 0) return Reset();
    if (before[0] == SYS_rt_sigreturn) {
      // Handlers that were left otherwise may lie above on the list.
      for (CallStack* s = current_; s->handler; s = s->interrupted) {
        if (s->interrupted_sp != sp) continue;
        CallStack* resumed = s->interrupted;
        std::erase_if(stacks_, [&](const auto& owned) { return owned.get() == s; });
        current_ = resumed;
        uncertain_ = false;
        return;
      }
    }
  }
  if (!current_->Holds(sp)) SwitchStack(sp, executed);
  current_->low = std::min(current_->low, sp);

  ++since_entry_;
  in_prologue_ = in_prologue_ && executed.setup && since_entry_ < kPrologueInstructions;
  if (executed.transfer == Transfer::kCall && sp == before[kDwarfRsp] - 8) {
    uint64_t return_address = 0;
    if (!Read(sp, &return_address, sizeof(return_address))) uncertain_ = true;
    current_->calls.push_back({return_address, sp});
    in_prologue_ = true;
    since_entry_ = 0;
    return;
  }
  // Whatever lies below the stack pointer is over.
  bool dropped = false;
  while (!current_->calls.empty() && current_->calls.back().slot < sp) {
    current_->calls.pop_back();
    dropped = true;
  }
  const bool transferred = executed.transfer == Transfer::kReturn || executed.transfer == Transfer::kJump;
  if (dropped && !transferred) uncertain_ = true;
  if (transferred) {
    if (current_->fresh) {
      // First function of a stack: its return address is on top.
      uint64_t return_address = 0;
      if (Read(sp, &return_address, sizeof(return_address))) current_->calls.push_back({return_address, sp});
      current_->fresh = false;
      in_prologue_ = true;
      since_entry_ = 0;
    }
    uncertain_ = false;
  }
}

bool Stepper::BuildFrames() {
  frames_.clear();
  live_.clear();
  crosses_signal_ = false;
  frames_.push_back({registers_[kDwarfRip], registers_[kDwarfRsp], false});
  for (const CallStack* stack = current_; stack != nullptr; stack = stack->handler ? stack->interrupted : nullptr) {
    for (size_t i = stack->calls.size(); i-- > 0;) {
      const Call& call = stack->calls[i];
      frames_.push_back({call.return_address, call.slot + 8, false});
      live_.push_back(call);
    }
    if (stack->handler) {
      frames_.push_back({stack->interrupted_ip, stack->interrupted_sp, true});
      crosses_signal_ = true;
    }
  }
  // What a return address was may have been overwritten (retpolines do).
  constexpr size_t kBatch = 512;
  for (size_t start = 0; start < live_.size(); start += kBatch) {
    const size_t count = std::min(kBatch, live_.size() - start);
    std::vector<uint64_t> now(count);
    std::vector<iovec> remote(count);
    for (size_t i = 0; i < count; ++i) remote[i] = {reinterpret_cast<void*>(live_[start + i].slot), 8};
    const iovec local{now.data(), count * 8};
    if (process_vm_readv(pid_, &local, 1, remote.data(), count, 0) != static_cast<ssize_t>(count * 8)) return false;
    for (size_t i = 0; i < count; ++i) {
      if (now[i] != live_[start + i].return_address) return false;
    }
  }
  return true;
}

const Region* Stepper::RegionOf(uint64_t address) {
  if (std::exchange(regions_stale_, false)) {
    regions_.clear();
    const StatusOr<std::string> maps = ReadFile(StrFormat("/proc/%d/maps", static_cast<int>(pid_)));
    if (!maps.ok()) return nullptr;
    for (const std::string_view line : Split(*maps, '\n')) {
      Region region;
      int path = 0;
      char permissions[5] = {};
      if (std::sscanf(std::string(line).c_str(), "%lx-%lx %4s %lx %*s %*s %n", &region.start, &region.end, permissions,
                      &region.offset, &path) < 4 ||
          permissions[2] != 'x') {
        continue;
      }
      if (path > 0 && static_cast<size_t>(path) < line.size()) region.path = line.substr(static_cast<size_t>(path));
      regions_.push_back(std::move(region));
    }
  }
  for (const Region& region : regions_) {
    if (region.start <= address && address < region.end) return &region;
  }
  return nullptr;
}

PointKind Stepper::Classify() {
  const uint64_t ip = registers_[kDwarfRip];
  if (std::memcmp(code_, kSignalReturn, sizeof(kSignalReturn)) == 0 ||
      (code_[0] == 0x0f && code_[1] == 0x05 && registers_[0] == SYS_rt_sigreturn)) {
    return PointKind::kSignalReturn;
  }
  if (const Region* region = RegionOf(ip); region != nullptr && region->path.starts_with("/")) {
    auto [known, is_new] = plts_.try_emplace(region->path);
    if (is_new) known->second = PltRanges(region->path);
    const uint64_t offset = ip - region->start + region->offset;
    for (const auto& [start, end] : known->second) {
      if (start <= offset && offset < end) return PointKind::kPlt;
    }
  }
  if (in_prologue_) return PointKind::kPrologue;
  uint64_t address = ip;
  for (size_t i = 0; i < kEpilogueInstructions; ++i) {
    uint8_t code[kCodeBytes];
    const size_t bytes = ReadCode(address, code);
    const Instruction instruction = Decode(code, bytes);
    if (instruction.transfer == Transfer::kReturn) return PointKind::kEpilogue;
    if (!instruction.teardown) break;
    address += instruction.bytes;
  }
  return PointKind::kBody;
}

std::string Stepper::Describe() const {
  const uint64_t ip = registers_[kDwarfRip];
  std::string where = "?";
  for (const Region& region : regions_) {
    if (region.start <= ip && ip < region.end) {
      where = StrFormat("%s+0x%x", region.path, ip - region.start + region.offset);
    }
  }
  return StrFormat("0x%x in %s, %s, %d frames, step %d", ip, where, PointKindName(kind_),
                   static_cast<int>(frames_.size()), static_cast<int>(summary_.steps));
}

StatusOr<StepSummary> Stepper::Run() {
  int signal = 0;
  while (summary_.steps < options_.max_steps && summary_.points < options_.max_points) {
    next_ = Decode(code_, ReadCode(registers_[kDwarfRip], code_));
    uint32_t& visits = visits_[registers_[kDwarfRip]];
    if (visits < options_.visits_per_address) {
      if (uncertain_ || !BuildFrames()) {
        if (uncertain_addresses_.insert(registers_[kDwarfRip]).second) ++summary_.uncertain;
      } else {
        kind_ = Classify();
        if (visits++ == 0) ++summary_.addresses;
        ++summary_.points;
        ++summary_.kinds[kind_];
        summary_.across_signals += crosses_signal_;
        summary_.deepest = std::max(summary_.deepest, frames_.size());
        if (!visit_(*this)) break;
      }
    }
    const StepRegisters before = registers_;
    const bool delivers = signal != 0;
    ASSIGN_OR_RETURN(const bool alive, Step(signal));
    if (!alive) {
      summary_.exited = true;
      break;
    }
    RETURN_IF_ERROR(ReadRegisters());
    // A stop for a signal: nothing was executed, unless a system call was left by it.
    if (registers_[kDwarfRip] == before[kDwarfRip] && registers_[kDwarfRsp] == before[kDwarfRsp] && signal != 0)
      continue;
    ++summary_.steps;
    Follow(next_, before, delivers);
  }
  return summary_;
}

}  // namespace

const char* PointKindName(PointKind kind) {
  switch (kind) {
    case PointKind::kBody:
      return "body";
    case PointKind::kPrologue:
      return "prologue";
    case PointKind::kEpilogue:
      return "epilogue";
    case PointKind::kPlt:
      return "PLT";
    case PointKind::kSignalReturn:
      return "signal return";
  }
  return "?";
}

StatusOr<StepSummary> RunStepOracle(const StepOptions& options, const StepVisitor& visit) {
  Stepper stepper(options, visit);
  RETURN_IF_ERROR(stepper.Start());
  return stepper.Run();
}

}  // namespace pyrometer::testing

#include "userspace/agent/sample_resolver.h"

#include <algorithm>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::agent {

using profile::FrameKind;

RawFrame SampleResolver::ResolveUser(const Stack& stack, uint64_t address, RawWindow& window) {
  process::ResolvedAddress where = processes_.Resolve(stack.process, VirtualAddress(address), stack.time_ns);
  RawFrame frame{.kind = FrameKind::kNative, .address = address};
  switch (where.kind) {
    case process::MappingKind::kFile:
      frame.origin = window.OriginOf(where.binary);
      if (where.elf_address) {
        frame.address = where.elf_address->value;
      } else {
        frame.reason = window.ReasonOf("binary not readable");
        frame.address = where.offset.value;
      }
      return frame;
    case process::MappingKind::kVdso:
      // The vdso is the same image in every process of a boot: no origin.
      frame.address = where.elf_address.value_or(ElfAddress(where.offset.value)).value;
      frame.reason = window.ReasonOf(kVdsoReason);
      return frame;
    case process::MappingKind::kAnonymous:
      frame.kind = FrameKind::kJit;
      frame.origin = window.OriginOf(stack.process);
      NoteJit(stack.process);
      return frame;
    case process::MappingKind::kHeap:
    case process::MappingKind::kStack:
      frame.kind = FrameKind::kUnknown;
      frame.reason = window.ReasonOf("not code");
      // A wrong address has no meaning; keeping it would make every such stack distinct.
      frame.address = 0;
      return frame;
    case process::MappingKind::kUnknown:
      break;
  }
  frame.kind = FrameKind::kUnknown;
  frame.reason = window.ReasonOf(process::UnknownReasonName(where.reason));
  frame.address = 0;
  return frame;
}

profile::StackId SampleResolver::InternCallers(const Stack& stack, RawWindow& window) {
  const size_t count = stack.user_frames.empty() ? 0 : stack.user_frames.size() - 1;
  RecentCallers& recent = window.RecentCallersOf(stack.tid);
  // Asked before anything is resolved: what changes meanwhile makes it another.
  const uint64_t version = count > 0 ? processes_.ImageVersion(stack.process, stack.time_ns) : 0;
  size_t common = 0;  // outermost callers that are those of the last stack
  if (version != 0 && version == recent.image_version && stack.user_stop == recent.stop) {
    const size_t most = std::min(count, recent.addresses.size());
    while (common < most && stack.user_frames[count - common] == recent.addresses[common]) ++common;
  }
  recent.image_version = version;
  recent.stop = stack.user_stop;
  recent.addresses.resize(common);
  recent.stacks.resize(common);
  if (recent.first_jit < common) {
    NoteJit(stack.process);
  } else {
    recent.first_jit = SIZE_MAX;
  }

  profile::StackId id = profile::kEmptyStack;
  if (common > 0) {
    id = recent.stacks.back();
  } else if (stack.user_stop == PYRO_STOP_TRUNCATED) {
    id = window.InternStack(id, {.kind = FrameKind::kSynthetic, .reason = window.ReasonOf(kTruncatedFrame)});
  } else if (!kernel::IsWhole(stack.user_stop) && stack.user_stop != PYRO_STOP_NOT_TAKEN) {
    id = window.InternStack(
        id, {.kind = FrameKind::kSynthetic,
             .reason = window.ReasonOf(StrFormat("[incomplete: %s]", kernel::StopReasonName(stack.user_stop)))});
  }
  bool keep = version != 0;
  for (size_t i = common; i < count; ++i) {
    const uint64_t marked = stack.user_frames[count - i];
    const uint64_t address = marked & ~PYRO_FRAME_EXACT;
    // Return addresses, but for what a signal interrupted: the call is before them.
    const RawFrame frame = ResolveUser(stack, address != marked || address == 0 ? address : address - 1, window);
    id = window.InternStack(id, frame);
    // What is not known may be known the next time.
    keep = keep && frame.kind != FrameKind::kUnknown;
    if (!keep) continue;
    if (frame.kind == FrameKind::kJit) recent.first_jit = std::min(recent.first_jit, i);
    recent.addresses.push_back(marked);
    recent.stacks.push_back(id);
  }
  return id;
}

profile::StackId SampleResolver::Intern(const Stack& stack, RawWindow& window) {
  profile::StackId id = InternCallers(stack, window);
  if (!stack.user_frames.empty()) {
    id = window.InternStack(id, ResolveUser(stack, stack.user_frames[0] & ~PYRO_FRAME_EXACT, window));
  }
  for (size_t i = stack.kernel_frames.size(); i > 0; --i) {
    const uint64_t address = stack.kernel_frames[i - 1] - (i > 1 ? 1 : 0);
    id = window.InternStack(id, {.kind = FrameKind::kKernel, .address = address});
  }
  if (id == profile::kEmptyStack) {
    id = window.InternStack(id, {.kind = FrameKind::kSynthetic, .reason = window.ReasonOf(kNoStackFrame)});
  }
  return id;
}

void SampleResolver::NoteJit(const ProcessKey& process) {
  if (std::find(jit_processes_.begin(), jit_processes_.end(), process) == jit_processes_.end()) {
    jit_processes_.push_back(process);
  }
}

bool SampleResolver::Rewalk(Stack& stack, uint8_t& means, const pyro_raw_registers* registers, std::string_view copy) {
  if (unwinding_ == nullptr) return false;
  if (registers == nullptr) {
    // No copy (the ring was too full); the next sample at least shall find its table.
    if (stack.user_stop == PYRO_STOP_NO_TABLE && !stack.user_frames.empty()) {
      const uint64_t last = stack.user_frames.back() & ~PYRO_FRAME_EXACT;
      unwinding_->Want(stack.process, stack.time_ns, VirtualAddress(stack.user_frames.size() > 1 ? last - 1 : last));
    }
    return false;
  }
  const Unwinding::Stack walked =
      unwinding_->Walk(stack.process, stack.time_ns, *registers, copy, PYRO_MAX_USER_FRAMES);
  // Never worse than what the kernel found, which in a process that is not known is a guess by frame pointers.
  if (walked.stop == PYRO_STOP_NO_PROCESS || walked.frames.empty()) return false;
  stack.user_frames = walked.frames;
  stack.user_stop = walked.stop;
  means = walked.means;
  return walked.waiting;
}

std::vector<ProcessKey> SampleResolver::TakeJitProcesses() { return std::exchange(jit_processes_, {}); }

}  // namespace pyrometer::agent

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
      if (std::find(jit_processes_.begin(), jit_processes_.end(), stack.process) == jit_processes_.end()) {
        jit_processes_.push_back(stack.process);
      }
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

std::span<const RawFrame> SampleResolver::Resolve(const Stack& stack, RawWindow& window) {
  frames_.clear();
  for (size_t i = 0; i < stack.kernel_frames.size(); ++i) {
    // All but the leaf are return addresses: the call is before them.
    frames_.push_back({.kind = FrameKind::kKernel, .address = stack.kernel_frames[i] - (i > 0 ? 1 : 0)});
  }
  for (size_t i = 0; i < stack.user_frames.size(); ++i) {
    const uint64_t address = stack.user_frames[i] & ~PYRO_FRAME_EXACT;
    // All but the leaf and what a signal interrupted are return addresses.
    const bool exact = i == 0 || address != stack.user_frames[i] || address == 0;
    frames_.push_back(ResolveUser(stack, exact ? address : address - 1, window));
  }
  if (stack.user_stop == PYRO_STOP_TRUNCATED) {
    frames_.push_back({.kind = FrameKind::kSynthetic, .reason = window.ReasonOf(kTruncatedFrame)});
  } else if (!kernel::IsWhole(stack.user_stop) && stack.user_stop != PYRO_STOP_NOT_TAKEN) {
    frames_.push_back(
        {.kind = FrameKind::kSynthetic,
         .reason = window.ReasonOf(StrFormat("[incomplete: %s]", kernel::StopReasonName(stack.user_stop)))});
  }
  if (frames_.empty()) {
    frames_.push_back({.kind = FrameKind::kSynthetic, .reason = window.ReasonOf(kNoStackFrame)});
  }
  return frames_;
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

#include "userspace/kernel/cpu_sample.h"

#include "userspace/kernel/decode.h"

namespace pyrometer::kernel {

std::string_view StopReasonName(StopReason reason) {
  switch (reason) {
    case PYRO_STOP_NOT_TAKEN:
      return "not_taken";
    case PYRO_STOP_END:
      return "end";
    case PYRO_STOP_TRUNCATED:
      return "truncated";
    case PYRO_STOP_UNREADABLE:
      return "unreadable";
    case PYRO_STOP_BAD_FRAME:
      return "bad_frame";
    case PYRO_STOP_BAD_RETURN:
      return "bad_return";
    case PYRO_STOP_NO_USER_STACK:
      return "no_user_stack";
    case PYRO_STOP_COMPAT:
      return "compat";
    case PYRO_STOP_HELPER_ERROR:
      return "helper_error";
    case PYRO_STOP_NO_PROCESS:
      return "no_process";
    case PYRO_STOP_NO_MAPPING:
      return "no_mapping";
    case PYRO_STOP_NO_TABLE:
      return "no_table";
    case PYRO_STOP_UNSUPPORTED:
      return "unsupported_rule";
    case PYRO_STOP_BAD_CFA:
      return "bad_cfa";
    case PYRO_STOP_EXEC:
      return "exec";
    case PYRO_STOP_COUNT:
      break;
  }
  return "unknown";
}

bool IsWhole(StopReason reason) {
  return reason == PYRO_STOP_END || reason == PYRO_STOP_NO_USER_STACK || reason == PYRO_STOP_EXEC;
}

bool IsWholeStop(std::string_view reason_name) {
  for (size_t i = 0; i < kStopReasons; ++i) {
    const auto reason = static_cast<StopReason>(i);
    if (IsWhole(reason) && StopReasonName(reason) == reason_name) return true;
  }
  return false;
}

std::string_view WalkMeansName(uint8_t bit) {
  switch (bit) {
    case PYRO_BY_TABLE:
      return "unwind tables";
    case PYRO_BY_SIGNAL_FRAME:
      return "signal frames";
    case PYRO_BY_FP_NO_INFO:
      return "frame pointers: no unwind information";
    case PYRO_BY_FP_GENERATED:
      return "frame pointers: generated code";
    case PYRO_BY_FP_OVER_LIMIT:
      return "frame pointers: memory limit of unwind tables";
    case PYRO_BY_FP_UNREADABLE:
      return "frame pointers: file not readable";
    case PYRO_BY_STACK_COPY:
      return "copy of the stack";
    case PYRO_BY_DEFERRED:
      return "deferred walk";
    default:
      return "unknown";
  }
}

std::string_view LeastMeansName(uint8_t means) {
  for (const uint8_t bit : {PYRO_BY_FP_OVER_LIMIT, PYRO_BY_FP_UNREADABLE, PYRO_BY_FP_NO_INFO, PYRO_BY_FP_GENERATED,
                            PYRO_BY_STACK_COPY, PYRO_BY_DEFERRED, PYRO_BY_SIGNAL_FRAME, PYRO_BY_TABLE}) {
    if (means & bit) return WalkMeansName(bit);
  }
  return "nothing to unwind";
}

std::string_view CommView(const char (&comm)[PYRO_COMM_BYTES]) {
  const std::string_view all(comm, sizeof(comm));
  return all.substr(0, all.find('\0'));
}

bool DecodeStackCopy(const void* data, size_t size, size_t frames, size_t raw_bytes,
                     const pyro_raw_registers*& registers, std::string_view& stack) {
  registers = nullptr;
  stack = {};
  const size_t copy_bytes = raw_bytes == 0 ? 0 : sizeof(pyro_raw_registers) + raw_bytes;
  if (raw_bytes > PYRO_MAX_RAW_STACK_BYTES || size < frames * sizeof(uint64_t) + copy_bytes) return false;
  if (raw_bytes == 0) return true;
  registers = reinterpret_cast<const pyro_raw_registers*>(static_cast<const uint64_t*>(data) + frames);
  stack = {reinterpret_cast<const char*>(registers + 1), raw_bytes};
  return true;
}

bool DecodeCpuSample(const void* data, size_t size, uint64_t period_ns, CpuSample& out) {
  if (size < sizeof(pyro_cpu_sample)) return false;
  const auto* record = static_cast<const pyro_cpu_sample*>(data);
  const size_t frames = size_t{record->user_frames} + record->kernel_frames;
  if (record->user_frames > PYRO_MAX_USER_FRAMES || record->kernel_frames > PYRO_MAX_KERNEL_FRAMES ||
      record->user_stop >= PYRO_STOP_COUNT || record->kernel_stop >= PYRO_STOP_COUNT ||
      !DecodeStackCopy(record + 1, size - sizeof(*record), frames, record->raw_bytes, out.raw_registers,
                       out.raw_stack)) {
    return false;
  }
  const auto* addresses = reinterpret_cast<const uint64_t*>(record + 1);
  out.time_ns = record->time_ns;
  out.cpu = record->cpu;
  out.process = {.tgid = record->tgid, .start_time_ns = record->start_time_ns};
  out.tid = record->tid;
  out.cgroup_id = record->owner.cgroup_id;
  out.cgroup_v1_id = record->owner.cgroup_v1_id;
  out.comm = CommView(record->comm);
  out.process_comm = CommView(record->process_comm);
  out.user_frames = {addresses, record->user_frames};
  out.kernel_frames = {addresses + record->user_frames, record->kernel_frames};
  out.user_stop = static_cast<StopReason>(record->user_stop);
  out.kernel_stop = static_cast<StopReason>(record->kernel_stop);
  out.means = record->means;
  out.period_ns = period_ns;
  return true;
}

}  // namespace pyrometer::kernel

// Latency of io_uring's operations, per cgroup and opcode, counted in the kernel.
//
//   RETURN_IF_ERROR(IoUringLatency::Supported());
//   ASSIGN_OR_RETURN(auto probe, IoUringLatency::Start({}));
//   each 10 s: RETURN_IF_ERROR(probe->Drain([&](const IoUringWindow& w) { … }));
//
// An operation begins with the submission of its request and ends with its completion; of a multishot request each
// completion is one, and the next begins with it. Counted exactly once, in the window in which it completed, as long as
// no more than `max_requests` are in flight. What cannot be measured is in Counters() by name: requests that ask for no
// completion when they succeed (IOSQE_CQE_SKIP_SUCCESS), those submitted before the probe was attached. A completion
// that does not fit into the ring (overflow) is found by the request's user data: where several requests of one ring
// have the same, any of them is taken to have ended.
//
// The owner is the cgroup of the thread that submitted, whoever completes. A linked request waits for those before it.
//
// Does not promise: stacks or examples of slow operations; what the time was spent on.
//
// Threads: Drain from one; ReadOpen and Counters from any. Cost: two hash updates and a look-up per request,
// some 400 ns together; nothing to anything else. Memory: 140 bytes per request in flight, 168 per CPU and octave in
// use. Source: the tracepoints io_uring_submit_req (6.3; io_uring_submit_sqe from 6.0) and io_uring_complete.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/kernel/latency_histogram.h"
#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::kernel {

struct IoUringKey {
  uint64_t cgroup_id = 0;     // as in SyscallKey
  uint64_t cgroup_v1_id = 0;  // see CpuSample
  uint32_t opcode = 0;        // IORING_OP_*
  bool folded = false;        // stands for all keys that found no room; the other members are 0
  auto operator<=>(const IoUringKey&) const = default;
};

// "io_uring:read", "io_uring:op_200" for opcodes without a name, "io_uring:other" for the fold key.
std::string IoUringOperationName(const IoUringKey& key);

// What one key did since the last Drain; only keys that did anything.
struct IoUringWindow {
  IoUringKey key;
  LatencyHistogram latency;
  std::vector<SyscallError> errors;  // ascending
};

struct IoUringCounters {
  uint64_t submitted = 0;  // requests: = ended + silent + untracked + unseen + in flight
  uint64_t ended = 0;
  uint64_t silent = 0;             // asked for no completion
  uint64_t untracked = 0;          // more in flight than there is room for
  uint64_t unseen = 0;             // gone without an end that the kernel told of
  uint64_t further = 0;            // completions of multishot requests but their last
  uint64_t recorded = 0;           // operations: ended + further = recorded + folded + lost
  uint64_t folded = 0;             // in the fold key's histogram
  uint64_t lost = 0;               // not seen yet
  uint64_t no_submission = 0;      // completed requests that are not among the submitted, the silent or the untracked
  uint64_t further_unmatched = 0;  // completions of no request that we know
  uint64_t errors_lost = 0;        // failures whose errno found no room
};

class IoUringLatency {
 public:
  struct Options {
    uint32_t max_requests = 16384;  // in flight
    uint32_t max_octaves = 4096;    // map entries, 168 B per CPU each, allocated when used
    uint32_t idle_windows_before_eviction = 30;
  };
  // FAILED_PRECONDITION with the reason on kernels whose tracepoints do not tell requests apart, or without io_uring.
  static Status Supported();
  static StatusOr<std::unique_ptr<IoUringLatency>> Start(const Options& options);
  virtual ~IoUringLatency() = default;

  // Ends the window: calls `callback` for each key with operations since the last Drain. Forgets requests in flight
  // whose process had ended by the Drain before.
  virtual Status Drain(const std::function<void(const IoUringWindow&)>& callback) = 0;
  // The requests in flight, with their age; of multishot ones since their last completion.
  virtual Status ReadOpen(const std::function<void(const IoUringKey&, uint64_t age_ns)>& callback) = 0;
  // Detaches. What was counted stays for a last Drain.
  virtual Status Stop() = 0;
  virtual IoUringCounters Counters() const = 0;
};

}  // namespace pyrometer::kernel

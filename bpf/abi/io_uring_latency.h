// Maps and records of the probe io_uring_latency (bpf/probes/io_uring_latency.bpf.c).
#pragma once

#include "bpf/abi/histogram.h"
#include "bpf/abi/types.h"

// The key stands for all keys that found no room; its other members are 0.
#define PYRO_IO_URING_FOLDED 1u

// Who asked for what.
struct pyro_io_uring_key {
  struct pyro_owner
      owner;     // of the thread that submitted the request (with SQPOLL the ring's own, of the same process)
  __u32 opcode;  // IORING_OP_*
  __u32 flags;   // PYRO_IO_URING_FOLDED
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_io_uring_key) == 24, "pyro_io_uring_key");

// Key of pyro_io_uring_octaves -> per-CPU struct pyro_octave of latencies in ns.
struct pyro_io_uring_octave_key {
  struct pyro_io_uring_key operation;
  __u32 octave;  // bucket index / PYRO_SUB_BUCKETS
  __u32 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_io_uring_octave_key) == 32, "pyro_io_uring_octave_key");

// Key of pyro_io_uring_errors -> per-CPU __u64 count.
struct pyro_io_uring_error_key {
  struct pyro_io_uring_key operation;
  __u32 error;  // errno
  __u32 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_io_uring_error_key) == 32, "pyro_io_uring_error_key");

// Value of pyro_io_uring_requests, key the kernel's address of the request: one that has been submitted and not ended.
struct pyro_io_uring_request {
  struct pyro_io_uring_key operation;
  __u64 begin_ns;  // submission, or the last completion but the final one; CLOCK_MONOTONIC
  __u64 ring;      // the kernel's address of it
  __u64 user_data;
  __u32 tgid;       // of the submitter
  __u32 multishot;  // 1: completes more than once
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_io_uring_request) == 56, "pyro_io_uring_request");

// Key of pyro_io_uring_multishots -> address of the request: completions before the last one do not tell it.
struct pyro_io_uring_multishot_key {
  __u64 ring;
  __u64 user_data;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_io_uring_multishot_key) == 16, "pyro_io_uring_multishot_key");

// Per-CPU counters. Every request seen at its submission adds to `submitted` and later to exactly one of ended, silent,
// untracked and unseen, or is in pyro_io_uring_requests; every operation measured adds to exactly one of recorded,
// folded and lost.
struct pyro_io_uring_counters {
  __u64 submitted;
  __u64 ended;          // completed; also those whose completion did not fit into the ring (overflow)
  __u64 silent;         // asked for no completion (IOSQE_CQE_SKIP_SUCCESS): the end of one that succeeds is not told
  __u64 untracked;      // no room in pyro_io_uring_requests
  __u64 unseen;         // its memory was used for another request before an end of it was told
  __u64 further;        // completions of multishot requests but their last
  __u64 recorded;       // in a histogram under its own key
  __u64 folded;         // in the histogram of the fold key: no room for another key
  __u64 lost;           // not recorded at all (the fold entry was missing)
  __u64 no_submission;  // completions of requests that were submitted before the probe was attached, were silent
                        // and failed, or untracked
  __u64 further_unmatched;  // completions of no request that we know: messages of another ring, older multishots
  __u64 errors_lost;        // failures whose errno could not be counted (map full)
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_io_uring_counters) == 96, "pyro_io_uring_counters");

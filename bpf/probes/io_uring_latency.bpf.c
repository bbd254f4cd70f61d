// Latency of io_uring's operations: from the submission of a request to its completion, by cgroup and opcode, in
// per-CPU histograms. A system call is none of them: io_uring_enter returns at once and may wait for many.
//
// The kernel tells of both ends by tracepoints. A request is found again by its own address, which no other live
// request has; its completion may come from the submitting call itself, a worker thread, task work or the ring's end.
// All of these are thread context (6.0 and later), but of any CPU: additions are atomic.
//
// Odd ones:
//   linked, drained   they begin when they are submitted, so that waiting for those before them counts as theirs
//   cancelled         completed with ECANCELED
//   refused           (EINVAL at submission) told by another tracepoint; they begin then
//   multishot         each completion is one operation; the next begins with it. All completions but the last do not
//                     tell the request, only ring and user data: they are found by these (pyro_io_uring_multishots)
//   overflow          a completion that finds the ring full is told with ring and user data only: the request is
//                     searched among all in flight, at most pyro_overflow_search of them
//   skipped           a request that asks for no completion when it succeeds has no end that one can see: counted, not
//                     measured
//   notifications     (of zero-copy sends) are no operation
//
// What has no end that was told leaves its entry in pyro_io_uring_requests: until the memory of the request is used for
// another one (counted as unseen), or user space finds that its process has ended.
//
// Costs nothing but to requests of io_uring: no other kernel path has these tracepoints.
#include "bpf/abi/io_uring_latency.h"

#include "bpf/lib/octave.h"
#include "bpf/lib/owner.h"
#include "bpf/lib/program.h"

// Bits of io_kiocb::flags, which differ between kernels; user space finds them by their names.
const volatile __u64 pyro_multishot_flags = 0;

// 1: this kernel may tell a further completion of a multishot request before it finds the ring full, and then again.
const volatile __u32 pyro_overflow_repeats = 0;

// Number of the current window; user space raises it when it drains.
__u32 pyro_epoch = 1;

// User interface of the kernel (linux/io_uring.h), and what bits of it the kernel's own flags repeat.
#define PYRO_REQ_F_CQE_SKIP (1u << 6)
#define PYRO_CQE_F_MORE (1u << 1)
#define PYRO_CQE_F_NOTIFICATION (1u << 3)
#define PYRO_OP_POLL_ADD 6u
#define PYRO_OP_TIMEOUT 11u
#define PYRO_TIMEOUT_MULTISHOT (1u << 6)
#define PYRO_EPOLLONESHOT (1u << 30)

// A number that the verifier does not know, or it would follow every step of the search.
__u32 pyro_overflow_search = 4096;  // some 15 ns each

// Histograms. Entries made here when first needed, deleted by user space when long idle. The entries of the fold key
// are made by user space before attaching.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 4096);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_io_uring_octave_key);
  __type(value, struct pyro_octave);
} pyro_io_uring_octaves SEC(".maps");

// Failures. Made here, deleted by user space when long idle.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 2048);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_io_uring_error_key);
  __type(value, __u64);
} pyro_io_uring_errors SEC(".maps");

// In flight. Size set before load.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 16384);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, __u64);
  __type(value, struct pyro_io_uring_request);
} pyro_io_uring_requests SEC(".maps");

// Multishot requests in flight, and such whose end was not told, until these leave the map above. As large as it.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 16384);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_io_uring_multishot_key);
  __type(value, __u64);
} pyro_io_uring_multishots SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_io_uring_counters);
} pyro_counters SEC(".maps");

PYRO_INLINE struct pyro_io_uring_counters* pyro_counts(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&pyro_counters, &zero);
}

#define PYRO_COUNT(counters, what) __sync_fetch_and_add(&(counters)->what, 1)

// ---- sums -------------------------------------------------------------------------------------------------

PYRO_NOINLINE int pyro_count_error(const struct pyro_io_uring_key* operation, __u32 error,
                                   struct pyro_io_uring_counters* counters) {
  struct pyro_io_uring_error_key key = {.operation = *operation, .error = error};
  if (!counters) return 0;
  __u64* count = bpf_map_lookup_elem(&pyro_io_uring_errors, &key);
  if (!count) {
    __u64 none = 0;
    bpf_map_update_elem(&pyro_io_uring_errors, &key, &none, BPF_NOEXIST);
    count = bpf_map_lookup_elem(&pyro_io_uring_errors, &key);
  }
  if (count) {
    __sync_fetch_and_add(count, 1);
  } else {
    PYRO_COUNT(counters, errors_lost);
  }
  return 0;
}

PYRO_NOINLINE int pyro_record(const struct pyro_io_uring_key* operation, __u64 ns, __s32 result) {
  struct pyro_io_uring_counters* counters = pyro_counts();
  if (!counters || !operation) return 0;
  struct pyro_io_uring_octave_key key = {.operation = *operation};
  __u32 sub;
  if (ns > PYRO_MAX_LATENCY_NS) ns = PYRO_MAX_LATENCY_NS;
  pyro_bucket(ns, &key.octave, &sub);
  struct pyro_octave* octave = bpf_map_lookup_elem(&pyro_io_uring_octaves, &key);
  if (!octave) {
    struct pyro_octave fresh = {};
    bpf_map_update_elem(&pyro_io_uring_octaves, &key, &fresh, BPF_NOEXIST);
    octave = bpf_map_lookup_elem(&pyro_io_uring_octaves, &key);
  }
  if (octave) {
    PYRO_COUNT(counters, recorded);
  } else {
    struct pyro_io_uring_octave_key fold = {.operation = {.flags = PYRO_IO_URING_FOLDED}, .octave = key.octave};
    octave = bpf_map_lookup_elem(&pyro_io_uring_octaves, &fold);
    if (!octave) {
      PYRO_COUNT(counters, lost);
      return 0;
    }
    PYRO_COUNT(counters, folded);
  }
  pyro_octave_add_atomic(octave, sub, ns, pyro_epoch);
  if (result < 0 && result >= -4095) pyro_count_error(&key.operation, (__u32)-result, counters);
  return 0;
}

// ---- a request's life -------------------------------------------------------------------------------------

PYRO_INLINE int pyro_is_multishot(struct io_kiocb* request, __u32 opcode, __u64 flags) {
  if (flags & pyro_multishot_flags) return 1;
  if (opcode == PYRO_OP_POLL_ADD && bpf_core_field_exists(((struct io_poll*)0)->events)) {
    return !(BPF_CORE_READ((struct io_poll*)request, events) & PYRO_EPOLLONESHOT);
  }
  if (opcode == PYRO_OP_TIMEOUT && bpf_core_field_exists(((struct io_timeout_data*)0)->flags)) {
    struct io_timeout_data* data = BPF_CORE_READ(request, async_data);
    return data && (BPF_CORE_READ(data, flags) & PYRO_TIMEOUT_MULTISHOT);
  }
  return 0;
}

PYRO_INLINE void pyro_forget_multishot(const struct pyro_io_uring_request* entry, __u64 address) {
  struct pyro_io_uring_multishot_key key = {.ring = entry->ring, .user_data = entry->user_data};
  __u64* of = bpf_map_lookup_elem(&pyro_io_uring_multishots, &key);
  if (of && *of == address) bpf_map_delete_elem(&pyro_io_uring_multishots, &key);
}

PYRO_INLINE int pyro_begin(struct io_kiocb* request, __u32 opcode) {
  struct pyro_io_uring_counters* counters = pyro_counts();
  if (!counters) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  __u64 address = (__u64)request;
  __u64 flags = request->flags;
  PYRO_COUNT(counters, submitted);
  struct pyro_io_uring_request* old = bpf_map_lookup_elem(&pyro_io_uring_requests, &address);
  if (old) {
    PYRO_COUNT(counters, unseen);
    if (old->multishot) pyro_forget_multishot(old, address);
    bpf_map_delete_elem(&pyro_io_uring_requests, &address);
  }
  if (flags & PYRO_REQ_F_CQE_SKIP) {
    PYRO_COUNT(counters, silent);
    return 0;
  }
  struct pyro_io_uring_request entry = {.operation = {.opcode = opcode}};
  pyro_owner_of(task, &entry.operation.owner);
  entry.begin_ns = bpf_ktime_get_ns();
  entry.ring = (__u64)request->ctx;
  entry.user_data = request->cqe.user_data;
  entry.tgid = task->tgid;
  entry.multishot = pyro_is_multishot(request, opcode, flags);
  if (bpf_map_update_elem(&pyro_io_uring_requests, &address, &entry, BPF_ANY)) {
    PYRO_COUNT(counters, untracked);
    return 0;
  }
  if (entry.multishot) {
    struct pyro_io_uring_multishot_key key = {.ring = entry.ring, .user_data = entry.user_data};
    // No room: its further completions are then unmatched.
    bpf_map_update_elem(&pyro_io_uring_multishots, &key, &address, BPF_ANY);
  }
  return 0;
}

PYRO_NOINLINE int pyro_end(__u64 address, __s32 result) {
  struct pyro_io_uring_counters* counters = pyro_counts();
  if (!counters) return 0;
  struct pyro_io_uring_request* found = bpf_map_lookup_elem(&pyro_io_uring_requests, &address);
  if (!found) {
    PYRO_COUNT(counters, no_submission);
    return 0;
  }
  struct pyro_io_uring_request entry = *found;
  bpf_map_delete_elem(&pyro_io_uring_requests, &address);
  if (entry.multishot) pyro_forget_multishot(&entry, address);
  PYRO_COUNT(counters, ended);
  __u64 now = bpf_ktime_get_ns();
  pyro_record(&entry.operation, now > entry.begin_ns ? now - entry.begin_ns : 0, result);
  return 0;
}

// A completion that may not be the last of its request.
PYRO_NOINLINE int pyro_further(__u64 ring, __u64 user_data, __s32 result) {
  struct pyro_io_uring_counters* counters = pyro_counts();
  if (!counters) return 0;
  struct pyro_io_uring_multishot_key key = {.ring = ring, .user_data = user_data};
  __u64* address = bpf_map_lookup_elem(&pyro_io_uring_multishots, &key);
  __u64 of = address ? *address : 0;
  struct pyro_io_uring_request* entry = of ? bpf_map_lookup_elem(&pyro_io_uring_requests, &of) : 0;
  if (!entry) {
    PYRO_COUNT(counters, further_unmatched);
    return 0;
  }
  __u64 now = bpf_ktime_get_ns();
  __u64 begin = entry->begin_ns;
  entry->begin_ns = now;
  struct pyro_io_uring_key operation = entry->operation;
  PYRO_COUNT(counters, further);
  pyro_record(&operation, now > begin ? now - begin : 0, result);
  return 0;
}

PYRO_INLINE int pyro_completed(__u64 ring, __u64 address, __u64 user_data, __s32 result, __u32 flags) {
  if (flags & PYRO_CQE_F_NOTIFICATION) return 0;
  return address ? pyro_end(address, result) : pyro_further(ring, user_data, result);
}

// ---- hooks ------------------------------------------------------------------------------------------------

// From 6.3; before, pyro_submit_sqe.
SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(pyro_submit_req, struct io_kiocb* request) { return pyro_begin(request, request->opcode); }

SEC("tp_btf/io_uring_submit_sqe")
int BPF_PROG(pyro_submit_sqe, struct io_kiocb* request) { return pyro_begin(request, request->opcode); }

// Refused when it was to be submitted; an opcode that the kernel does not know is 0 in the request.
SEC("tp_btf/io_uring_req_failed")
int BPF_PROG(pyro_refused, const struct io_uring_sqe* sqe, struct io_kiocb* request) {
  __u32 opcode = request->opcode;
  if (!opcode) opcode = BPF_CORE_READ(sqe, opcode);
  return pyro_begin(request, opcode);
}

// From 6.11 or so; before, pyro_complete_values.
SEC("tp_btf/io_uring_complete")
int BPF_PROG(pyro_complete, struct io_ring_ctx* ring, void* request, struct io_uring_cqe* cqe) {
  return pyro_completed((__u64)ring, (__u64)request, cqe->user_data, cqe->res, cqe->flags);
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(pyro_complete_values, void* ring, void* request, __u64 user_data, int result, unsigned int flags) {
  return pyro_completed((__u64)ring, (__u64)request, user_data, result, flags);
}

struct pyro_search {
  __u64 ring;
  __u64 user_data;
  __u64 found;
  __u32 left;
};

struct bpf_map;

static long pyro_search_one(struct bpf_map* map, const __u64* address, struct pyro_io_uring_request* entry,
                            struct pyro_search* search) {
  if (entry->ring == search->ring && entry->user_data == search->user_data) {
    search->found = *address;
    return 1;
  }
  return --search->left == 0;
}

SEC("tp_btf/io_uring_cqe_overflow")
int BPF_PROG(pyro_overflow, void* ring, unsigned long long user_data, int result, unsigned int flags) {
  if (flags & PYRO_CQE_F_NOTIFICATION) return 0;
  if (flags & PYRO_CQE_F_MORE) return pyro_overflow_repeats ? 0 : pyro_further((__u64)ring, user_data, result);
  struct pyro_search search = {.ring = (__u64)ring, .user_data = user_data, .left = pyro_overflow_search};
  bpf_for_each_map_elem(&pyro_io_uring_requests, pyro_search_one, &search, 0);
  // Not found: its entry, if it has one, is counted as unseen later.
  return search.found ? pyro_end(search.found, result) : pyro_further((__u64)ring, user_data, result);
}

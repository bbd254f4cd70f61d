// Log-linear bucket function of every histogram in this project.
//
// Values below 16 have a bucket each; above, each power of two is cut into 16 equal buckets, so a
// bucket's width is at most 1/16 of its lower edge. The same index is used by userspace/profile.
//
//   value   0 … 15   16 … 31   32,33   34,35 …  62,63   64…67 …
//   index   0 … 15   16 … 31   32      33    …  47      48    …
//
// Compiles for BPF and natively. Cost in BPF: about 25 instructions, no helper, no loop.
#pragma once

#include "bpf/abi/histogram.h"
#include "bpf/lib/inline.h"

// Probes clamp latencies to 2^42 - 1 ns, 73 minutes: an octave is enough for "longer than that".
#define PYRO_MAX_LATENCY_NS ((1ull << 42) - 1)
// Buckets that values up to PYRO_MAX_LATENCY_NS can fall in, and their octaves.
#define PYRO_LATENCY_BUCKETS 624
#define PYRO_LATENCY_OCTAVES (PYRO_LATENCY_BUCKETS / PYRO_SUB_BUCKETS)

// Position of the highest set bit; 0 for 0. By halving: BPF has no instruction for it.
PYRO_INLINE __u32 pyro_msb(__u64 v) {
  __u32 r = 0;
  if (v >> 32) {
    v >>= 32;
    r += 32;
  }
  if (v >> 16) {
    v >>= 16;
    r += 16;
  }
  if (v >> 8) {
    v >>= 8;
    r += 8;
  }
  if (v >> 4) {
    v >>= 4;
    r += 4;
  }
  if (v >> 2) {
    v >>= 2;
    r += 2;
  }
  return r + (__u32)(v >> 1);
}

// Octave 0 holds 0..15, octave k holds [2^(k+3), 2^(k+4)); sub-bucket 0..15 inside it.
PYRO_INLINE void pyro_bucket(__u64 value, __u32* octave, __u32* sub) {
  if (value < PYRO_SUB_BUCKETS) {
    *octave = 0;
    *sub = (__u32)value;
    return;
  }
  __u32 msb = pyro_msb(value);
  *octave = msb - 3;
  *sub = (__u32)(value >> ((msb - 4) & 63)) & (PYRO_SUB_BUCKETS - 1);
}

PYRO_INLINE __u32 pyro_bucket_index(__u64 value) {
  __u32 octave, sub;
  pyro_bucket(value, &octave, &sub);
  return octave * PYRO_SUB_BUCKETS + sub;
}

// Smallest value of the bucket; the bucket ends where the next one begins.
PYRO_INLINE __u64 pyro_bucket_low(__u32 index) {
  if (index < 2 * PYRO_SUB_BUCKETS) return index;
  __u32 octave = index / PYRO_SUB_BUCKETS;
  return (__u64)(PYRO_SUB_BUCKETS + index % PYRO_SUB_BUCKETS) << ((octave - 1) & 63);
}

// Histograms kept by probes, one octave (16 buckets) per map entry.
//
// Bucket function: bpf/lib/histogram.h. An octave entry holds the 16 sub-buckets of one power of
// two, so that a key pays only for the octaves it really visits: 152 bytes per CPU and octave
// instead of 5 KiB per CPU for a whole histogram.
#pragma once

#include "bpf/abi/types.h"

#define PYRO_SUB_BUCKETS 16

// Value in per-CPU maps; counts and sum only grow, user space subtracts what it saw last.
struct pyro_octave {
  __u64 counts[PYRO_SUB_BUCKETS];
  __u64 sum;        // of the recorded values
  __u64 max;        // largest value recorded during window `max_epoch`
  __u32 max_epoch;  // number of the window (see pyro_epoch) that `max` belongs to
  __u32 draw;       // what the probe needs to draw examples from these values; 0 when a new window begins
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_octave) == 152, "pyro_octave");

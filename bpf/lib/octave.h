// Adds a value to a histogram octave of the current CPU.
#pragma once

#include "bpf/lib/histogram.h"

// Only ever called by one program at a time on a CPU: plain additions (pyro_octave_add), or by several
// that may interrupt each other: atomic ones (pyro_octave_add_atomic). The maximum may then lose a
// race; it is documented as good to one bucket.
PYRO_INLINE void pyro_octave_max(struct pyro_octave* octave, __u64 value, __u32 epoch) {
  if (octave->max_epoch != epoch) {
    octave->max_epoch = epoch;
    octave->max = value;
    octave->draw = 0;
  } else if (value > octave->max) {
    octave->max = value;
  }
}

PYRO_INLINE void pyro_octave_add(struct pyro_octave* octave, __u32 sub, __u64 value, __u32 epoch) {
  PYRO_OPAQUE(sub);
  octave->counts[sub & (PYRO_SUB_BUCKETS - 1)]++;
  octave->sum += value;
  pyro_octave_max(octave, value, epoch);
}

#ifdef __bpf__
PYRO_INLINE void pyro_octave_add_atomic(struct pyro_octave* octave, __u32 sub, __u64 value, __u32 epoch) {
  PYRO_OPAQUE(sub);
  __sync_fetch_and_add(&octave->counts[sub & (PYRO_SUB_BUCKETS - 1)], 1);
  __sync_fetch_and_add(&octave->sum, value);
  pyro_octave_max(octave, value, epoch);
}
#endif

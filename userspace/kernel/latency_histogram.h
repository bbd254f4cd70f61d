// Histogram of one window as the probes count it: sparse buckets of the project's log-linear
// function (bpf/lib/histogram.h, userspace/profile/histogram.h; relative width 1/16).
#pragma once

#include <cstdint>
#include <vector>

namespace pyrometer::kernel {

struct LatencyHistogram {
  struct Bucket {
    uint32_t index = 0;  // bucket of the common bucket function
    uint64_t count = 0;  // never 0
  };
  std::vector<Bucket> buckets;  // ascending by index
  uint64_t count = 0;           // sum of the buckets
  uint64_t sum_ns = 0;          // exact
  // Largest value of the window: exact unless a new window's value overwrote it before it was read;
  // then the lower edge of the highest bucket.
  uint64_t max_ns = 0;

  bool empty() const { return count == 0; }
  // Lower edge of the bucket that holds the quantile `q` in 0…1; 0 when empty.
  uint64_t Quantile(double q) const;
};

}  // namespace pyrometer::kernel

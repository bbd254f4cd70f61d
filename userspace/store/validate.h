// Is a batch well-formed? Everything in it comes from another machine: ids must lie in their tables,
// times within sane bounds, sums within limits. Inside this room only.
//
// INVALID_ARGUMENT names what and where ("profile point 3: stack 77 of 20"). After OK the batch can
// be applied without further checks of its shape. Definitions that a stream sent before are not looked at again.
// Threads: pure. Cost: one pass over what is new.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/batch.h"

namespace pyrometer::store {

inline constexpr size_t kMaxAgentIdBytes = 256;
inline constexpr size_t kMaxNodeNameBytes = 256;
inline constexpr size_t kMaxTypeBytes = 128;
// Longest names seen: C++ templates of 30 KiB after demangling (Eigen, boost::spirit).
inline constexpr size_t kMaxStringBytes = 64 << 10;
inline constexpr size_t kMaxLinesPerFrame = 256;    // functions inlined into one address
inline constexpr size_t kMaxStackDepth = 16 << 10;  // frames
inline constexpr size_t kMaxPointsPerBatch = 4u << 20;
inline constexpr size_t kMaxExemplarsPerPoint = 64 << 10;
inline constexpr size_t kMaxErrnosPerPoint = 4096;  // the kernel's MAX_ERRNO is 4095
inline constexpr size_t kMaxCommBytes = 256;
inline constexpr size_t kMaxCallBytes = 1024;
inline constexpr size_t kMaxTimeParts = 32;
inline constexpr uint64_t kMaxWindowNs = 24ull * 3600 * 1'000'000'000;
// Offsets of samples are milliseconds in 16 bits.
inline constexpr uint64_t kMaxOffsetsWindowNs = 65'535ull * 1'000'000;
// Sum of the values (and of the counts) of one point. 2^56 ns are 2.3 years of CPU time in one window.
inline constexpr uint64_t kMaxPointTotal = uint64_t{1} << 56;

// What of a set of definitions has been checked; the rest of it is new. Sizes include entry 0.
struct CheckedDefinitions {
  size_t strings = 0, mappings = 0, functions = 0, frames = 0, stacks = 0;
  std::vector<uint16_t> depths;  // by stack
};

// `checked`: of the batch's definitions; brought up to date. `now_ns`: the store's clock, Unix nanoseconds.
Status ValidateBatch(const profile::BatchView& batch, CheckedDefinitions* checked, int64_t now_ns);

}  // namespace pyrometer::store

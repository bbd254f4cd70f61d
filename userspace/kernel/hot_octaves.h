// The octaves that a probe counts in an array and not behind a hash look-up (bpf/lib/hot_octaves.h). Internal to
// kernel/.
//
//   ASSIGN_OR_RETURN(auto hot, HotOctaves::Map(keys_fd, octaves_fd, places, cpus, idle_limit));
//   hot->Read(closing_epoch, [&](const pyro_syscall_octave_key& key, const OctaveDelta& delta) { … });
//   hot->MakeRoom(key, calls);     for each key that was busy in the hash all the same
//
// Exactness: counts of a place only grow, whoever has it, and each addition shows in exactly one Read. A place changes
// its owner over two Reads: closed in one, read for the last time and freed in the next, a window after the last CPU
// that may have been about to count in it. Threads: one. Cost: one batched system call per 256 places, and 144 bytes
// each.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bpf/abi/syscall_latency.h"
#include "userspace/base/status.h"
#include "userspace/kernel/octave_reader.h"

namespace pyrometer::kernel {

// A place is handed on when a key without one was called so many times in a window, and kHotterBy times more often than
// the key that has it: the saving, some 60 ns a call, is then worth the change.
inline constexpr uint64_t kHotCalls = 1000;
inline constexpr uint64_t kHotterBy = 4;

class HotOctaves {
 public:
  // `places`: entries of the map of octaves; a power of two, at least 2 * PYRO_HOT_WAYS.
  static StatusOr<std::unique_ptr<HotOctaves>> Map(int keys_fd, int octaves_fd, uint32_t places, size_t cpus,
                                                   uint32_t idle_limit);
  ~HotOctaves();
  HotOctaves(const HotOctaves&) = delete;
  HotOctaves& operator=(const HotOctaves&) = delete;

  using Visit = std::function<void(const pyro_syscall_octave_key&, const OctaveDelta&)>;
  // Calls visit(key, delta) for each place that was counted in since the last Read.
  Status Read(uint32_t closing_epoch, const Visit& visit);
  // The key was called so many times in the window that was just read, and was counted in the hash.
  void MakeRoom(const pyro_syscall_octave_key& key, uint64_t calls);

  static constexpr bool Possible(uint32_t places) { return std::has_single_bit(places) && places >= 2 * PYRO_HOT_WAYS; }
  // For pyro_hot_shift.
  static constexpr uint32_t Shift(uint32_t places) {
    return 65 - static_cast<uint32_t>(std::bit_width(places / PYRO_HOT_WAYS));
  }

 private:
  struct Place {
    OctaveSeen octave;
    uint64_t calls = 0;  // in the last window
    uint32_t idle = 0;   // Reads without change
  };

  HotOctaves(pyro_hot_set* sets, size_t mapped_bytes, int octaves_fd, uint32_t places, size_t cpus,
             uint32_t idle_limit);

  void Close(std::atomic_ref<uint32_t> state);

  pyro_hot_key& KeyAt(uint32_t place) { return sets_[place / PYRO_HOT_WAYS].ways[place % PYRO_HOT_WAYS]; }

  pyro_hot_set* sets_;  // shared with the kernel
  size_t mapped_bytes_;
  int octaves_fd_;
  size_t cpus_;
  uint32_t idle_limit_;
  std::vector<Place> places_;
  bool closing_ = false;  // some place is
};

}  // namespace pyrometer::kernel

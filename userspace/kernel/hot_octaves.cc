#include "userspace/kernel/hot_octaves.h"

#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <numeric>

#include "bpf/lib/hot_octaves.h"

namespace pyrometer::kernel {

StatusOr<std::unique_ptr<HotOctaves>> HotOctaves::Map(int keys_fd, int octaves_fd, uint32_t places, size_t cpus,
                                                      uint32_t idle_limit) {
  if (!Possible(places)) return InvalidArgumentError("hot octaves: no power of two, or too few");
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = (places / PYRO_HOT_WAYS * sizeof(pyro_hot_set) + page - 1) / page * page;
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, keys_fd, 0);
  if (mapped == MAP_FAILED) return ErrnoError(errno, "cannot map the keys of hot histograms");
  return std::unique_ptr<HotOctaves>(
      new HotOctaves(static_cast<pyro_hot_set*>(mapped), bytes, octaves_fd, places, cpus, idle_limit));
}

HotOctaves::HotOctaves(pyro_hot_set* sets, size_t mapped_bytes, int octaves_fd, uint32_t places, size_t cpus,
                       uint32_t idle_limit)
    : sets_(sets),
      mapped_bytes_(mapped_bytes),
      octaves_fd_(octaves_fd),
      cpus_(cpus),
      idle_limit_(idle_limit),
      places_(places) {}

HotOctaves::~HotOctaves() { munmap(sets_, mapped_bytes_); }

Status HotOctaves::Read(uint32_t closing_epoch, const Visit& visit) {
  // A grace period of RCU: who was in the probe when the place was closed is out of it. Where it is refused
  // (nohz_full), the time since the last Read has to do.
  if (closing_) syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
  closing_ = false;
  return ForEachPerCpu<uint32_t, pyro_octave>(
      octaves_fd_, cpus_, [&](const uint32_t& number, const pyro_octave* values) {
        if (number >= places_.size()) return;  // never: it is our map
        Place& place = places_[number];
        pyro_hot_key& owner = KeyAt(number);
        std::atomic_ref<uint32_t> state(owner.state);
        const uint32_t now = state.load(std::memory_order_acquire);
        place.calls = 0;
        // Taken and counted in between the copy of the values and here: the next Read has it.
        if (now == PYRO_HOT_FREE) return;
        OctaveDelta delta;
        if (place.octave.Advance(values, cpus_, closing_epoch, delta)) {
          place.idle = 0;
          place.calls = std::accumulate(delta.counts.begin(), delta.counts.end(), uint64_t{0});
          visit(owner.key, delta);
        } else {
          ++place.idle;
        }
        if (now == PYRO_HOT_CLOSING) {
          place.idle = 0;
          state.store(PYRO_HOT_FREE, std::memory_order_release);
          std::atomic_ref(sets_[number / PYRO_HOT_WAYS].tags[number % PYRO_HOT_WAYS])
              .store(0, std::memory_order_release);
        } else if (place.idle >= idle_limit_) {
          Close(state);
        }
      });
}

void HotOctaves::Close(std::atomic_ref<uint32_t> state) {
  state.store(PYRO_HOT_CLOSING, std::memory_order_release);
  closing_ = true;
}

void HotOctaves::MakeRoom(const pyro_syscall_octave_key& key, uint64_t calls) {
  if (calls < kHotCalls) return;
  const uint32_t first =
      pyro_hot_set_of(pyro_hot_tag(&key), Shift(static_cast<uint32_t>(places_.size()))) * PYRO_HOT_WAYS;
  uint32_t quietest = first;
  for (uint32_t place = first; place < first + PYRO_HOT_WAYS; ++place) {
    // One that is free or becomes so will do; and it may have one since it was counted in the hash.
    if (std::atomic_ref(KeyAt(place).state).load(std::memory_order_acquire) != PYRO_HOT_USED ||
        pyro_same_octave_key(&KeyAt(place).key, &key)) {
      return;
    }
    if (places_[place].calls < places_[quietest].calls) quietest = place;
  }
  if (places_[quietest].calls < calls / kHotterBy) Close(std::atomic_ref(KeyAt(quietest).state));
}

}  // namespace pyrometer::kernel

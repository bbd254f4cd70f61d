// Turns the ever-growing per-CPU octaves of a probe's map into what was added since the last read.
// Internal to kernel/.
//
//   OctaveReader<pyro_syscall_octave_key> reader(fd, cpus);
//   reader.Read(closing_epoch, [&](const auto& key, const OctaveDelta& delta) { … });
//
// Exactness: counters only grow and are read whole (aligned 8-byte words), so that each addition shows in exactly
// one Read. An entry is deleted only after `idle_limit` Reads without change, with lookup-and-delete, whose last
// value is compared once more. Threads: one. Cost: one batched system call per 256 entries.
#pragma once

#include <bpf/bpf.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bpf/abi/histogram.h"
#include "userspace/base/status.h"
#include "userspace/kernel/latency_histogram.h"

namespace pyrometer::kernel {

// What was added to one octave.
struct OctaveDelta {
  std::array<uint64_t, PYRO_SUB_BUCKETS> counts{};
  uint64_t sum = 0;
  uint64_t max = 0;  // of the window that was closed; 0 when a newer one has overwritten it
};

// What has been reported of one octave so far.
class OctaveSeen {
 public:
  // True when anything was added since the last call; `delta` then has it. `values` is one per possible CPU.
  bool Advance(const pyro_octave* values, size_t cpus, uint32_t closing_epoch, OctaveDelta& delta);

 private:
  std::array<uint64_t, PYRO_SUB_BUCKETS> counts_{};
  uint64_t sum_ = 0;
};

// Adds `more` of the same octave and window to `delta`.
void MergeOctave(const OctaveDelta& more, OctaveDelta& delta);

// Adds octave number `octave` to `histogram`; octaves must come in ascending order.
void AppendOctave(uint32_t octave, const OctaveDelta& delta, LatencyHistogram& histogram);

// Hash of a key without padding bytes left to chance.
struct BytesHash {
  template <typename Key>
  size_t operator()(const Key& key) const {
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&key), sizeof(key)});
  }
};
struct BytesEqual {
  template <typename Key>
  bool operator()(const Key& a, const Key& b) const {
    return std::memcmp(&a, &b, sizeof(Key)) == 0;
  }
};

// Calls visit(key, values) for every entry of a per-CPU hash map or array, `values` one per possible CPU.
template <typename Key, typename Value, typename Visit>
Status ForEachPerCpu(int map_fd, size_t cpus, Visit visit) {
  static_assert(sizeof(Value) % 8 == 0, "the kernel rounds per-CPU values up to 8 bytes");
  // A batch holds whole hash buckets; more entries in one bucket than fit are ENOSPC, then the batch grows.
  size_t batch = 256;
  std::vector<Key> keys(batch);
  std::vector<Value> values(batch * cpus);
  uint32_t in_position = 0, out_position = 0;
  bool first = true;
  while (true) {
    auto count = static_cast<uint32_t>(batch);
    const int result = bpf_map_lookup_batch(map_fd, first ? nullptr : &in_position, &out_position, keys.data(),
                                            values.data(), &count, nullptr);
    const int error = result == 0 ? 0 : errno;
    if (error == ENOSPC && batch < (1u << 20)) {
      batch *= 2;
      keys.resize(batch);
      values.resize(batch * cpus);
      continue;
    }
    if (error != 0 && error != ENOENT) return ErrnoError(error, "cannot read a BPF map");
    for (uint32_t i = 0; i < count; ++i) visit(keys[i], &values[i * cpus]);
    if (error == ENOENT) return OkStatus();
    in_position = out_position;
    first = false;
  }
}

template <typename Key>
class OctaveReader {
 public:
  OctaveReader(int map_fd, size_t cpus, uint32_t idle_limit) : map_fd_(map_fd), cpus_(cpus), idle_limit_(idle_limit) {}

  // Calls visit(key, delta) for each entry that changed. `may_evict(key)` says whether an idle entry may go.
  template <typename Visit, typename MayEvict>
  Status Read(uint32_t closing_epoch, Visit visit, MayEvict may_evict) {
    std::vector<Key> idle;
    RETURN_IF_ERROR((ForEachPerCpu<Key, pyro_octave>(map_fd_, cpus_, [&](const Key& key, const pyro_octave* values) {
      Seen& seen = seen_[key];
      OctaveDelta delta;
      if (seen.octave.Advance(values, cpus_, closing_epoch, delta)) {
        seen.idle = 0;
        visit(key, delta);
      } else if (++seen.idle >= idle_limit_ && may_evict(key)) {
        idle.push_back(key);
      }
    })));
    std::vector<pyro_octave> values(cpus_);
    for (const Key& key : idle) {
      if (bpf_map_lookup_and_delete_elem(map_fd_, &key, values.data()) != 0) continue;
      OctaveDelta delta;
      if (seen_[key].octave.Advance(values.data(), cpus_, closing_epoch, delta)) visit(key, delta);
      seen_.erase(key);
    }
    return OkStatus();
  }

  size_t size() const { return seen_.size(); }

 private:
  struct Seen {
    OctaveSeen octave;
    uint32_t idle = 0;  // Reads without change
  };

  int map_fd_;
  size_t cpus_;
  uint32_t idle_limit_;
  std::unordered_map<Key, Seen, BytesHash, BytesEqual> seen_;
};

// The same of plain counts.
template <typename Key>
class CountReader {
 public:
  CountReader(int map_fd, size_t cpus, uint32_t idle_limit) : map_fd_(map_fd), cpus_(cpus), idle_limit_(idle_limit) {}

  // Calls visit(key, increase) for each entry that changed.
  template <typename Visit>
  Status Read(Visit visit) {
    std::vector<Key> idle;
    RETURN_IF_ERROR((ForEachPerCpu<Key, uint64_t>(map_fd_, cpus_, [&](const Key& key, const uint64_t* values) {
      Seen& seen = seen_[key];
      if (Advance(key, seen, values, visit)) {
        seen.idle = 0;
      } else if (++seen.idle >= idle_limit_) {
        idle.push_back(key);
      }
    })));
    std::vector<uint64_t> values(cpus_);
    for (const Key& key : idle) {
      if (bpf_map_lookup_and_delete_elem(map_fd_, &key, values.data()) != 0) continue;
      Advance(key, seen_[key], values.data(), visit);
      seen_.erase(key);
    }
    return OkStatus();
  }

 private:
  struct Seen {
    uint64_t count = 0;
    uint32_t idle = 0;  // Reads without change
  };

  template <typename Visit>
  bool Advance(const Key& key, Seen& seen, const uint64_t* values, Visit& visit) const {
    uint64_t total = 0;
    for (size_t cpu = 0; cpu < cpus_; ++cpu) total += values[cpu];
    if (total == seen.count) return false;
    visit(key, total - seen.count);
    seen.count = total;
    return true;
  }

  int map_fd_;
  size_t cpus_;
  uint32_t idle_limit_;
  std::unordered_map<Key, Seen, BytesHash, BytesEqual> seen_;
};

}  // namespace pyrometer::kernel

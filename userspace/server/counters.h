// The store's own counters, told by /metrics. Threads: atomics, from any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace pyrometer::server {

struct Counters {
  std::atomic<uint64_t> batches_accepted{0};
  std::atomic<uint64_t> batches_duplicate{0};
  std::atomic<uint64_t> batches_rejected{0};            // malformed or refused by the store for good
  std::atomic<uint64_t> batches_failed{0};              // disk full and the like; the agent keeps them
  std::atomic<uint64_t> append_ns{0};                   // time in the store, all batches
  std::atomic<uint64_t> agents_connected{0};            // connections accepted since start
  std::atomic<uint64_t> http_ns{0};                     // time in handlers
  std::array<std::atomic<uint64_t>, 6> http_replies{};  // by hundreds of the status; [2] = 2xx
};

}  // namespace pyrometer::server

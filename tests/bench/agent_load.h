// Many simulated agents on a store: each has a stream of its own and sends its batches in order, several on the way at
// a time; a stream that the store ends for a passing reason is opened again and goes on where the store is.
//
//   FleetSource source(fleet, {.batches = 30});
//   AgentLoad load({.target = "127.0.0.1:7071", .agents = 8}, &source);
//   ASSIGN_OR_RETURN(LoadResult result, load.Run([](const LoadResult& minute) { … }));
//
// Cost: `threads` threads that make and encode batches, gRPC's own, one connection per `agents / connections` agents.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/rpc/types.h"

namespace pyrometer::bench {

// Where batches come from. Agents of one group are served by one thread; different groups by different ones at once.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual int Group(int agent) const = 0;
  virtual rpc::Hello Hello(int agent) const = 0;
  // Sequences count from 1. Valid until the next call for its group. A sequence may be asked for again.
  virtual const profile::Batch& Get(int agent, uint64_t sequence) = 0;
  // The last one; UINT64_MAX = there is always another.
  virtual uint64_t Last() const = 0;
  // Not to be sent earlier than this long after the beginning.
  virtual uint64_t DueNs(uint64_t) const { return 0; }
};

struct LoadOptions {
  std::string target;  // HOST:PORT
  int agents = 8;
  int connections = 0;  // 0 = one per agent, a thousand at most
  int in_flight = 4;    // batches of an agent
  int threads = 8;
  uint64_t seconds = 0;  // no new batches after that; 0 = until the source's last
};

struct LoadResult {
  double seconds = 0;
  uint64_t batches = 0;  // acknowledged
  uint64_t samples = 0;
  uint64_t reconnects = 0;
  uint64_t welcomed_ns = 0;            // until every agent was
  std::vector<uint64_t> latencies_ns;  // sorted
  std::string Latency(double share) const;
};

class AgentLoad {
 public:
  AgentLoad(LoadOptions options, BatchSource* source);
  ~AgentLoad();

  // `every_minute` (may be empty) gets what the last minute brought. Errors: a batch that the store refuses, a stream
  // that ends for good, or nothing acknowledged for a minute.
  StatusOr<LoadResult> Run(const std::function<void(const LoadResult&)>& every_minute);

 private:
  class Agent;
  class Worker;
  struct Shared;
  const LoadOptions options_;
  BatchSource& source_;
};

}  // namespace pyrometer::bench

// Batches of the generator's fleet (tests/support/fleet.h) for AgentLoad: each agent has --pods pods of one service.
// Threads: as BatchSource. Cost: made as they are asked for, 0.1 to 0.2 µs of CPU per raw sample (GenerationSeconds
// says how much it was); or all beforehand, 24 bytes per stack and window.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/agent_load.h"
#include "tests/support/fleet.h"

namespace pyrometer::bench {

class FleetSource : public BatchSource {
 public:
  // `options.services` and `options.nodes` are set from the number of agents, `options.pods` is per agent.
  // `batches`: per agent; 0 = no end.
  FleetSource(testing::FleetOptions options, int agents, uint64_t batches);

  // Makes all batches now. Precondition: there is an end.
  void MakeAll(int agents);
  double GenerationSeconds() const { return static_cast<double>(generation_ns_.load()) / 1e9; }
  const testing::FleetOptions& options() const { return fleet_.options(); }

  int Group(int agent) const override { return agent % fleet_.options().services; }
  rpc::Hello Hello(int agent) const override;
  const profile::Batch& Get(int agent, uint64_t sequence) override;
  uint64_t Last() const override { return batches_ == 0 ? UINT64_MAX : batches_; }

 private:
  // All that agents of one service have in common.
  struct Service {
    int deploy = 0;
    std::unique_ptr<testing::FleetStream> stream;
  };
  testing::FleetStream& Stream(int agent, uint64_t sequence);

  const testing::Fleet fleet_;
  const uint64_t batches_;
  std::vector<Service> services_;
  std::vector<std::vector<testing::FleetStream::Batch>> made_;  // by agent and sequence; empty = made when asked for
  std::atomic<uint64_t> generation_ns_{0};
};

}  // namespace pyrometer::bench

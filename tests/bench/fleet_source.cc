#include "tests/bench/fleet_source.h"

#include <time.h>

#include <algorithm>

#include "userspace/base/strings.h"

namespace pyrometer::bench {
namespace {

// As store_size has; each is a hundred thousand stack nodes at either end.
constexpr int kMaxServices = 50;

testing::FleetOptions ForAgents(testing::FleetOptions options, int agents) {
  // Pods go to nodes round robin: with a divisor of them all pods of a node are of one service.
  options.services = std::min(agents, kMaxServices);
  while (agents % options.services != 0) --options.services;
  options.nodes = agents;
  options.pods *= agents / options.services;
  return options;
}

uint64_t ThreadCpuNs() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

FleetSource::FleetSource(testing::FleetOptions options, int agents, uint64_t batches)
    : fleet_(ForAgents(std::move(options), agents)),
      batches_(batches),
      services_(static_cast<size_t>(fleet_.options().services)) {}

testing::FleetStream& FleetSource::Stream(int agent, uint64_t sequence) {
  Service& service = services_[static_cast<size_t>(Group(agent))];
  const int every = fleet_.options().deploy_every;
  const int deploy = every > 0 ? static_cast<int>((sequence - 1) / static_cast<uint64_t>(every)) : 0;
  // What earlier deploys had is not needed any more, unless by what was made beforehand; who lags behind has it made
  // anew.
  if (service.stream == nullptr || (made_.empty() && deploy > service.deploy)) {
    service.stream = std::make_unique<testing::FleetStream>(&fleet_);
    service.deploy = deploy;
  }
  return *service.stream;
}

void FleetSource::MakeAll(int agents) {
  made_.resize(static_cast<size_t>(agents));
  for (int agent = 0; agent < agents; ++agent) {
    for (uint64_t sequence = 1; sequence <= batches_; ++sequence) {
      made_[static_cast<size_t>(agent)].push_back(
          Stream(agent, sequence).Window(agent, static_cast<int>(sequence) - 1));
    }
  }
}

rpc::Hello FleetSource::Hello(int agent) const {
  return {.agent_id = StrFormat("agent-%d", agent), .node = StrFormat("node-%d", agent), .tenant = options().tenant};
}

const profile::Batch& FleetSource::Get(int agent, uint64_t sequence) {
  const uint64_t before = ThreadCpuNs();
  testing::FleetStream& stream = Stream(agent, sequence);
  const profile::Batch* batch = nullptr;
  if (made_.empty()) {
    batch = &stream.Whole(stream.Window(agent, static_cast<int>(sequence) - 1));
  } else {
    batch = &stream.Whole(made_[static_cast<size_t>(agent)][sequence - 1]);
  }
  generation_ns_ += ThreadCpuNs() - before;
  return *batch;
}

}  // namespace pyrometer::bench

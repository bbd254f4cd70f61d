// A fleet of known shape, the same for the same seed: what every measurement of the store is made on.
//
//   Fleet fleet({.services = 50, .pods = 10});
//   profile::Batch batch = fleet.Window(/*node=*/3, /*window=*/17);    // one node's window, as an agent would send it
//
// Shape, and where it comes from:
// - Each service has `stacks` distinct stacks, drawn log-uniformly (Zipf with s = 1): rank 1 holds a tenth of the
//   samples, half the ranks together hold 7 %.
// - Stacks branch off each other the way call trees do: a new one leaves an earlier one some frames above its leaf and
// goes
//   on along the edges of a call graph with few callees per caller. 3.3 trie nodes per stack (published for a large
//   fleet: 3.3; measured on the Go compiler, whose profile is very flat: 4.8), mean depth 25, 0.25 graph edges per node
//   (Go compiler: 0.29).
// - A frame is an address; three per function on average. Half of a service's functions are its own binary's, half come
//   from libraries that all services share. Names are as long as C++ names are (40 to 90 bytes).
// - Pods are spread over nodes round robin. With `deploy_every` all pods of a service get new names, a new version
// label and
//   one stack in ten a new address, every so many windows.
//
// Threads: Window from any, after the constructor. Cost: 60 ns per raw sample.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "userspace/profile/batch.h"
#include "userspace/profile/definitions.h"

namespace pyrometer::testing {

struct FleetOptions {
  uint64_t seed = 1;
  int services = 50;
  int pods = 10;       // per service
  int nodes = 50;      // one agent each
  int samples = 1000;  // raw, per pod and window
  int stacks = 20'000;
  uint64_t window_ns = 60'000'000'000;
  int64_t start_ns = 1'700'006'400'000'000'000;  // the beginning of a day
  int deploy_every = 0;                          // windows; 0 = never
  bool offsets = false;                          // milliseconds of each sample within its window
  std::string tenant;
};

class Fleet {
 public:
  explicit Fleet(FleetOptions options);
  ~Fleet();

  const FleetOptions& options() const { return options_; }
  // Raw samples in one batch of a node.
  uint64_t SamplesPerBatch(int node) const;

  // The window of all pods on one node. The sequence number is window + 1.
  profile::Batch Window(int node, int window) const;

  // The same in ranks, for those who encode it themselves.
  struct PodWindow {
    int service = 0;
    int pod = 0;
    int deploy = 0;
    // (rank, samples), by rank.
    std::vector<std::pair<uint32_t, uint32_t>> counts;
    std::vector<uint16_t> offsets_ms;  // as profile::ProfilePoint has them
  };
  std::vector<PodWindow> Draw(int node, int window) const;
  profile::SeriesKey Series(int node, const PodWindow& pod) const;
  // Frames of a stack, root first, as indices into the service's frames; and a frame's definition.
  const std::vector<uint32_t>& Stack(int service, uint32_t rank, int deploy) const;
  profile::FrameId Frame(profile::Dictionary* dictionary, int service, uint32_t frame, int deploy) const;
  size_t FramesOfService() const;
  static constexpr uint64_t kPeriodNs = 10'101'010;

 private:
  struct Service;
  const FleetOptions options_;
  std::vector<std::unique_ptr<Service>> services_;
};

// Batches of many windows over one set of definitions, as a stream has them: each stack is spelt out once.
//
//   FleetStream stream(&fleet);
//   FleetStream::Batch batch = stream.Window(3, 17);
//   store.Append(batch.view(), memo);                 // a memo for this stream's batches
//
// Threads: none shared. Cost: 100 ns per raw sample once the stacks are known.
class FleetStream {
 public:
  explicit FleetStream(const Fleet* fleet) : fleet_(*fleet), definitions_(&whole_.dictionary) {}

  struct Batch {
    std::string tenant, agent_id, node;
    uint64_t sequence = 0;
    const profile::Definitions* definitions = nullptr;
    const std::vector<profile::SeriesKey>* series = nullptr;
    std::vector<profile::ProfilePoint> profiles;
    profile::BatchView view() const;
  };
  // Valid until the next call.
  Batch Window(int node, int window);
  // The same as a batch of its own; beside what it refers to its dictionary has all that this stream has seen, and its
  // series too. Any batch of this stream, at any time; valid until the next call.
  const profile::Batch& Whole(const Batch& batch);
  const profile::Dictionary& dictionary() const { return whole_.dictionary; }

 private:
  profile::StackId Stack(int service, uint32_t rank, int deploy);

  const Fleet& fleet_;
  profile::Batch whole_;  // dictionary and series of all that was seen
  const profile::DictionaryDefinitions definitions_;
  std::map<profile::SeriesKey, uint32_t> series_ids_;
  std::map<std::pair<int, int>, std::vector<profile::StackId>> stacks_;  // (service, deploy) -> by rank
  std::map<std::pair<int, int>, std::vector<profile::FrameId>> frames_;  // (service, deploy) -> by frame
};

}  // namespace pyrometer::testing

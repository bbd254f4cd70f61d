// A recording as what agents send, for AgentLoad: a file of `pyrometer ci record` (.pyro), a window per run, or any
// profile that `pyrometer convert` reads, as one window. Every agent sends all of it as its own: labels `node` and
// `pod` differ.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<ReplaySource> source, ReplaySource::Read("base.pyro", {.agents = 8}));
//
// Times are as recorded, moved as a whole so that the last window ends before now. Threads: as BatchSource.
// Cost: the file in memory, once per group.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/bench/agent_load.h"

namespace pyrometer::bench {

struct ReplayOptions {
  int agents = 1;
  uint64_t windows = 0;  // per agent, the file again and again; 0 = the file once
  double speed = 0;      // times as fast as recorded; 0 = as fast as the store takes them
};

class ReplaySource : public BatchSource {
 public:
  static StatusOr<std::unique_ptr<ReplaySource>> Read(const std::string& path, const ReplayOptions& options);

  int Group(int agent) const override { return agent % static_cast<int>(groups_.size()); }
  rpc::Hello Hello(int agent) const override;
  const profile::Batch& Get(int agent, uint64_t sequence) override;
  uint64_t Last() const override { return options_.windows; }
  uint64_t DueNs(uint64_t sequence) const override;
  int64_t start_ns() const { return start_ns_; }
  size_t windows_in_file() const { return windows_.size(); }

 private:
  // Series are by index in `series_`.
  struct Window {
    uint64_t since_start_ns = 0;
    std::vector<profile::ProfilePoint> points;
  };
  explicit ReplaySource(const ReplayOptions& options) : options_(options) {}
  Status AddRuns(const std::string& path, profile::Dictionary* dictionary);
  Status AddProfile(const std::string& path, profile::Dictionary* dictionary);
  uint64_t SinceStart(uint64_t sequence) const;

  ReplayOptions options_;
  std::vector<profile::SeriesKey> series_;  // without node and pod
  std::vector<Window> windows_;
  uint64_t length_ns_ = 0;  // of all windows
  int64_t start_ns_ = 0;
  std::vector<profile::Batch> groups_;
};

}  // namespace pyrometer::bench

// One profile on demand: probes of its own beside the always-on ones, and the windows of what they take.
//
//   ASSIGN_OR_RETURN(auto session, Session::Start(spec, options, &node, &resolver));
//   session->Step(MonotonicNowNs(), MonotonicToUnixOffsetNs());     // often; ends it when its time is over
//   session->track().Fold(…);                                       // as for any SampleTrack
//   if (session->ended()) … session->Report() …
//
// A probe that cannot be read ends the session: Report() says kFailed and why. What was taken until then stays.
//
// Threads: none shared (the collector guards it). Cost: that of its probes (kernel/cpu_sampler.h, kernel/off_cpu.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "userspace/agent/node.h"
#include "userspace/agent/sample_track.h"
#include "userspace/agent/wait_track.h"
#include "userspace/kernel/cpu_sampler.h"

namespace pyrometer::agent {

// What a session looks at: at most one of the members is set; none means everything.
struct TargetSpec {
  uint32_t pid = 0;
  std::string container;  // name, or id prefix of at least 4 characters
  std::string cgroup;     // path below the cgroup2 mount, "/shop"
};

// NOT_FOUND when there is no such process, container or cgroup; the message names close ones.
StatusOr<kernel::SampleTarget> ResolveTarget(const TargetSpec& spec, Node& node);

struct SessionSpec {
  std::string id;
  TargetSpec target;
  uint64_t duration_ns = 30 * kNsPerSecond;
  uint32_t frequency_hz = 0;  // 0 = the always-on frequency
  bool cpu = true;
  bool waits = false;  // of the target too: sampled waits with their stacks, as types off_cpu and off_cpu_wakers
};

enum class SessionState { kRunning, kDone, kStopped, kFailed };

struct SessionReport {
  std::string id;
  SessionState state = SessionState::kRunning;
  std::string error;       // kFailed
  uint64_t samples = 0;    // so far
  int64_t started_ns = 0;  // Unix time
  // In a final state: all its samples are in batches up to this sequence.
  uint64_t last_sequence = 0;
};

class Session {
 public:
  struct Options {
    uint32_t frequency_hz = 99;  // of sessions that name none
    uint64_t window_ns = 10 * kNsPerSecond;
  };
  // Starts its probes. Both pointers must outlive it.
  static StatusOr<std::unique_ptr<Session>> Start(const SessionSpec& spec, const Options& options, Node* node,
                                                  SampleResolver* resolver);
  // Of probes that run; null: not asked for.
  Session(SessionSpec spec, std::unique_ptr<kernel::CpuSampler> sampler, std::unique_ptr<WaitTrack> waits,
          SampleResolver* resolver, uint64_t window_ns);

  const std::string& id() const { return spec_.id; }
  SampleTrack& track() { return track_; }

  // Somebody wants it to end: the next Step does.
  void RequestStop() { stop_ = true; }
  // Reads its probes. Ends them before that when its time is over or it is to stop, after that when they cannot be
  // read.
  void Step(uint64_t monotonic_ns, int64_t monotonic_to_unix_ns);
  // Its probes are stopped and their rings read: the next Fold of the track is the last one needed.
  bool ended() const { return ended_; }

  // Its state is final once it has ended; last_sequence is the caller's to fill in.
  SessionReport Report() const;

 private:
  void Poll(int64_t monotonic_to_unix_ns);
  void StopProbes();
  // Keeps the first failure.
  void Note(std::string_view probe, const Status& status);

  const SessionSpec spec_;
  std::unique_ptr<kernel::CpuSampler> sampler_;
  std::unique_ptr<WaitTrack> waits_;
  SampleTrack track_;
  const int64_t started_ns_;
  const uint64_t until_monotonic_ns_;
  Status problem_;
  bool stop_ = false;
  bool ended_ = false;
};

}  // namespace pyrometer::agent

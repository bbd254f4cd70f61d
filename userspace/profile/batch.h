// What an agent hands to a store in one piece: all points of one window, with the dictionary they
// refer to. Self-contained, so that it can lie in the spool over restarts; the stream sends
// dictionary entries only once (rpc/).
//
// Exactly once: (agent_id, sequence) identifies a batch for ever. The store applies a batch and
// remembers its sequence in one atomic write; a resend is recognised and only acknowledged.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "userspace/profile/definitions.h"
#include "userspace/profile/dictionary.h"
#include "userspace/profile/histogram.h"

namespace pyrometer::profile {

// Profile types of this release; the name of a series in the selector language.
inline constexpr std::string_view kTypeCpu = "cpu";                         // nanoseconds
inline constexpr std::string_view kTypeSyscallLatency = "syscall_latency";  // histogram, nanoseconds
inline constexpr std::string_view kTypeSyscallTime = "syscall_time";        // counter, ns, labels syscall, cause
// Histogram, nanoseconds: ages of the calls that had not returned when the window ended. A look at a state: windows do
// not add up.
inline constexpr std::string_view kTypeSyscallOpen = "syscall_open";
inline constexpr std::string_view kTypeOffCpu = "off_cpu";               // nanoseconds of sampled waits, label cause
inline constexpr std::string_view kTypeOffCpuWakers = "off_cpu_wakers";  // the same with the waker's stack on top
inline constexpr std::string_view kTypeWaitTime = "off_cpu_time";        // counter, nanoseconds, exact, label cause
inline constexpr std::string_view kTypeWaits = "waits";                  // counter, exact, label cause
inline constexpr std::string_view kTypeRunQueue = "run_queue_latency";   // histogram, nanoseconds
inline constexpr std::string_view kTypeTcpRtt = "tcp_rtt";               // histogram, nanoseconds (smoothed RTT)
inline constexpr std::string_view kTypeTcpMinRtt = "tcp_min_rtt";        // histogram, nanoseconds
inline constexpr std::string_view kTypeTcpConnect = "tcp_connect";       // histogram, nanoseconds (handshake)
inline constexpr std::string_view kTypeTcpRttVariation = "tcp_rtt_variation";  // histogram, nanoseconds
inline constexpr std::string_view kTypeTcpRetransmits = "tcp_retransmits";     // counter, segments, label cause
inline constexpr std::string_view kTypeTcpResets = "tcp_resets";               // counter, label cause: sent, received
inline constexpr std::string_view kTypeTcpZeroWindows = "tcp_zero_windows";    // counter, label cause: sent, received
inline constexpr std::string_view kTypeTcpLimited = "tcp_limited";             // counter, nanoseconds, label cause
inline constexpr std::string_view kTypeTcpConnectFailures = "tcp_connect_failures";    // counter
inline constexpr std::string_view kTypeTcpConnectionsFound = "tcp_connections_found";  // counter, older than the agent
inline constexpr std::string_view kTypeTcpConnectionsClosed = "tcp_connections_closed";   // counter
inline constexpr std::string_view kTypeTcpBytesSent = "tcp_bytes_sent";                   // counter, bytes
inline constexpr std::string_view kTypeTcpBytesReceived = "tcp_bytes_received";           // counter, bytes
inline constexpr std::string_view kTypeTcpConnections = "tcp_connections";                // counter, opened
inline constexpr std::string_view kTypeSamplesTaken = "pyrometer_samples_taken";          // counter
inline constexpr std::string_view kTypeSamplesDelivered = "pyrometer_samples_delivered";  // counter
inline constexpr std::string_view kTypeSamplesDropped = "pyrometer_samples_dropped";      // counter, label reason
inline constexpr std::string_view kTypeStackStops = "pyrometer_stack_stops";              // counter, label reason
inline constexpr std::string_view kTypeSymbolMisses = "pyrometer_symbol_misses";          // counter, label reason
inline constexpr std::string_view kTypeStackMeans = "pyrometer_stack_means";              // counter, label reason
inline constexpr std::string_view kTypeSamplesExpected = "pyrometer_samples_expected";    // counter
inline constexpr std::string_view kTypeFrames = "pyrometer_frames";                       // counter
inline constexpr std::string_view kTypeAgentCpu = "pyrometer_agent_cpu";                  // counter, nanoseconds
inline constexpr std::string_view kTypeAgentRss = "pyrometer_agent_rss";  // gauge as counter per window, bytes

// A series: profile type and labels.
struct SeriesKey {
  std::string type;
  LabelSet labels;
  auto operator<=>(const SeriesKey&) const = default;
};

// Stack samples of one series in one window.
struct ProfilePoint {
  struct Sample {
    StackId stack = kEmptyStack;
    uint64_t count = 0;  // samples
    uint64_t value = 0;  // in the type's unit; for cpu: count × period
  };
  uint32_t series = 0;  // index into Batch::series
  int64_t time_ns = 0;  // Unix time of the window's start
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  std::vector<Sample> samples;
  // When within the window the samples were taken, in milliseconds from its start: `count` sorted numbers for each
  // entry of `samples`, one after the other. Empty: not recorded (or the window is longer than 65 s).
  std::vector<uint16_t> offsets_ms;
};

// A part of the time of one call: "running", or a cause of waiting.
struct TimePart {
  std::string cause;
  uint64_t ns = 0;
  bool operator==(const TimePart&) const = default;
};

// Who ended a wait.
struct Waker {
  StackId stack = kEmptyStack;  // where it was
  std::string comm;             // "": an interrupt
  uint32_t tid = 0;
  std::string cause;     // of the wait that it ended
  uint64_t wait_ns = 0;  // how long that had lasted; 0: not known, nor anything else here
};

// One single call with the stack that asked for it: one of the slowest, or one drawn among all calls of its series, or
// both.
struct Exemplar {
  int64_t time_ns = 0;  // Unix time of the end of the call
  uint64_t value = 0;   // nanoseconds
  StackId stack = kEmptyStack;
  std::string comm;
  uint32_t tid = 0;
  // The call with what its arguments say, for reading: "read(7 → 10.0.0.3:5432, …, 4096) = 512". "": not known.
  std::string call;
  // Drawn among all calls with a chance of one in so many: those with a weight stand for all calls, weighted so,
  // without bias. 0: not drawn.
  uint64_t weight = 0;
  bool typical = false;         // not one of the slowest: it has a weight
  std::vector<TimePart> split;  // of `value`, where it is known; largest first
  Waker waker;                  // who ended the longest of its waits whose end was sampled
};

struct HistogramPoint {
  uint32_t series = 0;
  int64_t time_ns = 0;
  uint64_t duration_ns = 0;
  Histogram histogram;
  std::map<int32_t, uint64_t> errors;  // errno (positive) -> calls that failed with it
  std::vector<Exemplar> exemplars;
};

struct CounterPoint {
  uint32_t series = 0;
  int64_t time_ns = 0;
  uint64_t duration_ns = 0;
  uint64_t value = 0;  // increase within the window
};

struct Batch {
  std::string tenant;     // whose data it is; "" = the default tenant
  std::string agent_id;   // stable over restarts of the agent (kept beside its spool)
  std::string node;       // host name, for listings
  uint64_t sequence = 0;  // 1, 2, 3, … per agent_id, no gaps
  Dictionary dictionary;
  std::vector<SeriesKey> series;
  std::vector<ProfilePoint> profiles;
  std::vector<HistogramPoint> histograms;
  std::vector<CounterPoint> counters;

  uint64_t SampleTotal() const {
    uint64_t total = 0;
    for (const ProfilePoint& point : profiles) {
      for (const ProfilePoint::Sample& sample : point.samples) total += sample.count;
    }
    return total;
  }
};

// A batch whose definitions and series lie elsewhere: in a Batch, or in the tables of a stream. Everything it refers to
// must outlive it.
struct BatchView {
  std::string_view tenant;
  std::string_view agent_id;
  std::string_view node;
  uint64_t sequence = 0;
  const Definitions* definitions = nullptr;
  std::span<const SeriesKey> series;
  std::span<const ProfilePoint> profiles;
  std::span<const HistogramPoint> histograms;
  std::span<const CounterPoint> counters;
};

// A batch of its own with what the view refers to, and no more.
Batch CopyBatch(const BatchView& view);

}  // namespace pyrometer::profile

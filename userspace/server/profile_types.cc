#include "userspace/server/profile_types.h"

#include "userspace/profile/batch.h"

namespace pyrometer::server {
namespace {

constexpr ProfileType kTypes[] = {
    {profile::kTypeCpu, TypeKind::kProfile, "nanoseconds", "CPU time by stack"},
    {profile::kTypeSyscallLatency, TypeKind::kHistogram, "nanoseconds", "Duration of system calls"},
    {profile::kTypeSyscallTime, TypeKind::kCounter, "nanoseconds",
     "Time in system calls: running, or waiting by cause"},
    {profile::kTypeSyscallOpen, TypeKind::kHistogram, "nanoseconds",
     "Ages of the system calls that had not returned when the window ended"},
    {profile::kTypeOffCpu, TypeKind::kProfile, "nanoseconds", "Time that threads waited, by stack and cause"},
    {profile::kTypeOffCpuWakers, TypeKind::kProfile, "nanoseconds", "The same, with the stack that ended the wait"},
    {profile::kTypeWaitTime, TypeKind::kCounter, "nanoseconds", "Time that threads waited, by cause; not sampled"},
    {profile::kTypeWaits, TypeKind::kCounter, "count", "Waits that ended, by cause"},
    {profile::kTypeRunQueue, TypeKind::kHistogram, "nanoseconds", "Time that ready threads waited for a processor"},
    {profile::kTypeTcpRtt, TypeKind::kHistogram, "nanoseconds", "Round-trip time of TCP connections, smoothed"},
    {profile::kTypeTcpMinRtt, TypeKind::kHistogram, "nanoseconds", "Lowest round-trip time seen by each connection"},
    {profile::kTypeTcpConnect, TypeKind::kHistogram, "nanoseconds", "Duration of TCP handshakes"},
    {profile::kTypeTcpRttVariation, TypeKind::kHistogram, "nanoseconds", "Mean deviation of round-trip times"},
    {profile::kTypeTcpRetransmits, TypeKind::kCounter, "count", "TCP segments sent again, by cause"},
    {profile::kTypeTcpResets, TypeKind::kCounter, "count", "TCP resets sent and received"},
    {profile::kTypeTcpZeroWindows, TypeKind::kCounter, "count", "Times that a TCP receive window closed"},
    {profile::kTypeTcpLimited, TypeKind::kCounter, "nanoseconds", "Time of TCP connections by what limited them"},
    {profile::kTypeTcpConnectFailures, TypeKind::kCounter, "count", "TCP connections that were never established"},
    {profile::kTypeTcpConnectionsFound, TypeKind::kCounter, "count", "TCP connections open when the agent began"},
    {profile::kTypeTcpConnectionsClosed, TypeKind::kCounter, "count", "TCP connections that ended"},
    {profile::kTypeTcpBytesSent, TypeKind::kCounter, "bytes", "Bytes sent over TCP"},
    {profile::kTypeTcpBytesReceived, TypeKind::kCounter, "bytes", "Bytes received over TCP"},
    {profile::kTypeTcpConnections, TypeKind::kCounter, "count", "TCP connections opened"},
    {profile::kTypeSamplesTaken, TypeKind::kCounter, "count", "Samples that the agent's probes took"},
    {profile::kTypeSamplesDelivered, TypeKind::kCounter, "count", "Samples that reached the store"},
    {profile::kTypeSamplesDropped, TypeKind::kCounter, "count", "Samples lost on the way, by reason"},
    {profile::kTypeStackStops, TypeKind::kCounter, "count", "Why user stacks ended, by reason"},
    {profile::kTypeSymbolMisses, TypeKind::kCounter, "count", "Why frames have no name, by reason"},
    {profile::kTypeStackMeans, TypeKind::kCounter, "count", "Samples by the means that found their user stack"},
    {profile::kTypeSamplesExpected, TypeKind::kCounter, "count", "Samples that the busy CPU time should have given"},
    {profile::kTypeFrames, TypeKind::kCounter, "count", "Frames of all samples"},
    {profile::kTypeAgentCpu, TypeKind::kCounter, "nanoseconds", "CPU time of the agent itself"},
    {profile::kTypeAgentRss, TypeKind::kCounter, "bytes", "Resident memory of the agent, once per window"},
};

}  // namespace

ProfileType TypeInfo(std::string_view name) {
  for (const ProfileType& type : kTypes) {
    if (type.name == name) return type;
  }
  return {name, TypeKind::kProfile, "count", ""};
}

std::string_view KindName(TypeKind kind) {
  switch (kind) {
    case TypeKind::kProfile:
      return "profile";
    case TypeKind::kHistogram:
      return "histogram";
    case TypeKind::kCounter:
      return "counter";
  }
  return "profile";
}

}  // namespace pyrometer::server

#include "userspace/query/peers.h"

#include <algorithm>
#include <utility>

#include "userspace/profile/batch.h"

namespace pyrometer::query {
namespace {

constexpr std::pair<std::string_view, profile::Histogram PeerRow::*> kHistograms[] = {
    {profile::kTypeTcpRtt, &PeerRow::rtt},
    {profile::kTypeTcpRttVariation, &PeerRow::rtt_variation},
    {profile::kTypeTcpMinRtt, &PeerRow::min_rtt},
    {profile::kTypeTcpConnect, &PeerRow::connect},
};

constexpr std::pair<std::string_view, uint64_t PeerRow::*> kSums[] = {
    {profile::kTypeTcpBytesSent, &PeerRow::bytes_sent},
    {profile::kTypeTcpBytesReceived, &PeerRow::bytes_received},
    {profile::kTypeTcpConnections, &PeerRow::opened},
    {profile::kTypeTcpConnectionsFound, &PeerRow::found},
    {profile::kTypeTcpConnectionsClosed, &PeerRow::closed},
    {profile::kTypeTcpConnectFailures, &PeerRow::connect_failures},
};

constexpr std::pair<std::string_view, std::map<std::string, uint64_t> PeerRow::*> kSumsByCause[] = {
    {profile::kTypeTcpRetransmits, &PeerRow::retransmits},
    {profile::kTypeTcpResets, &PeerRow::resets},
    {profile::kTypeTcpZeroWindows, &PeerRow::zero_windows},
    {profile::kTypeTcpLimited, &PeerRow::limited_ns},
};

}  // namespace

uint64_t PeerRow::Total(const std::map<std::string, uint64_t>& by_cause) {
  uint64_t total = 0;
  for (const auto& [cause, value] : by_cause) total += value;
  return total;
}

std::vector<std::string> DefaultPeerLabels() {
  return {std::string(profile::kLabelNode),        std::string(profile::kLabelContainerName),
          std::string(profile::kLabelContainerId), std::string(profile::kLabelService),
          std::string(profile::kLabelPeer),        std::string(profile::kLabelDirection)};
}

StatusOr<std::vector<PeerRow>> Peers(const PeerSource& source, const std::vector<std::string>& by) {
  if (std::find(by.begin(), by.end(), profile::kLabelCause) != by.end()) {
    return InvalidArgumentError("peers cannot be split by cause: each row holds its causes");
  }
  std::map<profile::LabelSet, PeerRow> rows;
  for (const auto& [type, member] : kHistograms) {
    ASSIGN_OR_RETURN(const auto histograms, source.histograms(type, by));
    for (const PeerSource::LabelledHistogram& one : histograms) (rows[one.labels].*member).Merge(one.histogram);
  }
  for (const auto& [type, member] : kSums) {
    ASSIGN_OR_RETURN(const auto sums, source.sums(type, by));
    for (const PeerSource::LabelledSum& one : sums) rows[one.labels].*member += one.value;
  }
  std::vector<std::string> by_cause = by;
  by_cause.emplace_back(profile::kLabelCause);
  for (const auto& [type, member] : kSumsByCause) {
    ASSIGN_OR_RETURN(const auto sums, source.sums(type, by_cause));
    for (const PeerSource::LabelledSum& one : sums) {
      // Agents before the causes stored their retransmits without one.
      const std::string cause =
          one.labels.Has(profile::kLabelCause) ? std::string(one.labels.Get(profile::kLabelCause)) : "other";
      (rows[one.labels.With(profile::kLabelCause, "")].*member)[cause] += one.value;
    }
  }
  std::vector<PeerRow> out;
  out.reserve(rows.size());
  for (auto& [labels, row] : rows) {
    row.labels = labels;
    out.push_back(std::move(row));
  }
  return out;
}

}  // namespace pyrometer::query

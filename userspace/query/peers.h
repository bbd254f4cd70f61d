// TCP per (labels, usually container × peer × direction): the kinds of number that agents store apart, in one row.
//
//   ASSIGN_OR_RETURN(std::vector<PeerRow> rows, Peers({histograms, counters}, DefaultPeerLabels()));
//
// The source is an engine (server/) or a store far away (cli/): whoever answers `type{…} by labels`.
// Threads: none of its own. Cost: fourteen questions to the source.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/histogram.h"
#include "userspace/profile/label_set.h"

namespace pyrometer::query {

struct PeerRow {
  profile::LabelSet labels;
  profile::Histogram rtt, rtt_variation, min_rtt, connect;  // nanoseconds
  std::map<std::string, uint64_t> retransmits;              // segments by cause: rto, fast, tlp, handshake, other
  std::map<std::string, uint64_t> resets;                   // by way: sent, received
  std::map<std::string, uint64_t> zero_windows;             // by way
  std::map<std::string, uint64_t> limited_ns;               // by what limited the connections
  uint64_t bytes_sent = 0, bytes_received = 0;              // payload
  uint64_t opened = 0, found = 0, closed = 0, connect_failures = 0;  // connections

  static uint64_t Total(const std::map<std::string, uint64_t>& by_cause);
};

struct PeerSource {
  struct LabelledHistogram {
    profile::LabelSet labels;
    profile::Histogram histogram;
  };
  struct LabelledSum {
    profile::LabelSet labels;
    uint64_t value = 0;
  };
  using Labels = std::vector<std::string>;
  std::function<StatusOr<std::vector<LabelledHistogram>>(std::string_view type, const Labels& by)> histograms;
  std::function<StatusOr<std::vector<LabelledSum>>(std::string_view type, const Labels& by)> sums;
};

// node, container.name, container.id, service, peer, direction
std::vector<std::string> DefaultPeerLabels();

// Sorted by labels. INVALID_ARGUMENT when `by` names `cause`.
StatusOr<std::vector<PeerRow>> Peers(const PeerSource& source, const std::vector<std::string>& by);

}  // namespace pyrometer::query

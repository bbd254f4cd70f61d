// What can be asked of a store, as plain C++: implemented by the store itself (server/) and, over the
// network, by QueryClient (query_client.h).
//
//   ASSIGN_OR_RETURN(profile::Profile p, api.MergeProfile({.query = "cpu{container.name=\"shop\"}",
//                                                          .from_ns = from, .to_ns = to}));
//
// Errors: INVALID_ARGUMENT (malformed selector; the message points at the character), NOT_FOUND (node,
// session), UNAVAILABLE (nobody answers, node offline), UNAUTHENTICATED, FAILED_PRECONDITION (protocol
// version), RESOURCE_EXHAUSTED (too many sessions, too large).
// Threads: all methods from any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/profile.h"
#include "userspace/rpc/types.h"

namespace pyrometer::rpc {

class QueryApi {
 public:
  virtual ~QueryApi() = default;

  virtual StatusOr<StoreStatus> GetStatus() = 0;
  // Nothing that matches gives an empty profile.
  virtual StatusOr<profile::Profile> MergeProfile(const MergeProfileRequest& request) = 0;
  // What is shown of the same, worked out where the data is: a fleet's answer is as large as what it shows. A stack per
  // box, with a frame per function; what is too small is called "(12 smaller)". Numbers are those of MergeProfile.
  virtual StatusOr<profile::Profile> MergeFlame(const MergeFlameRequest& request) = 0;
  virtual StatusOr<MergeTopReply> MergeTop(const MergeTopRequest& request) = 0;
  virtual StatusOr<TimeSeriesReply> TimeSeries(const TimeSeriesRequest& request) = 0;
  virtual StatusOr<std::vector<LabelledHistogram>> Histograms(const HistogramsRequest& request) = 0;
  virtual StatusOr<std::vector<CallExample>> Exemplars(const ExemplarsRequest& request) = 0;
  // Every node of a tenant that ever delivered or is connected; sorted by name. A client asks with its own tenant.
  virtual StatusOr<std::vector<NodeInfo>> ListNodes(const std::string& tenant) = 0;
  StatusOr<std::vector<NodeInfo>> ListNodes() { return ListNodes(""); }
  virtual StatusOr<std::vector<std::string>> LabelValues(const LabelValuesRequest& request) = 0;

  // `spec.id` is ignored. NOT_FOUND lists the known nodes; UNAVAILABLE when the node is offline.
  // Returns at once, state pending; ask GetSession.
  virtual StatusOr<SessionInfo> StartSession(const SessionSpec& spec) = 0;
  // Asks the node to end it early; the state becomes kStopped when what it took is durable.
  virtual StatusOr<SessionInfo> StopSession(const std::string& id) = 0;
  virtual StatusOr<SessionInfo> GetSession(const std::string& id) = 0;
  // Takes a debug file or unstripped binary, from which samples, old ones too, get names and lines. `next` gives the
  // file's bytes piece by piece, "" at its end. INVALID_ARGUMENT when it cannot name anything; UNIMPLEMENTED when this
  // store keeps no symbols.
  virtual StatusOr<SymbolUpload> UploadSymbols(const std::string& name,
                                               const std::function<StatusOr<std::string>()>& next) = 0;
  // Newest first.
  virtual StatusOr<std::vector<SessionInfo>> ListSessions(const std::string& tenant) = 0;
  StatusOr<std::vector<SessionInfo>> ListSessions() { return ListSessions(""); }
};

}  // namespace pyrometer::rpc

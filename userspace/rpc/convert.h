// Wire messages <-> the plain structs of types.h. Inside this room only. Reading never fails where a
// wrong value does no harm (texts are cut, unknown states are kUnspecified); label sets are checked.
#pragma once

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/status.h"
#include "userspace/rpc/types.h"

namespace pyrometer::rpc {

// FAILED_PRECONDITION unless the store speaks our protocol; says which side is to be upgraded.
Status CheckStoreProtocol(uint32_t protocol, std::string_view version, std::string_view target);
// The same at the store for an agent.
Status CheckAgentProtocol(uint32_t protocol, std::string_view version);

void WriteLabels(const profile::LabelSet& labels, v1::Labels* wire);
StatusOr<profile::LabelSet> ReadLabels(const v1::Labels& wire);

void WriteNodeStatus(const NodeStatus& status, v1::NodeStatus* wire);
NodeStatus ReadNodeStatus(const v1::NodeStatus& wire);

void WriteHello(const Hello& hello, v1::Hello* wire);  // with our protocol and version
Hello ReadHello(const v1::Hello& wire);

void WriteSessionSpec(const SessionSpec& spec, v1::SessionSpec* wire);
SessionSpec ReadSessionSpec(const v1::SessionSpec& wire);
void WriteSessionUpdate(const SessionUpdate& update, v1::SessionUpdate* wire);
SessionUpdate ReadSessionUpdate(const v1::SessionUpdate& wire);
void WriteSessionInfo(const SessionInfo& info, v1::SessionInfo* wire);
SessionInfo ReadSessionInfo(const v1::SessionInfo& wire);

void WriteNodeInfo(const NodeInfo& info, v1::NodeInfo* wire);
NodeInfo ReadNodeInfo(const v1::NodeInfo& wire);

void WriteStoreStatus(const StoreStatus& status, v1::StatusReply* wire);  // with our protocol
StoreStatus ReadStoreStatus(const v1::StatusReply& wire);

void WriteMergeProfileRequest(const MergeProfileRequest& request, v1::MergeProfileRequest* wire);
MergeProfileRequest ReadMergeProfileRequest(const v1::MergeProfileRequest& wire);
void WriteMergeFlameRequest(const MergeFlameRequest& request, v1::MergeFlameRequest* wire);
MergeFlameRequest ReadMergeFlameRequest(const v1::MergeFlameRequest& wire);
void WriteMergeTopRequest(const MergeTopRequest& request, v1::MergeTopRequest* wire);
MergeTopRequest ReadMergeTopRequest(const v1::MergeTopRequest& wire);
void WriteTimeSeriesRequest(const TimeSeriesRequest& request, v1::TimeSeriesRequest* wire);
TimeSeriesRequest ReadTimeSeriesRequest(const v1::TimeSeriesRequest& wire);
void WriteTimeSeriesReply(const TimeSeriesReply& reply, v1::TimeSeriesReply* wire);
StatusOr<TimeSeriesReply> ReadTimeSeriesReply(const v1::TimeSeriesReply& wire);
void WriteHistogramsRequest(const HistogramsRequest& request, v1::HistogramsRequest* wire);
HistogramsRequest ReadHistogramsRequest(const v1::HistogramsRequest& wire);
void WriteHistogramsReply(const std::vector<LabelledHistogram>& histograms, v1::HistogramsReply* wire);
StatusOr<std::vector<LabelledHistogram>> ReadHistogramsReply(const v1::HistogramsReply& wire);
void WriteExemplarsRequest(const ExemplarsRequest& request, v1::ExemplarsRequest* wire);
ExemplarsRequest ReadExemplarsRequest(const v1::ExemplarsRequest& wire);
void WriteExemplarsReply(const std::vector<CallExample>& examples, v1::ExemplarsReply* wire);
StatusOr<std::vector<CallExample>> ReadExemplarsReply(const v1::ExemplarsReply& wire);
void WriteLabelValuesRequest(const LabelValuesRequest& request, v1::LabelValuesRequest* wire);
LabelValuesRequest ReadLabelValuesRequest(const v1::LabelValuesRequest& wire);

}  // namespace pyrometer::rpc

// Status <-> grpc::Status, and what a failed call means to the person who made it. Inside this room only.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <string>

#include "userspace/base/status.h"

namespace pyrometer::rpc {

// Set on every answer of a store (trailing metadata): without it an error comes from the way there.
inline constexpr char kAnsweredKey[] = "pyrometer-store";

grpc::Status ToGrpc(const Status& status);

// `target` as the user wrote it. Errors of the connection get the remedy; those of the store stay as they are.
Status FromGrpc(const grpc::Status& status, const grpc::ClientContext& context, const std::string& target);

// Whose data a call is about: metadata by the name that Cortex, Mimir and Pyroscope use.
inline constexpr char kTenantKey[] = "x-scope-orgid";
void AddToken(grpc::ClientContext* context, const std::string& token, const std::string& tenant = "");

// gRPC and protobuf write to stderr by default; errors reach the caller as Status already. GRPC_VERBOSITY=… in the
// environment keeps its voice.
void SilenceGrpc();

}  // namespace pyrometer::rpc

#include "userspace/rpc/credentials.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/grpc_status.h"
#include "userspace/rpc/types.h"

namespace pyrometer::rpc {
namespace {

constexpr size_t kMaxPemBytes = 1u << 20;
constexpr size_t kMaxTokenBytes = 4096;
// A ping after this long without traffic, and how long its answer may take: dead peers are noticed within
// their sum.
constexpr int kKeepaliveTimeMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
// gRPC would let pauses between attempts grow to 2 minutes; a store that is back should be found soon.
constexpr int kMaxReconnectBackoffMs = 5'000;

bool IsUnixTarget(std::string_view target) { return target.starts_with("unix:"); }

}  // namespace

StatusOr<std::shared_ptr<grpc::Channel>> Dial(const std::string& target, const Credentials& credentials) {
  SilenceGrpc();
  bool local = IsUnixTarget(target);
  if (!local) {
    if (target.find("://") != std::string::npos) {
      return InvalidArgumentError(
          StrFormat("'%s': give the store as HOST:PORT of its gRPC port, for example %s", target, kDefaultGrpcAddress));
    }
    ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(target));
    if (parsed.host.empty() || parsed.port == 0) {
      return InvalidArgumentError(StrFormat("'%s' needs a host and a port", target));
    }
    local = IsLoopbackHost(parsed.host);
  }
  std::shared_ptr<grpc::ChannelCredentials> channel_credentials;
  if (credentials.UsesTls()) {
    grpc::SslCredentialsOptions ssl;
    if (!credentials.ca_file.empty()) {
      ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(credentials.ca_file, kMaxPemBytes));
    }
    if (credentials.cert_file.empty() != credentials.key_file.empty()) {
      return InvalidArgumentError("a client certificate needs its private key and the other way round");
    }
    if (!credentials.cert_file.empty()) {
      ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadFile(credentials.cert_file, kMaxPemBytes));
      ASSIGN_OR_RETURN(ssl.pem_private_key, ReadFile(credentials.key_file, kMaxPemBytes));
    }
    channel_credentials = grpc::SslCredentials(ssl);
  } else {
    if (!credentials.token.empty() && !local) {
      return InvalidArgumentError(
          StrFormat("the token would cross the network readably on its way to %s: use TLS (give the CA file of the "
                    "store's certificate)",
                    target));
    }
    channel_credentials = grpc::InsecureChannelCredentials();
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  arguments.SetMaxSendMessageSize(static_cast<int>(kMaxMessageBytes));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectBackoffMs);
  // Each Dial is a connection of its own, without the back-off that an earlier one has earned.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (local) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(target, channel_credentials, arguments);
}

StatusOr<std::string> ReadTokenFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxTokenBytes));
  const std::string_view token = StripWhitespace(content);
  if (token.empty()) return InvalidArgumentError(StrFormat("%s holds no token", path));
  for (const char c : token) {
    if (c <= ' ' || c > '~') {
      return InvalidArgumentError(StrFormat("%s: a token is one line of printable ASCII without spaces", path));
    }
  }
  return std::string(token);
}

}  // namespace pyrometer::rpc

#include "userspace/rpc/grpc_server.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <mutex>
#include <utility>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/grpc_status.h"
#include "userspace/rpc/ingest_service.h"
#include "userspace/rpc/top_codec.h"

namespace pyrometer::rpc {
namespace {

constexpr size_t kMaxPemBytes = 1u << 20;
constexpr auto kShutdownGrace = std::chrono::seconds(2);
// Agents ping every 20 s; so do we, to notice those that vanished.
constexpr int kKeepaliveTimeMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kMinPingIntervalMs = 5'000;

class QueryService : public v1::Query::Service {
 public:
  QueryService(const Authorizer* authorizer, QueryApi* api) : authorizer_(*authorizer), api_(*api) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::StatusRequest*, v1::StatusReply* reply) override {
    return Answer(context, [&](const Caller&) -> Status {
      ASSIGN_OR_RETURN(const StoreStatus status, api_.GetStatus());
      WriteStoreStatus(status, reply);
      return OkStatus();
    });
  }

  grpc::Status MergeProfile(grpc::ServerContext* context, const v1::MergeProfileRequest* request,
                            grpc::ServerWriter<v1::ProfileChunk>* writer) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const profile::Profile profile,
                       api_.MergeProfile(Mine(caller, ReadMergeProfileRequest(*request))));
      return EncodeProfile(profile, [&](const v1::ProfileChunk& chunk) { return Send(chunk, writer); });
    });
  }

  grpc::Status MergeFlame(grpc::ServerContext* context, const v1::MergeFlameRequest* request,
                          grpc::ServerWriter<v1::ProfileChunk>* writer) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const profile::Profile profile, api_.MergeFlame(Mine(caller, ReadMergeFlameRequest(*request))));
      return EncodeProfile(profile, [&](const v1::ProfileChunk& chunk) { return Send(chunk, writer); });
    });
  }

  grpc::Status MergeTop(grpc::ServerContext* context, const v1::MergeTopRequest* request,
                        grpc::ServerWriter<v1::TopChunk>* writer) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const MergeTopReply reply, api_.MergeTop(Mine(caller, ReadMergeTopRequest(*request))));
      return EncodeTop(reply, [&](const v1::TopChunk& chunk) { return Send(chunk, writer); });
    });
  }

  grpc::Status TimeSeries(grpc::ServerContext* context, const v1::TimeSeriesRequest* request,
                          v1::TimeSeriesReply* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const TimeSeriesReply result, api_.TimeSeries(Mine(caller, ReadTimeSeriesRequest(*request))));
      WriteTimeSeriesReply(result, reply);
      return CheckSize(*reply);
    });
  }

  grpc::Status Histograms(grpc::ServerContext* context, const v1::HistogramsRequest* request,
                          v1::HistogramsReply* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const std::vector<LabelledHistogram> result,
                       api_.Histograms(Mine(caller, ReadHistogramsRequest(*request))));
      WriteHistogramsReply(result, reply);
      return CheckSize(*reply);
    });
  }

  grpc::Status Exemplars(grpc::ServerContext* context, const v1::ExemplarsRequest* request,
                         v1::ExemplarsReply* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const std::vector<CallExample> result,
                       api_.Exemplars(Mine(caller, ReadExemplarsRequest(*request))));
      WriteExemplarsReply(result, reply);
      return CheckSize(*reply);
    });
  }

  grpc::Status ListNodes(grpc::ServerContext* context, const v1::ListNodesRequest*,
                         v1::ListNodesReply* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const std::vector<NodeInfo> nodes, api_.ListNodes(caller.tenant));
      for (const NodeInfo& node : nodes) WriteNodeInfo(node, reply->add_nodes());
      return CheckSize(*reply);
    });
  }

  grpc::Status LabelValues(grpc::ServerContext* context, const v1::LabelValuesRequest* request,
                           v1::LabelValuesReply* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const std::vector<std::string> values,
                       api_.LabelValues(Mine(caller, ReadLabelValuesRequest(*request))));
      for (const std::string& value : values) reply->add_values(ToUtf8(value));
      return CheckSize(*reply);
    });
  }

  grpc::Status StartSession(grpc::ServerContext* context, const v1::SessionSpec* request,
                            v1::SessionInfo* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const SessionInfo info, api_.StartSession(Mine(caller, ReadSessionSpec(*request))));
      WriteSessionInfo(info, reply);
      return OkStatus();
    });
  }

  grpc::Status StopSession(grpc::ServerContext* context, const v1::StopSessionRequest* request,
                           v1::SessionInfo* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      RETURN_IF_ERROR(CheckSession(caller, request->id()));
      ASSIGN_OR_RETURN(const SessionInfo info, api_.StopSession(request->id()));
      WriteSessionInfo(info, reply);
      return OkStatus();
    });
  }

  grpc::Status GetSession(grpc::ServerContext* context, const v1::GetSessionRequest* request,
                          v1::SessionInfo* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      RETURN_IF_ERROR(CheckSession(caller, request->id()));
      ASSIGN_OR_RETURN(const SessionInfo info, api_.GetSession(request->id()));
      WriteSessionInfo(info, reply);
      return OkStatus();
    });
  }

  grpc::Status UploadSymbols(grpc::ServerContext* context, grpc::ServerReader<v1::SymbolPiece>* reader,
                             v1::SymbolUpload* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      RETURN_IF_ERROR(caller.grant.RequireAll("symbols"));
      v1::SymbolPiece piece;
      bool more = reader->Read(&piece);
      const std::string name = ToUtf8(piece.name());
      ASSIGN_OR_RETURN(const SymbolUpload upload, api_.UploadSymbols(name, [&]() -> StatusOr<std::string> {
        std::string data;
        while (more && data.empty()) {
          data = std::move(*piece.mutable_data());
          more = reader->Read(&piece);
        }
        // A client that went away must not pass for the end of its file.
        if (data.empty() && context->IsCancelled()) return CancelledError("the client went away");
        return data;
      }));
      reply->set_build_id(upload.build_id);
      reply->set_bytes(upload.bytes);
      reply->set_replaced(upload.replaced);
      reply->set_functions(upload.functions);
      reply->set_has_lines(upload.has_lines);
      return OkStatus();
    });
  }

  grpc::Status ListSessions(grpc::ServerContext* context, const v1::ListSessionsRequest*,
                            v1::ListSessionsReply* reply) override {
    return Answer(context, [&](const Caller& caller) -> Status {
      ASSIGN_OR_RETURN(const std::vector<SessionInfo> sessions, api_.ListSessions(caller.tenant));
      for (const SessionInfo& session : sessions) WriteSessionInfo(session, reply->add_sessions());
      return OkStatus();
    });
  }

 private:
  struct Caller {
    Grant grant;
    std::string tenant;  // that the call is about
  };
  template <typename Request>
  static Request Mine(const Caller& caller, Request request) {
    request.tenant = caller.tenant;
    return request;
  }
  // A session of somebody else is none.
  Status CheckSession(const Caller& caller, const std::string& id) {
    if (caller.grant.all()) return OkStatus();
    ASSIGN_OR_RETURN(const SessionInfo info, api_.GetSession(id));
    return caller.grant.MaySee(info.spec.tenant) ? OkStatus() : NotFoundError(StrFormat("no session %s", ToUtf8(id)));
  }

  template <typename Body>
  grpc::Status Answer(grpc::ServerContext* context, Body body) {
    const StatusOr<Grant> grant = authorizer_.Check(context);
    if (!grant.ok()) return ToGrpc(grant.status());
    const auto named = context->client_metadata().find(kTenantKey);
    const StatusOr<std::string> tenant = grant->TenantFor(
        named == context->client_metadata().end() ? std::string_view()
                                                  : std::string_view(named->second.data(), named->second.size()));
    if (!tenant.ok()) return ToGrpc(tenant.status());
    return ToGrpc(body(Caller{*grant, *tenant}));
  }

  template <typename Chunk>
  static Status Send(const Chunk& chunk, grpc::ServerWriter<Chunk>* writer) {
    return writer->Write(chunk) ? OkStatus() : CancelledError("the client went away");
  }

  template <typename Reply>
  static Status CheckSize(const Reply& reply) {
    if (reply.ByteSizeLong() <= kMaxMessageBytes) return OkStatus();
    return ResourceExhaustedError(
        StrFormat("the answer takes %s; the limit is %s: ask for a shorter range, longer "
                  "steps or fewer labels",
                  FormatBytes(reply.ByteSizeLong()), FormatBytes(kMaxMessageBytes)));
  }

  const Authorizer& authorizer_;
  QueryApi& api_;
};

class RunningServer : public GrpcServer {
 public:
  RunningServer(const Options& options, IngestHandler* ingest, QueryApi* query)
      : authorizer_(TokenTable::Of(options.token, options.tenant_tokens)),
        ingest_(&authorizer_, ingest, options),
        query_(&authorizer_, query) {}
  ~RunningServer() override { Shutdown(); }

  Status Run(const Options& options) {
    SilenceGrpc();
    const bool is_unix = options.address.starts_with("unix:");
    std::string address = options.address;
    if (!is_unix) {
      ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(address));
      RETURN_IF_ERROR(CheckCanListen(parsed, "gRPC", "--grpc"));
      if (parsed.host.empty()) address = AddressText("::", parsed.port);
    }
    std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
    if (!options.tls_cert_file.empty()) {
      ASSIGN_OR_RETURN(const std::string cert, ReadFile(options.tls_cert_file, kMaxPemBytes));
      ASSIGN_OR_RETURN(const std::string key, ReadFile(options.tls_key_file, kMaxPemBytes));
      grpc::SslServerCredentialsOptions ssl(options.client_ca_file.empty()
                                                ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
      ssl.pem_key_cert_pairs.push_back({key, cert});
      if (!options.client_ca_file.empty()) {
        ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(options.client_ca_file, kMaxPemBytes));
      }
      credentials = grpc::SslServerCredentials(ssl);
    }
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(address, credentials, &port);
    builder.RegisterService(&ingest_);
    builder.RegisterService(&query_);
    builder.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
    builder.SetMaxSendMessageSize(static_cast<int>(kMaxMessageBytes));
    grpc::ResourceQuota quota("pyrometer");
    quota.SetMaxThreads(options.max_threads);
    builder.SetResourceQuota(quota);
    // Two stores on one port would share agents between them at random.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingIntervalMs);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || (port == 0 && !is_unix)) {
      return UnavailableError(
          StrFormat("cannot listen on %s for gRPC: check the address (flag --grpc) and, with TLS, certificate and key",
                    options.address));
    }
    port_ = is_unix ? 0 : static_cast<uint16_t>(port);
    return OkStatus();
  }

  uint16_t port() const override { return port_; }
  std::shared_ptr<grpc::Channel> InProcessChannel() override {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
    arguments.SetMaxSendMessageSize(static_cast<int>(kMaxMessageBytes));
    return server_->InProcessChannel(arguments);
  }
  void Shutdown() override {
    std::lock_guard lock(shutdown_mutex_);
    if (server_ == nullptr || is_down_) return;
    ingest_.CancelAll();
    // Questions may finish within the grace.
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server_->Wait();
    ingest_.StopThreads();
    is_down_ = true;
  }

 private:
  const Authorizer authorizer_;
  IngestService ingest_;
  QueryService query_;
  std::unique_ptr<grpc::Server> server_;
  uint16_t port_ = 0;
  std::mutex shutdown_mutex_;
  bool is_down_ = false;
};

}  // namespace

StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const Options& options, IngestHandler* ingest,
                                                        QueryApi* query) {
  auto server = std::make_unique<RunningServer>(options, ingest, query);
  RETURN_IF_ERROR(server->Run(options));
  return std::unique_ptr<GrpcServer>(std::move(server));
}

}  // namespace pyrometer::rpc

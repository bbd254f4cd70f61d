#include "userspace/rpc/grpc_server.h"

#include <grpcpp/alarm.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <mutex>
#include <set>
#include <utility>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/grpc_status.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

constexpr size_t kMaxPemBytes = 1u << 20;
constexpr size_t kMaxIdBytes = 256;
// An agent says Hello at once; whoever does not holds a thread for nothing.
constexpr auto kHelloTimeout = std::chrono::seconds(10);
constexpr auto kShutdownGrace = std::chrono::seconds(2);
// Agents ping every 20 s; so do we, to notice those that vanished.
constexpr int kKeepaliveTimeMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kMinPingIntervalMs = 5'000;

class Authorizer {
 public:
  explicit Authorizer(std::string token) : token_(std::move(token)) {}

  Status Check(grpc::ServerContext* context) const {
    context->AddTrailingMetadata(kAnsweredKey, std::string(kVersion));
    if (token_.empty()) return OkStatus();
    const auto range = context->client_metadata().equal_range("authorization");
    for (auto entry = range.first; entry != range.second; ++entry) {
      std::string_view value(entry->second.data(), entry->second.size());
      constexpr std::string_view kScheme = "Bearer ";
      if (value.starts_with(kScheme) && EqualSecrets(value.substr(kScheme.size()), token_)) return OkStatus();
    }
    return UnauthenticatedError(range.first == range.second
                                    ? "this store asks for a token: pass --token-file FILE"
                                    : "this store knows another token: check the file given by --token-file");
  }

 private:
  const std::string token_;
};

using Stream = grpc::ServerReaderWriter<v1::StoreMessage, v1::AgentMessage>;

class Connection : public AgentConnection {
 public:
  Connection(grpc::ServerContext* context, Stream* stream) : context_(context), stream_(stream) {}

  Status StartSession(const SessionSpec& spec) override {
    v1::StoreMessage message;
    WriteSessionSpec(spec, message.mutable_start_session()->mutable_spec());
    return Write(message);
  }
  Status StopSession(const std::string& id) override {
    v1::StoreMessage message;
    message.mutable_stop_session()->set_id(ToUtf8(id));
    return Write(message);
  }
  void Cancel() override {
    std::lock_guard lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

  Status Write(const v1::StoreMessage& message) {
    std::lock_guard write_lock(write_mutex_);
    if (stream_ == nullptr || !stream_->Write(message)) return UnavailableError("the agent's connection is over");
    return OkStatus();
  }
  // The stream is about to go: nobody may touch it any more. What was written still goes out, unless a Write
  // in another thread is stuck because the agent does not read.
  void Finish() {
    std::unique_lock write_lock(write_mutex_, std::defer_lock);
    if (!write_lock.try_lock_for(kFinishTimeout)) {
      Cancel();
      write_lock.lock();
    }
    stream_ = nullptr;
    std::lock_guard lock(mutex_);
    context_ = nullptr;
  }

 private:
  static constexpr auto kFinishTimeout = std::chrono::seconds(1);

  std::mutex mutex_;              // guards context_; held for moments only
  std::timed_mutex write_mutex_;  // guards stream_; held over Write
  grpc::ServerContext* context_;
  Stream* stream_;
};

class IngestService : public v1::Ingest::Service {
 public:
  IngestService(const Authorizer* authorizer, IngestHandler* handler) : authorizer_(*authorizer), handler_(*handler) {}

  grpc::Status Stream(grpc::ServerContext* context, rpc::Stream* stream) override {
    if (const Status status = authorizer_.Check(context); !status.ok()) return ToGrpc(status);
    v1::AgentMessage message;
    if (!ReadHelloInTime(context, stream, &message)) {
      return ToGrpc(DeadlineExceededError("no Hello came"));
    }
    if (!message.has_hello()) return ToGrpc(InvalidArgumentError("the first message is no Hello"));
    const v1::Hello& wire = message.hello();
    if (const Status status = CheckAgentProtocol(wire.protocol(), WireText(wire.version(), 64)); !status.ok()) {
      return ToGrpc(status);
    }
    if (wire.agent_id().empty() || wire.agent_id().size() > kMaxIdBytes || wire.node().empty() ||
        wire.node().size() > kMaxIdBytes) {
      return ToGrpc(
          InvalidArgumentError(StrFormat("agent id and node name must have 1 to %d bytes each", kMaxIdBytes)));
    }
    const Hello hello = ReadHello(wire);
    const auto connection = std::make_shared<Connection>(context, stream);
    StatusOr<Welcome> welcome = handler_.Connected(hello, connection);
    if (!welcome.ok()) {
      connection->Finish();
      return ToGrpc(welcome.status());
    }
    v1::StoreMessage reply;
    reply.mutable_welcome()->set_protocol(kProtocolVersion);
    reply.mutable_welcome()->set_version(WireText(welcome->version, kMaxIdBytes));
    reply.mutable_welcome()->set_last_sequence(welcome->last_sequence);
    Status result = Register(connection.get()) ? connection->Write(reply) : UnavailableError("the store is closing");
    if (result.ok()) result = Serve(hello, *connection, stream);
    Unregister(connection.get());
    connection->Finish();
    handler_.Disconnected(*connection);
    return ToGrpc(result);
  }

  // Ends the streams that run and refuses new ones.
  void CancelAll() {
    std::lock_guard lock(mutex_);
    closing_ = true;
    for (Connection* connection : connections_) connection->Cancel();
  }

 private:
  bool Register(Connection* connection) {
    std::lock_guard lock(mutex_);
    if (!closing_) connections_.insert(connection);
    return !closing_;
  }
  void Unregister(Connection* connection) {
    std::lock_guard lock(mutex_);
    connections_.erase(connection);
  }

  static bool ReadHelloInTime(grpc::ServerContext* context, rpc::Stream* stream, v1::AgentMessage* message) {
    // The alarm's callback may run while it is being cancelled: what it touches must outlive both.
    struct Guard {
      std::mutex mutex;
      grpc::ServerContext* context;
    };
    const auto guard = std::make_shared<Guard>();
    guard->context = context;
    grpc::Alarm alarm;
    alarm.Set(std::chrono::system_clock::now() + kHelloTimeout, [guard](bool fired) {
      std::lock_guard lock(guard->mutex);
      if (fired && guard->context != nullptr) guard->context->TryCancel();
    });
    const bool read = stream->Read(message);
    {
      std::lock_guard lock(guard->mutex);
      guard->context = nullptr;
    }
    alarm.Cancel();
    return read;
  }

  Status Serve(const Hello& hello, Connection& connection, rpc::Stream* stream) {
    StreamDecoder decoder(hello.agent_id, hello.node);
    v1::AgentMessage message;
    v1::StoreMessage reply;
    while (stream->Read(&message)) {
      switch (message.body_case()) {
        case v1::AgentMessage::kBatch: {
          const uint64_t sequence = message.batch().sequence();
          StatusOr<profile::Batch> batch = decoder.Decode(message.batch());
          // Both large; not needed while the store writes.
          if (message.ByteSizeLong() > kKeepMessageBytes) message = v1::AgentMessage();
          if (!batch.ok()) {
            handler_.Malformed(connection, batch.status());
            RETURN_IF_ERROR(WriteReject(sequence, batch.status(), connection));
            return WithContext(batch.status(), StrFormat("batch %d", sequence));
          }
          const StatusOr<Ack> ack = handler_.Received(connection, *batch);
          if (ack.ok()) {
            reply.mutable_ack()->set_sequence(ack->sequence);
            reply.mutable_ack()->set_duplicate(ack->duplicate);
            RETURN_IF_ERROR(connection.Write(reply));
          } else if (ack.status().code() == StatusCode::kInvalidArgument) {
            RETURN_IF_ERROR(WriteReject(sequence, ack.status(), connection));
          } else {
            return ack.status();
          }
          break;
        }
        case v1::AgentMessage::kSession:
          handler_.SessionUpdated(connection, ReadSessionUpdate(message.session()));
          break;
        case v1::AgentMessage::kStatus:
          handler_.StatusUpdated(connection, ReadNodeStatus(message.status()));
          break;
        case v1::AgentMessage::kHello:
          return InvalidArgumentError("a second Hello on one stream");
        case v1::AgentMessage::BODY_NOT_SET:
          break;  // of a newer agent: nothing that we must know
      }
    }
    return OkStatus();
  }

  static Status WriteReject(uint64_t sequence, const Status& why, Connection& connection) {
    v1::StoreMessage reply;
    reply.mutable_reject()->set_sequence(sequence);
    reply.mutable_reject()->set_message(WireText(Message(why), 4096));
    return connection.Write(reply);
  }

  // A message object keeps its memory for the next; only small ones are worth that.
  static constexpr size_t kKeepMessageBytes = 256u << 10;

  const Authorizer& authorizer_;
  IngestHandler& handler_;
  std::mutex mutex_;  // guards the rest
  std::set<Connection*> connections_;
  bool closing_ = false;
};

class QueryService : public v1::Query::Service {
 public:
  QueryService(const Authorizer* authorizer, QueryApi* api) : authorizer_(*authorizer), api_(*api) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::StatusRequest*, v1::StatusReply* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const StoreStatus status, api_.GetStatus());
      WriteStoreStatus(status, reply);
      return OkStatus();
    });
  }

  grpc::Status MergeProfile(grpc::ServerContext* context, const v1::MergeProfileRequest* request,
                            grpc::ServerWriter<v1::ProfileChunk>* writer) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const profile::Profile profile, api_.MergeProfile(ReadMergeProfileRequest(*request)));
      return EncodeProfile(profile, [&](const v1::ProfileChunk& chunk) -> Status {
        return writer->Write(chunk) ? OkStatus() : CancelledError("the client went away");
      });
    });
  }

  grpc::Status TimeSeries(grpc::ServerContext* context, const v1::TimeSeriesRequest* request,
                          v1::TimeSeriesReply* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const TimeSeriesReply result, api_.TimeSeries(ReadTimeSeriesRequest(*request)));
      WriteTimeSeriesReply(result, reply);
      return CheckSize(*reply);
    });
  }

  grpc::Status Histograms(grpc::ServerContext* context, const v1::HistogramsRequest* request,
                          v1::HistogramsReply* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const std::vector<LabelledHistogram> result, api_.Histograms(ReadHistogramsRequest(*request)));
      WriteHistogramsReply(result, reply);
      return CheckSize(*reply);
    });
  }

  grpc::Status ListNodes(grpc::ServerContext* context, const v1::ListNodesRequest*,
                         v1::ListNodesReply* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const std::vector<NodeInfo> nodes, api_.ListNodes());
      for (const NodeInfo& node : nodes) WriteNodeInfo(node, reply->add_nodes());
      return CheckSize(*reply);
    });
  }

  grpc::Status LabelValues(grpc::ServerContext* context, const v1::LabelValuesRequest* request,
                           v1::LabelValuesReply* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const std::vector<std::string> values, api_.LabelValues(ReadLabelValuesRequest(*request)));
      for (const std::string& value : values) reply->add_values(ToUtf8(value));
      return CheckSize(*reply);
    });
  }

  grpc::Status StartSession(grpc::ServerContext* context, const v1::SessionSpec* request,
                            v1::SessionInfo* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const SessionInfo info, api_.StartSession(ReadSessionSpec(*request)));
      WriteSessionInfo(info, reply);
      return OkStatus();
    });
  }

  grpc::Status StopSession(grpc::ServerContext* context, const v1::StopSessionRequest* request,
                           v1::SessionInfo* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const SessionInfo info, api_.StopSession(request->id()));
      WriteSessionInfo(info, reply);
      return OkStatus();
    });
  }

  grpc::Status GetSession(grpc::ServerContext* context, const v1::GetSessionRequest* request,
                          v1::SessionInfo* reply) override {
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const SessionInfo info, api_.GetSession(request->id()));
      WriteSessionInfo(info, reply);
      return OkStatus();
    });
  }

  grpc::Status UploadSymbols(grpc::ServerContext* context, grpc::ServerReader<v1::SymbolPiece>* reader,
                             v1::SymbolUpload* reply) override {
    return Answer(context, [&]() -> Status {
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
    return Answer(context, [&]() -> Status {
      ASSIGN_OR_RETURN(const std::vector<SessionInfo> sessions, api_.ListSessions());
      for (const SessionInfo& session : sessions) WriteSessionInfo(session, reply->add_sessions());
      return OkStatus();
    });
  }

 private:
  template <typename Body>
  grpc::Status Answer(grpc::ServerContext* context, Body body) {
    if (const Status status = authorizer_.Check(context); !status.ok()) return ToGrpc(status);
    return ToGrpc(body());
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
      : authorizer_(options.token), ingest_(&authorizer_, ingest), query_(&authorizer_, query) {}
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

bool EqualSecrets(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const char other = b.empty() ? '\0' : b[i % b.size()];
    difference |= static_cast<unsigned char>(a[i] ^ other);
  }
  return difference == 0;
}

}  // namespace pyrometer::rpc

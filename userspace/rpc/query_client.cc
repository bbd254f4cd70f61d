#include "userspace/rpc/query_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <utility>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/grpc_status.h"
#include "userspace/rpc/top_codec.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

constexpr uint64_t kUploadTimeoutNs = 3600 * kNsPerSecond;  // gigabytes over slow links

void SetTimeout(grpc::ClientContext* context, uint64_t timeout_ns) {
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::nanoseconds(timeout_ns));
}

class GrpcQueryClient : public QueryClient {
 public:
  GrpcQueryClient(std::shared_ptr<grpc::Channel> channel, std::string target, std::string token, Options options)
      : target_(std::move(target)),
        token_(std::move(token)),
        options_(std::move(options)),
        channel_(std::move(channel)),
        stub_(v1::Query::NewStub(channel_)) {}

  StatusOr<StoreStatus> GetStatus() override { return GetStatusWithin(options_.timeout_ns); }

  StatusOr<StoreStatus> GetStatusWithin(uint64_t timeout_ns) {
    v1::StatusReply reply;
    RETURN_IF_ERROR(CallWithin(timeout_ns, &v1::Query::Stub::GetStatus, v1::StatusRequest(), &reply));
    RETURN_IF_ERROR(CheckStoreProtocol(reply.protocol(), WireText(reply.version(), 64), target_));
    return ReadStoreStatus(reply);
  }

  StatusOr<profile::Profile> MergeProfile(const MergeProfileRequest& request) override {
    v1::MergeProfileRequest wire;
    WriteMergeProfileRequest(request, &wire);
    ProfileDecoder decoder;
    RETURN_IF_ERROR(Receive<v1::ProfileChunk>(&v1::Query::Stub::MergeProfile, wire, &decoder));
    return decoder.Finish();
  }

  StatusOr<profile::Profile> MergeFlame(const MergeFlameRequest& request) override {
    v1::MergeFlameRequest wire;
    WriteMergeFlameRequest(request, &wire);
    ProfileDecoder decoder;
    RETURN_IF_ERROR(Receive<v1::ProfileChunk>(&v1::Query::Stub::MergeFlame, wire, &decoder));
    return decoder.Finish();
  }

  StatusOr<MergeTopReply> MergeTop(const MergeTopRequest& request) override {
    v1::MergeTopRequest wire;
    WriteMergeTopRequest(request, &wire);
    TopDecoder decoder;
    RETURN_IF_ERROR(Receive<v1::TopChunk>(&v1::Query::Stub::MergeTop, wire, &decoder));
    return decoder.Finish();
  }

  StatusOr<SymbolUpload> UploadSymbols(const std::string& name,
                                       const std::function<StatusOr<std::string>()>& next) override {
    grpc::ClientContext context;
    Prepare(&context, kUploadTimeoutNs);
    v1::SymbolUpload wire;
    const auto writer = stub_->UploadSymbols(&context, &wire);
    v1::SymbolPiece piece;
    piece.set_name(WireText(name, kMaxStringBytes));
    Status unreadable;
    while (true) {
      StatusOr<std::string> data = next();
      if (!data.ok()) {
        unreadable = data.status();
        context.TryCancel();
        break;
      }
      if (data->empty()) break;
      piece.set_data(*std::move(data));
      if (!writer->Write(piece)) break;  // the store has answered already
      piece.Clear();
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (!unreadable.ok()) return unreadable;
    RETURN_IF_ERROR(FromGrpc(status, context, target_));
    return SymbolUpload{.build_id = wire.build_id(),
                        .bytes = wire.bytes(),
                        .replaced = wire.replaced(),
                        .functions = wire.functions(),
                        .has_lines = wire.has_lines()};
  }

  StatusOr<TimeSeriesReply> TimeSeries(const TimeSeriesRequest& request) override {
    v1::TimeSeriesRequest wire;
    WriteTimeSeriesRequest(request, &wire);
    v1::TimeSeriesReply reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::TimeSeries, wire, &reply));
    return ReadTimeSeriesReply(reply);
  }

  StatusOr<std::vector<LabelledHistogram>> Histograms(const HistogramsRequest& request) override {
    v1::HistogramsRequest wire;
    WriteHistogramsRequest(request, &wire);
    v1::HistogramsReply reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::Histograms, wire, &reply));
    return ReadHistogramsReply(reply);
  }

  StatusOr<std::vector<CallExample>> Exemplars(const ExemplarsRequest& request) override {
    v1::ExemplarsRequest wire;
    WriteExemplarsRequest(request, &wire);
    v1::ExemplarsReply reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::Exemplars, wire, &reply));
    return ReadExemplarsReply(reply);
  }

  StatusOr<std::vector<NodeInfo>> ListNodes(const std::string&) override {
    v1::ListNodesReply reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::ListNodes, v1::ListNodesRequest(), &reply));
    std::vector<NodeInfo> nodes;
    for (const v1::NodeInfo& node : reply.nodes()) nodes.push_back(ReadNodeInfo(node));
    return nodes;
  }

  StatusOr<std::vector<std::string>> LabelValues(const LabelValuesRequest& request) override {
    v1::LabelValuesRequest wire;
    WriteLabelValuesRequest(request, &wire);
    v1::LabelValuesReply reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::LabelValues, wire, &reply));
    return std::vector<std::string>(reply.values().begin(), reply.values().end());
  }

  StatusOr<SessionInfo> StartSession(const SessionSpec& spec) override {
    v1::SessionSpec wire;
    WriteSessionSpec(spec, &wire);
    v1::SessionInfo reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::StartSession, wire, &reply));
    return ReadSessionInfo(reply);
  }

  StatusOr<SessionInfo> StopSession(const std::string& id) override {
    v1::StopSessionRequest wire;
    wire.set_id(ToUtf8(id));
    v1::SessionInfo reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::StopSession, wire, &reply));
    return ReadSessionInfo(reply);
  }

  StatusOr<SessionInfo> GetSession(const std::string& id) override {
    v1::GetSessionRequest wire;
    wire.set_id(ToUtf8(id));
    v1::SessionInfo reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::GetSession, wire, &reply));
    return ReadSessionInfo(reply);
  }

  StatusOr<std::vector<SessionInfo>> ListSessions(const std::string&) override {
    v1::ListSessionsReply reply;
    RETURN_IF_ERROR(Call(&v1::Query::Stub::ListSessions, v1::ListSessionsRequest(), &reply));
    std::vector<SessionInfo> sessions;
    for (const v1::SessionInfo& session : reply.sessions()) sessions.push_back(ReadSessionInfo(session));
    return sessions;
  }

 private:
  void Prepare(grpc::ClientContext* context, uint64_t timeout_ns) {
    SetTimeout(context, timeout_ns);
    AddToken(context, token_, options_.tenant);
  }

  // An answer in pieces.
  template <typename Chunk, typename Method, typename Request, typename Decoder>
  Status Receive(Method method, const Request& request, Decoder* decoder) {
    grpc::ClientContext context;
    Prepare(&context, options_.timeout_ns);
    const auto reader = (stub_.get()->*method)(&context, request);
    Chunk chunk;
    Status malformed;
    while (reader->Read(&chunk)) {
      if (!malformed.ok()) continue;
      malformed = decoder->Add(chunk);
      if (!malformed.ok()) context.TryCancel();
    }
    const grpc::Status status = reader->Finish();
    if (!malformed.ok()) {
      return DataLossError(StrFormat("the store at %s sent a malformed answer: %s", target_, Message(malformed)));
    }
    return FromGrpc(status, context, target_);
  }

  template <typename Method, typename Request, typename Reply>
  Status CallWithin(uint64_t timeout_ns, Method method, const Request& request, Reply* reply) {
    grpc::ClientContext context;
    Prepare(&context, timeout_ns);
    return FromGrpc((stub_.get()->*method)(&context, request, reply), context, target_);
  }
  template <typename Method, typename Request, typename Reply>
  Status Call(Method method, const Request& request, Reply* reply) {
    return CallWithin(options_.timeout_ns, method, request, reply);
  }

  const std::string target_;
  const std::string token_;
  const Options options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Query::Stub> stub_;
};

}  // namespace

StatusOr<std::unique_ptr<QueryClient>> QueryClient::Connect(std::shared_ptr<grpc::Channel> channel,
                                                            const std::string& target, const std::string& token,
                                                            Options options) {
  SilenceGrpc();
  const uint64_t connect_timeout_ns = options.connect_timeout_ns;
  auto client = std::make_unique<GrpcQueryClient>(std::move(channel), target, token, std::move(options));
  const StatusOr<StoreStatus> status = client->GetStatusWithin(connect_timeout_ns);
  if (!status.ok()) return status.status();
  return std::unique_ptr<QueryClient>(std::move(client));
}

StatusOr<std::unique_ptr<QueryClient>> QueryClient::Connect(const std::string& target, const Credentials& credentials,
                                                            Options options) {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, Dial(target, credentials));
  options.tenant = credentials.tenant;
  return Connect(std::move(channel), target, credentials.token, std::move(options));
}

}  // namespace pyrometer::rpc

#include "userspace/server/server.h"

#include <unistd.h>

#include <mutex>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/rpc/address.h"
#include "userspace/rpc/grpc_server.h"
#include "userspace/server/agent_registry.h"
#include "userspace/server/counters.h"
#include "userspace/server/debuginfod.h"
#include "userspace/server/http_api.h"
#include "userspace/server/http_listener.h"
#include "userspace/server/ingest.h"
#include "userspace/server/late_symbols.h"
#include "userspace/server/latency_totals.h"
#include "userspace/server/memory_watch.h"
#include "userspace/server/questions.h"
#include "userspace/server/session_manager.h"
#include "userspace/server/tls_check.h"

namespace pyrometer::server {
namespace {

bool IsLocal(const std::string& address) {
  if (address.starts_with("unix:")) return true;
  const StatusOr<rpc::HostPort> parsed = rpc::ParseHostPort(address);
  return parsed.ok() && rpc::IsLoopbackHost(parsed->host);
}

Status CheckOptions(const Options& options) {
  if (options.tls_cert_file.empty() != options.tls_key_file.empty()) {
    return InvalidArgumentError("TLS needs both --tls-cert and --tls-key");
  }
  if (!options.client_ca_file.empty() && options.tls_cert_file.empty()) {
    return InvalidArgumentError("--tls-client-ca asks clients for certificates: that needs --tls-cert and --tls-key");
  }
  for (const auto& [address, flag] : {std::pair(options.grpc_address, "--grpc"), {options.http_address, "--http"}}) {
    if (address.empty() && std::string_view(flag) == "--http") continue;
    if (!address.starts_with("unix:")) {
      RETURN_IF_ERROR(WithContext(rpc::ParseHostPort(address).status(), flag));
    } else if (std::string_view(flag) == "--http") {
      return InvalidArgumentError("--http: unix sockets are for gRPC only");
    }
    if (IsLocal(address) || (!options.tls_cert_file.empty() && !options.token.empty())) continue;
    return FailedPreconditionError(StrFormat(
        "%s %s: others on the network could read everything. Listen on 127.0.0.1, or give --tls-cert, --tls-key and "
        "--token-file",
        flag, address));
  }
  if (!options.tls_cert_file.empty()) {
    RETURN_IF_ERROR(CheckTlsFiles(options.tls_cert_file, options.tls_key_file, options.client_ca_file));
  }
  if (options.token.empty() && !options.tenant_tokens.empty()) {
    return InvalidArgumentError("--tenant-token needs --token-file as well: the token that opens all tenants");
  }
  for (const std::string& url : options.debuginfod)
    RETURN_IF_ERROR(WithContext(CheckDebuginfodUrl(url), "--debuginfod"));
  return OkStatus();
}

class RunningServer : public Server {
 public:
  RunningServer(Options options, store::Store* store, const query::Engine* engine)
      : options_(std::move(options)),
        sessions_({.max_finished = options_.max_sessions,
                   .max_running_per_node = options_.max_running_sessions,
                   .now = options_.now}),
        ingest_(store, &registry_, &sessions_, &counters_, &totals_, options_.now),
        gate_({.timeout_ns = options_.query_timeout_ns,
               .memory_bytes = options_.query_memory_bytes,
               .max_running = options_.max_questions}),
        questions_(engine, &gate_, &registry_, &sessions_, options_.now),
        memory_watch_({.budget_bytes = options_.memory_bytes, .let_go = [store] { store->LetGoOfCaches(); }}),
        api_({.engine = engine,
              .questions = &questions_,
              .registry = &registry_,
              .sessions = &sessions_,
              .counters = &counters_,
              .totals = &totals_,
              .now = options_.now,
              .tokens = rpc::TokenTable::Of(options_.token, options_.tenant_tokens),
              .mode = options_.mode,
              .node = options_.node,
              .started_ns = options_.now(),
              .gate = &gate_,
              .memory_watch = &memory_watch_}) {}
  ~RunningServer() override { Shutdown(); }

  Status Run() {
    if (!options_.symbols_folder.empty()) {
      ASSIGN_OR_RETURN(symbols_, LateSymbols::Open({.folder = options_.symbols_folder}));
      questions_.set_symbols(symbols_.get());
    }
    if (symbols_ != nullptr && !options_.debuginfod.empty()) {
      debuginfod_ = std::make_unique<Debuginfod>(
          Debuginfod::Options{.urls = options_.debuginfod, .into = symbols_.get(), .log = options_.log});
      symbols_->set_want([this](const std::string& build_id) { debuginfod_->Want(build_id); });
    }
    // HTTP first: where both ports are taken by another pyrometer, its page's address tells more.
    if (!options_.http_address.empty()) {
      HttpListener::Options http{.tls_cert_file = options_.tls_cert_file,
                                 .tls_key_file = options_.tls_key_file,
                                 .max_threads = options_.max_http_threads,
                                 .max_body_bytes = options_.max_http_body_bytes};
      ASSIGN_OR_RETURN(http.address, rpc::ParseHostPort(options_.http_address));
      ASSIGN_OR_RETURN(http_,
                       HttpListener::Start(http, [this](const HttpRequest& request) { return api_.Answer(request); }));
    }
    ASSIGN_OR_RETURN(grpc_, rpc::GrpcServer::Start({.address = options_.grpc_address,
                                                    .tls_cert_file = options_.tls_cert_file,
                                                    .tls_key_file = options_.tls_key_file,
                                                    .client_ca_file = options_.client_ca_file,
                                                    .token = options_.token,
                                                    .tenant_tokens = options_.tenant_tokens,
                                                    .stream_memory_bytes = options_.stream_memory_bytes},
                                                   &ingest_, &questions_));
    return OkStatus();
  }

  std::string grpc_address() const override {
    if (options_.grpc_address.starts_with("unix:")) return options_.grpc_address;
    return rpc::AddressText(rpc::ParseHostPort(options_.grpc_address)->host, grpc_->port());
  }
  std::string http_address() const override {
    if (http_ == nullptr) return "";
    return rpc::AddressText(rpc::ParseHostPort(options_.http_address)->host, http_->port());
  }
  std::string http_url() const override {
    if (http_ == nullptr) return "";
    std::string host = rpc::ParseHostPort(options_.http_address)->host;
    if (host.empty() || host == "0.0.0.0" || host == "::") {
      // Every address of this machine: its name is the one to tell others.
      char name[256] = {};
      if (gethostname(name, sizeof(name) - 1) == 0) host = name;
    }
    return (options_.tls_cert_file.empty() ? "http://" : "https://") + rpc::AddressText(host, http_->port());
  }
  std::shared_ptr<grpc::Channel> InProcessChannel() override { return grpc_->InProcessChannel(); }
  rpc::QueryApi& query_api() override { return questions_; }

  void Shutdown() override {
    std::lock_guard lock(shutdown_mutex_);
    if (http_ != nullptr) http_->Shutdown();
    if (grpc_ != nullptr) grpc_->Shutdown();
  }

 private:
  const Options options_;
  Counters counters_;
  LatencyTotals totals_;
  AgentRegistry registry_;
  SessionManager sessions_;
  Ingest ingest_;
  QuestionGate gate_;
  Questions questions_;
  MemoryWatch memory_watch_;
  HttpApi api_;
  std::unique_ptr<LateSymbols> symbols_;
  std::unique_ptr<Debuginfod> debuginfod_;
  std::mutex shutdown_mutex_;
  // Last: they stop before what they call goes.
  std::unique_ptr<HttpListener> http_;
  std::unique_ptr<rpc::GrpcServer> grpc_;
};

}  // namespace

StatusOr<std::unique_ptr<Server>> Server::Start(Options options, store::Store* store, const query::Engine* engine) {
  RETURN_IF_ERROR(CheckOptions(options));
  auto server = std::make_unique<RunningServer>(std::move(options), store, engine);
  RETURN_IF_ERROR(server->Run());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace pyrometer::server

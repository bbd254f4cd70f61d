#include "userspace/rpc/cri/cri_client.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <utility>

#include "proto/cri/v1/runtime.grpc.pb.h"
#include "userspace/base/strings.h"
#include "userspace/containers/kubernetes_labels.h"

namespace pyrometer::rpc {
namespace {

using containers::ContainerIdentity;
using containers::ContainerMetadata;
using containers::Runtime;
namespace cri = ::runtime::v1;

constexpr int kReconnectMaxMs = 5'000;

void TakeSandbox(const cri::PodSandbox& sandbox, ContainerMetadata& metadata) {
  metadata.pod_name = sandbox.metadata().name();
  metadata.pod_namespace = sandbox.metadata().namespace_();
  metadata.pod_uid = sandbox.metadata().uid();
  for (const auto& [key, value] : sandbox.labels()) metadata.labels.try_emplace(key, value);
}

ContainerMetadata FromContainer(const cri::Container& container) {
  ContainerMetadata metadata;
  metadata.id = container.id();
  metadata.name = container.metadata().name();
  metadata.image = container.image().user_specified_image().empty() ? container.image().image()
                                                                    : container.image().user_specified_image();
  if (metadata.image.empty()) metadata.image = container.image_ref();
  metadata.created_ns = container.created_at();
  for (const auto& [key, value] : container.labels()) metadata.labels[key] = value;
  return metadata;
}

ContainerMetadata FromSandbox(const cri::PodSandbox& sandbox) {
  ContainerMetadata metadata;
  metadata.id = sandbox.id();
  metadata.sandbox = true;
  metadata.created_ns = sandbox.created_at();
  TakeSandbox(sandbox, metadata);
  containers::ApplyKubernetesLabels(metadata);
  metadata.name = "pause";
  return metadata;
}

class CriClient : public containers::RuntimeClient {
 public:
  explicit CriClient(const CriOptions& options)
      : options_(options), name_(StrFormat("cri at %s", options.socket_path)) {}

  const std::string& name() const override { return name_; }

  bool MayKnow(const ContainerIdentity& identity) const override {
    // ctr's own namespaces are not CRI's.
    if (!identity.runtime_namespace.empty() && identity.runtime_namespace != "k8s.io") return false;
    if (identity.runtime == Runtime::kDocker && identity.pod_uid.empty()) return false;
    return identity.runtime == options_.runtime || identity.runtime == Runtime::kUnknown;
  }

  StatusOr<ContainerMetadata> Inspect(const ContainerIdentity& identity) override {
    RETURN_IF_ERROR(Connect());
    const auto deadline = Deadline();
    cri::ListContainersRequest request;
    request.mutable_filter()->set_id(identity.container_id);
    cri::ListContainersResponse response;
    grpc::ClientContext context;
    context.set_deadline(deadline);
    RETURN_IF_ERROR(Check(stub_->ListContainers(&context, request, &response)));
    for (const cri::Container& container : response.containers()) {
      if (container.id() != identity.container_id) continue;  // the filter also takes prefixes
      ContainerMetadata metadata = FromContainer(container);
      ASSIGN_OR_RETURN(const auto sandboxes, Sandboxes(container.pod_sandbox_id(), deadline));
      const auto sandbox = sandboxes.find(container.pod_sandbox_id());
      if (sandbox != sandboxes.end()) TakeSandbox(sandbox->second, metadata);
      containers::ApplyKubernetesLabels(metadata);
      metadata.runtime = options_.runtime;
      return metadata;
    }
    ASSIGN_OR_RETURN(const auto sandboxes, Sandboxes(identity.container_id, deadline));
    const auto sandbox = sandboxes.find(identity.container_id);
    if (sandbox == sandboxes.end()) return NotFoundError(StrFormat("%s does not know it", name_));
    ContainerMetadata metadata = FromSandbox(sandbox->second);
    metadata.runtime = options_.runtime;
    return metadata;
  }

  StatusOr<std::vector<ContainerMetadata>> List() override {
    RETURN_IF_ERROR(Connect());
    const auto deadline = Deadline();
    cri::ListContainersRequest request;
    request.mutable_filter()->mutable_state()->set_state(cri::CONTAINER_RUNNING);
    cri::ListContainersResponse response;
    grpc::ClientContext context;
    context.set_deadline(deadline);
    RETURN_IF_ERROR(Check(stub_->ListContainers(&context, request, &response)));
    ASSIGN_OR_RETURN(const auto sandboxes, Sandboxes("", deadline));
    std::vector<ContainerMetadata> list;
    for (const cri::Container& container : response.containers()) {
      ContainerMetadata metadata = FromContainer(container);
      const auto sandbox = sandboxes.find(container.pod_sandbox_id());
      if (sandbox != sandboxes.end()) TakeSandbox(sandbox->second, metadata);
      containers::ApplyKubernetesLabels(metadata);
      list.push_back(std::move(metadata));
    }
    for (const auto& [id, sandbox] : sandboxes) {
      if (sandbox.state() == cri::SANDBOX_READY) list.push_back(FromSandbox(sandbox));
    }
    for (ContainerMetadata& metadata : list) metadata.runtime = options_.runtime;
    return list;
  }

 private:
  std::chrono::system_clock::time_point Deadline() const {
    return std::chrono::system_clock::now() + std::chrono::nanoseconds(options_.deadline_ns);
  }

  // Connects lazily: most hosts have none of these sockets.
  Status Connect() {
    if (::access(options_.socket_path.c_str(), F_OK) != 0) {
      return UnavailableError(StrFormat("there is no socket %s", options_.socket_path));
    }
    if (stub_) return OkStatus();
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(static_cast<int>(containers::kMaxResponseBytes));
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = cri::RuntimeService::NewStub(
        grpc::CreateCustomChannel("unix:" + options_.socket_path, grpc::InsecureChannelCredentials(), arguments));
    return OkStatus();
  }

  // All (empty id) or one, by id.
  StatusOr<std::map<std::string, cri::PodSandbox>> Sandboxes(const std::string& id,
                                                             std::chrono::system_clock::time_point deadline) {
    cri::ListPodSandboxRequest request;
    if (!id.empty()) request.mutable_filter()->set_id(id);
    cri::ListPodSandboxResponse response;
    grpc::ClientContext context;
    context.set_deadline(deadline);
    RETURN_IF_ERROR(Check(stub_->ListPodSandbox(&context, request, &response)));
    std::map<std::string, cri::PodSandbox> sandboxes;
    for (cri::PodSandbox& sandbox : *response.mutable_items()) {
      std::string key = sandbox.id();
      sandboxes.emplace(std::move(key), std::move(sandbox));
    }
    return sandboxes;
  }

  Status Check(const grpc::Status& status) const {
    if (status.ok()) return OkStatus();
    const std::string message = StrFormat("%s: %s", name_, status.error_message());
    switch (status.error_code()) {
      case grpc::StatusCode::NOT_FOUND:
        return NotFoundError(message);
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return DeadlineExceededError(message);
      case grpc::StatusCode::PERMISSION_DENIED:
        return PermissionDeniedError(message);
      case grpc::StatusCode::RESOURCE_EXHAUSTED:
        return ResourceExhaustedError(message);
      case grpc::StatusCode::UNIMPLEMENTED:
        // A containerd whose CRI plugin is disabled (as Docker's package configures it).
        return UnimplementedError(message);
      default:
        return UnavailableError(message);
    }
  }

  const CriOptions options_;
  const std::string name_;
  std::unique_ptr<cri::RuntimeService::Stub> stub_;
};

}  // namespace

std::unique_ptr<containers::RuntimeClient> MakeCriClient(const CriOptions& options) {
  return std::make_unique<CriClient>(options);
}

std::vector<std::unique_ptr<containers::RuntimeClient>> MakeCriClients(const std::vector<std::string>& more_sockets) {
  constexpr struct {
    const char* path;
    Runtime runtime;
    bool always;  // the runtime may start after us
  } kUsual[] = {
      {"/run/containerd/containerd.sock", Runtime::kContainerd, true},
      {"/run/crio/crio.sock", Runtime::kCrio, true},
      {"/run/k3s/containerd/containerd.sock", Runtime::kContainerd, false},
      {"/var/snap/microk8s/common/run/containerd.sock", Runtime::kContainerd, false},
      {"/run/cri-dockerd.sock", Runtime::kDocker, false},
  };
  std::vector<std::unique_ptr<containers::RuntimeClient>> clients;
  for (const auto& [path, runtime, always] : kUsual) {
    if (always || ::access(path, F_OK) == 0)
      clients.push_back(MakeCriClient({.socket_path = path, .runtime = runtime}));
  }
  for (const std::string& path : more_sockets) clients.push_back(MakeCriClient({.socket_path = path}));
  return clients;
}

}  // namespace pyrometer::rpc

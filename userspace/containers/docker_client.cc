#include "userspace/containers/docker_client.h"

#include <httplib.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "userspace/base/strings.h"
#include "userspace/containers/kubernetes_labels.h"

namespace pyrometer::containers {
namespace {

using nlohmann::json;

std::string Text(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

const json& Object(const json& object, const char* key) {
  static const json kEmpty = json::object();
  const auto it = object.find(key);
  return it != object.end() && it->is_object() ? *it : kEmpty;
}

void TakeLabels(const json& labels, ContainerMetadata& metadata) {
  for (const auto& [key, value] : labels.items()) {
    if (value.is_string()) metadata.labels[key] = value.get<std::string>();
  }
}

std::string WithoutSlash(std::string name) {
  if (name.starts_with('/')) name.erase(0, 1);
  return name;
}

// Ids become part of a URL.
bool IsSafeId(std::string_view id) {
  return !id.empty() && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
  });
}

class DockerClient : public RuntimeClient {
 public:
  explicit DockerClient(const DockerOptions& options)
      : options_(options), name_(StrFormat("%s at %s", options.podman ? "podman" : "docker", options.socket_path)) {}

  const std::string& name() const override { return name_; }

  bool MayKnow(const ContainerIdentity& identity) const override {
    if (!IsFullContainerId(identity.container_id)) return false;
    if (identity.runtime == Runtime::kUnknown) return true;
    if (options_.podman) return identity.runtime == Runtime::kPodman;
    // Below kubepods a bare id may also be Docker's (cri-dockerd).
    return identity.runtime == Runtime::kDocker ||
           (identity.runtime == Runtime::kContainerd && !identity.pod_uid.empty());
  }

  StatusOr<ContainerMetadata> Inspect(const ContainerIdentity& identity) override {
    if (!IsSafeId(identity.container_id)) return NotFoundError("not an id of this runtime");
    ASSIGN_OR_RETURN(const std::string body, Get(StrFormat("/containers/%s/json", identity.container_id)));
    ASSIGN_OR_RETURN(ContainerMetadata metadata, ParseDockerInspect(body));
    metadata.runtime = options_.podman ? Runtime::kPodman : Runtime::kDocker;
    return metadata;
  }

  StatusOr<std::vector<ContainerMetadata>> List() override {
    ASSIGN_OR_RETURN(const std::string body, Get("/containers/json"));
    ASSIGN_OR_RETURN(std::vector<ContainerMetadata> list, ParseDockerList(body));
    for (ContainerMetadata& metadata : list) metadata.runtime = options_.podman ? Runtime::kPodman : Runtime::kDocker;
    return list;
  }

 private:
  StatusOr<std::string> Get(const std::string& path) {
    // A client per call: runtimes restart, and calls are seconds apart.
    httplib::Client client(options_.socket_path);
    client.set_address_family(AF_UNIX);
    // Go's server refuses the socket's path as a host name.
    client.set_default_headers({{"Host", "localhost"}});
    const auto seconds = static_cast<time_t>(options_.deadline_ns / kNsPerSecond);
    const auto micros = static_cast<time_t>(options_.deadline_ns % kNsPerSecond / 1000);
    client.set_connection_timeout(seconds, micros);
    client.set_read_timeout(seconds, micros);
    client.set_write_timeout(seconds, micros);

    const uint64_t deadline_ns = MonotonicNowNs() + options_.deadline_ns;
    std::string body;
    bool too_large = false;
    bool too_late = false;
    errno = 0;
    const httplib::Result result = client.Get(path, [&](const char* data, size_t size) {
      too_large = body.size() + size > kMaxResponseBytes;
      too_late = MonotonicNowNs() > deadline_ns;
      if (too_large || too_late) return false;
      body.append(data, size);
      return true;
    });
    if (too_large) {
      return ResourceExhaustedError(
          StrFormat("%s: the answer is larger than %s", name_, FormatBytes(kMaxResponseBytes)));
    }
    if (too_late || (!result && result.error() == httplib::Error::Read)) {
      return DeadlineExceededError(
          StrFormat("%s did not answer within %s", name_, FormatDurationNs(options_.deadline_ns)));
    }
    if (!result) {
      return UnavailableError(StrFormat("%s does not answer: %s", name_, httplib::to_string(result.error())));
    }
    if (result->status == 404) return NotFoundError(StrFormat("%s does not know it", name_));
    if (result->status != 200) return UnavailableError(StrFormat("%s: HTTP status %d", name_, result->status));
    return body;
  }

  const DockerOptions options_;
  const std::string name_;
};

}  // namespace

StatusOr<ContainerMetadata> ParseDockerInspect(std::string_view text) {
  const json document = json::parse(text, nullptr, false);
  if (!document.is_object() || Text(document, "Id").empty()) return DataLossError("not an inspect document of Docker");
  const json& config = Object(document, "Config");
  ContainerMetadata metadata;
  metadata.id = Text(document, "Id");
  metadata.name = WithoutSlash(Text(document, "Name"));
  metadata.image = Text(config, "Image");
  if (metadata.image.empty()) metadata.image = Text(document, "ImageName");  // podman
  TakeLabels(Object(config, "Labels"), metadata);
  if (StatusOr<int64_t> created = ParseTime(Text(document, "Created"), 0); created.ok()) metadata.created_ns = *created;
  ApplyKubernetesLabels(metadata);
  return metadata;
}

StatusOr<std::vector<ContainerMetadata>> ParseDockerList(std::string_view text) {
  const json document = json::parse(text, nullptr, false);
  if (!document.is_array()) return DataLossError("not a list of Docker's containers");
  std::vector<ContainerMetadata> list;
  for (const json& entry : document) {
    if (!entry.is_object() || Text(entry, "Id").empty()) continue;
    ContainerMetadata& metadata = list.emplace_back();
    metadata.id = Text(entry, "Id");
    metadata.image = Text(entry, "Image");
    if (const auto names = entry.find("Names");
        names != entry.end() && names->is_array() && !names->empty() && (*names)[0].is_string()) {
      metadata.name = WithoutSlash((*names)[0].get<std::string>());
    }
    TakeLabels(Object(entry, "Labels"), metadata);
    if (const auto created = entry.find("Created"); created != entry.end() && created->is_number_integer()) {
      metadata.created_ns = created->get<int64_t>() * static_cast<int64_t>(kNsPerSecond);
    }
    ApplyKubernetesLabels(metadata);
  }
  return list;
}

std::unique_ptr<RuntimeClient> MakeDockerClient(const DockerOptions& options) {
  return std::make_unique<DockerClient>(options);
}

}  // namespace pyrometer::containers

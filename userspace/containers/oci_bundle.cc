#include "userspace/containers/oci_bundle.h"

#include <nlohmann/json.hpp>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/containers/docker_client.h"
#include "userspace/containers/kubernetes_labels.h"

namespace pyrometer::containers {
namespace {

using nlohmann::json;

std::string Text(const json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string FirstText(const json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (std::string text = Text(object, key); !text.empty()) return text;
  }
  return "";
}

class BundleClient : public RuntimeClient {
 public:
  explicit BundleClient(const BundleOptions& options) : options_(options), name_("container bundles on disk") {}

  const std::string& name() const override { return name_; }
  int rank() const override { return 1; }

  bool MayKnow(const ContainerIdentity& identity) const override {
    const std::string& id = identity.container_id;
    if (id.empty() || id == "." || id == ".." || id.find('/') != std::string::npos) return false;
    switch (identity.runtime) {
      case Runtime::kDocker:
      case Runtime::kContainerd:
      case Runtime::kCrio:
      case Runtime::kPodman:
      case Runtime::kRunc:
      case Runtime::kUnknown:
        return true;
      default:
        return false;
    }
  }

  StatusOr<ContainerMetadata> Inspect(const ContainerIdentity& identity) override {
    const std::string& id = identity.container_id;
    if (!MayKnow(identity)) return NotFoundError("not an id of a bundle");
    const bool any = identity.runtime == Runtime::kUnknown;
    if (any || identity.runtime == Runtime::kContainerd) {
      for (const std::string& state : options_.containerd_states) {
        for (const std::string& runtime_namespace :
             {identity.runtime_namespace, std::string("k8s.io"), std::string("default")}) {
          if (runtime_namespace.empty()) continue;
          StatusOr<ContainerMetadata> found =
              ReadBundle(StrFormat("%s/io.containerd.runtime.v2.task/%s/%s", state, runtime_namespace, id), id);
          if (found.ok()) return found;
        }
      }
    }
    if (any || identity.runtime == Runtime::kPodman || identity.runtime == Runtime::kCrio) {
      for (const std::string& storage : options_.containers_storages) {
        StatusOr<ContainerMetadata> found = ReadBundle(StrFormat("%s/overlay-containers/%s/userdata", storage, id), id);
        if (found.ok()) return found;
        found = ReadStorageList(StrFormat("%s/overlay-containers/containers.json", storage), id);
        if (found.ok()) return found;
      }
    }
    if (any || identity.runtime == Runtime::kDocker) {
      StatusOr<ContainerMetadata> found = ReadDockerConfig(id);
      if (found.ok()) return found;
    }
    if (identity.runtime == Runtime::kRunc) {
      StatusOr<ContainerMetadata> found = ReadRuncState(id);
      if (found.ok()) return found;
    }
    return NotFoundError("no bundle on disk tells about it");
  }

  StatusOr<std::vector<ContainerMetadata>> List() override {
    return UnimplementedError("bundles are found by container id only");
  }

 private:
  StatusOr<std::string> Read(const std::string& path) const { return ReadFile(options_.root + path, kMaxBundleBytes); }

  StatusOr<ContainerMetadata> ReadBundle(const std::string& folder, const std::string& id) const {
    ASSIGN_OR_RETURN(const std::string text, Read(folder + "/config.json"));
    return ParseBundleConfig(text, id);
  }

  // podman and CRI-O: [{"id":…,"names":[…],"image":…,"metadata":"{\"image-name\":…,\"name\":…}"}]
  StatusOr<ContainerMetadata> ReadStorageList(const std::string& path, const std::string& id) const {
    ASSIGN_OR_RETURN(const std::string text, Read(path));
    const json document = json::parse(text, nullptr, false);
    if (!document.is_array()) return DataLossError(StrFormat("%s is malformed", path));
    for (const json& entry : document) {
      if (Text(entry, "id") != id) continue;
      ContainerMetadata metadata;
      metadata.id = id;
      const json inner = json::parse(Text(entry, "metadata"), nullptr, false);
      metadata.name = Text(inner, "name");
      metadata.image = Text(inner, "image-name");
      if (const auto names = entry.find("names"); metadata.name.empty() && names != entry.end() && names->is_array() &&
                                                  !names->empty() && (*names)[0].is_string()) {
        metadata.name = (*names)[0].get<std::string>();
      }
      if (StatusOr<int64_t> created = ParseTime(Text(entry, "created"), 0); created.ok()) {
        metadata.created_ns = *created;
      }
      return metadata;
    }
    return NotFoundError(StrFormat("%s does not have it", path));
  }

  // Docker keeps per container what `inspect` prints, with the id under another key.
  StatusOr<ContainerMetadata> ReadDockerConfig(const std::string& id) const {
    ASSIGN_OR_RETURN(const std::string text,
                     Read(StrFormat("%s/containers/%s/config.v2.json", options_.docker_root, id)));
    json document = json::parse(text, nullptr, false);
    if (!document.is_object()) return DataLossError("config.v2.json is malformed");
    document["Id"] = id;
    return ParseDockerInspect(document.dump(-1, ' ', false, json::error_handler_t::replace));
  }

  StatusOr<ContainerMetadata> ReadRuncState(const std::string& id) const {
    ASSIGN_OR_RETURN(const std::string text, Read(StrFormat("%s/%s/state.json", options_.runc_root, id)));
    const json document = json::parse(text, nullptr, false);
    if (!document.is_object()) return DataLossError("state.json is malformed");
    const json config = document.value("config", json::object());
    const auto labels = config.is_object() ? config.find("labels") : config.end();
    if (!config.is_object() || labels == config.end() || !labels->is_array()) return NotFoundError("no bundle named");
    for (const json& label : *labels) {
      constexpr std::string_view kPrefix = "bundle=";
      const std::string entry = label.is_string() ? label.get<std::string>() : "";
      if (entry.starts_with(kPrefix)) return ReadBundle(entry.substr(kPrefix.size()), id);
    }
    return NotFoundError("no bundle named");
  }

  const BundleOptions options_;
  const std::string name_;
};

}  // namespace

StatusOr<ContainerMetadata> ParseBundleConfig(std::string_view text, std::string_view container_id) {
  const json document = json::parse(text, nullptr, false);
  if (!document.is_object()) return DataLossError("config.json of a bundle is malformed");
  const auto it = document.find("annotations");
  if (it == document.end() || !it->is_object()) return NotFoundError("the bundle has no annotations");
  const json& annotations = *it;
  ContainerMetadata metadata;
  metadata.id = std::string(container_id);
  metadata.name = FirstText(annotations, {"io.kubernetes.cri.container-name", "io.kubernetes.container.name",
                                          "nerdctl/name", "io.container.name"});
  metadata.image = FirstText(annotations, {"io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName",
                                           "org.opencontainers.image.ref.name"});
  metadata.pod_name = FirstText(annotations, {"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"});
  metadata.pod_namespace =
      FirstText(annotations, {"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"});
  metadata.pod_uid = FirstText(annotations, {"io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"});
  metadata.sandbox =
      FirstText(annotations, {"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"}) == "sandbox";
  if (metadata.sandbox) metadata.name = "pause";
  // CRI-O and nerdctl keep the labels as one JSON text.
  const json labels =
      json::parse(FirstText(annotations, {"io.kubernetes.cri-o.Labels", "nerdctl/labels"}), nullptr, false);
  if (labels.is_object()) {
    for (const auto& [key, value] : labels.items()) {
      if (value.is_string()) metadata.labels[key] = value.get<std::string>();
    }
  }
  const bool sandbox = metadata.sandbox;
  ApplyKubernetesLabels(metadata);
  if (sandbox) metadata.name = "pause";
  if (metadata.name.empty() && metadata.pod_name.empty()) return NotFoundError("the bundle's annotations tell no name");
  return metadata;
}

std::unique_ptr<RuntimeClient> MakeBundleClient(const BundleOptions& options) {
  return std::make_unique<BundleClient>(options);
}

}  // namespace pyrometer::containers

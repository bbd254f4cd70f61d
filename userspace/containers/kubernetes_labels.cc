#include "userspace/containers/kubernetes_labels.h"

namespace pyrometer::containers {

void ApplyKubernetesLabels(ContainerMetadata& metadata) {
  const auto take = [&metadata](const char* key, std::string& field, bool replace) {
    const auto it = metadata.labels.find(key);
    if (it != metadata.labels.end() && !it->second.empty() && (replace || field.empty())) field = it->second;
  };
  take("io.kubernetes.pod.name", metadata.pod_name, false);
  take("io.kubernetes.pod.namespace", metadata.pod_namespace, false);
  take("io.kubernetes.pod.uid", metadata.pod_uid, false);
  take("io.kubernetes.container.name", metadata.name, true);
  if (metadata.name == "POD" && !metadata.pod_name.empty()) {  // dockershim's name of the pause container
    metadata.sandbox = true;
    metadata.name = "pause";
  }
}

}  // namespace pyrometer::containers

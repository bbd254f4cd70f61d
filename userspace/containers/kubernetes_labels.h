// The labels and annotations that Kubernetes' runtimes put on containers, read into the fields of ContainerMetadata.
//
// Threads: pure function. Unknown keys stay among the labels.
#pragma once

#include "userspace/containers/runtime_client.h"

namespace pyrometer::containers {

// kubelet's labels (io.kubernetes.pod.name, …) fill pod name, namespace and UID where empty; the name within the
// pod replaces the runtime's own long one (k8s_app_web-1_shop_…).
void ApplyKubernetesLabels(ContainerMetadata& metadata);

}  // namespace pyrometer::containers

#include "userspace/containers/labels.h"

#include <algorithm>
#include <map>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

constexpr size_t kShortIdBytes = 12;  // as `docker ps` shows

// Cuts at a character, not within one.
std::string Bounded(std::string_view text, size_t limit) {
  std::string result = ToUtf8(text.substr(0, limit));
  while (result.size() > limit) {
    size_t end = limit;
    while (end > 0 && (static_cast<unsigned char>(result[end]) & 0xC0) == 0x80) --end;
    result.resize(end);
  }
  return result;
}

std::string_view Find(const std::map<std::string, std::string>& labels, const std::string& key) {
  const auto it = labels.find(key);
  return it == labels.end() ? std::string_view() : it->second;
}

std::string_view FirstOf(std::initializer_list<std::string_view> candidates) {
  for (std::string_view candidate : candidates) {
    if (!candidate.empty()) return candidate;
  }
  return {};
}

std::string_view WithoutService(std::string_view unit) {
  constexpr std::string_view kSuffix = ".service";
  if (unit.ends_with(kSuffix)) unit.remove_suffix(kSuffix.size());
  return unit;
}

// Cuts "-<suffix>" off, when that leaves something.
bool CutSuffix(std::string_view& name, std::string_view suffix) {
  if (suffix.empty() || name.size() < suffix.size() + 2 || !name.ends_with(suffix)) return false;
  if (name[name.size() - suffix.size() - 1] != '-') return false;
  name.remove_suffix(suffix.size() + 1);
  return true;
}

// The last "-part" of a generated pod name has 5 letters and digits (or the ordinal of a stateful set).
bool CutGenerated(std::string_view& name) {
  const size_t dash = name.rfind('-');
  if (dash == std::string_view::npos || dash == 0 || dash + 1 == name.size()) return false;
  name = name.substr(0, dash);
  return true;
}

}  // namespace

void Sanitize(ContainerMetadata& metadata) {
  metadata.id = Bounded(metadata.id, kMaxNameBytes);
  metadata.name = Bounded(metadata.name, kMaxNameBytes);
  metadata.image = Bounded(metadata.image, kMaxNameBytes);
  metadata.pod_name = Bounded(metadata.pod_name, kMaxNameBytes);
  metadata.pod_namespace = Bounded(metadata.pod_namespace, kMaxNameBytes);
  metadata.pod_uid = Bounded(metadata.pod_uid, kMaxNameBytes);
  std::map<std::string, std::string> labels;
  for (const auto& [key, value] : metadata.labels) {
    if (labels.size() >= kMaxLabels) break;
    if (key.size() > kMaxLabelKeyBytes || !IsUtf8(key)) continue;  // a cut key would be another key
    labels[key] = Bounded(value, kMaxLabelValueBytes);
  }
  metadata.labels = std::move(labels);
}

std::string PodOwner(const ContainerMetadata& metadata) {
  std::string_view name = metadata.pod_name;
  const auto& labels = metadata.labels;
  for (const char* key : {"job-name", "batch.kubernetes.io/job-name"}) {
    if (const std::string_view job = Find(labels, key); !job.empty()) return std::string(job);
  }
  if (const std::string_view hash = Find(labels, "pod-template-hash"); !hash.empty()) {
    std::string_view owner = name;
    if (CutGenerated(owner) && CutSuffix(owner, hash)) return std::string(owner);  // Deployment
  }
  if (!Find(labels, "statefulset.kubernetes.io/pod-name").empty() ||
      !Find(labels, "controller-revision-hash").empty()) {
    CutGenerated(name);  // StatefulSet, DaemonSet
  }
  return std::string(name);
}

std::string ContainerName(const ContainerIdentity& identity, const ContainerMetadata* metadata) {
  if (identity.is_host()) return "";
  const std::string_view name =
      FirstOf({metadata != nullptr ? std::string_view(metadata->name) : std::string_view(), identity.name_hint});
  if (!name.empty()) return Bounded(name, kMaxLabelValueBytes);
  return Bounded(std::string_view(identity.container_id).substr(0, kShortIdBytes), kMaxLabelValueBytes);
}

Labels LabelsFor(const ContainerIdentity& identity, const ContainerMetadata* metadata, std::string_view node,
                 const LabelOptions& options) {
  static const ContainerMetadata kNothing;
  const ContainerMetadata& known = metadata != nullptr ? *metadata : kNothing;

  std::map<std::string, std::string> labels;
  const auto set = [&labels](std::string_view name, std::string_view value) {
    if (value.empty() || name.empty()) return;
    // The service is always there, whatever else was kept.
    if (labels.size() >= kMaxResultLabels - 1 && name != "service") return;
    labels.try_emplace(Bounded(name, kMaxLabelKeyBytes), Bounded(value, kMaxLabelValueBytes));
  };

  const std::string container_name = ContainerName(identity, metadata);
  const std::string_view app =
      FirstOf({Find(known.labels, "app.kubernetes.io/name"), Find(known.labels, "app"), Find(known.labels, "k8s-app")});
  const std::string_view compose_service = Find(known.labels, "com.docker.compose.service");
  const std::string_view unit = WithoutService(identity.unit);
  const bool in_pod = !known.pod_name.empty();

  set("node", node);
  set("unit", unit);
  set("pod.uid", FirstOf({known.pod_uid, identity.pod_uid}));
  set("qos", QosClassName(identity.qos));
  if (!identity.is_host()) {
    set("container.id", identity.container_id);
    set("container.name", container_name);
    set("container.runtime",
        RuntimeName(known.runtime != Runtime::kNone && identity.runtime == Runtime::kUnknown ? known.runtime
                                                                                             : identity.runtime));
    set("image", known.image);
    set("pod", known.pod_name);
    set("namespace", known.pod_namespace);
    if (in_pod) {
      set("app", app);
      set("version", Find(known.labels, "app.kubernetes.io/version"));
    }
    set("compose.project", Find(known.labels, "com.docker.compose.project"));
    set("compose.service", compose_service);
    for (const std::string& key : options.keep) set("label." + key, Find(known.labels, key));
  }

  std::string_view service;
  std::string owner;
  if (identity.is_host()) {
    service = FirstOf({unit, "host"});
  } else {
    if (in_pod) owner = PodOwner(known);
    service = FirstOf({in_pod ? app : std::string_view(), owner, compose_service, container_name, "host"});
  }
  set("service", service);
  return Labels(labels.begin(), labels.end());
}

}  // namespace pyrometer::containers

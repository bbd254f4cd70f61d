#include "userspace/containers/cgroup_path.h"

#include <algorithm>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

// Deeper paths are nobody's habit [docker in docker in Kubernetes with systemd inside: 11]; the rest is ignored.
constexpr size_t kMaxComponents = 32;

bool IsHexDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHex(std::string_view text, size_t length) {
  return text.size() == length && std::all_of(text.begin(), text.end(), IsHexDigit);
}

// 8-4-4-4-12 hex digits; `separator` is '_' in slices of the systemd driver.
bool IsUuid(std::string_view text, char separator) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool at_separator = i == 8 || i == 13 || i == 18 || i == 23;
    if (at_separator ? text[i] != separator : !IsHexDigit(text[i])) return false;
  }
  return true;
}

bool TakePrefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}
bool TakeSuffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

std::string Cut(std::string_view text) { return std::string(text.substr(0, kMaxIdBytes)); }

bool IsSystemdUnit(std::string_view component) {
  for (std::string_view suffix : {".slice", ".scope", ".service", ".mount", ".socket", ".swap", ".device"}) {
    if (component.size() > suffix.size() && component.ends_with(suffix)) return true;
  }
  return false;
}

// What one path component says of a container.
struct Found {
  Runtime runtime = Runtime::kNone;
  std::string_view id;
  std::string name;
  std::string_view runtime_namespace;
  bool certain = true;
};

// `docker-<id>.scope`, `cri-containerd-<id>.scope`, `libpod-<id>`, …: prefix, then the id.
std::optional<Found> FindPrefixed(std::string_view component) {
  TakeSuffix(component, ".scope");
  constexpr struct {
    std::string_view prefix;
    Runtime runtime;
  } kPrefixes[] = {
      {"docker-", Runtime::kDocker}, {"cri-containerd-", Runtime::kContainerd}, {"crio-", Runtime::kCrio},
      {"libpod-", Runtime::kPodman}, {"nerdctl-", Runtime::kContainerd},        {"containerd-", Runtime::kContainerd},
      {"runc-", Runtime::kRunc},
  };
  for (const auto& [prefix, runtime] : kPrefixes) {
    if (component.starts_with(prefix) && IsFullContainerId(component.substr(prefix.size()))) {
      return Found{.runtime = runtime, .id = component.substr(prefix.size())};
    }
  }
  return std::nullopt;
}

// The helper process beside a container (conmon), which is the host's.
std::optional<std::string_view> FindConmon(std::string_view component) {
  TakeSuffix(component, ".scope");
  for (std::string_view prefix : {"crio-conmon-", "libpod-conmon-"}) {
    if (component.starts_with(prefix) && IsFullContainerId(component.substr(prefix.size()))) {
      return prefix.substr(0, prefix.size() - 1);
    }
  }
  return std::nullopt;
}

// A pod's folder or slice: `pod<uid>`, `kubepods-burstable-pod<uid with _>.slice`. Sets pod_uid, and QoS for slices.
bool TakePod(std::string_view component, bool below_kubepods, ContainerIdentity& identity) {
  if (below_kubepods && component.starts_with("pod")) {
    const std::string_view uid = component.substr(3);
    if (IsUuid(uid, '-') || IsHex(uid, 32)) {  // static pods have a hash for a UID
      identity.pod_uid = std::string(uid);
      return true;
    }
  }
  const size_t kubepods = component.rfind("kubepods");
  if (kubepods == std::string_view::npos || !TakeSuffix(component, ".slice")) return false;
  std::string_view rest = component.substr(kubepods + std::string_view("kubepods").size());
  if (TakePrefix(rest, "-burstable")) {
    identity.qos = QosClass::kBurstable;
  } else if (TakePrefix(rest, "-besteffort")) {
    identity.qos = QosClass::kBestEffort;
  }
  if (!TakePrefix(rest, "-pod")) return rest.empty();
  if (!IsUuid(rest, '_') && !IsHex(rest, 32)) return false;
  identity.pod_uid = std::string(rest);
  std::replace(identity.pod_uid.begin(), identity.pod_uid.end(), '_', '-');
  return true;
}

// "run-r3a9f….scope", "session-12.scope", "app-gnome-x-4711.scope" -> without the part that never repeats.
std::string BoundedUnitName(std::string_view unit) {
  const size_t dot = unit.rfind('.');
  const std::string_view suffix = unit.substr(dot);
  std::string name = UnescapeUnitName(unit.substr(0, dot));
  while (true) {
    const size_t dash = name.find_last_of("-");
    if (dash == std::string::npos || dash == 0) break;
    std::string_view tail = std::string_view(name).substr(dash + 1);
    if (name.starts_with("run-") && tail.size() > 1 && (tail[0] == 'r' || tail[0] == 'u' || tail[0] == 'p')) {
      tail.remove_prefix(1);
    }
    const bool number = !tail.empty() && std::all_of(tail.begin(), tail.end(), IsDigit);
    const bool hash = tail.size() >= 12 && std::all_of(tail.begin(), tail.end(), IsHexDigit);
    if (!hash && !(number && (suffix == ".scope" || name.starts_with("run-")))) break;
    name.resize(dash);
  }
  return Cut(name + std::string(suffix));
}

std::optional<Found> FindContainer(const std::vector<std::string_view>& components, size_t i,
                                   const ContainerIdentity& so_far, bool below_container, bool below_kubepods) {
  const std::string_view component = components[i];
  const std::string_view parent = i > 0 ? components[i - 1] : std::string_view();
  const std::string_view grandparent = i > 1 ? components[i - 2] : std::string_view();

  if (std::optional<Found> prefixed = FindPrefixed(component)) return prefixed;

  // LXC and its heirs.
  for (std::string_view prefix : {"lxc.payload.", "lxc.payload-"}) {
    if (component.size() > prefix.size() && component.starts_with(prefix)) {
      const std::string_view name = component.substr(prefix.size());
      return Found{.runtime = Runtime::kLxc, .id = name, .name = std::string(name)};
    }
  }
  if ((parent == "lxc" || parent == "lxc.payload") && !IsSystemdUnit(component)) {
    return Found{.runtime = Runtime::kLxc, .id = component, .name = std::string(component)};
  }

  // systemd-nspawn, as a service or registered by machined. Virtual machines are registered there too.
  if (component.starts_with("systemd-nspawn@") && component.ends_with(".service")) {
    const std::string_view name = component.substr(15, component.size() - 15 - 8);
    return Found{.runtime = Runtime::kNspawn, .id = name, .name = UnescapeUnitName(name)};
  }
  if (parent == "machine.slice" && component.starts_with("machine-") && component.ends_with(".scope")) {
    const std::string_view name = component.substr(8, component.size() - 8 - 6);
    const std::string plain = UnescapeUnitName(name);
    if (!plain.starts_with("qemu-") && !plain.starts_with("lxc-")) {
      return Found{.runtime = Runtime::kNspawn, .id = name, .name = plain};
    }
    if (plain.starts_with("lxc-")) return Found{.runtime = Runtime::kLxc, .id = name, .name = plain};
    return std::nullopt;
  }

  // Nomad: nomad.slice/[share.slice/]<allocation>.<task>.scope
  if (components[0].starts_with("nomad") && component.size() > 37 && IsUuid(component.substr(0, 36), '-') &&
      component[36] == '.') {
    std::string_view task = component.substr(37);
    TakeSuffix(task, ".scope");
    return Found{.runtime = Runtime::kNomad, .id = component.substr(0, 36), .name = std::string(task)};
  }

  if (parent == "garden" && !IsSystemdUnit(component)) return Found{.runtime = Runtime::kGarden, .id = component};
  if (parent == "mesos" && IsUuid(component, '-')) return Found{.runtime = Runtime::kMesos, .id = component};
  if (parent == "buildkit" && grandparent == "docker") return Found{.runtime = Runtime::kDocker, .id = component};

  // Amazon ECS: /ecs/<task>/<container>, on Fargate <32 hex>-<number>.
  const bool in_ecs = grandparent == "ecs" || (i > 2 && components[i - 3] == "ecs");
  if (in_ecs && component.size() > 33 && IsHex(component.substr(0, 32), 32) && component[32] == '-' &&
      std::all_of(component.begin() + 33, component.end(), IsDigit)) {
    return Found{.runtime = Runtime::kContainerd, .id = component};
  }

  if (IsFullContainerId(component)) {
    Found found{.runtime = Runtime::kUnknown, .id = component};
    if (parent == "docker" || parent == "moby" || in_ecs || parent == "actions_job") {
      found.runtime = Runtime::kDocker;
    } else if (!so_far.pod_uid.empty()) {
      found.runtime = Runtime::kContainerd;
    } else if (parent == "libpod_parent") {
      found.runtime = Runtime::kPodman;
    } else if (parent == "k8s.io") {
      found.runtime = Runtime::kContainerd;
      found.runtime_namespace = parent;
    }
    return found;
  }

  // ctr: /<namespace>/<id>. "default" may be anybody's folder.
  if (i == 1 && components.size() == 2 && !IsSystemdUnit(parent) && !IsSystemdUnit(component)) {
    if (parent == "k8s.io" || parent == "services.linuxkit") {
      return Found{.runtime = Runtime::kContainerd,
                   .id = component,
                   .name = std::string(component),
                   .runtime_namespace = parent};
    }
    if (parent == "default") {
      return Found{.runtime = Runtime::kContainerd,
                   .id = component,
                   .name = std::string(component),
                   .runtime_namespace = parent,
                   .certain = false};
    }
  }

  // Whatever else somebody made outside of systemd's tree: plain runc's habit is "/<id>". The last component
  // names it; only the probe can tell.
  const bool in_systemd = std::any_of(components.begin(), components.begin() + static_cast<ptrdiff_t>(i) + 1,
                                      [](std::string_view c) { return IsSystemdUnit(c); });
  const bool known_folder = component == "kubepods" || component == "docker" || component == "libpod_parent" ||
                            component == "lxc" || component == "garden" || component == "mesos" || component == "ecs" ||
                            component == "buildkit" || component == "nomad" || component == "init" ||
                            component.starts_with("lxc.monitor") || component == "lxc.pivot" ||
                            (parent == "libpod_parent" && component == "conmon");
  const bool last = i + 1 == components.size();
  if (last && !below_container && !below_kubepods && !in_systemd && !known_folder) {
    return Found{.runtime = Runtime::kRunc, .id = component, .name = std::string(component), .certain = false};
  }
  return std::nullopt;
}

}  // namespace

std::string_view RuntimeName(Runtime runtime) {
  switch (runtime) {
    case Runtime::kNone:
      return "";
    case Runtime::kDocker:
      return "docker";
    case Runtime::kContainerd:
      return "containerd";
    case Runtime::kCrio:
      return "cri-o";
    case Runtime::kPodman:
      return "podman";
    case Runtime::kRunc:
      return "runc";
    case Runtime::kLxc:
      return "lxc";
    case Runtime::kNspawn:
      return "systemd-nspawn";
    case Runtime::kNomad:
      return "nomad";
    case Runtime::kGarden:
      return "garden";
    case Runtime::kMesos:
      return "mesos";
    case Runtime::kUnknown:
      return "unknown";
  }
  return "unknown";
}

std::string_view QosClassName(QosClass qos) {
  switch (qos) {
    case QosClass::kNone:
      return "";
    case QosClass::kGuaranteed:
      return "guaranteed";
    case QosClass::kBurstable:
      return "burstable";
    case QosClass::kBestEffort:
      return "besteffort";
  }
  return "";
}

bool IsFullContainerId(std::string_view text) { return IsHex(text, 64); }

std::string UnescapeUnitName(std::string_view name) {
  std::string result;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name.substr(i, 2) == "\\x" && i + 4 <= name.size()) {
      if (const std::optional<uint64_t> byte = ParseUint64(name.substr(i + 2, 2), 16)) {
        result.push_back(static_cast<char>(*byte));
        i += 3;
        continue;
      }
    }
    result.push_back(name[i]);
  }
  return result;
}

ContainerIdentity ParseCgroupPath(std::string_view path) {
  std::vector<std::string_view> components;
  for (std::string_view component : Split(path, '/')) {
    // ".." begins the path of a cgroup outside of our cgroup namespace; "init.scope"-like leaves stay.
    if (component.empty() || component == "..") continue;
    components.push_back(component);
    if (components.size() == kMaxComponents) break;
  }

  ContainerIdentity identity;
  bool below_kubepods = false;
  bool below_container = false;
  for (size_t i = 0; i < components.size(); ++i) {
    const std::string_view component = components[i];
    if (const std::optional<std::string_view> conmon = FindConmon(component)) {
      identity.unit = StrFormat("%s.scope", *conmon);
      continue;
    }
    if (std::optional<Found> found = FindContainer(components, i, identity, below_container, below_kubepods)) {
      if (identity.runtime != Runtime::kNone) identity.parent_id = identity.container_id;
      identity.runtime = found->runtime;
      identity.container_id = Cut(found->id);
      identity.name_hint = Cut(found->name);
      identity.runtime_namespace = Cut(found->runtime_namespace);
      identity.certain = found->certain;
      identity.unit.clear();  // the unit that manages the container says nothing about what runs in it
      below_container = true;
      below_kubepods = false;
      continue;
    }
    if (component == "kubepods" || component.ends_with("kubepods.slice")) {
      below_kubepods = true;
      identity.pod_uid.clear();
      identity.qos = QosClass::kNone;
      if (component.ends_with(".slice") && !below_container) identity.slice = Cut(component);
      continue;
    }
    if (below_kubepods && (component == "burstable" || component == "besteffort")) {
      identity.qos = component == "burstable" ? QosClass::kBurstable : QosClass::kBestEffort;
      continue;
    }
    if (TakePod(component, below_kubepods, identity)) {
      if (!identity.pod_uid.empty() && identity.qos == QosClass::kNone) identity.qos = QosClass::kGuaranteed;
      continue;
    }
    if (component.starts_with("machine-libpod_pod_") || component.starts_with("user-libpod_pod_")) {
      std::string_view pod = component.substr(component.find("_pod_") + 5);
      TakeSuffix(pod, ".slice");
      if (IsFullContainerId(pod)) identity.pod_uid = std::string(pod);
      continue;
    }
    if (component.ends_with(".slice") && component.size() > 6) {
      if (below_container) continue;
      identity.slice = Cut(component);
      std::string_view user = component;
      if (TakePrefix(user, "user-") && TakeSuffix(user, ".slice")) {
        const std::optional<uint64_t> uid = ParseUint64(user);
        if (uid && *uid <= UINT32_MAX) identity.user_id = static_cast<uint32_t>(*uid);
      }
    } else if (IsSystemdUnit(component)) {
      identity.unit = BoundedUnitName(component);
    }
  }
  return identity;
}

}  // namespace pyrometer::containers

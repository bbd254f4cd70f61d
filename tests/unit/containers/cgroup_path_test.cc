#include "userspace/containers/cgroup_path.h"

#include <gtest/gtest.h>

#include <random>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

const std::string kId = "4fa89f6dd21e2b0d7ff4bd4c6f0a2f2f1f7b3b1e7f9f41d9f1f4f0a87d5f3c21";
const std::string kOuter = "09b1fdc1c07a5a2d7f8f3a52a3b1b8f2b1f34e7d9a7a16f56f1c5b4dd6e7a8f0";
constexpr char kUid[] = "0b1e5f3a-1111-2222-3333-444455556666";

struct Case {
  std::string path;
  ContainerIdentity expected;
};

std::string Describe(const ContainerIdentity& id) {
  return StrFormat("runtime=%s certain=%d id=%s name=%s ns=%s parent=%s pod=%s qos=%s unit=%s slice=%s user=%d",
                   RuntimeName(id.runtime), id.certain, id.container_id, id.name_hint, id.runtime_namespace,
                   id.parent_id, id.pod_uid, QosClassName(id.qos), id.unit, id.slice,
                   id.user_id ? static_cast<int>(*id.user_id) : -1);
}

ContainerIdentity Container(Runtime runtime, const std::string& id) { return {.runtime = runtime, .container_id = id}; }
ContainerIdentity Named(Runtime runtime, const std::string& name, bool certain = true) {
  return {.runtime = runtime, .certain = certain, .container_id = name, .name_hint = name};
}
ContainerIdentity Pod(Runtime runtime, QosClass qos, const std::string& uid = kUid) {
  return {.runtime = runtime, .container_id = kId, .pod_uid = uid, .qos = qos};
}
ContainerIdentity InSlice(ContainerIdentity id, const std::string& slice) {
  id.slice = slice;
  return id;
}
ContainerIdentity Around(ContainerIdentity id, const std::string& outer) {
  id.parent_id = outer;
  return id;
}
ContainerIdentity Unit(const std::string& unit, const std::string& slice) { return {.unit = unit, .slice = slice}; }
ContainerIdentity InUser(ContainerIdentity id, uint32_t uid) {
  id.user_id = uid;
  return id;
}
ContainerIdentity WithUnit(ContainerIdentity id, const std::string& unit) {
  id.unit = unit;
  return id;
}
ContainerIdentity InNamespace(ContainerIdentity id, const std::string& name) {
  id.runtime_namespace = name;
  return id;
}

std::vector<Case> Cases() {
  const std::string uid_slice = "0b1e5f3a_1111_2222_3333_444455556666";
  const std::string hash32 = "7d4b3b2b8a9b2c1d0e0f102030405060";
  return {
      // Docker
      {"/docker/" + kId, Container(Runtime::kDocker, kId)},
      {"/system.slice/docker-" + kId + ".scope", InSlice(Container(Runtime::kDocker, kId), "system.slice")},
      {"/docker/" + kId + "/init.scope", WithUnit(Container(Runtime::kDocker, kId), "init.scope")},
      {"/docker/" + kId + "/system.slice/nginx.service", WithUnit(Container(Runtime::kDocker, kId), "nginx.service")},
      {"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + kId + ".scope",
       InUser(InSlice(Container(Runtime::kDocker, kId), "user.slice"), 1000)},
      {"/docker/buildkit/p3q2hzkdyfd2zvv9uxg5pvyyl", Container(Runtime::kDocker, "p3q2hzkdyfd2zvv9uxg5pvyyl")},
      {"/actions_job/" + kId, Container(Runtime::kDocker, kId)},
      {"/" + kId, Container(Runtime::kUnknown, kId)},
      {"/custom-parent/" + kId, Container(Runtime::kUnknown, kId)},
      // Kubernetes, cgroupfs driver
      {StrFormat("/kubepods/burstable/pod%s/%s", kUid, kId), Pod(Runtime::kContainerd, QosClass::kBurstable)},
      {StrFormat("/kubepods/besteffort/pod%s/%s", kUid, kId), Pod(Runtime::kContainerd, QosClass::kBestEffort)},
      {StrFormat("/kubepods/pod%s/%s", kUid, kId), Pod(Runtime::kContainerd, QosClass::kGuaranteed)},
      {StrFormat("/kubepods/pod%s/crio-%s", kUid, kId), Pod(Runtime::kCrio, QosClass::kGuaranteed)},
      {StrFormat("/kubepods/burstable/pod%s/%s", hash32, kId), Pod(Runtime::kContainerd, QosClass::kBurstable, hash32)},
      {StrFormat("/kubepods/burstable/pod%s", kUid), {.pod_uid = kUid, .qos = QosClass::kBurstable}},
      // Kubernetes, systemd driver
      {StrFormat("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%s.slice/cri-containerd-%s.scope",
                 uid_slice, kId),
       InSlice(Pod(Runtime::kContainerd, QosClass::kBurstable), "kubepods.slice")},
      {StrFormat("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod%s.slice/crio-%s.scope", uid_slice,
                 kId),
       InSlice(Pod(Runtime::kCrio, QosClass::kBestEffort), "kubepods.slice")},
      {StrFormat("/kubepods.slice/kubepods-pod%s.slice/crio-%s.scope/container", uid_slice, kId),
       InSlice(Pod(Runtime::kCrio, QosClass::kGuaranteed), "kubepods.slice")},
      {StrFormat("/kubepods.slice/kubepods-pod%s.slice/docker-%s.scope", uid_slice, kId),
       InSlice(Pod(Runtime::kDocker, QosClass::kGuaranteed), "kubepods.slice")},
      {StrFormat("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%s.slice/cri-containerd-%s.scope",
                 hash32, kId),
       InSlice(Pod(Runtime::kContainerd, QosClass::kBurstable, hash32), "kubepods.slice")},
      {StrFormat("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%s.slice/crio-conmon-%s.scope",
                 uid_slice, kId),
       {.pod_uid = kUid, .qos = QosClass::kBurstable, .unit = "crio-conmon.scope", .slice = "kubepods.slice"}},
      // kind: a node in docker, pods within; both drivers
      {StrFormat("/docker/%s/kubelet/kubepods/burstable/pod%s/%s", kOuter, kUid, kId),
       Around(Pod(Runtime::kContainerd, QosClass::kBurstable), kOuter)},
      {StrFormat("/system.slice/docker-%s.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
                 "kubelet-kubepods-besteffort-pod%s.slice/cri-containerd-%s.scope",
                 kOuter, uid_slice, kId),
       InSlice(Around(Pod(Runtime::kContainerd, QosClass::kBestEffort), kOuter), "system.slice")},
      // docker in docker
      {"/docker/" + kOuter + "/docker/" + kId, Around(Container(Runtime::kDocker, kId), kOuter)},
      {StrFormat("/kubepods/pod%s/%s/docker/%s", kUid, kOuter, kId),
       Around(Pod(Runtime::kDocker, QosClass::kGuaranteed), kOuter)},
      // podman
      {"/libpod_parent/libpod-" + kId, Container(Runtime::kPodman, kId)},
      {"/machine.slice/libpod-" + kId + ".scope", InSlice(Container(Runtime::kPodman, kId), "machine.slice")},
      {"/machine.slice/libpod-" + kId + ".scope/container", InSlice(Container(Runtime::kPodman, kId), "machine.slice")},
      {"/machine.slice/libpod-conmon-" + kId + ".scope", Unit("libpod-conmon.scope", "machine.slice")},
      {"/user.slice/user-1001.slice/user@1001.service/user.slice/libpod-" + kId + ".scope/container",
       InUser(InSlice(Container(Runtime::kPodman, kId), "user.slice"), 1001)},
      {"/machine.slice/machine-libpod_pod_" + kOuter + ".slice/libpod-" + kId + ".scope",
       {.runtime = Runtime::kPodman, .container_id = kId, .pod_uid = kOuter, .slice = "machine.slice"}},
      // containerd without Kubernetes
      {"/k8s.io/c1", InNamespace(Named(Runtime::kContainerd, "c1"), "k8s.io")},
      {"/k8s.io/" + kId, InNamespace(Container(Runtime::kContainerd, kId), "k8s.io")},
      {"/default/redis", InNamespace(Named(Runtime::kContainerd, "redis", false), "default")},
      {"/moby/" + kId, Container(Runtime::kDocker, kId)},
      {"/system.slice/nerdctl-" + kId + ".scope", InSlice(Container(Runtime::kContainerd, kId), "system.slice")},
      // plain runc: only the probe can tell
      {"/shop", Named(Runtime::kRunc, "shop", false)},
      {"/team/checkout/shop", Named(Runtime::kRunc, "shop", false)},
      // ECS
      {"/ecs/" + hash32 + "/" + kId, Container(Runtime::kDocker, kId)},
      {"/ecs/prod/" + hash32 + "/" + kId, Container(Runtime::kDocker, kId)},
      {"/ecs/" + hash32 + "/" + hash32 + "-2861234567", Container(Runtime::kContainerd, hash32 + "-2861234567")},
      // LXC, LXD, nspawn, garden, mesos, nomad
      {"/lxc/web", Named(Runtime::kLxc, "web")},
      {"/lxc.payload.web", Named(Runtime::kLxc, "web")},
      {"/lxc.payload/web", Named(Runtime::kLxc, "web")},
      {"/lxc.payload.web/system.slice/nginx.service", WithUnit(Named(Runtime::kLxc, "web"), "nginx.service")},
      {"/lxc.monitor.web", {}},
      {"/libpod_parent/conmon", {}},
      {"/lxc.payload.ci/docker/" + kId, Around(Container(Runtime::kDocker, kId), "ci")},
      {"/machine.slice/machine-my\\x2dbox.scope",
       {.runtime = Runtime::kNspawn, .container_id = "my\\x2dbox", .name_hint = "my-box", .slice = "machine.slice"}},
      {"/machine.slice/systemd-nspawn@deb.service/payload/system.slice/cron.service",
       {.runtime = Runtime::kNspawn,
        .container_id = "deb",
        .name_hint = "deb",
        .unit = "cron.service",
        .slice = "machine.slice"}},
      {"/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
       Unit("machine-qemu-1-vm.scope", "machine.slice")},
      {"/garden/70e8bb2e-9a72-4dd3-60b8", Container(Runtime::kGarden, "70e8bb2e-9a72-4dd3-60b8")},
      {StrFormat("/mesos/%s", kUid), Container(Runtime::kMesos, kUid)},
      {StrFormat("/nomad.slice/share.slice/%s.web.scope", kUid),
       {.runtime = Runtime::kNomad, .container_id = kUid, .name_hint = "web", .slice = "share.slice"}},
      // the host
      {"/", {}},
      {"", {}},
      {"/init.scope", Unit("init.scope", "")},
      {"/system.slice/nginx.service", Unit("nginx.service", "system.slice")},
      {"/system.slice/system-getty.slice/getty@tty1.service", Unit("getty@tty1.service", "system-getty.slice")},
      {"/system.slice/docker.service", Unit("docker.service", "system.slice")},
      {"/system.slice/foo.service/worker/1", Unit("foo.service", "system.slice")},
      {"/user.slice/user-1000.slice/session-42.scope", InUser(Unit("session.scope", "user-1000.slice"), 1000)},
      {"/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal-4711.scope",
       InUser(Unit("app-org.gnome.Terminal.scope", "app.slice"), 1000)},
      {"/system.slice/run-r3a9f0c2b7d8e4f5a9b0c1d2e3f405162.scope", Unit("run.scope", "system.slice")},
      {"/system.slice/run-u123.service", Unit("run.service", "system.slice")},
      {"/docker", {}},
      {"/kubepods", {}},
      {"/kubepods/burstable", {.qos = QosClass::kBurstable}},
      // almost, but not
      {"/system.slice/docker-short.scope", Unit("docker-short.scope", "system.slice")},
      {"/kubepods/podnot-a-uid", {}},
  };
}

TEST(ParseCgroupPath, KnownLayouts) {
  const std::vector<Case> cases = Cases();
  EXPECT_GT(cases.size(), 60u);
  for (const Case& c : cases) {
    const ContainerIdentity found = ParseCgroupPath(c.path);
    EXPECT_EQ(Describe(found), Describe(c.expected)) << c.path;
    EXPECT_EQ(found, c.expected) << c.path;
  }
}

TEST(ParseCgroupPath, LongNamesAreCut) {
  const std::string longest(5'000, 'x');
  EXPECT_LE(ParseCgroupPath("/" + longest).container_id.size(), kMaxIdBytes);
  EXPECT_LE(ParseCgroupPath("/system.slice/" + longest + ".service").unit.size(), kMaxIdBytes);
  EXPECT_LE(ParseCgroupPath("/" + longest + ".slice/x.service").slice.size(), kMaxIdBytes);
}

TEST(ParseCgroupPath, SurvivesRandomDamage) {
  std::mt19937 random(7);
  const std::vector<Case> cases = Cases();
  for (int round = 0; round < 20'000; ++round) {
    std::string path = cases[random() % cases.size()].path;
    for (int change = 0; change < 4; ++change) {
      const size_t at = random() % (path.size() + 1);
      switch (random() % 4) {
        case 0:
          path.insert(at, 1, static_cast<char>(random()));
          break;
        case 1:
          path.erase(at, random() % 9);
          break;
        case 2:
          path.insert(at, "/");
          break;
        default:
          path += cases[random() % cases.size()].path;
      }
    }
    const ContainerIdentity id = ParseCgroupPath(path);
    EXPECT_EQ(id.is_host(), id.container_id.empty());
    EXPECT_LE(id.container_id.size() + id.unit.size() + id.slice.size(), 3 * kMaxIdBytes);
  }
}

TEST(UnescapeUnitName, OnlyHexEscapes) {
  EXPECT_EQ(UnescapeUnitName("a\\x2db"), "a-b");
  EXPECT_EQ(UnescapeUnitName("a\\x2"), "a\\x2");
  EXPECT_EQ(UnescapeUnitName("a\\xzzb\\"), "a\\xzzb\\");
}

}  // namespace
}  // namespace pyrometer::containers

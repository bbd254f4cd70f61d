// A real pod in a real containerd, through CRI: name, image, pod and labels arrive by themselves.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "proto/cri/v1/runtime.grpc.pb.h"
#include "tests/containers/eventually.h"
#include "tests/support/containerd_server.h"
#include "tests/support/run_program.h"
#include "tests/support/runc_container.h"
#include "userspace/base/strings.h"
#include "userspace/containers/cgroup_hierarchy.h"
#include "userspace/containers/container_index.h"
#include "userspace/containers/oci_bundle.h"
#include "userspace/rpc/cri/cri_client.h"

namespace pyrometer::containers {
namespace {

using test_support::Cgroup2MountPoint;
using test_support::ContainerdServer;
namespace cri = ::runtime::v1;
namespace fs = std::filesystem;

constexpr char kPodUid[] = "0b1e5f3a-1111-2222-3333-444455556666";
const std::string kPodCgroup = StrFormat("/kubepods/burstable/pod%s", kPodUid);

// One containerd for all tests of this file: it takes a second to start.
class CriTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    why_not_ = ContainerdServer::WhyNot();
    if (why_not_) return;
    auto server = ContainerdServer::Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    ASSERT_TRUE(server_->ImportImage("localhost/peer:1", {"/bin/sleep", "600"}).ok());
    stub_ = cri::RuntimeService::NewStub(
        grpc::CreateChannel("unix:" + server_->socket_path(), grpc::InsecureChannelCredentials()));
  }
  static void TearDownTestSuite() {
    stub_.reset();
    server_.reset();
    // runc removes a container's cgroup, nobody the pod's: here we are the kubelet.
    for (const auto& entry : fs::directory_iterator("/sys/fs/cgroup")) RemovePodCgroups(entry.path().string());
    RemovePodCgroups("/sys/fs/cgroup");
  }
  static void RemovePodCgroups(const std::string& mount) {
    for (const std::string& path : {kPodCgroup, std::string("/kubepods/burstable"), std::string("/kubepods")}) {
      ::rmdir((mount + path).c_str());
    }
  }

  void SetUp() override {
    if (why_not_) GTEST_SKIP() << *why_not_;
    ASSERT_TRUE(server_);
  }
  void TearDown() override {
    if (!stub_ || sandbox_.empty()) return;
    grpc::ClientContext stop;
    cri::StopPodSandboxRequest stop_request;
    stop_request.set_pod_sandbox_id(sandbox_);
    cri::StopPodSandboxResponse stop_response;
    EXPECT_TRUE(stub_->StopPodSandbox(&stop, stop_request, &stop_response).ok());
    grpc::ClientContext remove;
    cri::RemovePodSandboxRequest remove_request;
    remove_request.set_pod_sandbox_id(sandbox_);
    cri::RemovePodSandboxResponse remove_response;
    EXPECT_TRUE(stub_->RemovePodSandbox(&remove, remove_request, &remove_response).ok());
  }

  // Sandbox and one container "app"; ids in sandbox_ and container_.
  void RunPod() {
    cri::PodSandboxConfig config;
    config.mutable_metadata()->set_name("checkout-5d8f7c9b4-x2x4z");
    config.mutable_metadata()->set_uid(kPodUid);
    config.mutable_metadata()->set_namespace_("shop");
    config.set_log_directory(server_->scratch() + "/logs");
    (*config.mutable_labels())["pod-template-hash"] = "5d8f7c9b4";
    (*config.mutable_labels())["team"] = "payments";
    config.mutable_linux()->set_cgroup_parent(kPodCgroup);
    auto* namespaces = config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
    namespaces->set_network(cri::NODE);
    namespaces->set_pid(cri::CONTAINER);
    cri::RunPodSandboxRequest run;
    *run.mutable_config() = config;
    cri::RunPodSandboxResponse sandbox;
    grpc::ClientContext run_context;
    grpc::Status status = stub_->RunPodSandbox(&run_context, run, &sandbox);
    ASSERT_TRUE(status.ok()) << status.error_message() << "\n" << server_->Log();
    sandbox_ = sandbox.pod_sandbox_id();

    cri::CreateContainerRequest create;
    create.set_pod_sandbox_id(sandbox_);
    *create.mutable_sandbox_config() = config;
    create.mutable_config()->mutable_metadata()->set_name("app");
    create.mutable_config()->mutable_image()->set_image("localhost/peer:1");
    create.mutable_config()->add_command("/bin/sleep");
    create.mutable_config()->add_command("600");
    create.mutable_config()->set_log_path("app.log");
    cri::CreateContainerResponse container;
    grpc::ClientContext create_context;
    status = stub_->CreateContainer(&create_context, create, &container);
    ASSERT_TRUE(status.ok()) << status.error_message();
    container_ = container.container_id();
    cri::StartContainerRequest start;
    start.set_container_id(container_);
    cri::StartContainerResponse started;
    grpc::ClientContext start_context;
    status = stub_->StartContainer(&start_context, start, &started);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }

  CgroupId IdOf(const std::string& container) {
    const CgroupHierarchy hierarchy(Cgroup2MountPoint());
    return hierarchy.IdOf(kPodCgroup + "/" + container).value_or(CgroupId(0));
  }

  static std::optional<std::string> why_not_;
  static std::unique_ptr<ContainerdServer> server_;
  static std::unique_ptr<cri::RuntimeService::Stub> stub_;
  std::string sandbox_;
  std::string container_;
};

std::optional<std::string> CriTest::why_not_;
std::unique_ptr<ContainerdServer> CriTest::server_;
std::unique_ptr<cri::RuntimeService::Stub> CriTest::stub_;

TEST_F(CriTest, PodStartedWhileWeWatch) {
  auto index = ContainerIndex::Start({.node = "n1"});
  ASSERT_TRUE(index.ok()) << index.status();
  (*index)->AddClient(rpc::MakeCriClient({.socket_path = server_->socket_path()}));
  RunPod();
  if (HasFatalFailure()) return;
  const CgroupId id = IdOf(container_);
  ASSERT_NE(id.value, 0u);
  EXPECT_TRUE(Eventually([&] { return (*index)->Lookup(id, CgroupId(0))->metadata_state == MetadataState::kKnown; }));
  const auto info = (*index)->Lookup(id, CgroupId(0));
  const Labels expected = {{"container.id", container_},
                           {"container.name", "app"},
                           {"container.runtime", "containerd"},
                           {"image", "localhost/peer:1"},
                           {"namespace", "shop"},
                           {"node", "n1"},
                           {"pod", "checkout-5d8f7c9b4-x2x4z"},
                           {"pod.uid", kPodUid},
                           {"qos", "burstable"},
                           {"service", "checkout"}};
  EXPECT_EQ(info->labels, expected);
  EXPECT_EQ(info->metadata.labels.at("team"), "payments");
  EXPECT_GT(info->metadata.created_ns, 0);

  // The pause container has the pod's name too, and says what it is.
  EXPECT_TRUE(Eventually([&] { return (*index)->Lookup(IdOf(sandbox_), CgroupId(0))->name == "pause"; }));

  for (const std::string& name :
       {std::string("app"), std::string("shop/checkout-5d8f7c9b4-x2x4z/app"), container_, container_.substr(0, 12)}) {
    const auto matches = (*index)->FindByName(name);
    ASSERT_TRUE(matches.ok()) << name << matches.status();
    ASSERT_EQ(matches->size(), 1u) << name;
    EXPECT_THAT((*matches)[0].v2_ids, testing::Contains(id)) << name;
  }
  EXPECT_EQ((*index)->FindByName("shop/checkout-5d8f7c9b4-x2x4z")->size(), 2u);
}

TEST_F(CriTest, BundleOnDiskTellsWithoutASocket) {
  RunPod();
  if (HasFatalFailure()) return;
  auto client = MakeBundleClient({.containerd_states = {server_->scratch() + "/state"}});
  const auto metadata = client->Inspect({.runtime = Runtime::kContainerd, .container_id = container_});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->name, "app");
  EXPECT_EQ(metadata->image, "localhost/peer:1");
  EXPECT_EQ(metadata->pod_name, "checkout-5d8f7c9b4-x2x4z");
  EXPECT_EQ(metadata->pod_namespace, "shop");
  EXPECT_FALSE(metadata->sandbox);
  const auto pause = client->Inspect({.runtime = Runtime::kContainerd, .container_id = sandbox_});
  ASSERT_TRUE(pause.ok()) << pause.status();
  EXPECT_TRUE(pause->sandbox);
}

TEST_F(CriTest, ListAndUnknownIds) {
  RunPod();
  if (HasFatalFailure()) return;
  auto client = rpc::MakeCriClient({.socket_path = server_->socket_path()});
  const auto list = client->List();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 2u);
  const auto unknown =
      client->Inspect({.runtime = Runtime::kContainerd, .container_id = std::string(64, 'f'), .pod_uid = kPodUid});
  EXPECT_EQ(unknown.status().code(), StatusCode::kNotFound) << unknown.status();
}

TEST_F(CriTest, CtrContainerIsNamedByItsPath) {
  auto index = ContainerIndex::Start({});
  ASSERT_TRUE(index.ok());
  const std::string name = StrFormat("ctr-%d", ::getpid());
  ASSERT_TRUE(server_->Ctr({"run", "-d", "localhost/peer:1", name}).ok());
  const auto matches = (*index)->FindByName(name);
  EXPECT_TRUE(server_->Ctr({"task", "kill", "-s", "KILL", name}).ok());
  EXPECT_TRUE(Eventually([&] { return server_->Ctr({"task", "rm", name}).ok(); }));
  EXPECT_TRUE(server_->Ctr({"container", "rm", name}).ok());
  for (const auto& entry : fs::directory_iterator("/sys/fs/cgroup")) ::rmdir((entry.path() / "k8s.io").c_str());
  ::rmdir("/sys/fs/cgroup/k8s.io");
  ASSERT_TRUE(matches.ok()) << matches.status();
  EXPECT_EQ((*matches)[0].info->identity.runtime, Runtime::kContainerd);
  EXPECT_EQ(Label(*(*matches)[0].info, "container.name"), name);
}

TEST(CriClientAway, FailsAtOnceAndTheIndexGoesOn) {
  auto client = rpc::MakeCriClient({.socket_path = "/nonexistent/cri.sock"});
  const auto metadata = client->Inspect({.runtime = Runtime::kContainerd, .container_id = std::string(64, 'a')});
  EXPECT_EQ(metadata.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(metadata.status())), testing::HasSubstr("/nonexistent/cri.sock"));
}

}  // namespace
}  // namespace pyrometer::containers

// Against a server that answers on a unix socket as Docker does.
#include "userspace/containers/docker_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

const std::string kId = "4fa89f6dd21e2b0d7ff4bd4c6f0a2f2f1f7b3b1e7f9f41d9f1f4f0a87d5f3c21";
const ContainerIdentity kWeb = {.runtime = Runtime::kDocker, .container_id = kId};

std::string InspectDocument() {
  return StrFormat(R"({"Id":"%s","Created":"2026-11-23T22:30:00.5Z","Path":"nginx","State":{"Status":"running",
    "Pid":4711},"Image":"sha256:aaaa","Name":"/shop-web-1","RestartCount":0,"HostConfig":{"NetworkMode":"shop"},
    "Config":{"Hostname":"4fa8","Image":"nginx:1.25","Env":["A=b"],"Labels":{"com.docker.compose.project":"shop",
    "com.docker.compose.service":"web","odd":7}}})",
                   kId);
}

class DockerServer : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/pyrometer-docker-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
    server_.set_address_family(AF_UNIX);
    server_.Get(R"(/containers/([^/]+)/json)", [this](const httplib::Request& request, httplib::Response& response) {
      host_ = request.get_header_value("Host");
      asked_ = request.matches[1];
      if (delay_ms_ != 0) ::usleep(static_cast<useconds_t>(delay_ms_) * 1000);
      if (asked_ != kId) {
        response.status = 404;
        response.set_content(R"({"message":"No such container"})", "application/json");
        return;
      }
      response.status = status_;
      response.set_content(body_, "application/json");
    });
    server_.Get("/containers/json", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(StrFormat(R"([{"Id":"%s","Names":["/shop-web-1"],"Image":"nginx:1.25","Created":1795473000,
        "Labels":{"a":"b"}},{"Id":"","Names":[]},17,{"Id":"second"}])",
                                     kId),
                           "application/json");
    });
    ASSERT_TRUE(server_.bind_to_port(Socket(), 80));
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) ::usleep(1000);
  }
  void TearDown() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
    std::filesystem::remove_all(folder_);
  }
  std::string Socket() const { return folder_ + "/docker.sock"; }
  std::unique_ptr<RuntimeClient> Client(uint64_t deadline_ns = 2 * kNsPerSecond) {
    return MakeDockerClient({.socket_path = Socket(), .deadline_ns = deadline_ns});
  }

  std::string folder_;
  httplib::Server server_;
  std::thread thread_;
  std::string host_;
  std::string asked_;
  std::string body_ = InspectDocument();
  int status_ = 200;
  int delay_ms_ = 0;
};

TEST_F(DockerServer, Inspect) {
  const auto metadata = Client()->Inspect(kWeb);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->id, kId);
  EXPECT_EQ(metadata->name, "shop-web-1");
  EXPECT_EQ(metadata->image, "nginx:1.25");
  EXPECT_EQ(metadata->labels, (std::map<std::string, std::string>{{"com.docker.compose.project", "shop"},
                                                                  {"com.docker.compose.service", "web"}}));
  EXPECT_EQ(metadata->created_ns, 1795473000500000000);
  EXPECT_EQ(metadata->runtime, Runtime::kDocker);
  EXPECT_EQ(host_, "localhost");  // Docker's server refuses a path as host name
}

TEST_F(DockerServer, List) {
  const auto list = Client()->List();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].name, "shop-web-1");
  EXPECT_EQ((*list)[0].created_ns, 1'795'473'000'000'000'000);
  EXPECT_EQ((*list)[1].id, "second");
}

TEST_F(DockerServer, UnknownContainer) {
  const auto metadata = Client()->Inspect({.runtime = Runtime::kDocker, .container_id = std::string(64, 'b')});
  EXPECT_EQ(metadata.status().code(), StatusCode::kNotFound);
}

TEST_F(DockerServer, IdsThatAreNoUrlAreNotAsked) {
  const auto metadata = Client()->Inspect({.runtime = Runtime::kDocker, .container_id = "../images"});
  EXPECT_EQ(metadata.status().code(), StatusCode::kNotFound);
  EXPECT_EQ(asked_, "");
}

TEST_F(DockerServer, ErrorsAreTheRuntimesNotTheContainers) {
  status_ = 500;
  EXPECT_EQ(Client()->Inspect(kWeb).status().code(), StatusCode::kUnavailable);
  status_ = 200;
  body_ = "{\"Id\":";
  EXPECT_EQ(Client()->Inspect(kWeb).status().code(), StatusCode::kDataLoss);
  body_ = std::string(100'000, '[');
  EXPECT_EQ(Client()->Inspect(kWeb).status().code(), StatusCode::kDataLoss);
  body_ = "[]";
  EXPECT_EQ(Client()->Inspect(kWeb).status().code(), StatusCode::kDataLoss);
}

TEST_F(DockerServer, SlowServerMeetsTheDeadline) {
  delay_ms_ = 1'000;
  const uint64_t start_ns = MonotonicNowNs();
  const auto metadata = Client(200 * kNsPerMs)->Inspect(kWeb);
  EXPECT_EQ(metadata.status().code(), StatusCode::kDeadlineExceeded) << metadata.status();
  EXPECT_LT(MonotonicNowNs() - start_ns, 900 * kNsPerMs);
}

TEST_F(DockerServer, TooLargeAnswerIsCutOff) {
  body_ = std::string(kMaxResponseBytes + 1, ' ');
  const auto metadata = Client(20 * kNsPerSecond)->Inspect(kWeb);
  EXPECT_EQ(metadata.status().code(), StatusCode::kResourceExhausted) << metadata.status();
}

TEST(DockerClient, NoSocket) {
  const auto metadata = MakeDockerClient({.socket_path = "/nonexistent/docker.sock"})->Inspect(kWeb);
  EXPECT_EQ(metadata.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(metadata.status())), testing::HasSubstr("/nonexistent/docker.sock"));
}

TEST(DockerClient, KnowsWhatMayBeDockers) {
  const auto docker = MakeDockerClient({});
  const auto podman = MakeDockerClient({.podman = true});
  EXPECT_TRUE(docker->MayKnow(kWeb));
  EXPECT_FALSE(podman->MayKnow(kWeb));
  EXPECT_TRUE(docker->MayKnow({.runtime = Runtime::kUnknown, .container_id = kId}));
  EXPECT_TRUE(podman->MayKnow({.runtime = Runtime::kPodman, .container_id = kId}));
  EXPECT_FALSE(docker->MayKnow({.runtime = Runtime::kDocker, .container_id = "buildkit-short"}));
  EXPECT_FALSE(docker->MayKnow({.runtime = Runtime::kRunc, .container_id = "shop"}));
}

TEST(ParseDockerInspect, KubernetesByDockershim) {
  const auto metadata = ParseDockerInspect(
      R"({"Id":"x","Name":"/k8s_app_web-0_shop_uid_0","Config":{"Image":"i","Labels":{
         "io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"u",
         "io.kubernetes.container.name":"app"}}})");
  ASSERT_TRUE(metadata.ok());
  EXPECT_EQ(metadata->name, "app");
  EXPECT_EQ(metadata->pod_name, "web-0");
  EXPECT_EQ(metadata->pod_namespace, "shop");
  EXPECT_EQ(metadata->pod_uid, "u");
}

}  // namespace
}  // namespace pyrometer::containers

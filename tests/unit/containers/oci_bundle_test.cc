#include "userspace/containers/oci_bundle.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

namespace fs = std::filesystem;

const std::string kId = "4fa89f6dd21e2b0d7ff4bd4c6f0a2f2f1f7b3b1e7f9f41d9f1f4f0a87d5f3c21";

constexpr char kContainerdConfig[] = R"({"ociVersion":"1.0.2","process":{"args":["x"]},"annotations":{
  "io.kubernetes.cri.container-name":"app","io.kubernetes.cri.container-type":"container",
  "io.kubernetes.cri.image-name":"docker.io/library/checkout:7","io.kubernetes.cri.sandbox-id":"aa",
  "io.kubernetes.cri.sandbox-name":"checkout-1","io.kubernetes.cri.sandbox-namespace":"shop",
  "io.kubernetes.cri.sandbox-uid":"uid-1"}})";

class BundleTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/pyrometer-bundle-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
    client_ = MakeBundleClient({.root = folder_});
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(CreateDirectories(fs::path(folder_ + path).parent_path().string()).ok());
    ASSERT_TRUE(WriteFileAtomically(folder_ + path, text).ok());
  }

  std::string folder_;
  std::unique_ptr<RuntimeClient> client_;
};

TEST_F(BundleTest, Containerd) {
  Write(StrFormat("/run/containerd/io.containerd.runtime.v2.task/k8s.io/%s/config.json", kId), kContainerdConfig);
  const auto metadata = client_->Inspect({.runtime = Runtime::kContainerd, .container_id = kId});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->name, "app");
  EXPECT_EQ(metadata->image, "docker.io/library/checkout:7");
  EXPECT_EQ(metadata->pod_name, "checkout-1");
  EXPECT_EQ(metadata->pod_namespace, "shop");
  EXPECT_EQ(metadata->pod_uid, "uid-1");
}

TEST_F(BundleTest, CrioWithLabels) {
  Write(StrFormat("/run/containers/storage/overlay-containers/%s/userdata/config.json", kId),
        R"({"annotations":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-0",
           "io.kubernetes.pod.namespace":"shop","io.kubernetes.cri-o.ImageName":"quay.io/web:1",
           "io.kubernetes.cri-o.Labels":"{\"app\":\"web\",\"io.kubernetes.container.name\":\"app\"}"}})");
  const auto metadata = client_->Inspect({.runtime = Runtime::kCrio, .container_id = kId});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->name, "app");
  EXPECT_EQ(metadata->image, "quay.io/web:1");
  EXPECT_EQ(metadata->labels.at("app"), "web");
}

TEST_F(BundleTest, PodmanStorageList) {
  Write("/var/lib/containers/storage/overlay-containers/containers.json",
        StrFormat(R"([{"id":"other"},{"id":"%s","names":["shop"],"image":"abc","created":"2026-11-23T22:30:00Z",
          "metadata":"{\"image-name\":\"localhost/shop:1\",\"name\":\"shop\"}"}])",
                  kId));
  const auto metadata = client_->Inspect({.runtime = Runtime::kPodman, .container_id = kId});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->name, "shop");
  EXPECT_EQ(metadata->image, "localhost/shop:1");
  EXPECT_EQ(metadata->created_ns, 1'795'473'000'000'000'000);
}

TEST_F(BundleTest, DockerWithoutItsSocket) {
  Write(StrFormat("/var/lib/docker/containers/%s/config.v2.json", kId),
        StrFormat(R"({"ID":"%s","Name":"/shop-web-1","Config":{"Image":"nginx:1.25","Labels":{"a":"b"}}})", kId));
  const auto metadata = client_->Inspect({.runtime = Runtime::kDocker, .container_id = kId});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->name, "shop-web-1");
  EXPECT_EQ(metadata->labels.at("a"), "b");
}

TEST_F(BundleTest, RuncStateNamesTheBundle) {
  Write("/run/runc/shop/state.json", R"({"id":"shop","config":{"labels":["x=y","bundle=/bundles/shop"]}})");
  Write("/bundles/shop/config.json", R"({"annotations":{"io.container.name":"checkout"}})");
  const auto metadata = client_->Inspect({.runtime = Runtime::kRunc, .container_id = "shop"});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->name, "checkout");
}

TEST_F(BundleTest, NothingThereIsNotFound) {
  for (const Runtime runtime :
       {Runtime::kDocker, Runtime::kContainerd, Runtime::kCrio, Runtime::kPodman, Runtime::kRunc, Runtime::kUnknown}) {
    EXPECT_EQ(client_->Inspect({.runtime = runtime, .container_id = kId}).status().code(), StatusCode::kNotFound);
  }
  EXPECT_FALSE(client_->MayKnow({.runtime = Runtime::kRunc, .container_id = ".."}));
  EXPECT_FALSE(client_->MayKnow({.runtime = Runtime::kRunc, .container_id = "a/b"}));
}

TEST_F(BundleTest, MalformedFilesAreNotFound) {
  Write(StrFormat("/run/containerd/io.containerd.runtime.v2.task/k8s.io/%s/config.json", kId), "{\"annotations\":[");
  EXPECT_EQ(client_->Inspect({.runtime = Runtime::kContainerd, .container_id = kId}).status().code(),
            StatusCode::kNotFound);
  for (const char* text : {"", "[]", "17", "{}", R"({"annotations":7})", R"({"annotations":{"a":1}})"}) {
    EXPECT_FALSE(ParseBundleConfig(text, "x").ok()) << text;
  }
}

}  // namespace
}  // namespace pyrometer::containers

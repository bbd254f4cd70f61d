#include "userspace/containers/labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

const std::string kId = "4fa89f6dd21e2b0d7ff4bd4c6f0a2f2f1f7b3b1e7f9f41d9f1f4f0a87d5f3c21";

TEST(LabelsFor, HostProcesses) {
  EXPECT_EQ(LabelsFor({}, nullptr, "n1"), (Labels{{"node", "n1"}, {"service", "host"}}));
  EXPECT_EQ(LabelsFor({.unit = "nginx.service", .slice = "system.slice"}, nullptr, "n1"),
            (Labels{{"node", "n1"}, {"service", "nginx"}, {"unit", "nginx"}}));
  EXPECT_EQ(LabelsFor({}, nullptr, ""), (Labels{{"service", "host"}}));
}

TEST(LabelsFor, PlainRuncIsNamedByItsPath) {
  EXPECT_EQ(LabelsFor({.runtime = Runtime::kRunc, .container_id = "shop", .name_hint = "shop"}, nullptr, "n1"),
            (Labels{{"container.id", "shop"},
                    {"container.name", "shop"},
                    {"container.runtime", "runc"},
                    {"node", "n1"},
                    {"service", "shop"}}));
}

TEST(LabelsFor, WithoutMetadataTheIdIsTheName) {
  const Labels labels = LabelsFor({.runtime = Runtime::kDocker, .container_id = kId}, nullptr, "n1");
  EXPECT_EQ(labels, (Labels{{"container.id", kId},
                            {"container.name", "4fa89f6dd21e"},
                            {"container.runtime", "docker"},
                            {"node", "n1"},
                            {"service", "4fa89f6dd21e"}}));
}

TEST(LabelsFor, Compose) {
  const ContainerMetadata metadata = {
      .id = kId,
      .name = "shop-web-1",
      .image = "shop/web:3",
      .labels = {{"com.docker.compose.project", "shop"}, {"com.docker.compose.service", "web"}, {"team", "a"}}};
  EXPECT_EQ(LabelsFor({.runtime = Runtime::kDocker, .container_id = kId}, &metadata, "n1", {.keep = {"team", "none"}}),
            (Labels{{"compose.project", "shop"},
                    {"compose.service", "web"},
                    {"container.id", kId},
                    {"container.name", "shop-web-1"},
                    {"container.runtime", "docker"},
                    {"image", "shop/web:3"},
                    {"label.team", "a"},
                    {"node", "n1"},
                    {"service", "web"}}));
}

TEST(LabelsFor, KubernetesPod) {
  const ContainerMetadata metadata = {
      .id = kId,
      .name = "app",
      .image = "checkout:7",
      .labels = {{"app.kubernetes.io/name", "checkout"}, {"app", "other"}, {"app.kubernetes.io/version", "7.1"}},
      .pod_name = "checkout-7d9f8b6c5-x2x4z",
      .pod_namespace = "shop",
      .pod_uid = "uid-1"};
  EXPECT_EQ(LabelsFor({.runtime = Runtime::kCrio, .container_id = kId, .qos = QosClass::kGuaranteed}, &metadata, "n1"),
            (Labels{{"app", "checkout"},
                    {"container.id", kId},
                    {"container.name", "app"},
                    {"container.runtime", "cri-o"},
                    {"image", "checkout:7"},
                    {"namespace", "shop"},
                    {"node", "n1"},
                    {"pod", "checkout-7d9f8b6c5-x2x4z"},
                    {"pod.uid", "uid-1"},
                    {"qos", "guaranteed"},
                    {"service", "checkout"},
                    {"version", "7.1"}}));
}

TEST(LabelsFor, UnknownRuntimeIsWhoAnswered) {
  const ContainerMetadata metadata = {.id = kId, .name = "x", .runtime = Runtime::kDocker};
  EXPECT_THAT(LabelsFor({.runtime = Runtime::kUnknown, .container_id = kId}, &metadata, ""),
              testing::Contains(testing::Pair("container.runtime", "docker")));
}

TEST(PodOwner, CutsWhatIsGenerated) {
  const auto owner = [](std::string pod, std::map<std::string, std::string> labels) {
    return PodOwner({.labels = std::move(labels), .pod_name = std::move(pod)});
  };
  EXPECT_EQ(owner("checkout-7d9f8b6c5-x2x4z", {{"pod-template-hash", "7d9f8b6c5"}}), "checkout");
  EXPECT_EQ(owner("a-b-c-7d9f8b6c5-x2x4z", {{"pod-template-hash", "7d9f8b6c5"}}), "a-b-c");
  EXPECT_EQ(owner("checkout-7d9f8b6c5-x2x4z", {{"pod-template-hash", "other"}}), "checkout-7d9f8b6c5-x2x4z");
  EXPECT_EQ(owner("db-0", {{"statefulset.kubernetes.io/pod-name", "db-0"}}), "db");
  EXPECT_EQ(owner("fluentd-abcde", {{"controller-revision-hash", "5d"}}), "fluentd");
  EXPECT_EQ(owner("backup-28391-zzzzz", {{"job-name", "backup-28391"}}), "backup-28391");
  EXPECT_EQ(owner("debug", {}), "debug");
  EXPECT_EQ(owner("", {{"pod-template-hash", "x"}}), "");
}

TEST(Sanitize, BoundsEverything) {
  ContainerMetadata metadata;
  metadata.name = std::string(10'000, 'n');
  metadata.image = "\xff\xfe";
  for (int i = 0; i < 1'000; ++i) metadata.labels[StrFormat("key%d", i)] = std::string(5'000, 'v');
  metadata.labels[std::string(1'000, 'k')] = "x";
  Sanitize(metadata);
  EXPECT_LE(metadata.name.size(), kMaxNameBytes);
  EXPECT_TRUE(IsUtf8(metadata.image));
  EXPECT_LE(metadata.labels.size(), kMaxLabels);
  for (const auto& [key, value] : metadata.labels) {
    EXPECT_LE(key.size(), kMaxLabelKeyBytes);
    EXPECT_LE(value.size(), kMaxLabelValueBytes);
  }
}

// Whatever a stranger puts in: sorted, unique, UTF-8, bounded, and a service is always there.
TEST(LabelsFor, AnyBytes) {
  std::mt19937 random(3);
  const auto text = [&] {
    std::string result(random() % 700, 0);
    for (char& c : result) c = static_cast<char>(random());
    return result;
  };
  for (int round = 0; round < 300; ++round) {
    ContainerMetadata metadata = {.id = text(), .name = text(), .image = text(), .pod_name = text()};
    LabelOptions options;
    for (int i = 0; i < 100; ++i) {
      options.keep.push_back(text());
      metadata.labels[options.keep.back()] = text();
    }
    const ContainerIdentity identity = {
        .runtime = static_cast<Runtime>(random() % 12), .container_id = text(), .name_hint = text(), .unit = text()};
    const Labels labels = LabelsFor(identity, &metadata, text(), options);
    EXPECT_LE(labels.size(), kMaxResultLabels);
    EXPECT_THAT(labels, testing::Contains(testing::Pair("service", testing::Not(""))));
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto& [key, value] = labels[i];
      EXPECT_TRUE(IsUtf8(key) && IsUtf8(value));
      EXPECT_FALSE(value.empty());
      EXPECT_LE(key.size(), kMaxLabelKeyBytes);
      EXPECT_LE(value.size(), kMaxLabelValueBytes);
      EXPECT_TRUE(i == 0 || labels[i - 1].first < key);
    }
  }
}

}  // namespace
}  // namespace pyrometer::containers

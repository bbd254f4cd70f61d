// The index over an ordinary folder that stands for a hierarchy (ids are inodes there too), with runtimes of our own
// making. Real cgroups: tests/containers.
#include "userspace/containers/container_index.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

namespace fs = std::filesystem;

std::string Id(char c) { return std::string(64, c); }

// Answers what the test tells it to.
struct Answers {
  std::mutex mutex;
  std::map<std::string, ContainerMetadata> known;
  Status failure;  // not OK: every call fails so
  std::map<std::string, int> asked;
};

class FakeRuntime : public RuntimeClient {
 public:
  FakeRuntime(std::shared_ptr<Answers> answers, int rank = 0) : answers_(std::move(answers)), rank_(rank) {}
  const std::string& name() const override { return name_; }
  int rank() const override { return rank_; }
  bool MayKnow(const ContainerIdentity& identity) const override { return identity.runtime == Runtime::kDocker; }
  StatusOr<ContainerMetadata> Inspect(const ContainerIdentity& identity) override {
    std::lock_guard lock(answers_->mutex);
    ++answers_->asked[identity.container_id];
    if (!answers_->failure.ok()) return answers_->failure;
    const auto it = answers_->known.find(identity.container_id);
    if (it == answers_->known.end()) return NotFoundError("no such container");
    return it->second;
  }
  StatusOr<std::vector<ContainerMetadata>> List() override { return UnimplementedError("no"); }

 private:
  const std::shared_ptr<Answers> answers_;
  const int rank_;
  const std::string name_ = "fake";
};

class IndexTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/pyrometer-index-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  void TearDown() override {
    index_.reset();
    fs::remove_all(folder_);
  }

  void Start(ContainerIndex::Options options = {}) {
    options.node = "n1";
    options.cgroup_v2_mount = folder_;
    options.use_inotify = GetParam();
    if (options.refresh_ns == kNsPerSecond) options.refresh_ns = 20 * kNsPerMs;
    auto index = ContainerIndex::Start(options);
    ASSERT_TRUE(index.ok()) << index.status();
    index_ = *std::move(index);
  }
  CgroupId Make(const std::string& path) {
    fs::create_directories(folder_ + path);
    struct stat info;
    EXPECT_EQ(::stat((folder_ + path).c_str(), &info), 0);
    return CgroupId(info.st_ino);
  }
  std::shared_ptr<const ContainerInfo> At(CgroupId id) { return index_->Lookup(id, CgroupId(0)); }
  static bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000; ++i, ::usleep(5'000)) {
      if (condition()) return true;
    }
    return false;
  }

  std::string folder_;
  std::shared_ptr<Answers> answers_ = std::make_shared<Answers>();
  std::unique_ptr<ContainerIndex> index_;
};
INSTANTIATE_TEST_SUITE_P(WithAndWithoutInotify, IndexTest, testing::Bool());

TEST_P(IndexTest, KnowsWhatExistsAndWhatComes) {
  const CgroupId nginx = Make("/system.slice/nginx.service");
  Start();
  EXPECT_EQ(At(nginx)->labels, (Labels{{"node", "n1"}, {"service", "nginx"}, {"unit", "nginx"}}));
  const CgroupId docker = Make("/docker/" + Id('a'));
  EXPECT_TRUE(Eventually([&] { return index_->counters().containers == 1; }));
  EXPECT_EQ(At(docker)->identity.runtime, Runtime::kDocker);
  EXPECT_EQ(At(docker)->metadata_state, MetadataState::kNotNeeded);
}

TEST_P(IndexTest, UnknownIdsAreSaidToBe) {
  Start();
  const auto info = At(CgroupId(123'456'789'000));
  EXPECT_FALSE(info->resolved);
  EXPECT_FALSE(info->is_container());
  EXPECT_EQ(info->labels, (Labels{{"node", "n1"}, {"service", "unknown"}}));
  EXPECT_FALSE(index_->Lookup(CgroupId(0), CgroupId(0))->resolved);
  EXPECT_GE(index_->counters().unresolved, 1u);
}

TEST_P(IndexTest, RemovedKeepTheirNamesForTheGraceTime) {
  const CgroupId id = Make("/docker/" + Id('a'));
  Start({.removed_grace_ns = 300 * kNsPerMs});
  fs::remove(folder_ + "/docker/" + Id('a'));
  EXPECT_TRUE(Eventually([&] { return At(id)->removed || !At(id)->resolved; }));
  EXPECT_TRUE(index_->List().empty());
  EXPECT_EQ(At(id)->identity.container_id, Id('a'));
  EXPECT_TRUE(Eventually([&] { return !At(id)->resolved; }));  // forgotten
}

TEST_P(IndexTest, NameUsedAgainIsAnotherContainer) {
  const CgroupId first = Make("/docker/" + Id('a'));
  Start();
  // Held open, so that the file system does not give the same inode again.
  const int hold = ::open((folder_ + "/docker/" + Id('a')).c_str(), O_RDONLY);
  fs::remove(folder_ + "/docker/" + Id('a'));
  const CgroupId second = Make("/docker/" + Id('a'));
  ASSERT_NE(first, second);
  EXPECT_TRUE(Eventually([&] { return At(first)->removed && At(second)->resolved; }));
  EXPECT_FALSE(At(second)->removed);
  ::close(hold);
}

TEST_P(IndexTest, MetadataArrives) {
  answers_->known[Id('a')] = {.id = Id('a'), .name = "web", .image = "nginx:1"};
  const CgroupId id = Make("/docker/" + Id('a'));
  const CgroupId below = Make("/docker/" + Id('a') + "/init.scope");
  Start();
  index_->AddClient(std::make_unique<FakeRuntime>(answers_));
  EXPECT_TRUE(Eventually([&] { return At(id)->metadata_state == MetadataState::kKnown; }));
  EXPECT_EQ(At(id)->name, "web");
  EXPECT_EQ(At(below)->name, "web");  // a cgroup below belongs to the same container
  EXPECT_TRUE(index_->WaitForMetadata(kNsPerSecond));
  EXPECT_EQ(index_->counters().pending_metadata, 0u);
  const auto matches = index_->FindByName("web");
  ASSERT_TRUE(matches.ok()) << matches.status();
  EXPECT_THAT((*matches)[0].v2_ids, testing::UnorderedElementsAre(id, below));
  EXPECT_EQ((*matches)[0].info->cgroup_path, "/docker/" + Id('a'));
  ASSERT_EQ(index_->clients().size(), 1u);
  EXPECT_TRUE(index_->clients()[0].last.ok());
}

TEST_P(IndexTest, FreshContainerIsAskedForAgain) {
  Start();
  index_->AddClient(std::make_unique<FakeRuntime>(answers_));
  const CgroupId id = Make("/docker/" + Id('b'));
  EXPECT_TRUE(Eventually([&] {
    At(id);
    std::lock_guard lock(answers_->mutex);
    return answers_->asked[Id('b')] >= 1;
  }));
  EXPECT_EQ(At(id)->metadata_state, MetadataState::kPending);
  {
    std::lock_guard lock(answers_->mutex);
    answers_->known[Id('b')] = {.id = Id('b'), .name = "late"};
  }
  EXPECT_TRUE(Eventually([&] { return At(id)->name == "late"; }));
}

TEST_P(IndexTest, RuntimeAwayDoesNotHoldUsUp) {
  answers_->failure = UnavailableError("socket is away");
  answers_->known[Id('c')] = {.id = Id('c'), .name = "back"};
  const CgroupId id = Make("/docker/" + Id('c'));
  Start();
  index_->AddClient(std::make_unique<FakeRuntime>(answers_));
  EXPECT_TRUE(index_->WaitForMetadata(2 * kNsPerSecond));
  EXPECT_EQ(At(id)->metadata_state, MetadataState::kPending);
  EXPECT_EQ(At(id)->name, Id('c').substr(0, 12));
  ::usleep(200'000);
  EXPECT_EQ(index_->clients()[0].failures, 1u);  // left alone for a second
  EXPECT_EQ(std::string(Message(index_->clients()[0].last)), "socket is away");
  {
    std::lock_guard lock(answers_->mutex);
    answers_->failure = OkStatus();
  }
  EXPECT_TRUE(Eventually([&] { return At(id)->name == "back"; }));
}

TEST_P(IndexTest, FilesAnswerUntilTheRuntimeDoes) {
  auto files = std::make_shared<Answers>();
  files->known[Id('d')] = {.id = Id('d'), .name = "from-files"};
  answers_->failure = UnavailableError("starting");
  answers_->known[Id('d')] = {.id = Id('d'), .name = "from-runtime"};
  const CgroupId id = Make("/docker/" + Id('d'));
  Start();
  index_->AddClient(std::make_unique<FakeRuntime>(files, 1));
  index_->AddClient(std::make_unique<FakeRuntime>(answers_, 0));
  EXPECT_TRUE(Eventually([&] { return At(id)->name == "from-files"; }));
  {
    std::lock_guard lock(answers_->mutex);
    answers_->failure = OkStatus();
  }
  EXPECT_TRUE(Eventually([&] { return At(id)->name == "from-runtime"; }));
}

TEST_P(IndexTest, FindByNameExplainsItself) {
  answers_->known[Id('a')] = {.id = Id('a'), .name = "checkout"};
  answers_->known[Id('b')] = {.id = Id('b'), .name = "cart"};
  Make("/docker/" + Id('a'));
  Make("/docker/" + Id('b'));
  const std::string twin = "aaaa" + std::string(60, 'f');
  Make("/docker/" + twin);
  Start();
  index_->AddClient(std::make_unique<FakeRuntime>(answers_));
  const auto typo = index_->FindByName("chekout");
  EXPECT_EQ(typo.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(typo.status())), testing::HasSubstr("running: checkout, cart"));
  EXPECT_EQ(index_->FindByName("aaaa").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(index_->FindByName("bbbb")->at(0).info->name, "cart");
  EXPECT_EQ(index_->FindByName("bbb").status().code(), StatusCode::kNotFound);  // too short for an id
  EXPECT_EQ(index_->FindByName("").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(index_->FindByName(twin)->size(), 1u);
}

TEST_P(IndexTest, LimitsHold) {
  for (int i = 0; i < 20; ++i) Make(StrFormat("/system.slice/s%d.service", i));
  Start({.max_cgroups = 8});
  EXPECT_LE(index_->counters().cgroups, 8u);
  const CgroupId more = Make("/docker/" + Id('e'));
  for (int i = 0; i < 5; ++i) At(more);
  EXPECT_LE(index_->counters().cgroups, 8u);
}

TEST_P(IndexTest, ManyThreads) {
  Start({.refresh_ns = 5 * kNsPerMs});
  index_->AddClient(std::make_unique<FakeRuntime>(answers_));
  std::vector<std::thread> threads;
  std::atomic<bool> stop = false;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (uint64_t i = 1; !stop; ++i) {
        index_->Lookup(CgroupId(i % 1000), CgroupId(0));
        if (i % 64 == 0) index_->List();
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    const std::string path = StrFormat("/docker/%02d%s", i % 7, std::string(62, 'a'));
    Make(path);
    ::usleep(2'000);
    fs::remove(folder_ + path);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(Eventually([&] { return index_->counters().containers == 0; }));
}

TEST(ContainerIndex, NoCgroupFileSystem) {
  auto index = ContainerIndex::Start({.cgroup_v2_mount = "/nonexistent"});
  ASSERT_TRUE(index.ok());  // an empty one: samples are then host's or unknown, never lost
  EXPECT_FALSE((*index)->Lookup(CgroupId(5), CgroupId(6))->resolved);
  EXPECT_EQ((*index)->FindByName("x").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace pyrometer::containers

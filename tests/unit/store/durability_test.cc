// Kill -9 in the middle, disk full in the middle: what was acknowledged is there, once.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "tests/unit/store/store_testing.h"

namespace pyrometer::store {
namespace {

using ::testing::HasSubstr;

// Batch `sequence` of `agent` holds `sequence` samples: sums tell which batches are there.
profile::Batch NumberedBatch(const std::string& agent, uint64_t sequence, size_t extra_stacks = 20) {
  BatchBuilder b(agent, sequence);
  const uint32_t series = b.Series("cpu", {{"agent", agent}, {"service", "s" + std::to_string(sequence % 5)}});
  const int64_t time_ns = kT0 - static_cast<int64_t>(sequence) * static_cast<int64_t>(kWindow);
  std::vector<std::pair<profile::StackId, uint64_t>> samples = {{b.Stack({"main", "work"}), sequence}};
  for (size_t i = 0; i < extra_stacks; ++i) {
    samples.push_back({b.Stack({"main", StrFormat("f%d", sequence % 50), StrFormat("g%d_%d", sequence, i)}), 0});
  }
  b.Cpu(series, time_ns, samples);
  // Zero samples are not stored; give them a value so that their stacks are.
  for (auto& sample : b.batch.profiles.back().samples) sample.value += 1;
  return b.batch;
}

// sequence -> samples found, per agent.
std::map<uint64_t, uint64_t> Found(const Store& store, const std::string& agent) {
  std::map<uint64_t, uint64_t> found;
  for (const Series& series :
       Value(store.FindSeries({.type = "cpu", .matchers = {LabelMatcher::Equal("agent", agent)}}))) {
    EXPECT_TRUE(store
                    .ScanTotals(SeriesOnly({series.id}), {}, false,
                                [&](const WindowTotal& total) {
                                  found[static_cast<uint64_t>(kT0 - total.time_ns) / kWindow] += total.count;
                                })
                    .ok());
    // The stacks must resolve, and sum up to the same.
    const StackSums sums = store.SumStacks(StacksOf(series), {}).value();
    std::vector<LeafId> leaves;
    for (const StackSum& row : sums.sums) leaves.push_back(row.leaf);
    profile::Dictionary d;
    EXPECT_TRUE(store.ResolveStacks(series.trie, leaves, &d).ok());
  }
  return found;
}

const std::vector<std::string> kAgents = {"a", "b", "c"};

StoreOptions SmallOptions() {
  StoreOptions options = TestOptions();
  options.memory_budget_bytes = 16u << 20;
  return options;
}

// The process that gets killed: one thread per agent appends without end and reports each acknowledged batch.
// Argument: "<pipe> <folder>".
TEST(DurabilityChild, AppendsUntilKilled) {
  if (ChildArgument() == nullptr) return;
  const std::string argument = ChildArgument();
  const int acks = std::stoi(argument);
  const std::string folder = argument.substr(argument.find(' ') + 1);
  const auto store = MustOpen(folder, SmallOptions());
  ASSERT_NE(store, nullptr);
  const uint64_t ready[2] = {kAgents.size(), 0};
  if (write(acks, ready, sizeof(ready)) != sizeof(ready)) _exit(4);
  std::vector<std::thread> threads;
  for (size_t a = 0; a < kAgents.size(); ++a) {
    threads.emplace_back([&store, acks, a] {
      // As an agent does: from what the store says it has, resending the newest once more.
      for (uint64_t next = std::max<uint64_t>(1, store->LastSequence("", kAgents[a]).value());; ++next) {
        const StatusOr<AppendResult> result = store->Append(NumberedBatch(kAgents[a], next));
        if (!result.ok()) {
          fprintf(stderr, "%s\n", result.status().ToString().c_str());
          _exit(5);
        }
        const uint64_t message[2] = {a, next};
        // Fewer bytes than PIPE_BUF: atomic.
        if (write(acks, message, sizeof(message)) != sizeof(message)) _exit(6);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Durability, KillNineLosesNothingAcknowledgedAndDoublesNothing) {
  const TempFolder folder;
  std::mt19937_64 random(std::random_device{}());
  std::map<std::string, uint64_t> acknowledged;
  uint64_t acks = 0;
  constexpr int kRounds = 25;
  for (int round = 0; round < kRounds; ++round) {
    int acks_pipe[2];
    ASSERT_EQ(pipe(acks_pipe), 0);
    const pid_t child =
        SpawnTest("DurabilityChild.AppendsUntilKilled", StrFormat("%d %s", acks_pipe[1], folder.path()));
    ASSERT_GT(child, 0);
    close(acks_pipe[1]);
    uint64_t ready[2];
    ASSERT_EQ(read(acks_pipe[0], ready, sizeof(ready)), static_cast<ssize_t>(sizeof(ready)))
        << "the child did not open the store in round " << round;
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60'000));
    kill(child, SIGKILL);
    uint64_t message[2];
    while (read(acks_pipe[0], message, sizeof(message)) == sizeof(message)) {
      ASSERT_LT(message[0], kAgents.size());
      uint64_t& last = acknowledged[kAgents[message[0]]];
      last = std::max(last, message[1]);
      ++acks;
    }
    close(acks_pipe[0]);
    int status_word = 0;
    ASSERT_EQ(waitpid(child, &status_word, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status_word)) << "round " << round << ": exit " << WEXITSTATUS(status_word);

    // In every fifth round look inside; each look also is a clean open and close between the kills.
    if (round % 5 != 4) continue;
    auto store = MustOpen(folder.path(), SmallOptions());
    ASSERT_NE(store, nullptr);
    for (const std::string& agent : kAgents) {
      const uint64_t last = store->LastSequence("", agent).value();
      // One more than acknowledged may be durable: the child died between the sync and its message.
      EXPECT_GE(last, acknowledged[agent]);
      EXPECT_LE(last, acknowledged[agent] + 1);
      std::map<uint64_t, uint64_t> expected;
      for (uint64_t sequence = 1; sequence <= last; ++sequence) expected[sequence] = sequence;
      EXPECT_EQ(Found(*store, agent), expected) << "agent " << agent << " round " << round;
    }
  }
  RecordProperty("acknowledged_batches", std::to_string(acks));
  EXPECT_GT(acks, 100u);
}

class TinyDisk {
 public:
  explicit TinyDisk(const std::string& path, const char* size) : path_(path) {
    mounted_ = geteuid() == 0 && mount("tmpfs", path.c_str(), "tmpfs", 0, size) == 0;
  }
  ~TinyDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }

 private:
  std::string path_;
  bool mounted_;
};

void FillDisk(const std::string& path, uint64_t max_bytes) {
  std::ofstream ballast(path, std::ios::binary | std::ios::app);
  const std::string block(4096, 'x');
  for (uint64_t done = 0; done < max_bytes && ballast.write(block.data(), static_cast<std::streamsize>(block.size()));
       done += block.size()) {
    ballast.flush();
  }
}

uint64_t FreeBytes(const std::string& path) { return std::filesystem::space(path).available; }

TEST(Durability, DiskFullRefusesCleanlyAndRecovers) {
  const TempFolder folder;
  const TinyDisk disk(folder.path(), "size=24m");
  if (!disk.mounted()) GTEST_SKIP() << "needs root to mount a small tmpfs";
  StoreOptions options = TestOptions();
  options.memory_budget_bytes = 16u << 20;
  auto store = MustOpen(folder.path() + "/data", options);
  uint64_t sequence = 0;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(store->Append(NumberedBatch("a", ++sequence)).ok());

  for (int round = 0; round < 3; ++round) {
    FillDisk(folder.path() + "/ballast", 64u << 20);
    Status refused = OkStatus();
    for (int i = 0; i < 100 && refused.ok(); ++i) {
      refused = store->Append(NumberedBatch("a", sequence + 1, 200)).status();
      if (refused.ok()) ++sequence;
    }
    ASSERT_EQ(refused.code(), StatusCode::kResourceExhausted) << refused;
    EXPECT_THAT(std::string(Message(refused)), HasSubstr("no space left on the disk of data folder"));
    // Still refusing, still readable, nothing of the refused batch visible.
    const Status again_refused = store->Append(NumberedBatch("a", sequence + 1, 200)).status();
    EXPECT_EQ(again_refused.code(), StatusCode::kResourceExhausted) << again_refused;
    EXPECT_EQ(store->LastSequence("", "a").value(), sequence);
    EXPECT_EQ(SampleSum(*store), sequence * (sequence + 1) / 2);

    std::filesystem::remove(folder.path() + "/ballast");
    // RocksDB looks every five seconds whether there is room again.
    StatusOr<AppendResult> again = store->Append(NumberedBatch("a", sequence + 1, 200));
    for (int i = 0; i < 300 && !again.ok(); ++i) {
      EXPECT_EQ(again.status().code(), StatusCode::kResourceExhausted) << again.status();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      again = store->Append(NumberedBatch("a", sequence + 1, 200));
    }
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_FALSE(again->duplicate);
    ++sequence;
    EXPECT_EQ(SampleSum(*store), sequence * (sequence + 1) / 2);
  }
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(store->Append(NumberedBatch("a", ++sequence)).ok());
  std::map<uint64_t, uint64_t> expected;
  for (uint64_t s = 1; s <= sequence; ++s) expected[s] = s;
  EXPECT_EQ(Found(*store, "a"), expected);
  store.reset();
  store = MustOpen(folder.path() + "/data", options);
  EXPECT_EQ(Found(*store, "a"), expected);
  EXPECT_TRUE(store->Append(NumberedBatch("a", sequence)).value().duplicate);
}

// The disk fills while write buffers are flushed and files compacted, not only while the log is written.
TEST(Durability, DiskFullInFlushesAndCompactions) {
  const TempFolder folder;
  const TinyDisk disk(folder.path(), "size=40m");
  if (!disk.mounted()) GTEST_SKIP() << "needs root to mount a small tmpfs";
  std::mt19937_64 random(21);
  auto store = MustOpen(folder.path() + "/data", SmallOptions());
  uint64_t sequence = 0;
  for (int round = 0; round < 3; ++round) {
    // Leaves between 1 and 6 MiB, which the writes below use up at a different point of flush and compaction each time.
    FillDisk(folder.path() + "/ballast", FreeBytes(folder.path()) - (1u << 20) - random() % (5u << 20));
    int refusals = 0;
    for (int i = 0; i < 2000 && refusals < 5; ++i) {
      const Status status = store->Append(NumberedBatch("a", sequence + 1, 1500)).status();
      if (status.ok()) {
        ++sequence;
        continue;
      }
      ++refusals;
      ASSERT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
      ASSERT_EQ(store->LastSequence("", "a").value(), sequence);
    }
    ASSERT_GT(refusals, 0) << "the disk never filled";
    std::filesystem::remove(folder.path() + "/ballast");
    Status status = UnavailableError("not tried yet");
    for (int i = 0; i < 300 && !status.ok(); ++i) {
      status = store->Append(NumberedBatch("a", sequence + 1, 20)).status();
      if (!status.ok()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    ASSERT_TRUE(status.ok()) << status;
    ++sequence;
    if (round == 1) {  // and closing, opening in between
      store.reset();
      store = MustOpen(folder.path() + "/data", SmallOptions());
      ASSERT_NE(store, nullptr);
    }
  }
  std::map<uint64_t, uint64_t> expected;
  for (uint64_t s = 1; s <= sequence; ++s) expected[s] = s;
  EXPECT_EQ(Found(*store, "a"), expected);
}

TEST(Durability, MinimumFreeSpaceRefusesEarly) {
  const TempFolder folder;
  const TinyDisk disk(folder.path(), "size=24m");
  if (!disk.mounted()) GTEST_SKIP() << "needs root to mount a small tmpfs";
  StoreOptions options = TestOptions();
  options.memory_budget_bytes = 16u << 20;
  options.min_free_bytes = 8u << 20;
  auto store = MustOpen(folder.path() + "/data", options);
  ASSERT_TRUE(store->Append(NumberedBatch("a", 1)).ok());
  FillDisk(folder.path() + "/ballast", 18u << 20);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));  // a look at the disk counts for half a second
  const Status refused = store->Append(NumberedBatch("a", 2)).status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("less than 8.0 MiB left"));
  std::filesystem::remove(folder.path() + "/ballast");
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_FALSE(store->Append(NumberedBatch("a", 2)).value().duplicate);
  EXPECT_EQ(SampleSum(*store), 3u);
}

TEST(Durability, OpenOnAFullDiskSaysSo) {
  const TempFolder folder;
  const TinyDisk disk(folder.path(), "size=1m");
  if (!disk.mounted()) GTEST_SKIP() << "needs root to mount a small tmpfs";
  std::filesystem::create_directory(folder.path() + "/data");
  FillDisk(folder.path() + "/ballast", 2u << 20);
  const Status status = Store::Open(folder.path() + "/data", TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
}

}  // namespace
}  // namespace pyrometer::store

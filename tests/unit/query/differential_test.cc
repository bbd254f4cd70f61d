// The store and the engine against a model that is too simple to be wrong: a list of everything
// appended. Random batches from several agents, resends, gaps, restarts, tiny caches, housekeeping at any time, backup
// and restore; then every kind of question.

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "tests/unit/query/store_model.h"

namespace pyrometer::query {
namespace {

using store::MustOpen;
using store::TempFolder;
using store::TestOptions;

// Everything is old enough to be taken up.
constexpr int64_t kMuchLater = kT0 + 10 * 24 * kModelHour;

TEST(Differential, StoreAndEngineAgreeWithTheModel) {
  // A server takes milliseconds for what a folder does in microseconds.
  const int batches = store::TestsAreShort() ? 6 : 40;
  const auto seeds = store::InFolder() ? std::vector<uint64_t>{11, 12, 13, 14} : std::vector<uint64_t>{12};
  for (const uint64_t seed : seeds) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const TempFolder folder;
    Model model(seed);
    store::StoreOptions options = TestOptions();
    options.memory_budget_bytes = seed == 12 ? 1 : 32u << 20;  // one byte: caches forget everything at once
    options.read_threads = seed == 13 ? 0 : 2;
    // Hours are taken up piece by piece while they go on, and stacks are in many tries.
    if (seed == 14) options.busy_hour_bytes = 200;
    if (seed >= 13 || !store::InFolder()) options.max_trie_nodes = 10;
    std::string data = folder.path() + "/data0";
    auto opened = MustOpen(data, options);
    std::map<std::string, uint64_t> sequences;
    uint64_t tries = 0;
    for (int round = 0; round < 4; ++round) {
      for (int i = 0; i < batches; ++i) {
        const std::string agent = "agent" + std::to_string(model.Random() % 3);
        uint64_t& last = sequences[agent];
        const uint64_t sequence = last + (model.Random() % 10 == 0 ? 3 : 1);
        const profile::Batch batch = model.RandomBatch(agent, sequence);
        const StatusOr<store::AppendResult> result = opened->Append(batch);
        ASSERT_TRUE(result.ok()) << result.status();
        ASSERT_FALSE(result->duplicate);
        ASSERT_EQ(result->gap, sequence - last - 1);
        last = sequence;
        model.Commit();
        if (model.Random() % 5 == 0) {
          ASSERT_TRUE(Value(opened->Append(batch)).duplicate);
        }
        // Late points of hours and days that have been taken up.
        if (model.Random() % 16 == 0) store::KeepHouse(opened.get(), kMuchLater);
        if (seed == 14) store::KeepHouse(opened.get(), kT0);
      }
      Compare(&model, Engine(opened.get()));
      if (round % 2 == 1) {
        store::KeepHouse(opened.get(), kMuchLater);
        Compare(&model, Engine(opened.get()));
      }
      if (round == 2) {
        ASSERT_TRUE(opened->Settle().ok());
      }
      if (round == 2 && store::InFolder()) {
        ASSERT_TRUE(opened->Backup(folder.path() + "/backup").ok());
        opened.reset();
        data = folder.path() + "/data1";
        const StatusOr<store::BackupInfo> restored = store::RestoreBackup(folder.path() + "/backup", 0, data);
        ASSERT_TRUE(restored.ok()) << restored.status();
      }
      opened.reset();
      opened = MustOpen(data, options);
      Compare(&model, Engine(opened.get()));
    }
    tries = Value(opened->Stats()).tries;
    opened.reset();
    if (!store::InFolder()) continue;
    const store::FsckReport report = Value(store::Fsck(data));
    EXPECT_EQ(report.problem_count, 0u) << report.problems[0].place << ": " << report.problems[0].what;
    EXPECT_GT(report.samples, 0u);
    EXPECT_EQ(tries > 20, seed >= 13) << tries;
  }
}

}  // namespace
}  // namespace pyrometer::query

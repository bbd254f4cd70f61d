// Two stores on one database of ClickHouse: the second takes over, the first refuses, and what either acknowledged is
// there once.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "tests/unit/store/clickhouse_testing.h"
#include "userspace/store/chunk.h"
#include "userspace/store/database.h"

namespace pyrometer::store::clickhouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void ExpectRefused(const Status& status, const std::string& by = StrFormat("process %d on ", getpid())) {
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status),
              AllOf(HasSubstr("another pyrometer store"), HasSubstr("stop one of the two"), HasSubstr(by)));
}

// As a store elsewhere does that takes over, at this very moment.
void TakeOverFromElsewhere(const ClickHouseServers& servers) {
  EXPECT_EQ(
      servers.Ask(0,
                  "INSERT INTO db.records SELECT 0, 'owner', max(version) + 1000, 0, '0 of process 1 on elsewhere' "
                  "FROM db.records"),
      "");
}

// Until the first server gives this answer.
void Await(const ClickHouseServers& servers, const std::string& sql, const std::string& answer) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (servers.Ask(0, sql) != answer && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(servers.Ask(0, sql), answer);
}

// The same servers in the opposite order: what is asked of one by the one store is asked of another by the other.
std::string Reversed(const std::string& url) {
  const size_t begin = url.find("//") + 2, end = url.find('/', begin);
  const std::string list = url.substr(begin, end - begin);
  std::vector<std::string_view> servers = Split(list, ',');
  std::reverse(servers.begin(), servers.end());
  return url.substr(0, begin) + Join(std::vector<std::string>(servers.begin(), servers.end()), ",") + url.substr(end);
}

// Agents send all the time, to the store that was opened last when theirs refuses; as agents do, what was not
// acknowledged once more.
void TakeOverAmidTheIngest(const ClickHouseServers& servers, int times) {
  const TempFolder folder;
  const std::vector<std::string> names = {"a", "b", "c"};
  std::mutex mutex;
  std::vector<std::unique_ptr<Store>> stores;  // guarded by mutex
  const auto open = [&] {
    const std::string url = stores.size() % 2 == 0 ? servers.Url("db") : Reversed(servers.Url("db"));
    auto store = Open(url, StrFormat("%s/%d", folder.path(), stores.size()), TestOptions());
    ASSERT_TRUE(store.ok()) << store.status();
    const std::lock_guard lock(mutex);
    stores.push_back(*std::move(store));
  };
  open();
  if (::testing::Test::HasFatalFailure()) return;
  std::atomic<bool> stop{false};
  std::vector<std::atomic<uint64_t>> acknowledged(names.size());
  std::vector<std::atomic<size_t>> sends_to(names.size());
  std::atomic<int> refused{0}, known{0};
  std::vector<std::thread> agents;
  for (size_t a = 0; a < names.size(); ++a) {
    agents.emplace_back([&, a] {
      while (!stop) {
        Store* store = nullptr;
        {
          const std::lock_guard lock(mutex);
          store = stores[sends_to[a]].get();
        }
        const StatusOr<AppendResult> result = store->Append(NumberedBatch(names[a], acknowledged[a] + 1));
        if (result.ok()) {
          known += result->duplicate ? 1 : 0;
          ++acknowledged[a];
          continue;
        }
        // A busy machine may be slow; the batch goes out again.
        if (result.status().code() == StatusCode::kUnavailable) continue;
        ExpectRefused(result.status());
        ++refused;
        for (bool moved = false; !moved && !stop;) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          const std::lock_guard lock(mutex);
          moved = sends_to[a] + 1 < stores.size();
          if (moved) sends_to[a] = stores.size() - 1;
        }
      }
    });
  }
  const auto await = [&](uint64_t more) {
    std::vector<uint64_t> goals;
    for (const auto& last : acknowledged) goals.push_back(last + more);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(180);
    const auto reached = [&] {
      for (size_t a = 0; a < names.size(); ++a) {
        if (acknowledged[a] < goals[a] || sends_to[a] + 1 != stores.size()) return false;
      }
      return true;
    };
    while (!reached() && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(reached());
  };
  for (int i = 0; i < times; ++i) {
    await(3);
    open();
    if (::testing::Test::HasFatalFailure()) break;
  }
  await(3);
  stop = true;
  for (std::thread& agent : agents) agent.join();
  EXPECT_EQ(refused, times * static_cast<int>(names.size()));
  uint64_t batches = 0;
  for (size_t a = 0; a < names.size(); ++a) {
    EXPECT_EQ(Value(stores.back()->LastSequence("", names[a])), acknowledged[a]);
    EXPECT_EQ(Found(*stores.back(), names[a]), UpTo(acknowledged[a])) << "agent " << names[a];
    batches += acknowledged[a];
  }
  // The servers say the same; a replica perhaps a little later.
  for (size_t i = 0; i < servers.size(); ++i) {
    const std::string expected = StrFormat("%d\t%d\n", batches * 6, batches * 6);
    std::string rows;
    for (int tries = 0; tries < 300 && rows != expected; ++tries) {
      if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      rows = servers.Ask(i, "SELECT count(), uniqExact(agent, sequence, series, time_ns) FROM db.points");
    }
    EXPECT_EQ(rows, expected);
  }
  // The former ones do not keep house any more either.
  for (size_t i = 0; i + 1 < stores.size(); ++i) ExpectRefused(stores[i]->Housekeep(kT0).status());
  // A folder of one that lost the database is as good as an empty one.
  stores.clear();
  auto store = Open(servers.Url("db"), folder.path() + "/0", TestOptions());
  ASSERT_TRUE(store.ok()) << store.status();
  for (size_t a = 0; a < names.size(); ++a) EXPECT_EQ(Found(**store, names[a]), UpTo(acknowledged[a]));
  ::testing::Test::RecordProperty("acknowledged_batches", std::to_string(batches));
  ::testing::Test::RecordProperty("sent_again_and_known", std::to_string(known));
}

TEST_F(OneServer, OneStoreAtATime) {
  auto first = MustOpenAt("a");
  MustAppend(*first, NumberedBatch("a", 1));
  auto second = MustOpenAt("b");
  // What the first acknowledged is known to the second.
  EXPECT_TRUE(Value(second->Append(NumberedBatch("a", 1))).duplicate);
  MustAppend(*second, NumberedBatch("a", 2));
  for (int i = 0; i < 2; ++i) ExpectRefused(first->Append(NumberedBatch("b", 1)).status());
  // What it refused comes to the second.
  EXPECT_FALSE(Value(second->Append(NumberedBatch("b", 1))).duplicate);
  MustAppend(*second, NumberedBatch("a", 3));
  EXPECT_EQ(Found(*second, "a"), UpTo(3));
  EXPECT_EQ(Found(*second, "b"), UpTo(1));
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points"), "24\n");
  // Back again: the folder that was taken from is filled anew.
  first.reset();
  first = MustOpenAt("a");
  ExpectRefused(second->Append(NumberedBatch("a", 4)).status());
  EXPECT_TRUE(Value(first->Append(NumberedBatch("b", 1))).duplicate);
  MustAppend(*first, NumberedBatch("a", 4));
  EXPECT_EQ(Found(*first, "a"), UpTo(4));
}

TEST_F(OneServer, TakeOverAmidTheIngest) { TakeOverAmidTheIngest(servers_, ClickHouseServers::Whole() ? 12 : 3); }

// What is written when another one takes over is not acknowledged: that one may have read before.
TEST_F(OneServer, NothingIsAcknowledgedThatTheNextOwnerMayNotSee) {
  auto store = MustOpenAt("a");
  MustAppend(*store, NumberedBatch("a", 1));
  // Writes of records take three seconds: there is time between the last one and the acknowledgement.
  EXPECT_EQ(servers_.Ask(0, "CREATE MATERIALIZED VIEW db.slow ENGINE = Null AS SELECT sleep(3) AS s FROM db.records"),
            "");
  const std::string newest =
      StrFormat("(SELECT max(version) FROM db.records WHERE family = %d)", static_cast<int>(Family::kAgents));
  const std::string before(StripWhitespace(servers_.Ask(0, "SELECT " + newest)));
  Status status = OkStatus();
  std::thread agent([&] { status = store->Append(NumberedBatch("a", 2)).status(); });
  Await(servers_, StrFormat("SELECT %s > %s", newest, before), "1\n");
  TakeOverFromElsewhere(servers_);
  agent.join();
  ExpectRefused(status, "process 1 on elsewhere");
  EXPECT_EQ(servers_.Ask(0, "DROP TABLE db.slow"), "");
  // It was all there, so the next owner knows it.
  auto next = MustOpenAt("b");
  EXPECT_TRUE(Value(next->Append(NumberedBatch("a", 2))).duplicate);
  EXPECT_EQ(Found(*next, "a"), UpTo(2));
}

// Sums of old hours are made by the owner alone: twice they would count twice.
TEST_F(OneServer, WhoeverLostTheDatabaseSumsUpNothing) {
  constexpr int64_t kDay = 24 * kHourNs;
  auto first = MustOpenAt("a");
  MustAppend(*first, NumberedBatch("a", 1));
  auto second = MustOpenAt("b");
  ExpectRefused(first->Housekeep(kT0 + 40 * kDay).status());
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.rollups"), "0\n");
  KeepHouse(second.get(), kT0 + 40 * kDay);
  EXPECT_EQ(servers_.Ask(0, "SELECT sum(count) FROM db.rollups WHERE empty(leaves)"), "9\n");
}

class TwoShards : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ClickHouseServers::WhyNot(false); !reason.empty()) GTEST_SKIP() << reason;
    ASSERT_EQ(servers_.Start(), "");
  }
  ClickHouseServers servers_{2, 1};
};

// Half of a group is in when its store loses the database.
TEST_F(TwoShards, AGroupThatWasBegunIsTheNewOwnersAffair) {
  const TempFolder folder;
  const std::string url = servers_.Url("db", "&patience=1s");
  auto first = Open(url, folder.path() + "/a", TestOptions());
  ASSERT_TRUE(first.ok()) << first.status();
  MustAppend(**first, NumberedBatch("a", 1));
  servers_.Kill(1);
  EXPECT_EQ((*first)->Append(NumberedBatch("a", 2)).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points WHERE sequence = 2"), "4\n");
  ASSERT_EQ(servers_.Restart(1), "");
  auto second = Open(servers_.Url("db"), folder.path() + "/b", TestOptions());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(Value((*second)->LastSequence("", "a")), 1u);
  ExpectRefused((*first)->Append(NumberedBatch("b", 1)).status());
  EXPECT_EQ(servers_.Ask(1, "SELECT count() FROM db.points WHERE sequence = 2"), "0\n");
  EXPECT_FALSE(Value((*second)->Append(NumberedBatch("a", 2))).duplicate);
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points_all WHERE sequence = 2"), "6\n");
  EXPECT_EQ(Found(**second, "a"), UpTo(2));
}

// The same while it still tries.
TEST_F(TwoShards, AnInsertIsNotTriedAgainForAnotherOwner) {
  const TempFolder folder;
  auto store = Open(servers_.Url("db"), folder.path() + "/a", TestOptions());
  ASSERT_TRUE(store.ok()) << store.status();
  MustAppend(**store, NumberedBatch("a", 1));
  servers_.Kill(1);
  Status status = OkStatus();
  std::thread agent([&] { status = (*store)->Append(NumberedBatch("a", 2)).status(); });
  Await(servers_, "SELECT count() FROM db.points WHERE sequence = 2", "4\n");
  TakeOverFromElsewhere(servers_);
  const std::string problem = servers_.Restart(1);
  agent.join();
  ASSERT_EQ(problem, "");
  ExpectRefused(status, "process 1 on elsewhere");
  EXPECT_EQ(servers_.Ask(1, "SELECT count() FROM db.points WHERE sequence = 2"), "0\n");
  // The next owner finds half of it, and takes the other half when it comes again.
  auto next = Open(servers_.Url("db"), folder.path() + "/b", TestOptions());
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_FALSE(Value((*next)->Append(NumberedBatch("a", 2))).duplicate);
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points_all WHERE sequence = 2"), "6\n");
  EXPECT_EQ(Found(**next, "a"), UpTo(2));
}

class TwoReplicas : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ClickHouseServers::WhyNot(true); !reason.empty()) GTEST_SKIP() << reason;
    ASSERT_EQ(servers_.Start(), "");
  }
  ClickHouseServers servers_{1, 2};
};

TEST_F(TwoReplicas, TakeOverAmidTheIngest) { TakeOverAmidTheIngest(servers_, ClickHouseServers::Whole() ? 8 : 2); }

}  // namespace
}  // namespace pyrometer::store::clickhouse

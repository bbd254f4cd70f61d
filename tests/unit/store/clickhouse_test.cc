// What only the ClickHouse backend has: its URL, its errors, a folder that is lost, kills of the store and of servers.
// The tests of every backend run against it in unit_store_clickhouse and unit_query_clickhouse.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "tests/unit/store/clickhouse_testing.h"
#include "userspace/base/owned.h"
#include "userspace/store/clickhouse/row_binary.h"
#include "userspace/store/clickhouse/url.h"

namespace pyrometer::store::clickhouse {
namespace {

using ::testing::HasSubstr;

TEST(Url, EveryPart) {
  const Url url = Value(
      ParseUrl("clickhouse://us%65r:p%40ss@ch1,ch2:9000,[::1]:8124/db_1?cluster=c1&quorum=2&batch=250ms&patience=3s"));
  ASSERT_EQ(url.servers.size(), 3u);
  EXPECT_EQ(url.servers[0].Text(), "ch1:8123");
  EXPECT_EQ(url.servers[1].Text(), "ch2:9000");
  EXPECT_EQ(url.servers[2].Text(), "[::1]:8124");
  EXPECT_EQ(url.database, "db_1");
  EXPECT_EQ(url.user, "user");
  EXPECT_EQ(url.password, "p@ss");
  EXPECT_EQ(url.cluster, "c1");
  EXPECT_EQ(url.quorum, 2u);
  EXPECT_EQ(url.interval_ns, 250 * kNsPerMs);
  EXPECT_EQ(url.patience_ns, 3 * kNsPerSecond);
  EXPECT_EQ(Value(ParseUrl("clickhouse://ch1/db?tls=1")).servers[0].port, 8443);
  const TempFolder folder;
  std::ofstream(folder.path() + "/p") << "secret\n";
  EXPECT_EQ(Value(ParseUrl("clickhouse://u@ch1/db?password-file=" + folder.path() + "/p")).password, "secret");
}

TEST(Url, ErrorsSayWhatToWrite) {
  const std::pair<const char*, const char*> cases[] = {
      {"http://ch1/db", "begins with clickhouse://"},
      {"clickhouse://ch1", "database"},
      {"clickhouse://ch1/", "database"},
      {"clickhouse://ch1/a;b", "letters, digits and _"},
      {"clickhouse://ch1:0/db", "port"},
      {"clickhouse://ch1:99999/db", "port"},
      {"clickhouse:///db", "no host name"},
      {"clickhouse://ch1,ch2/db", "cluster=NAME"},
      {"clickhouse://ch1/db?cluster=a'b", "letters, digits and _"},
      {"clickhouse://ch1/db?colour=red", "unknown parameter 'colour'"},
      {"clickhouse://ch1/db?quorum", "name=value"},
      {"clickhouse://ch1/db?quorum=x", "quorum"},
      {"clickhouse://ch1/db?batch=x", "batch"},
      {"clickhouse://ch1/db?tls=yes", "tls"},
      {"clickhouse://ch1/db?cluster=%zz", "malformed %"},
      {"clickhouse://@ch1/db", "before the @"},
      {"clickhouse://u@ch1/db?password-file=/nowhere/at/all", "/nowhere/at/all"},
  };
  for (const auto& [text, expected] : cases) {
    const Status status = ParseUrl(text).status();
    EXPECT_THAT(MessageOf(status), HasSubstr(expected)) << text;
    EXPECT_THAT(MessageOf(status), HasSubstr("--backend")) << text;
  }
  // Nothing that may be a password.
  EXPECT_THAT(MessageOf(ParseUrl("clickhouse://u:geheim@ch1/db?colour=red").status()),
              testing::Not(HasSubstr("geheim")));
}

TEST(RowBinary, ComesBackAndTrustsNothing) {
  std::string bytes;
  RowWriter out(&bytes);
  out.U8(1);
  out.U16(2);
  out.U32(3);
  out.U64(4);
  out.I32(-5);
  out.I64(-6);
  out.String("seven");
  out.Array(std::vector<uint32_t>{8, 9});
  RowReader in(bytes);
  EXPECT_EQ(in.U8(), 1);
  EXPECT_EQ(in.U16(), 2);
  EXPECT_EQ(in.U32(), 3u);
  EXPECT_EQ(in.U64(), 4u);
  EXPECT_EQ(in.I32(), -5);
  EXPECT_EQ(in.I64(), -6);
  EXPECT_EQ(in.String(), "seven");
  EXPECT_THAT(in.Array<uint32_t>(), testing::ElementsAre(8, 9));
  EXPECT_TRUE(in.ok());
  EXPECT_TRUE(in.done());
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    RowReader torn(std::string_view(bytes).substr(0, cut));
    torn.U8(), torn.U16(), torn.U32(), torn.U64(), torn.I32(), torn.I64(), torn.String(), torn.Array<uint32_t>();
    EXPECT_FALSE(torn.ok()) << cut;
  }
  RowReader endless("\xff\xff\xff\xff\xff\xff\xff\xff\x7f");
  EXPECT_TRUE(endless.Array<uint64_t>().empty());
  EXPECT_FALSE(endless.ok());
}

// ---- errors ------------------------------------------------------------------------------------------------

// Answers every request with one text.
class FakeServer {
 public:
  explicit FakeServer(std::string body) : body_(std::move(body)), fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_.get(), 8), 0);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (;;) {
        const UniqueFd connection(accept(fd_.get(), nullptr, nullptr));
        if (!connection) return;
        char request[4096];
        if (read(connection.get(), request, sizeof(request)) <= 0) continue;
        const std::string answer =
            StrFormat("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", body_.size(), body_);
        EXPECT_EQ(write(connection.get(), answer.data(), answer.size()), static_cast<ssize_t>(answer.size()));
      }
    });
  }
  ~FakeServer() {
    shutdown(fd_.get(), SHUT_RDWR);
    thread_.join();
  }
  uint16_t port() const { return port_; }

 private:
  const std::string body_;
  const UniqueFd fd_;
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST(ClickHouseErrors, NobodyThereOrTooOld) {
  const TempFolder folder;
  Status status = Open("clickhouse://127.0.0.1:1/db", folder.path(), TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status), HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(MessageOf(status), HasSubstr("is it running"));
  const FakeServer old(std::string("\x0a", 1) + "1.1.543850");
  status = Open(StrFormat("clickhouse://127.0.0.1:%d/db", old.port()), folder.path(), TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("1.1.543850"));
  EXPECT_THAT(MessageOf(status), HasSubstr("18.16"));
}

// ---- one server --------------------------------------------------------------------------------------------

TEST_F(OneServer, TheFolderIsOnlyACopy) {
  auto store = MustOpenAt("a");
  for (uint64_t sequence = 1; sequence <= 5; ++sequence) MustAppend(*store, NumberedBatch("a", sequence));
  const std::map<uint64_t, uint64_t> expected = UpTo(5);
  ASSERT_EQ(Found(*store, "a"), expected);
  const StoreStats stats = Value(store->Stats());
  store.reset();
  // Another machine, or this one with an empty disk.
  store = MustOpenAt("b");
  EXPECT_EQ(Found(*store, "a"), expected);
  EXPECT_EQ(Value(store->LastSequence("", "a")), 5u);
  EXPECT_TRUE(Value(store->Append(NumberedBatch("a", 5))).duplicate);
  MustAppend(*store, NumberedBatch("a", 6));
  EXPECT_EQ(Value(store->Stats()).frames, stats.frames + 2);  // f6 and g6; main is known
  store.reset();
  // A copy that is behind.
  store = MustOpenAt("a");
  EXPECT_EQ(Found(*store, "a"), UpTo(6));
  MustAppend(*store, NumberedBatch("a", 7));
  EXPECT_EQ(Found(*store, "a"), UpTo(7));
  store.reset();
  // A copy of a database that is gone.
  EXPECT_EQ(servers_.Ask(0, "DROP DATABASE db"), "");
  store = MustOpenAt("a");
  EXPECT_TRUE(Value(store->FindSeries({})).empty());
  MustAppend(*store, NumberedBatch("a", 1));
  EXPECT_EQ(Found(*store, "a"), UpTo(1));
}

TEST_F(OneServer, AServerThatForgotItsNewestRecordsGetsThemBack) {
  auto store = MustOpenAt("a");
  MustAppend(*store, NumberedBatch("a", 1));
  store.reset();
  // As after a power cut that it had not written through.
  EXPECT_EQ(servers_.Ask(0, "CREATE TABLE db.kept AS db.records"), "");
  // All but the store's last two writes.
  EXPECT_EQ(servers_.Ask(0,
                         "INSERT INTO db.kept SELECT * FROM db.records WHERE version < (SELECT max(version) FROM "
                         "db.records) - 1"),
            "");
  EXPECT_EQ(servers_.Ask(0, "DROP TABLE db.records"), "");
  EXPECT_EQ(servers_.Ask(0, "RENAME TABLE db.kept TO db.records"), "");
  store = MustOpenAt("a");
  EXPECT_EQ(Found(*store, "a"), UpTo(1));
  MustAppend(*store, NumberedBatch("a", 2));
  store.reset();
  store = MustOpenAt("b");
  EXPECT_EQ(Found(*store, "a"), UpTo(2));
}

TEST_F(OneServer, TablesOfAnotherVersionAreLeftAlone) {
  MustOpenAt("a").reset();
  EXPECT_EQ(servers_.Ask(0,
                         "INSERT INTO db.records (family, key, version, deleted, value) VALUES (0, 'tables', 1000, 0, "
                         "'\\x63\\x01x')"),
            "");
  const Status status = Open(servers_.Url("db"), folder_.path() + "/a", TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("version 99"));
  EXPECT_THAT(MessageOf(status), HasSubstr("another database"));
}

TEST_F(OneServer, AServerThatIsAwayForAWhile) {
  auto store = MustOpenAt("a", "&patience=1s");
  MustAppend(*store, NumberedBatch("a", 1));
  servers_.Kill(0);
  for (int i = 0; i < 2; ++i) {
    const Status away = store->Append(NumberedBatch("a", 2)).status();
    EXPECT_EQ(away.code(), StatusCode::kUnavailable) << away;
  }
  EXPECT_EQ(store->SumStacks(StacksOf(Value(store->FindSeries({}))[0]), {}).status().code(), StatusCode::kUnavailable);
  ASSERT_EQ(servers_.Restart(0), "");
  std::this_thread::sleep_for(std::chrono::seconds(2));
  MustAppend(*store, NumberedBatch("a", 2));
  EXPECT_EQ(Found(*store, "a"), UpTo(2));
}

TEST_F(OneServer, SumsBeyond64BitsStop) {
  auto store = MustOpenAt("a");
  ASSERT_NE(store, nullptr);
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
    BatchBuilder b("a", sequence);
    const uint32_t series = b.Series("cpu", {{"service", "s"}});
    const profile::StackId stack = b.Stack({"main"});
    for (int i = 0; i < 100; ++i) {
      profile::ProfilePoint point{.series = series,
                                  .time_ns = kT0 - static_cast<int64_t>((sequence * 100 + i) * kWindow),
                                  .duration_ns = kWindow,
                                  .period_ns = 1};
      point.samples.push_back({stack, (uint64_t{1} << 56) - 1, (uint64_t{1} << 56) - 1});
      b.batch.profiles.push_back(point);
    }
    MustAppend(*store, b.batch);
  }
  const StackSums sums = Value(store->SumStacks(StacksOf(Value(store->FindSeries({}))[0]), {}));
  ASSERT_EQ(sums.sums.size(), 1u);
  EXPECT_EQ(sums.sums[0].count, UINT64_MAX);
  EXPECT_EQ(sums.sums[0].value, UINT64_MAX);
  const TimeRange two{kT0 - static_cast<int64_t>(301 * kWindow), kT0 - static_cast<int64_t>(299 * kWindow) + 1};
  EXPECT_EQ(Value(store->SumStacks(StacksOf(Value(store->FindSeries({}))[0]), two)).sums[0].count,
            ((uint64_t{1} << 56) - 1) * Value(store->SumStacks(StacksOf(Value(store->FindSeries({}))[0]), two)).points);
}

TEST_F(OneServer, ExemplarsWhoseColumnsDisagreeAreSaidToBeDamaged) {
  auto store = MustOpenAt("a");
  BatchBuilder b("a", 1);
  profile::HistogramPoint point{
      .series = b.Series("syscall_latency", {{"service", "s"}}), .time_ns = kT0, .duration_ns = kWindow};
  point.histogram.Record(7);
  point.exemplars = {{.time_ns = kT0, .value = 7, .stack = b.Stack({"main"}), .comm = "c", .split = {{"poll", 7}}}};
  b.batch.histograms.push_back(point);
  MustAppend(*store, b.batch);
  const SeriesId series = Value(store->FindSeries({}))[0].id;
  const auto scan = [&] {
    return store->ScanHistograms(SeriesOnly({series}), {}, false, [](const HistogramWindow&) {});
  };
  ASSERT_TRUE(scan().ok()) << scan();
  EXPECT_EQ(servers_.Ask(0, "CREATE TABLE db.kept AS db.points"), "");
  EXPECT_EQ(servers_.Ask(0, "INSERT INTO db.kept SELECT * FROM db.points"), "");
  // All rows as they were, but for `column`.
  const auto spoil = [&](std::string_view column, std::string_view value) {
    const std::string answer = servers_.Ask(0,
                                            "SELECT arrayStringConcat(groupArray(name), ',') FROM system.columns WHERE "
                                            "database = 'db' AND table = 'points'");
    const std::string names(StripWhitespace(answer));
    std::string values = names;
    values.replace(values.find(column), column.size(), value);
    EXPECT_EQ(servers_.Ask(0, "DROP TABLE db.points"), "");
    EXPECT_EQ(servers_.Ask(0, "CREATE TABLE db.points AS db.kept"), "");
    EXPECT_EQ(servers_.Ask(0, StrFormat("INSERT INTO db.points (%s) SELECT %s FROM db.kept", names, values)), "");
  };
  const std::pair<const char*, const char*> cases[] = {
      {"exemplar_weights", "emptyArrayUInt64()"},
      {"exemplar_parts", "[toUInt32(2)]"},
      {"part_ns", "emptyArrayUInt64()"},
      {"waker_causes", "[toUInt32(0), toUInt32(0)]"},
  };
  for (const auto& [column, value] : cases) {
    spoil(column, value);
    EXPECT_EQ(scan().code(), StatusCode::kDataLoss) << column << ": " << scan();
  }
  spoil("exemplar_weights", "[toUInt64(1)]");
  EXPECT_TRUE(scan().ok()) << scan();
}

// Inserts are few and far between, whatever arrives.
TEST_F(OneServer, BatchesAreInsertedTogether) {
  auto store = MustOpenAt("a", "&batch=2s");
  const std::string groups = "SELECT uniqExact(key) FROM db.records WHERE family = 0 AND key LIKE 'G%'";
  MustAppend(*store, NumberedBatch("first", 1));
  EXPECT_EQ(servers_.Ask(0, groups), "1\n");
  const auto before = std::chrono::steady_clock::now();
  std::vector<std::thread> agents;
  for (int i = 0; i < 12; ++i) {
    agents.emplace_back([&store, agent = StrFormat("agent%d", i)] {
      const auto result = store->Append(NumberedBatch(agent, 1));
      EXPECT_TRUE(result.ok()) << result.status();
    });
  }
  for (std::thread& agent : agents) agent.join();
  // One group has them all, unless a thread was late for it.
  const std::string made = servers_.Ask(0, groups);
  EXPECT_TRUE(made == "2\n" || made == "3\n") << made;
  MustAppend(*store, NumberedBatch("first", 2));
  EXPECT_GT(std::chrono::steady_clock::now() - before, std::chrono::seconds(2));
  for (int i = 0; i < 12; ++i) EXPECT_EQ(Found(*store, StrFormat("agent%d", i)), UpTo(1));
}

// What is too old leaves the disk as well: whole days, what tenants keep for shorter than others, offsets.
TEST_F(OneServer, WhatIsTooOldLeavesTheDisk) {
  constexpr int64_t kDay = 24 * 3600 * int64_t{1'000'000'000};
  StoreOptions options = TestOptions();
  options.limits.retention_ns = 30 * static_cast<uint64_t>(kDay);
  options.tenant_limits["brief"] = options.limits;
  options.tenant_limits["brief"].retention_ns = 10 * static_cast<uint64_t>(kDay);
  auto opened = Open(servers_.Url("db"), folder_.path() + "/a", options);
  ASSERT_TRUE(opened.ok()) << opened.status();
  Store& store = **opened;
  for (const char* tenant : {"", "brief"}) {
    BatchBuilder b("a", 1);
    b.batch.tenant = tenant;
    b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0, {{b.Stack({"main"}), 2}});
    b.batch.profiles[0].offsets_ms = {1, 2};
    MustAppend(store, b.batch);
  }
  const auto ask = [&](const std::string& what) { return servers_.Ask(0, "SELECT " + what); };
  const std::string tenants = "groupArray(tenant) FROM (SELECT tenant FROM db.points ORDER BY tenant)";
  const std::string offsets =
      "sum(column_data_uncompressed_bytes) > 0 FROM system.parts_columns WHERE active AND database = 'db' AND table = "
      "'points' AND column = 'offsets_ms'";
  EXPECT_EQ(ask(tenants), "[1,2]\n");
  EXPECT_EQ(ask(offsets), "1\n");
  EXPECT_EQ(ask("count() FROM db.rollups"), "0\n");
  const auto eventually = [&](const std::string& what, const std::string& expected) {
    for (int i = 0; i < 300 && ask(what) != expected; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(ask(what), expected) << what;
  };
  KeepHouse(&store, kT0 + 3 * kDay);
  eventually(offsets, "0\n");
  EXPECT_EQ(ask(tenants), "[1,2]\n");
  EXPECT_EQ(StackSampleSum(store), 2u);
  KeepHouse(&store, kT0 + 15 * kDay);
  eventually(tenants, "[1]\n");
  EXPECT_EQ(ask("uniqExact(tenant) FROM db.rollups"), "1\n");
  KeepHouse(&store, kT0 + 40 * kDay);
  eventually("count() FROM system.parts WHERE active AND database = 'db' AND table = 'points'", "0\n");
  EXPECT_EQ(ask("uniqExact(tenant) FROM db.rollups"), "2\n");
  KeepHouse(&store, kT0 + 500 * kDay);
  eventually("count() FROM system.parts WHERE active AND database = 'db' AND table IN ('rollups', 'functions')", "0\n");
}

// ---- kills of the store ------------------------------------------------------------------------------------

const std::vector<std::string> kAgents = {"a", "b", "c"};

// Argument: "<pipe> <folder> <url>".
TEST(ClickHouseChild, AppendsUntilKilled) {
  if (ChildArgument() == nullptr) return;
  const auto parts = Split(ChildArgument(), ' ');
  const int acks = std::stoi(std::string(parts[0]));
  auto store = Open(parts[2], std::string(parts[1]), TestOptions());
  if (!store.ok()) {
    fprintf(stderr, "%s\n", store.status().ToString().c_str());
    _exit(7);
  }
  const uint64_t ready[2] = {kAgents.size(), 0};
  if (write(acks, ready, sizeof(ready)) != sizeof(ready)) _exit(4);
  std::vector<std::thread> threads;
  for (size_t a = 0; a < kAgents.size(); ++a) {
    threads.emplace_back([&store, acks, a] {
      // As an agent does: from what the store says it has, resending the newest once more.
      for (uint64_t next = std::max<uint64_t>(1, (*store)->LastSequence("", kAgents[a]).value());; ++next) {
        const StatusOr<AppendResult> result = (*store)->Append(NumberedBatch(kAgents[a], next));
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

// Every third round looks at what is there.
int KillRounds() { return ClickHouseServers::Whole() ? 9 : 3; }

void KillTheStore(const ClickHouseServers& servers, int rounds, int most_ms = 500) {
  const TempFolder folder;
  std::mt19937_64 random(std::random_device{}());
  std::map<std::string, uint64_t> acknowledged;
  for (int round = 0; round < rounds; ++round) {
    // Now and then on another machine.
    const std::string data = folder.path() + "/" + std::to_string(round / 3);
    int acks_pipe[2];
    ASSERT_EQ(pipe(acks_pipe), 0);
    const pid_t child =
        SpawnTest("ClickHouseChild.AppendsUntilKilled", StrFormat("%d %s %s", acks_pipe[1], data, servers.Url("db")));
    ASSERT_GT(child, 0);
    close(acks_pipe[1]);
    uint64_t ready[2];
    ASSERT_EQ(read(acks_pipe[0], ready, sizeof(ready)), static_cast<ssize_t>(sizeof(ready)))
        << "the child did not open the store in round " << round;
    uint64_t message[2];
    const auto read_ack = [&] {
      if (read(acks_pipe[0], message, sizeof(message)) != sizeof(message)) return false;
      uint64_t& last = acknowledged[kAgents.at(message[0])];
      last = std::max(last, message[1]);
      return true;
    };
    // Now and then before anything is acknowledged.
    if (round % 3 != 0) {
      EXPECT_TRUE(read_ack());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % static_cast<uint64_t>(most_ms)));
    kill(child, SIGKILL);
    while (read_ack()) {
    }
    close(acks_pipe[0]);
    int status_word = 0;
    ASSERT_EQ(waitpid(child, &status_word, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status_word)) << "round " << round << ": exit " << WEXITSTATUS(status_word);
    if (round % 3 != 2) continue;
    auto store = Open(servers.Url("db"), data, TestOptions());
    ASSERT_TRUE(store.ok()) << store.status();
    for (const std::string& agent : kAgents) {
      const uint64_t last = Value((*store)->LastSequence("", agent));
      // One more than acknowledged may be there: the child died between the two.
      EXPECT_GE(last, acknowledged[agent]);
      EXPECT_LE(last, acknowledged[agent] + 1);
      // And of the next a part. The agent comes again with it.
      MustAppend(**store, NumberedBatch(agent, last + 1));
      acknowledged[agent] = last + 1;
      EXPECT_EQ(Found(**store, agent), UpTo(last + 1)) << "agent " << agent << " round " << round;
    }
    // Counted are the bytes of what is there; a replica that is asked may get it a little later.
    const uint64_t counted = Value((*store)->Tenants())[0].bytes;
    uint64_t there = 0;
    for (int tries = 0; tries < 300 && there != counted; ++tries) {
      if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      there = servers.Ask(0, StrFormat("SELECT * FROM db.points%s FORMAT RowBinary", servers.size() > 1 ? "_all" : ""))
                  .size();
    }
    EXPECT_EQ(counted, there);
  }
  uint64_t all = 0;
  for (const auto& [agent, last] : acknowledged) all += last;
  testing::Test::RecordProperty("acknowledged_batches", std::to_string(all));
  EXPECT_GT(all, static_cast<uint64_t>(rounds));
}

TEST_F(OneServer, KillsOfTheStoreLoseAndDoubleNothing) { KillTheStore(servers_, KillRounds()); }

// ---- a cluster ---------------------------------------------------------------------------------------------

class Shards : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ClickHouseServers::WhyNot(false); !reason.empty()) GTEST_SKIP() << reason;
    ASSERT_EQ(servers_.Start(), "");
  }
  ClickHouseServers servers_{2, 1};
};

TEST_F(Shards, KillsOfTheStoreLoseAndDoubleNothing) {
  KillTheStore(servers_, KillRounds());
  // Both were used.
  for (const size_t server : {0, 1}) EXPECT_NE(servers_.Ask(server, "SELECT count() FROM db.points"), "0\n");
}

TEST_F(Shards, TheUrlMustNameThemAll) {
  const TempFolder folder;
  std::string url = servers_.Url("db");
  const size_t comma = url.find(',');
  const size_t slash = url.find('/', comma);
  url.erase(comma, slash - comma);
  const Status status = Open(url, folder.path(), TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("has 2 servers and --backend names 1"));
  const std::string other = servers_.Url("db").replace(servers_.Url("db").find("cluster=test"), 12, "cluster=none");
  EXPECT_THAT(MessageOf(Open(other, folder.path(), TestOptions()).status()), HasSubstr("in no cluster 'none'"));
}

// A group of which one shard has its rows and the other has not.
TEST_F(Shards, AShardThatIsAwayForAWhile) {
  const TempFolder folder;
  const std::string url = servers_.Url("db", "&patience=1s");
  auto store = Open(url, folder.path(), TestOptions());
  ASSERT_TRUE(store.ok()) << store.status();
  MustAppend(**store, NumberedBatch("a", 1));
  servers_.Kill(1);
  for (int i = 0; i < 2; ++i) {
    const Status away = (*store)->Append(NumberedBatch("a", 2)).status();
    EXPECT_EQ(away.code(), StatusCode::kUnavailable) << away;
  }
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points WHERE sequence = 2"), "4\n");
  EXPECT_EQ(Value((*store)->LastSequence("", "a")), 1u);
  ASSERT_EQ(servers_.Restart(1), "");
  // What was begun is finished before anything else.
  std::this_thread::sleep_for(std::chrono::seconds(2));
  MustAppend(**store, NumberedBatch("b", 1));
  EXPECT_TRUE(Value((*store)->Append(NumberedBatch("a", 2))).duplicate);
  EXPECT_EQ(Found(**store, "a"), UpTo(2));

  // The same, but the store does not live to finish it.
  servers_.Kill(1);
  EXPECT_EQ((*store)->Append(NumberedBatch("a", 3)).status().code(), StatusCode::kUnavailable);
  store->reset();
  EXPECT_EQ(Open(url, folder.path(), TestOptions()).status().code(), StatusCode::kUnavailable);
  ASSERT_EQ(servers_.Restart(1), "");
  store = Open(url, folder.path(), TestOptions());
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points WHERE sequence = 3"), "4\n");
  EXPECT_EQ(Value((*store)->LastSequence("", "a")), 2u);
  store->reset();
  // Once more: what is known to be there is still known.
  store = Open(url, folder.path(), TestOptions());
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_FALSE(Value((*store)->Append(NumberedBatch("a", 3))).duplicate);
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points WHERE sequence = 3"), "4\n");
  EXPECT_EQ(Found(**store, "a"), UpTo(3));
}

class Replicas : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ClickHouseServers::WhyNot(true); !reason.empty()) GTEST_SKIP() << reason;
    ASSERT_EQ(servers_.Start(), "");
  }
  // Every replica has what its shard has.
  void AwaitReplicas() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(90);
    for (;;) {
      bool same = true;
      for (size_t first = 0; first < servers_.size(); first += 2) {
        const std::string counts[] = {servers_.Ask(first, kCount), servers_.Ask(first + 1, kCount)};
        same = same && counts[0] == counts[1] && !counts[0].empty() && !counts[0].starts_with("error");
      }
      if (same) return;
      ASSERT_LT(std::chrono::steady_clock::now(), until) << "replicas do not become alike";
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }
  // Rows, and what tells them apart.
  static constexpr const char* kCount =
      "SELECT count(), uniqExact(agent, sequence, series, time_ns), sum(count) FROM db.points";
  ClickHouseServers servers_{2, 2};
};

TEST_F(Replicas, OneIsKilledAmidTheIngestAndComesBack) {
  const TempFolder folder;
  std::map<std::string, uint64_t> last;
  // Each of the four is the victim once; the first takes the inserts of its shard.
  const size_t victims = ClickHouseServers::Whole() ? servers_.size() : 1;
  for (size_t victim = 0; victim < victims; ++victim) {
    auto store = Open(servers_.Url("db"), folder.path(), TestOptions());
    ASSERT_TRUE(store.ok()) << store.status();
    // Tables without rows at first.
    const Status settled = (*store)->Settle();
    EXPECT_TRUE(settled.ok()) << settled;
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> appended{0};
    std::vector<std::thread> agents;
    for (const std::string& agent : kAgents) {
      agents.emplace_back([&, &sequence = last[agent], agent] {
        while (!stop) {
          const StatusOr<AppendResult> result = (*store)->Append(NumberedBatch(agent, sequence + 1));
          if (result.ok()) {
            ++sequence;
            ++appended;
          } else if (result.status().code() != StatusCode::kUnavailable) {
            ADD_FAILURE() << result.status();
            return;
          }
        }
      });
    }
    const auto await = [&](uint64_t more) {
      const uint64_t goal = appended + more;
      const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
      while (appended < goal && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      EXPECT_GE(appended, goal) << "with server " << victim;
    };
    await(6);
    servers_.Kill(victim);
    await(12);  // goes on without it
    const std::string problem = servers_.Restart(victim);
    EXPECT_EQ(problem, "");
    await(6);
    stop = true;
    for (std::thread& agent : agents) agent.join();
    AwaitReplicas();
    for (const std::string& agent : kAgents) {
      EXPECT_EQ(Value((*store)->LastSequence("", agent)), last[agent]);
      EXPECT_EQ(Found(**store, agent), UpTo(last[agent])) << "agent " << agent << ", victim " << victim;
    }
    // Questions do without it as well.
    servers_.Kill(victim);
    EXPECT_EQ(Found(**store, "a"), UpTo(last["a"])) << "without server " << victim;
    EXPECT_EQ(servers_.Restart(victim), "");
  }
  // The servers say the same: every row once.
  uint64_t rows = 0;
  for (const size_t server : {0, 2}) {
    const std::string answer = servers_.Ask(server, kCount);
    const auto parts = Split(StripWhitespace(answer), '\t');
    ASSERT_EQ(parts.size(), 3u) << answer;
    EXPECT_EQ(parts[0], parts[1]) << "rows twice";
    EXPECT_NE(parts[0], "0");
    rows += *ParseUint64(parts[0]);
  }
  uint64_t batches = 0;
  for (const auto& [agent, sequence] : last) batches += sequence;
  EXPECT_EQ(rows, batches * 6);
  RecordProperty("acknowledged_batches", std::to_string(batches));
}

TEST_F(Replicas, KillsOfTheStoreLoseAndDoubleNothing) { KillTheStore(servers_, KillRounds(), 3000); }

}  // namespace
}  // namespace pyrometer::store::clickhouse

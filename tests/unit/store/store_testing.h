// Shared by the tests of store and query: a folder that goes away, small batches in one line.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/profile/batch.h"
#include "userspace/store/store.h"

namespace pyrometer::store {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-store-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Runs one test of this very program as a new process (fork alone would copy a RocksDB without its background threads).
// `argument` reaches it as the environment variable PYROMETER_TEST_CHILD; without it such a "test" does nothing.
inline pid_t SpawnTest(const std::string& name, const std::string& argument) {
  const std::string filter = "--gtest_filter=" + name;
  const std::string variable = "PYROMETER_TEST_CHILD=" + argument;
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // nothing survives a test that was stopped
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(null, STDOUT_FILENO);  // its progress report would mix with ours
    char program[] = "test";
    char* const args[] = {program, const_cast<char*>(filter.c_str()), nullptr};
    char* const environment[] = {const_cast<char*>(variable.c_str()), nullptr};
    execve("/proc/self/exe", args, environment);
    _exit(127);
  }
  return child;
}
inline const char* ChildArgument() { return getenv("PYROMETER_TEST_CHILD"); }

// The value itself, not a reference into a temporary: safe in range-for.
template <typename T>
T Value(StatusOr<T> value_or) {
  EXPECT_TRUE(value_or.ok()) << value_or.status();
  return value_or.ok() ? *std::move(value_or) : T{};
}

inline constexpr int64_t kT0 = 1'700'000'000'000'000'000;  // a window boundary
inline constexpr uint64_t kWindow = 10'000'000'000;
inline constexpr uint64_t kPeriod = 10'101'010;

inline StoreOptions TestOptions() {
  StoreOptions options;
  options.memory_budget_bytes = 32u << 20;
  options.min_free_bytes = 0;
  options.now = [] { return kT0 + 60 * int64_t{1'000'000'000}; };
  return options;
}

// Which backend the program's tests run against: the store in a folder, unless the program has another linked in
// (tests/support/clickhouse_backend.cc).
using Opener = std::function<StatusOr<std::unique_ptr<Store>>(const std::string& path, StoreOptions options)>;
inline Opener& OpenerOfTests() {
  static Opener opener;
  return opener;
}
inline bool InFolder() { return OpenerOfTests() == nullptr; }
// A server takes milliseconds for what a folder does in microseconds: repeat less.
inline bool& TestsAreShort() {
  static bool is_short = false;
  return is_short;
}

inline std::unique_ptr<Store> MustOpen(const std::string& path, StoreOptions options = TestOptions()) {
  StatusOr<std::unique_ptr<Store>> store =
      InFolder() ? Store::Open(path, std::move(options)) : OpenerOfTests()(path, std::move(options));
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

inline profile::LabelSet Labels(std::vector<profile::Label> labels) {
  return profile::LabelSet::Make(std::move(labels)).value();
}

class BatchBuilder {
 public:
  BatchBuilder(std::string agent, uint64_t sequence) {
    batch.agent_id = std::move(agent);
    batch.node = "node-" + batch.agent_id;
    batch.sequence = sequence;
  }

  uint32_t Series(std::string type, std::vector<profile::Label> labels) {
    batch.series.push_back({std::move(type), Labels(std::move(labels))});
    return static_cast<uint32_t>(batch.series.size() - 1);
  }

  // Functions from root to leaf, each an own address of one binary.
  profile::StackId Stack(const std::vector<std::string>& root_first,
                         profile::FrameKind kind = profile::FrameKind::kNative) {
    profile::Dictionary& d = batch.dictionary;
    profile::StackId stack = profile::kEmptyStack;
    for (const std::string& name : root_first) {
      const auto mapping = d.InternMapping({.build_id = d.InternString("abc123"), .file = d.InternString("/bin/app")});
      const auto function = d.InternFunction({.name = d.InternString(name)});
      const auto frame = d.InternFrame({.kind = kind,
                                        .mapping = mapping,
                                        .address = ElfAddress(std::hash<std::string>{}(name)&0xffffff),
                                        .lines = {{.function = function}}});
      stack = d.InternStack(stack, frame);
    }
    return stack;
  }

  // A profile point with count × period values.
  BatchBuilder& Cpu(uint32_t series, int64_t time_ns, std::vector<std::pair<profile::StackId, uint64_t>> samples) {
    profile::ProfilePoint point{.series = series, .time_ns = time_ns, .duration_ns = kWindow, .period_ns = kPeriod};
    for (const auto& [stack, count] : samples) point.samples.push_back({stack, count, count * kPeriod});
    batch.profiles.push_back(std::move(point));
    return *this;
  }

  BatchBuilder& Counter(uint32_t series, int64_t time_ns, uint64_t value) {
    batch.counters.push_back({.series = series, .time_ns = time_ns, .duration_ns = kWindow, .value = value});
    return *this;
  }

  profile::Batch batch;
};

// As one of a stream that lasts: what `memo` knows is not looked up again.
inline StatusOr<AppendResult> AppendOfStream(Store* store, const profile::Batch& batch, StreamMemo* memo) {
  const profile::DictionaryDefinitions definitions(&batch.dictionary);
  return store->Append({.agent_id = batch.agent_id,
                        .node = batch.node,
                        .sequence = batch.sequence,
                        .definitions = &definitions,
                        .series = batch.series,
                        .profiles = batch.profiles},
                       memo);
}

inline Selection SeriesOnly(std::vector<SeriesId> ids) {
  Selection selection;
  selection.series = std::move(ids);
  return selection;
}
// The stacks of one series, window by window where there are windows.
inline StackSelection StacksOf(const Series& series) {
  StackSelection selection;
  selection.trie = series.trie;
  selection.series = {series.id};
  return selection;
}

// Everything that housekeeping can do.
inline HousekeepingResult KeepHouse(Store* store, int64_t now_ns) {
  HousekeepingResult sum;
  for (bool more = true; more;) {
    const StatusOr<HousekeepingResult> result = store->Housekeep(now_ns, 10 * kNsPerSecond);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) break;
    more = result->more;
    sum.hours += result->hours;
    sum.rows += result->rows;
    sum.days += result->days;
    sum.functions += result->functions;
    sum.series_removed += result->series_removed;
    sum.tries_packed += result->tries_packed;
    sum.kept_since_ns = result->kept_since_ns;
  }
  return sum;
}

inline uint64_t SampleSum(const Store& store, const std::string& type = "cpu", TimeRange range = {}) {
  const StatusOr<std::vector<Series>> series = store.FindSeries({.type = type});
  EXPECT_TRUE(series.ok()) << series.status();
  std::vector<SeriesId> ids;
  for (const Series& one : *series) ids.push_back(one.id);
  uint64_t total = 0;
  const Status scanned =
      store.ScanTotals(SeriesOnly(ids), range, false, [&](const WindowTotal& t) { total += t.count; });
  EXPECT_TRUE(scanned.ok()) << scanned;
  return total;
}

// The same, from the stack samples themselves.
inline uint64_t StackSampleSum(const Store& store, const std::string& type = "cpu", TimeRange range = {}) {
  const StatusOr<std::vector<Series>> series = store.FindSeries({.type = type});
  EXPECT_TRUE(series.ok()) << series.status();
  uint64_t total = 0;
  for (const Series& one : *series) {
    const StatusOr<StackSums> sums = store.SumStacks(StacksOf(one), range);
    EXPECT_TRUE(sums.ok()) << sums.status();
    for (const StackSum& row : sums->sums) total += row.count;
  }
  return total;
}

}  // namespace pyrometer::store

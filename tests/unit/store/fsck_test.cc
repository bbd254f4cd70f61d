// A flipped bit in each kind of file: found, named, contained; and a power cut that forgets what was not synced.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <atomic>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "tests/unit/store/store_testing.h"
#include "userspace/store/chunk.h"
#include "userspace/store/embedded_store.h"

namespace pyrometer::store {
namespace {

constexpr int kHours = 5;
constexpr uint64_t kBatchSamples = 60;

profile::Batch HourBatch(uint64_t sequence, int64_t time_ns) {
  BatchBuilder b("a", sequence);
  for (int service = 0; service < 3; ++service) {
    const uint32_t series =
        b.Series("cpu", {{"service", StrFormat("s%d", service)}, {"pod", StrFormat("p%d-%d", service, sequence % 2)}});
    std::vector<std::pair<profile::StackId, uint64_t>> samples;
    for (int i = 0; i < 20; ++i) {
      samples.push_back({b.Stack({"main", StrFormat("f%d", i % 7), StrFormat("leaf_%d_%d", sequence, i)}), 1});
    }
    b.Cpu(series, time_ns, samples);
    b.batch.profiles.back().offsets_ms.assign(20, 500);
  }
  profile::HistogramPoint histogram{
      .series = b.Series("syscall_latency", {{"service", "s0"}}), .time_ns = time_ns, .duration_ns = kWindow};
  histogram.histogram.Record(5);
  b.batch.histograms.push_back(histogram);
  return b.batch;
}

// Every family has something in files, and the log has something too.
void Fill(const std::string& path) {
  auto store = MustOpen(path);
  uint64_t sequence = 0;
  const int64_t start = kT0 / kHourNs * kHourNs - 48 * kHourNs;
  for (int hour = 0; hour < kHours; ++hour) {
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(store->Append(HourBatch(++sequence, start + hour * kHourNs + i * 10'000'000'000)).ok());
    }
  }
  KeepHouse(store.get(), kT0);
  ASSERT_TRUE(store->Append(HourBatch(++sequence, kT0)).ok());
  ASSERT_TRUE(store->Settle().ok());
  ASSERT_TRUE(store->Append(HourBatch(++sequence, kT0 + static_cast<int64_t>(kWindow))).ok());
}
constexpr uint64_t kAllSamples = (kHours * 10 + 2) * kBatchSamples;

TEST(Fsck, ASoundStoreIsSound) {
  const TempFolder folder;
  Fill(folder.path());
  const FsckReport report = Value(Fsck(folder.path()));
  EXPECT_EQ(report.problem_count, 0u) << report.problems[0].place << ": " << report.problems[0].what;
  EXPECT_EQ(report.samples, kAllSamples);
  EXPECT_GE(report.files, kFamilies - 1);
  EXPECT_GT(report.records, 100u);
}

TEST(Fsck, NeedsAStoreThatDoesNotRun) {
  const TempFolder folder;
  EXPECT_EQ(Fsck(folder.path()).status().code(), StatusCode::kFailedPrecondition);
}

// What a reader gets of everything: its sum, or the error. Never another sum.
StatusOr<uint64_t> ReadAll(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::Open(path, TestOptions()));
  uint64_t total = 0;
  ASSIGN_OR_RETURN(const std::vector<Series> all, store->FindSeries({.type = "cpu"}));
  for (const Series& series : all) {
    ASSIGN_OR_RETURN(const StackSums sums, store->SumStacks(StacksOf(series), {}));
    std::vector<LeafId> leaves;
    for (const StackSum& row : sums.sums) {
      total += row.count;
      leaves.push_back(row.leaf);
    }
    profile::Dictionary names;
    RETURN_IF_ERROR(store->ResolveStacks(series.trie, leaves, &names).status());
  }
  return total;
}

TEST(Fsck, AFlippedBitIsFoundNamedAndContained) {
  const TempFolder folder;
  const std::string sound = folder.path() + "/sound";
  Fill(sound);
  std::mt19937_64 random(7);
  std::set<std::string> kinds;
  int flips = 0, read_all_the_same = 0;
  for (const auto& entry : std::filesystem::directory_iterator(sound)) {
    const std::string name = entry.path().filename();
    const std::string kind = name.starts_with("MANIFEST") ? "MANIFEST" : entry.path().extension().string();
    if ((kind != ".sst" && kind != ".log" && kind != "MANIFEST") || entry.file_size() == 0) continue;
    for (int round = 0; round < 3; ++round) {
      const std::string damaged = folder.path() + "/damaged";
      std::filesystem::remove_all(damaged);
      std::filesystem::copy(sound, damaged);
      std::filesystem::remove(damaged + "/LOCK");
      std::fstream file(damaged + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
      const auto at = static_cast<std::streamoff>(random() % entry.file_size());
      file.seekg(at);
      const char byte = static_cast<char>(file.get() ^ (1 << random() % 8));
      file.seekp(at);
      file.put(byte);
      file.close();
      ++flips;
      const StatusOr<FsckReport> report = Fsck(damaged);
      ASSERT_TRUE(report.ok()) << report.status();
      // A tail of the log that is torn was never acknowledged: that cannot be told from a crash.
      const bool torn_tail = kind == ".log";
      if (!torn_tail) {
        EXPECT_GT(report->problem_count, 0u) << name << " at " << at << " of " << entry.file_size();
      }
      if (report->problem_count > 0) {
        EXPECT_NE(report->problems[0].affects, "");
        if (kind == ".sst") {
          bool named = false;
          for (const FsckProblem& problem : report->problems) named |= problem.place.find(name) != std::string::npos;
          EXPECT_TRUE(named || report->problems[0].place == "opening") << name << " " << report->problems[0].place;
        }
      }
      const StatusOr<uint64_t> sum = ReadAll(damaged);
      if (sum.ok()) {
        EXPECT_TRUE(*sum == kAllSamples || (torn_tail && *sum == kAllSamples - kBatchSamples)) << name << ": " << *sum;
        ++read_all_the_same;
      } else {
        EXPECT_EQ(sum.status().code(), StatusCode::kDataLoss) << sum.status();
      }
      kinds.insert(kind);
    }
  }
  EXPECT_EQ(kinds, (std::set<std::string>{".log", ".sst", "MANIFEST"}));
  EXPECT_GT(flips, 3 * static_cast<int>(kFamilies));
  EXPECT_GT(read_all_the_same, 0);  // contained: what needs none of the block goes on
}

// Files that remember how much of them was synced; Cut() stops the world and forgets the rest, as a power cut does.
class PowerCutEnv : public rocksdb::EnvWrapper {
 public:
  PowerCutEnv() : rocksdb::EnvWrapper(rocksdb::Env::Default()) {}
  const char* Name() const override { return "PowerCut"; }

  rocksdb::Status NewWritableFile(const std::string& name, std::unique_ptr<rocksdb::WritableFile>* result,
                                  const rocksdb::EnvOptions& options) override;
  rocksdb::Status RenameFile(const std::string& from, const std::string& to) override {
    const std::lock_guard lock(mutex_);
    if (is_off_) return Off();
    if (const auto found = synced_.find(from); found != synced_.end()) {
      synced_[to] = found->second;
      synced_.erase(found);
    }
    return EnvWrapper::RenameFile(from, to);
  }
  rocksdb::Status DeleteFile(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    if (is_off_) return Off();
    synced_.erase(name);
    return EnvWrapper::DeleteFile(name);
  }

  void Cut() {
    const std::lock_guard lock(mutex_);
    is_off_ = true;
  }
  // When nobody has a file open any more.
  void Forget() {
    for (const auto& [name, size] : synced_) {
      std::error_code ignored;
      if (std::filesystem::exists(name) && std::filesystem::file_size(name) > size) {
        forgotten_ += std::filesystem::file_size(name) - size;
        std::filesystem::resize_file(name, size, ignored);
      }
    }
  }
  uint64_t forgotten() const { return forgotten_; }

 private:
  static rocksdb::Status Off() { return rocksdb::Status::IOError("the power is off"); }
  // The state is the environment's: RocksDB's threads sync and append at the same time.
  class File : public rocksdb::WritableFileWrapper {
   public:
    File(PowerCutEnv* env, std::string name, std::unique_ptr<rocksdb::WritableFile> target)
        : rocksdb::WritableFileWrapper(target.get()), env_(*env), name_(std::move(name)), target_(std::move(target)) {}
    rocksdb::Status Append(const rocksdb::Slice& data) override {
      const std::lock_guard lock(env_.mutex_);
      if (env_.is_off_) return Off();
      size_ += data.size();
      return target_->Append(data);
    }
    rocksdb::Status Append(const rocksdb::Slice& data, const rocksdb::DataVerificationInfo&) override {
      return Append(data);
    }
    rocksdb::Status Sync() override {
      const std::lock_guard lock(env_.mutex_);
      if (env_.is_off_) return Off();
      const rocksdb::Status status = target_->Flush();
      if (status.ok()) env_.synced_[name_] = size_;
      return status;
    }
    rocksdb::Status Fsync() override { return Sync(); }
    rocksdb::Status RangeSync(uint64_t, uint64_t) override { return rocksdb::Status::OK(); }

   private:
    PowerCutEnv& env_;
    const std::string name_;
    const std::unique_ptr<rocksdb::WritableFile> target_;
    uint64_t size_ = 0;
  };

  std::mutex mutex_;  // guards the rest
  bool is_off_ = false;
  std::map<std::string, uint64_t> synced_;  // bytes
  uint64_t forgotten_ = 0;
};

rocksdb::Status PowerCutEnv::NewWritableFile(const std::string& name, std::unique_ptr<rocksdb::WritableFile>* result,
                                             const rocksdb::EnvOptions& options) {
  const std::lock_guard lock(mutex_);
  if (is_off_) return Off();
  std::unique_ptr<rocksdb::WritableFile> target;
  rocksdb::EnvOptions plain = options;
  plain.use_mmap_writes = false;
  plain.use_direct_writes = false;
  if (const rocksdb::Status status = EnvWrapper::NewWritableFile(name, &target, plain); !status.ok()) return status;
  synced_[name] = 0;
  *result = std::make_unique<File>(this, name, std::move(target));
  return rocksdb::Status::OK();
}

TEST(PowerCut, NothingAcknowledgedIsForgotten) {
  const TempFolder folder;
  const std::string path = folder.path() + "/data";
  std::mt19937_64 random(std::random_device{}());
  std::map<std::string, uint64_t> acknowledged;
  const int64_t start = kT0 / kHourNs * kHourNs - 24 * kHourNs;
  uint64_t forgotten = 0;
  for (int round = 0; round < 12; ++round) {
    PowerCutEnv env;
    StoreOptions options = TestOptions();
    options.memory_budget_bytes = 16u << 20;
    {
      StatusOr<std::unique_ptr<Store>> store = OpenWithEnv(path, options, &env);
      ASSERT_TRUE(store.ok()) << "round " << round << ": " << store.status();
      std::atomic<bool> stop{false};
      std::mutex mutex;
      std::vector<std::thread> threads;
      for (const std::string agent : {"a", "b", "c"}) {
        threads.emplace_back([&, agent] {
          for (uint64_t next = (*store)->LastSequence("", agent).value() + 1; !stop; ++next) {
            profile::Batch batch = HourBatch(next, start + static_cast<int64_t>(next % 7) * kHourNs);
            batch.agent_id = agent;
            if (!(*store)->Append(batch).ok()) return;
            const std::lock_guard lock(mutex);
            acknowledged[agent] = next;
          }
        });
      }
      threads.emplace_back([&] {
        while (!stop && (*store)->Housekeep(kT0, kNsPerMs * 20).ok()) std::this_thread::yield();
      });
      std::this_thread::sleep_for(std::chrono::milliseconds(30 + random() % 150));
      env.Cut();
      stop = true;
      for (std::thread& thread : threads) thread.join();
    }
    env.Forget();
    forgotten += env.forgotten();
    auto store = MustOpen(path, options);
    ASSERT_NE(store, nullptr) << "round " << round;
    uint64_t batches = 0;
    for (const auto& [agent, sequence] : acknowledged) {
      const uint64_t last = store->LastSequence("", agent).value();
      EXPECT_GE(last, sequence) << agent << " in round " << round;
      batches += last;
    }
    EXPECT_EQ(SampleSum(*store), batches * kBatchSamples) << "round " << round;
    EXPECT_EQ(StackSampleSum(*store), batches * kBatchSamples) << "round " << round;
    store.reset();
    const FsckReport report = Value(Fsck(path));
    EXPECT_EQ(report.problem_count, 0u) << report.problems[0].place << ": " << report.problems[0].what;
  }
  EXPECT_GT(forgotten, 0u) << "the cuts met nothing unsynced";
}

}  // namespace
}  // namespace pyrometer::store

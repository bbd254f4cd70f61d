#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/store/store_testing.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

profile::Batch CpuBatch(uint64_t sequence) {
  BatchBuilder b("a", sequence);
  b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0, {{b.Stack({"main", "f" + std::to_string(sequence)}), 1}});
  return b.batch;
}

std::string MessageOf(const Status& status) { return std::string(Message(status)); }

TEST(Open, CreatesNestedFolder) {
  const TempFolder folder;
  EXPECT_NE(MustOpen(folder.path() + "/a/b"), nullptr);
  StoreOptions options = TestOptions();
  options.create_if_missing = false;
  const Status status = Store::Open(folder.path() + "/c", options).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), HasSubstr("there is no data folder"));
}

TEST(Open, FolderNotWritable) {
  const TempFolder folder;
  std::ofstream(folder.path() + "/file") << "x";
  Status status = Store::Open(folder.path() + "/file", TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), HasSubstr("is not a folder"));
  EXPECT_FALSE(Store::Open(folder.path() + "/file/sub", TestOptions()).ok());

  // As an ordinary user, in a child: root may write anywhere.
  std::filesystem::create_directory(folder.path() + "/locked");
  std::filesystem::permissions(folder.path() + "/locked", std::filesystem::perms(0555));
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(9);
    const Status refused = Store::Open(folder.path() + "/locked", TestOptions()).status();
    const Status uncreated = Store::Open(folder.path() + "/locked/new", TestOptions()).status();
    const bool good = refused.code() == StatusCode::kPermissionDenied &&
                      MessageOf(refused).find("is not writable") != std::string::npos &&
                      MessageOf(refused).find("--data") != std::string::npos &&
                      uncreated.code() == StatusCode::kPermissionDenied;
    if (!good) fprintf(stderr, "%s\n%s\n", refused.ToString().c_str(), uncreated.ToString().c_str());
    _exit(good ? 0 : 1);
  }
  int status_word = 0;
  ASSERT_EQ(waitpid(child, &status_word, 0), child);
  EXPECT_TRUE(WIFEXITED(status_word) && WEXITSTATUS(status_word) == 0) << status_word;
}

TEST(Open, LockedInThisProcess) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  for (int i = 0; i < 2; ++i) {  // the refusal itself must not drop the lock
    const Status status = Store::Open(folder.path(), TestOptions()).status();
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(MessageOf(status), HasSubstr("in use by another pyrometer store"));
  }
}

// The other process of the next test.
TEST(OpenChild, HoldsTheFolder) {
  if (ChildArgument() == nullptr) return;
  const auto store = MustOpen(ChildArgument());
  ASSERT_NE(store, nullptr);
  std::ofstream(std::string(ChildArgument()) + ".ready") << "y";
  pause();
}

TEST(Open, NamesTheProcessThatHoldsTheFolder) {
  const TempFolder folder;
  const std::string data = folder.path() + "/data";
  const pid_t child = SpawnTest("OpenChild.HoldsTheFolder", data);
  ASSERT_GT(child, 0);
  for (int i = 0; i < 1000 && !std::filesystem::exists(data + ".ready"); ++i) usleep(10'000);
  ASSERT_TRUE(std::filesystem::exists(data + ".ready"));
  const Status status = Store::Open(data, TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr(StrFormat("in use by another pyrometer store (process %d)", child)),
                                       HasSubstr("--data")));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_NE(MustOpen(data), nullptr);
}

// Opens the folder as plain RocksDB and changes one key.
void Tamper(const std::string& path, const std::string& family, const std::string& key, const std::string& value) {
  std::vector<std::string> names;
  ASSERT_TRUE(rocksdb::DB::ListColumnFamilies({}, path, &names).ok());
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (const std::string& name : names) descriptors.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, path, descriptors, &handles, &db).ok());
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    if (handle->GetName() == family) {
      ASSERT_TRUE(db->Put({}, handle, key, value).ok());
    }
  }
  if (std::find(names.begin(), names.end(), family) == names.end()) {
    rocksdb::ColumnFamilyHandle* handle = nullptr;
    ASSERT_TRUE(db->CreateColumnFamily({}, family, &handle).ok());
    handles.push_back(handle);
  }
  for (rocksdb::ColumnFamilyHandle* handle : handles) ASSERT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
  ASSERT_TRUE(db->Close().ok());
  delete db;
}

std::string Peek(const std::string& path, const std::string& family, const std::string& key) {
  rocksdb::DB* db = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  EXPECT_TRUE(rocksdb::DB::OpenForReadOnly({}, path, {{family, rocksdb::ColumnFamilyOptions()}}, &handles, &db).ok());
  std::string value;
  EXPECT_TRUE(db->Get({}, handles.front(), key, &value).ok());
  EXPECT_TRUE(db->DestroyColumnFamilyHandle(handles.front()).ok());
  delete db;
  return value;
}

TEST(Open, NewerFormat) {
  const TempFolder folder;
  MustOpen(folder.path()).reset();
  std::string version;
  PutVarint(kFormatVersion + 1, &version);
  Tamper(folder.path(), "default", "format", version);
  Tamper(folder.path(), "of_the_future", "", "");
  const Status status = Store::Open(folder.path(), TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("newer format (version 5; this program reads version 4)"),
                                       HasSubstr("run the newer pyrometer")));
  // Refusing changed nothing: with the old version back it opens (and then says what it does not know).
  std::string ours;
  PutVarint(kFormatVersion, &ours);
  Tamper(folder.path(), "default", "format", ours);
  EXPECT_THAT(MessageOf(Store::Open(folder.path(), TestOptions()).status()), HasSubstr("of_the_future"));
}

std::vector<std::string> FamiliesOf(const std::string& path) {
  std::vector<std::string> names;
  EXPECT_TRUE(rocksdb::DB::ListColumnFamilies({}, path, &names).ok());
  return names;
}

TEST(Open, OlderFormatIsLeftAsItIs) {
  const TempFolder folder;
  rocksdb::Options create;
  create.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(create, folder.path(), &db).ok());
  delete db;
  std::string version;
  PutVarint(1, &version);
  Tamper(folder.path(), "default", "format", version);
  Tamper(folder.path(), "profiles", "", "");
  const std::vector<std::string> families = FamiliesOf(folder.path());
  const Status status = Store::Open(folder.path(), TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("older format (version 1; this program reads version 4)"),
                                       HasSubstr("run the older pyrometer"), HasSubstr("move it away")));
  EXPECT_EQ(FamiliesOf(folder.path()), families);
}

TEST(Open, TheFormatBeforeIsReadAndBecomesThisOne) {
  const TempFolder folder;
  MustOpen(folder.path()).reset();
  std::string before, ours;
  PutVarint(kFormatVersion - 1, &before);
  PutVarint(kFormatVersion, &ours);
  Tamper(folder.path(), "default", "format", before);
  // Looking changes nothing.
  const StatusOr<FsckReport> report = Fsck(folder.path());
  EXPECT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(Peek(folder.path(), "default", "format"), before);
  MustOpen(folder.path()).reset();
  EXPECT_EQ(Peek(folder.path(), "default", "format"), ours);
}

TEST(Open, SomebodyElsesDatabase) {
  const TempFolder folder;
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(options, folder.path(), &db).ok());
  ASSERT_TRUE(db->Put({}, "precious", "data").ok());
  delete db;
  const Status status = Store::Open(folder.path(), TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), HasSubstr("not a pyrometer store"));
  EXPECT_EQ(FamiliesOf(folder.path()), std::vector<std::string>{"default"});
}

void Flip(const std::filesystem::path& file, double where) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  const auto size = static_cast<double>(std::filesystem::file_size(file));
  const auto at = static_cast<std::streamoff>(size * where);
  stream.seekg(at);
  const char c = static_cast<char>(stream.get() ^ 0x40);
  stream.seekp(at);
  stream.put(c);
}

std::filesystem::path FileWith(const std::string& folder, const std::string& part, uintmax_t min_size = 1) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().find(part) != std::string::npos && entry.file_size() >= min_size) {
      return entry.path();
    }
  }
  return {};
}

TEST(Open, DamagedFilesAreNamedNotSwallowed) {
  for (const std::string part : {"MANIFEST", "CURRENT", ".log"}) {
    const TempFolder folder;
    {
      auto store = MustOpen(folder.path());
      for (uint64_t i = 1; i <= 200; ++i) ASSERT_TRUE(store->Append(CpuBatch(i)).ok());
    }
    const std::filesystem::path file = FileWith(folder.path(), part);
    ASSERT_FALSE(file.empty()) << part;
    Flip(file, 0.4);
    const Status status = Store::Open(folder.path(), TestOptions()).status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << part << ": " << status;
    EXPECT_THAT(MessageOf(status), HasSubstr("restore a backup")) << part;
  }
}

TEST(Open, DamagedTableIsFoundWhenRead) {
  constexpr uintmax_t kWorthDamaging = 4096;  // several blocks; the first file made is often a small family's
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.memory_budget_bytes = 16u << 20;
  uint64_t sequence = 0;
  // Anew where closing broke off the flush whose file was seen.
  while (FileWith(folder.path(), ".sst", kWorthDamaging).empty() && sequence < 400) {
    auto store = MustOpen(folder.path(), options);
    // Enough that write buffers become files.
    while (FileWith(folder.path(), ".sst", kWorthDamaging).empty() && sequence < 400) {
      BatchBuilder b("a", ++sequence);
      std::vector<std::pair<profile::StackId, uint64_t>> samples;
      for (int i = 0; i < 2000; ++i) {
        samples.push_back({b.Stack({"main", StrFormat("function_%d_%d", sequence, i)}), 1});
      }
      b.Cpu(b.Series("cpu", {{"service", StrFormat("s%d", sequence)}}), kT0, samples);
      ASSERT_TRUE(store->Append(b.batch).ok());
    }
  }
  int damaged = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (entry.path().extension() != ".sst" || entry.file_size() < kWorthDamaging) continue;
    ++damaged;
    for (int i = 1; i < 20; ++i) Flip(entry.path(), i / 20.0);
  }
  ASSERT_GT(damaged, 0);
  // Found at opening or when the damaged block is read: an error with the remedy, never wrong names or sums.
  Status status = OkStatus();
  if (StatusOr<std::unique_ptr<Store>> opened = Store::Open(folder.path(), options); !opened.ok()) {
    status = opened.status();
  } else {
    StatusOr<std::vector<Series>> all = (*opened)->FindSeries({});
    status = all.status();
    for (size_t i = 0; status.ok() && i < all->size(); ++i) {
      StatusOr<StackSums> sums = (*opened)->SumStacks(StacksOf((*all)[i]), {});
      status = sums.status();
      if (!status.ok()) break;
      std::vector<LeafId> leaves;
      for (const StackSum& row : sums->sums) leaves.push_back(row.leaf);
      profile::Dictionary d;
      status = (*opened)->ResolveStacks((*all)[i].trie, leaves, &d).status();
    }
  }
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("damaged"));
}

TEST(Open, MissingFileIsDataLoss) {
  const TempFolder folder;
  MustOpen(folder.path()).reset();
  {
    auto store = MustOpen(folder.path());
    ASSERT_TRUE(store->Append(CpuBatch(1)).ok());
  }
  std::filesystem::remove(FileWith(folder.path(), "MANIFEST"));
  const Status status = Store::Open(folder.path(), TestOptions()).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
}

}  // namespace
}  // namespace pyrometer::store

#include "userspace/agent/spool.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace pyrometer::agent {
namespace {

class SpoolTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/pyrometer-spool-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Spool> Open(uint64_t max_bytes = 1 << 20) {
    auto spool = Spool::Open(folder_, {.max_bytes = max_bytes});
    EXPECT_TRUE(spool.ok()) << spool.status();
    return spool.ok() ? *std::move(spool) : nullptr;
  }
  std::string BatchPath(uint64_t sequence) const {
    char name[64];
    std::snprintf(name, sizeof name, "/%020llu.batch", static_cast<unsigned long long>(sequence));
    return folder_ + name;
  }
  std::string folder_;
};

TEST_F(SpoolTest, SurvivesRestartsUntilAcknowledged) {
  std::string id;
  {
    auto spool = Open();
    id = spool->agent_id();
    EXPECT_EQ(spool->next_sequence(), 1u);
    ASSERT_TRUE(spool->Append(1, "one", 10).ok());
    ASSERT_TRUE(spool->Append(2, "two", 20).ok());
  }
  auto spool = Open();
  EXPECT_EQ(spool->agent_id(), id);
  EXPECT_EQ(spool->next_sequence(), 3u);
  EXPECT_EQ(spool->NextPending(0), 1u);
  EXPECT_EQ(*spool->Read(1), "one");
  EXPECT_EQ(spool->NextPending(1), 2u);
  EXPECT_EQ(spool->NextPending(2), std::nullopt);
  ASSERT_TRUE(spool->Acknowledge(1).ok());
  EXPECT_EQ(spool->counters().pending_batches, 1u);
  EXPECT_EQ(spool->Read(1).status().code(), StatusCode::kNotFound);
}

TEST_F(SpoolTest, SequencesGoOnAfterEverythingWasAcknowledged) {
  {
    auto spool = Open();
    ASSERT_TRUE(spool->Append(1, "one", 1).ok());
    ASSERT_TRUE(spool->Acknowledge(1).ok());
    EXPECT_EQ(spool->NextPending(0), std::nullopt);
  }
  auto spool = Open();
  // Its number is remembered by the file; the store recognises the resend.
  EXPECT_EQ(spool->next_sequence(), 2u);
  ASSERT_TRUE(spool->Acknowledge(1).ok());
  ASSERT_TRUE(spool->Append(2, "two", 1).ok());
  EXPECT_FALSE(std::filesystem::exists(BatchPath(1)));
}

TEST_F(SpoolTest, DamagedFilesAreSetAsideAndCounted) {
  {
    auto spool = Open();
    ASSERT_TRUE(spool->Append(1, "first", 1).ok());
    ASSERT_TRUE(spool->Append(2, "second", 1).ok());
  }
  std::fstream(BatchPath(2), std::ios::in | std::ios::out | std::ios::binary).seekp(42) << 'X';
  auto spool = Open();
  EXPECT_EQ(spool->counters().corrupt_batches, 1u);
  EXPECT_EQ(spool->next_sequence(), 3u) << "the damaged batch's number must stay used";
  EXPECT_EQ(spool->NextPending(1), std::nullopt);
  EXPECT_EQ(*spool->Read(1), "first");
  // Truncated at every length: never accepted.
  const auto size = std::filesystem::file_size(BatchPath(1));
  std::filesystem::resize_file(BatchPath(1), size - 1);
  EXPECT_EQ(spool->Read(1).status().code(), StatusCode::kDataLoss);
}

TEST_F(SpoolTest, DropsTheOldestAboveItsBudgetAndCountsThem) {
  auto spool = Open(/*max_bytes=*/300);
  for (uint64_t i = 1; i <= 5; ++i) ASSERT_TRUE(spool->Append(i, std::string(60, 'x'), 7).ok());
  EXPECT_EQ(spool->counters().dropped_batches, 2u);
  EXPECT_EQ(spool->counters().dropped_samples, 14u);
  EXPECT_EQ(spool->NextPending(0), 3u);
}

TEST_F(SpoolTest, RefusesASecondAgentInTheSameFolder) {
  auto spool = Open();
  const auto second = Spool::Open(folder_, {});
  ASSERT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(second.status()).find("--spool"), std::string_view::npos);
}

TEST_F(SpoolTest, NoticesThatItIsAnOldCopy) {
  auto spool = Open();
  EXPECT_EQ(spool->Acknowledge(9).code(), StatusCode::kFailedPrecondition);
}

TEST_F(SpoolTest, ForgetsHalfWrittenFiles) {
  std::ofstream(folder_ + "/00000000000000000001.batch.tmp.77") << "half";
  auto spool = Open();
  EXPECT_EQ(spool->next_sequence(), 1u);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/00000000000000000001.batch.tmp.77"));
}

}  // namespace
}  // namespace pyrometer::agent

#include "userspace/query/sub_second.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/store/store_testing.h"

namespace pyrometer::query {
namespace {

using store::BatchBuilder;
using store::kPeriod;
using store::kT0;
using store::kWindow;
using store::MustOpen;
using store::TempFolder;
using store::Value;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kMs = 1'000'000;

class SubSecondTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = MustOpen(folder_.path() + "/data");
    BatchBuilder b("agent", 1);
    const uint32_t shop = b.Series("cpu", {{"service", "shop"}, {"comm", "a"}});
    const uint32_t other = b.Series("cpu", {{"service", "shop"}, {"comm", "b"}});
    const uint32_t untimed = b.Series("cpu", {{"service", "old"}});
    const profile::StackId hot = b.Stack({"main", "hot"}), cold = b.Stack({"main", "cold"});
    b.Cpu(shop, kT0, {{hot, 3}, {cold, 2}});
    b.batch.profiles.back().offsets_ms = {0, 19, 1020, 25, 9999};
    b.Cpu(other, kT0, {{hot, 1}});
    b.batch.profiles.back().offsets_ms = {1039};
    b.Cpu(untimed, kT0, {{hot, 7}});
    EXPECT_TRUE(store_->Append(b.batch).ok());
  }
  StatusOr<SubSecondMap> Ask(const char* selector, uint64_t step_ns, uint64_t cell_ns, TimeRange range = {}) {
    return SubSecond(Engine(store_.get()), Value(ParseSelector(selector)), range, step_ns, cell_ns);
  }
  const TempFolder folder_;
  std::unique_ptr<store::Store> store_;
};

TEST_F(SubSecondTest, CountsIntoCells) {
  const SubSecondMap map = Value(Ask("cpu", 1000 * kMs, 20 * kMs));
  EXPECT_EQ(map.samples, 13u);
  EXPECT_EQ(map.timed, 6u);
  ASSERT_EQ(map.columns.size(), 3u);
  EXPECT_EQ(map.columns[0].time_ns, kT0);
  EXPECT_EQ(map.columns[1].time_ns, kT0 + 1'000'000'000);
  EXPECT_EQ(map.columns[2].time_ns, kT0 + 9'000'000'000);
  for (const SubSecondMap::Column& column : map.columns) ASSERT_EQ(column.cells.size(), 50u);
  EXPECT_EQ(map.columns[0].cells[0], 2u);
  EXPECT_EQ(map.columns[0].cells[1], 1u);
  EXPECT_EQ(map.columns[1].cells[1], 2u);
  EXPECT_EQ(map.columns[2].cells[49], 1u);
}

TEST_F(SubSecondTest, OfASelectionAndARange) {
  EXPECT_EQ(Value(Ask("cpu{comm=\"b\"}", 1000 * kMs, 20 * kMs)).timed, 1u);
  EXPECT_EQ(Value(Ask("cpu{service=\"old\"}", 1000 * kMs, 20 * kMs)).timed, 0u);
  EXPECT_EQ(Value(Ask("cpu{service=\"old\"}", 1000 * kMs, 20 * kMs)).samples, 7u);
  const SubSecondMap later = Value(Ask("cpu", 1000 * kMs, 20 * kMs, {.from_ns = kT0 + 1}));
  EXPECT_EQ(later.samples + later.timed, 0u) << "windows count by their start";
}

TEST_F(SubSecondTest, RefusesWhatHasNoAnswer) {
  EXPECT_THAT(std::string(Message(Ask("cpu", 1000 * kMs, 1000).status())), HasSubstr("1ms or more"));
  EXPECT_THAT(std::string(Message(Ask("cpu", 1000 * kMs, 30 * kMs).status())), HasSubstr("no multiple"));
  EXPECT_THAT(std::string(Message(Ask("cpu", 0, 20 * kMs).status())), HasSubstr("no multiple"));
  EXPECT_THAT(std::string(Message(Ask("cpu", (uint64_t{1} << 40) * kMs, kMs).status())), HasSubstr("cells"));
}

}  // namespace
}  // namespace pyrometer::query

// Linked into a test program, makes MustOpen open stores in a ClickHouse server of the program's own: a database for
// each folder; PYROMETER_TEST_CLICKHOUSE says how many servers (clickhouse_servers.h). Without clickhouse-server all
// tests of the program skip.

#include <gtest/gtest.h>

#include <stdlib.h>

#include <map>
#include <memory>

#include "tests/support/clickhouse_servers.h"
#include "tests/unit/store/store_testing.h"
#include "userspace/store/clickhouse/clickhouse.h"

namespace pyrometer::store {
namespace {

class Backend : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* size = getenv("PYROMETER_TEST_CLICKHOUSE");
    const bool cluster = size != nullptr && std::string_view(size) == "2x2";
    ASSERT_TRUE(size == nullptr || cluster || std::string_view(size) == "1x1")
        << "PYROMETER_TEST_CLICKHOUSE is 1x1, 2x2 or not set";
    TestsAreShort() = size == nullptr;
    if (const std::string reason = test_support::ClickHouseServers::WhyNot(cluster); !reason.empty()) {
      GTEST_SKIP() << reason;
    }
    servers_ = std::make_unique<test_support::ClickHouseServers>(cluster ? 2 : 1, cluster ? 2 : 1);
    ASSERT_EQ(servers_->Start(), "");
    OpenerOfTests() = [this](const std::string& path, StoreOptions options) {
      const size_t number = databases_.try_emplace(path, databases_.size()).first->second;
      return clickhouse::Open(servers_->Url("test" + std::to_string(number)), path, std::move(options));
    };
  }
  void TearDown() override { servers_.reset(); }

 private:
  std::unique_ptr<test_support::ClickHouseServers> servers_;
  std::map<std::string, size_t> databases_;  // by folder
};

[[maybe_unused]] const auto* const kBackend = ::testing::AddGlobalTestEnvironment(new Backend);

}  // namespace
}  // namespace pyrometer::store

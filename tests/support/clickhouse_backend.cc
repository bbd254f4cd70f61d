// Linked into a test program, makes MustOpen open stores in a ClickHouse server of the program's own: a database for
// each folder. Without clickhouse-server all tests of the program skip.

#include <gtest/gtest.h>

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
    if (const std::string reason = test_support::ClickHouseServers::WhyNot(false); !reason.empty()) {
      GTEST_SKIP() << reason;
    }
    servers_ = std::make_unique<test_support::ClickHouseServers>(1, 1);
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

// HTTPS to ClickHouse: the certificate of an authority of one's own, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "tests/unit/store/clickhouse_testing.h"

namespace pyrometer::store::clickhouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Tls : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ClickHouseServers::WhyNot(false); !reason.empty()) GTEST_SKIP() << reason;
    if (system("openssl version >/dev/null 2>&1") != 0) GTEST_SKIP() << "openssl is not installed";
    std::ofstream(Path("names")) << "subjectAltName = IP:127.0.0.1\n";
    const std::string script = StrFormat(
        "cd %s && for ca in ca other; do openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$ca -keyout "
        "$ca.key -out $ca.pem || exit 1; done && openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout "
        "server.key -out server.csr && openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
        "-days 2 -extfile names -out server.pem",
        certificates_.path());
    ASSERT_EQ(system(("(" + script + ") >/dev/null 2>&1").c_str()), 0);
    servers_.UseTls(Path("server.pem"), Path("server.key"));
    ASSERT_EQ(servers_.Start(), "");
  }
  std::string Path(const std::string& name) const { return certificates_.path() + "/" + name; }
  Status Try(const std::string& url) const { return Open(url, folder_.path(), TestOptions()).status(); }

  ClickHouseServers servers_{1, 1};
  const TempFolder certificates_, folder_;
};

TEST_F(Tls, AnAuthorityOfOnesOwn) {
  const auto url = [&](const std::string& host, const std::string& more) {
    return StrFormat("clickhouse://%s:%d/db?batch=0&patience=80s%s", host, servers_.https_port(0), more);
  };
  const std::string ca = "&tls=1&ca-file=" + Path("ca.pem");

  // Nobody vouches for the server: nothing is sent to it.
  Status status = Try(url("127.0.0.1", "&tls=1"));
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("127.0.0.1"), HasSubstr("certificate"), HasSubstr("ca-file=FILE")));
  status = Try(url("127.0.0.1", "&tls=1&ca-file=" + Path("other.pem")));
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("certificate"), HasSubstr(Path("other.pem"))));
  // The right authority, but not for this name.
  status = Try(url("localhost", ca));
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("certificate"), HasSubstr("localhost")));
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM system.databases WHERE name = 'db'"), "0\n");

  status = Try(url("127.0.0.1", "&tls=1&ca-file=/nowhere/at/all"));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("/nowhere/at/all"), HasSubstr("ca-file")));
  // Ports that were mixed up.
  status = Try(url("127.0.0.1", ""));
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("tls=1"));
  status = Try(servers_.Url("db", ca));
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("HTTPS"));

  auto store = Open(url("127.0.0.1", ca), folder_.path(), TestOptions());
  ASSERT_TRUE(store.ok()) << store.status();
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) MustAppend(**store, NumberedBatch("a", sequence));
  EXPECT_EQ(Found(**store, "a"), UpTo(3));
  EXPECT_EQ(servers_.Ask(0, "SELECT count() FROM db.points"), "18\n");
}

}  // namespace
}  // namespace pyrometer::store::clickhouse

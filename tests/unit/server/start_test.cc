// How a store starts: addresses, ports, certificates.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/unit/server/live_store.h"
#include "tests/unit/server/test_client.h"

namespace pyrometer::server {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class StartTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = store::Store::Open(dir_.path() + "/data", {.min_free_bytes = 0});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    engine_ = std::make_unique<query::Engine>(store_.get());
  }
  StatusOr<std::unique_ptr<Server>> Start(Options options) {
    return Server::Start(std::move(options), store_.get(), engine_.get());
  }
  Status Fail(Options options) {
    const StatusOr<std::unique_ptr<Server>> server = Start(std::move(options));
    EXPECT_FALSE(server.ok());
    return server.status();
  }
  // A certificate for localhost and 127.0.0.1, signed by itself.
  std::string MakeCertificate(const std::string& name) {
    const std::string base = dir_.path() + "/" + name;
    const std::string command =
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "
        "subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout " +
        base + ".key -out " + base + ".crt >/dev/null 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return base;
  }

  TempDir dir_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<query::Engine> engine_;
};

constexpr char kAny[] = "127.0.0.1:0";

TEST_F(StartTest, TellsTheAddressesThatItGot) {
  const auto server = Start({.grpc_address = kAny, .http_address = kAny});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_NE(rpc::ParseHostPort((*server)->grpc_address())->port, 0);
  EXPECT_NE(rpc::ParseHostPort((*server)->http_address())->port, 0);
  EXPECT_EQ((*server)->http_url(), "http://" + (*server)->http_address());
}

TEST_F(StartTest, WithoutHttp) {
  const auto server = Start({.grpc_address = kAny, .http_address = ""});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->http_url(), "");
  EXPECT_TRUE((*server)->query_api().GetStatus().ok());
}

TEST_F(StartTest, PortTaken) {
  const auto first = Start({.grpc_address = kAny, .http_address = kAny});
  ASSERT_TRUE(first.ok()) << first.status();
  Status status = Fail({.grpc_address = (*first)->grpc_address(), .http_address = kAny});
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr((*first)->grpc_address()));
  EXPECT_THAT(Message(status), HasSubstr("--grpc"));
  status = Fail({.grpc_address = kAny, .http_address = (*first)->http_address()});
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr((*first)->http_address()));
  EXPECT_THAT(Message(status), HasSubstr("--http"));
}

TEST_F(StartTest, PortsAreFreeAgainAfterTheEnd) {
  auto first = Start({.grpc_address = kAny, .http_address = kAny});
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string grpc = (*first)->grpc_address(), http = (*first)->http_address();
  EXPECT_EQ(Ask(rpc::ParseHostPort(http)->port, {.path = "/api/v1/status"}).status, 200);
  first->reset();
  EXPECT_TRUE(Start({.grpc_address = grpc, .http_address = http}).ok());
}

TEST_F(StartTest, OffLoopbackNeedsTlsAndToken) {
  const std::string base = MakeCertificate("a");
  for (const char* address : {"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0"}) {
    Status status = Fail({.grpc_address = address, .http_address = kAny});
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << address;
    EXPECT_THAT(Message(status), HasSubstr("--grpc"));
    EXPECT_THAT(Message(status), HasSubstr("--token-file"));
    status = Fail({.grpc_address = kAny, .http_address = address});
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << address;
    EXPECT_THAT(Message(status), HasSubstr("--http"));
  }
  EXPECT_EQ(Fail({.grpc_address = kAny, .http_address = "0.0.0.0:0", .token = "t"}).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(Fail({.grpc_address = kAny,
                  .http_address = "0.0.0.0:0",
                  .tls_cert_file = base + ".crt",
                  .tls_key_file = base + ".key"})
                .code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(StartTest, MalformedOptions) {
  EXPECT_THAT(Message(Fail({.grpc_address = "nonsense"})), HasSubstr("--grpc"));
  EXPECT_THAT(Message(Fail({.grpc_address = kAny, .http_address = "7070"})), HasSubstr("--http"));
  EXPECT_EQ(Fail({.grpc_address = kAny, .http_address = kAny, .tls_cert_file = "x"}).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Fail({.grpc_address = kAny, .http_address = kAny, .client_ca_file = "x"}).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(StartTest, BadCertificates) {
  const std::string a = MakeCertificate("a"), b = MakeCertificate("b");
  const std::string junk = dir_.path() + "/junk";
  std::ofstream(junk) << "no certificate\n";
  const auto fail = [&](std::string cert, std::string key, std::string ca = "") {
    return Fail(
        {.grpc_address = kAny, .http_address = kAny, .tls_cert_file = cert, .tls_key_file = key, .client_ca_file = ca});
  };
  EXPECT_EQ(fail("/does/not/exist", a + ".key").code(), StatusCode::kNotFound);
  EXPECT_THAT(Message(fail(junk, a + ".key")), HasSubstr("no PEM certificate"));
  EXPECT_THAT(Message(fail(a + ".crt", junk)), HasSubstr("private key"));
  EXPECT_THAT(Message(fail(a + ".crt", b + ".key")), HasSubstr("fits"));
  EXPECT_THAT(Message(fail(a + ".crt", a + ".key", junk)), HasSubstr("authority"));
}

TEST_F(StartTest, TlsAndTokenOnBothFaces) {
  const std::string base = MakeCertificate("a"), stranger = MakeCertificate("b");
  const auto server = Start({.grpc_address = "0.0.0.0:0",
                             .http_address = "0.0.0.0:0",
                             .tls_cert_file = base + ".crt",
                             .tls_key_file = base + ".key",
                             .token = "secret"});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT((*server)->http_url(), StartsWith("https://"));
  // By number: the resolver that gRPC uses leaks a few bytes for each name.
  const std::string target = StrFormat("127.0.0.1:%d", rpc::ParseHostPort((*server)->grpc_address())->port);
  const uint16_t http = rpc::ParseHostPort((*server)->http_address())->port;

  const auto good = rpc::QueryClient::Connect(target, {.ca_file = base + ".crt", .token = "secret"});
  EXPECT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(rpc::QueryClient::Connect(target, {.ca_file = base + ".crt"}).status().code(),
            StatusCode::kUnauthenticated);
  const Status untrusted =
      rpc::QueryClient::Connect(target, {.ca_file = stranger + ".crt", .token = "secret"}).status();
  EXPECT_EQ(untrusted.code(), StatusCode::kUnavailable);
  EXPECT_THAT(Message(untrusted), HasSubstr("TLS"));
  const Status plain = rpc::QueryClient::Connect(target, {}).status();
  EXPECT_EQ(plain.code(), StatusCode::kUnavailable);
  EXPECT_THAT(Message(plain), HasSubstr("TLS"));
  Agent agent;
  EXPECT_TRUE(agent.Connect(target, {.ca_file = base + ".crt", .token = "secret"}).ok());

  EXPECT_EQ(Ask(http, {.path = "/api/v1/status", .ca_file = base + ".crt"}).status, 401);
  const TestReply reply =
      Ask(http, {.path = "/api/v1/status", .headers = {{"Authorization", "Bearer secret"}}, .ca_file = base + ".crt"});
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.Json()["authRequired"].get<bool>());
  EXPECT_EQ(Ask(http, {.path = "/api/v1/status", .ca_file = stranger + ".crt"}).status, 0);
  EXPECT_NE(Ask(http, {.path = "/api/v1/status"}).status, 200) << "plain text on the TLS port";
}

TEST_F(StartTest, ClientCertificates) {
  const std::string base = MakeCertificate("a"), client = MakeCertificate("c"), stranger = MakeCertificate("b");
  const auto server = Start({.grpc_address = kAny,
                             .http_address = kAny,
                             .tls_cert_file = base + ".crt",
                             .tls_key_file = base + ".key",
                             .client_ca_file = client + ".crt"});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string target = (*server)->grpc_address();
  const auto connect = [&](const std::string& name) {
    rpc::Credentials credentials{.ca_file = base + ".crt"};
    if (!name.empty()) {
      credentials.cert_file = name + ".crt";
      credentials.key_file = name + ".key";
    }
    return rpc::QueryClient::Connect(target, credentials).status();
  };
  EXPECT_TRUE(connect(client).ok()) << connect(client);
  EXPECT_EQ(connect("").code(), StatusCode::kUnavailable);
  EXPECT_EQ(connect(stranger).code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace pyrometer::server

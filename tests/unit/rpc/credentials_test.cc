#include "userspace/rpc/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "userspace/base/file.h"
#include "userspace/rpc/grpc_server.h"

namespace pyrometer::rpc {
namespace {

using ::testing::HasSubstr;

TEST(ParseHostPortTest, Forms) {
  const auto check = [](std::string_view text, std::string_view host, uint16_t port) {
    const StatusOr<HostPort> parsed = ParseHostPort(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->host, host);
    EXPECT_EQ(parsed->port, port);
  };
  check("127.0.0.1:7071", "127.0.0.1", 7071);
  check("[::1]:0", "::1", 0);
  check("store.example:65535", "store.example", 65535);
  check(":7071", "", 7071);
}

TEST(ParseHostPortTest, Malformed) {
  for (const char* text : {"", "host", "host:", "host:x", "host:65536", "::1:7071", "http://host:1", "a b:1", "u@h:1",
                           "host:-1", "[::1:7071"}) {
    EXPECT_EQ(ParseHostPort(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
  EXPECT_THAT(Message(ParseHostPort("host").status()), HasSubstr("HOST:PORT"));
}

TEST(IsLoopbackHostTest, OnlyLoopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.1.2.3", "::1"}) EXPECT_TRUE(IsLoopbackHost(host)) << host;
  for (const char* host : {"", "0.0.0.0", "::", "127.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "127.0.0.256",
                           "localhost.evil.example"}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

TEST(DialTest, RefusesWhatCannotWork) {
  EXPECT_THAT(Message(Dial("http://127.0.0.1:7070", {}).status()), HasSubstr("HOST:PORT"));
  EXPECT_THAT(Message(Dial("127.0.0.1:0", {}).status()), HasSubstr("port"));
  const Status plain_token = Dial("store.example:7071", {.token = "secret"}).status();
  EXPECT_EQ(plain_token.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(plain_token), HasSubstr("TLS"));
  EXPECT_THAT(Message(plain_token), ::testing::Not(HasSubstr("secret")));
  EXPECT_TRUE(Dial("127.0.0.1:7071", {.token = "secret"}).ok());
  EXPECT_EQ(Dial("store.example:7071", {.ca_file = "/does/not/exist"}).status().code(), StatusCode::kNotFound);
}

TEST(ReadTokenFileTest, OneLine) {
  const std::string path = ::testing::TempDir() + "/pyrometer-token-" + std::to_string(getpid());
  const auto read = [&](std::string_view content) {
    EXPECT_TRUE(WriteFileAtomically(path, content).ok());
    return ReadTokenFile(path);
  };
  EXPECT_EQ(read("abc\n").value(), "abc");
  EXPECT_EQ(read(" \n").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(read("two words").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(read("a\nb").status().code(), StatusCode::kInvalidArgument);
  std::remove(path.c_str());
  EXPECT_EQ(ReadTokenFile(path).status().code(), StatusCode::kNotFound);
}

TEST(EqualSecretsTest, Compares) {
  EXPECT_TRUE(EqualSecrets("abc", "abc"));
  EXPECT_TRUE(EqualSecrets("", ""));
  EXPECT_FALSE(EqualSecrets("abc", "abd"));
  EXPECT_FALSE(EqualSecrets("abc", "abcabc"));
  EXPECT_FALSE(EqualSecrets("abcabc", "abc"));
  EXPECT_FALSE(EqualSecrets("", "a"));
  EXPECT_FALSE(EqualSecrets("a", ""));
}

}  // namespace
}  // namespace pyrometer::rpc

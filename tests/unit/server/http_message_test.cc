#include "userspace/server/http_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "userspace/base/clock.h"
#include "userspace/query/selector.h"
#include "userspace/server/http_listener.h"
#include "userspace/server/profile_types.h"

namespace pyrometer::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::optional<size_t> PositionOf(const std::string& text) {
  const Status status = query::ParseSelector(text).status();
  EXPECT_FALSE(status.ok()) << text;
  return SelectorErrorPosition(Message(status), text);
}

TEST(SelectorErrorPositionTest, PointsAtTheCharacter) {
  EXPECT_EQ(PositionOf("cpu{service\"x\"}"), 11u);
  EXPECT_EQ(PositionOf(""), 0u);
  EXPECT_EQ(PositionOf("cpu}"), 3u);
  EXPECT_EQ(PositionOf("cpu{a=\"b\""), 9u);
  // Characters, not bytes.
  EXPECT_EQ(PositionOf("cpu{a=\"äöü\" x}"), 12u);
}

TEST(SelectorErrorPositionTest, PointsAtTheCharacterOfALongText) {
  std::string text = "cpu{";
  for (int i = 0; i < 30; ++i) text += "label" + std::to_string(i) + "=\"value\",";
  const size_t expected = text.size() + 5;
  text += "wrong }";
  for (int i = 0; i < 200; ++i) text += " ";
  EXPECT_EQ(PositionOf(text), expected + 1);
}

TEST(SelectorErrorPositionTest, NothingForOtherErrors) {
  EXPECT_EQ(SelectorErrorPosition("no node 'x'", "cpu"), std::nullopt);
  EXPECT_EQ(SelectorErrorPosition("selector: 99999 bytes; the limit is 1", "cpu"), std::nullopt);
  EXPECT_EQ(SelectorErrorPosition("", ""), std::nullopt);
}

TEST(ErrorReplyTest, ShapeAndStatus) {
  const HttpReply reply = ErrorReply(NotFoundError("no \"such\" thing"));
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(*reply.body, R"({"error":{"code":"not_found","message":"no \"such\" thing"}})");
  EXPECT_EQ(ErrorReply(InvalidArgumentError("")).status, 400);
  EXPECT_EQ(ErrorReply(UnauthenticatedError("")).status, 401);
  EXPECT_EQ(ErrorReply(FailedPreconditionError("")).status, 409);
  EXPECT_EQ(ErrorReply(ResourceExhaustedError("")).status, 429);
  EXPECT_EQ(ErrorReply(UnavailableError("")).status, 503);
  EXPECT_EQ(ErrorReply(InternalError("")).status, 500);
  // Bytes that are no text must not break the reply.
  EXPECT_FALSE(Json::parse(*ErrorReply(NotFoundError("\xff")).body, nullptr, false).is_discarded());
}

TEST(HttpRequestTest, Parameters) {
  HttpRequest request;
  request.params = {{"n", "12"}, {"bad", "1x"}, {"d", "1.5m"}, {"t", "1700000000"}, {"by", "a, b,,c"}, {"empty", ""}};
  EXPECT_EQ(request.Uint("n", 7, 100).value(), 12u);
  EXPECT_EQ(request.Uint("none", 7, 100).value(), 7u);
  EXPECT_EQ(request.Uint("empty", 7, 100).value(), 7u);
  EXPECT_EQ(request.Uint("n", 7, 11).status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(request.Uint("bad", 7, 11).status()), HasSubstr("bad=1x"));
  EXPECT_EQ(request.Duration("d", 1).value(), 90 * kNsPerSecond);
  EXPECT_THAT(Message(request.Duration("bad", 1).status()), HasSubstr("bad"));
  EXPECT_EQ(request.Time("t", 5, "now").value(), 1'700'000'000'000'000'000);
  EXPECT_EQ(request.Time("none", 5, "now").value(), 5);
  EXPECT_FALSE(request.Time("bad", 5, "now").ok());
  EXPECT_THAT(request.List("by"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(request.List("none"), ElementsAre());
}

TEST(IsLoopbackHostHeaderTest, OnlyLoopbackNames) {
  for (const char* host :
       {"localhost", "localhost:7070", "LocalHost:1", "127.0.0.1", "127.0.0.1:7070", "[::1]", "[::1]:7070"}) {
    EXPECT_TRUE(IsLoopbackHostHeader(host)) << host;
  }
  for (const char* host : {"", "evil.example", "localhost.evil.example", "evil.example:7070", "127.0.0.1.evil.example",
                           "[::2]", "[::1", "[::1]x", "localhost:evil", "10.0.0.1", "::1"}) {
    EXPECT_FALSE(IsLoopbackHostHeader(host)) << host;
  }
}

TEST(ProfileTypesTest, Kinds) {
  EXPECT_EQ(TypeInfo("cpu").kind, TypeKind::kProfile);
  EXPECT_EQ(TypeInfo("cpu").unit, "nanoseconds");
  EXPECT_EQ(TypeInfo("tcp_rtt").kind, TypeKind::kHistogram);
  EXPECT_EQ(TypeInfo("tcp_bytes_sent").unit, "bytes");
  EXPECT_EQ(TypeInfo("of_tomorrow").kind, TypeKind::kProfile);
  EXPECT_EQ(TypeInfo("of_tomorrow").name, "of_tomorrow");
}

}  // namespace
}  // namespace pyrometer::server

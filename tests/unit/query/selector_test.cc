#include "userspace/query/selector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace pyrometer::query {
namespace {

using profile::LabelSet;
using ::testing::HasSubstr;
using ::testing::StartsWith;

LabelSet L(std::vector<profile::Label> labels) { return LabelSet::Make(std::move(labels)).value(); }

TEST(Selector, AcceptsAndPrintsCanonically) {
  const struct {
    std::string_view text;
    std::string_view default_type;
    std::string_view canonical;
  } cases[] = {
      {"cpu", "", "cpu{}"},
      {"cpu{}", "", "cpu{}"},
      {" cpu { } ", "", "cpu{}"},
      {"{}", "cpu", "cpu{}"},
      {"syscall_latency{}", "cpu", "syscall_latency{}"},
      {"{container.name=\"shop\"}", "cpu", "cpu{container.name=\"shop\"}"},
      {"cpu{service=\"a\",node!=\"b\",comm=~\"c.*\",pod!~\"d|e\",}", "",
       "cpu{service=\"a\",node!=\"b\",comm=~\"c.*\",pod!~\"d|e\"}"},
      {"cpu\t{\n service = 'a' }", "", "cpu{service=\"a\"}"},
      {"cpu{app.kubernetes.io/name=\"x\",k8s-app=\"y\"}", "", "cpu{app.kubernetes.io/name=\"x\",k8s-app=\"y\"}"},
      {"cpu{\"strange name\"=\"x\",'1'=\"y\"}", "", "cpu{\"strange name\"=\"x\",\"1\"=\"y\"}"},
      {R"(cpu{a="q\"b\\s\n\t\x41\u00e9\u20ac"})", "", "cpu{a=\"q\\\"b\\\\s\\n\\tA\u00e9\u20ac\"}"},
      {"cpu{a=`raw \\d \"quoted\"`}", "", R"(cpu{a="raw \\d \"quoted\""})"},
      {R"(cpu{a='it\'s'})", "", R"(cpu{a="it's"})"},
      {"cpu{a=\"\"}", "", "cpu{a=\"\"}"},
      {"cpu{a=\"}\",b=\"{,\"}", "", "cpu{a=\"}\",b=\"{,\"}"},
      {"_x:y.z{a=\"\u00fc\"}", "", "_x:y.z{a=\"\u00fc\"}"},
  };
  for (const auto& c : cases) {
    const StatusOr<Selector> selector = ParseSelector(c.text, c.default_type);
    ASSERT_TRUE(selector.ok()) << c.text << ": " << selector.status();
    EXPECT_EQ(selector->ToString(), c.canonical);
    const StatusOr<Selector> again = ParseSelector(selector->ToString());
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->ToString(), selector->ToString());
  }
}

TEST(Selector, ErrorsPointAtTheCharacter) {
  const struct {
    std::string_view text;
    std::string_view message;
  } cases[] = {
      {"cpu{service\"x\"}",
       "selector: expected '=', '!=', '=~' or '!~' after the label name\n"
       "  cpu{service\"x\"}\n"
       "             ^"},
      {"", "selector: expected a profile type such as cpu, or '{'\n  \n  ^"},
      {"{a=\"b\"}", "selector: a profile type is needed before '{', for example cpu{…}\n  {a=\"b\"}\n  ^"},
      {"cpu(", "selector: expected '{' after the profile type\n  cpu(\n     ^"},
      {"9", "selector: expected a profile type such as cpu, or '{'\n  9\n  ^"},
      {"cpu{", "selector: expected a label name or '}'\n  cpu{\n      ^"},
      {"cpu{,}", "selector: expected a label name or '}'\n  cpu{,}\n      ^"},
      {"cpu{a", "selector: expected '=', '!=', '=~' or '!~' after the label name\n  cpu{a\n       ^"},
      {"cpu{a=", "selector: expected the value in quotes, for example \"shop\"\n  cpu{a=\n        ^"},
      {"cpu{a=b}", "selector: expected the value in quotes, for example \"shop\"\n  cpu{a=b}\n        ^"},
      {"cpu{a=\"b}", "selector: this quote is never closed\n  cpu{a=\"b}\n        ^"},
      {"cpu{a=\"b\" c=\"d\"}", "selector: expected ',' or '}' after the value\n  cpu{a=\"b\" c=\"d\"}\n            ^"},
      {"cpu{a=\"b\"", "selector: expected ',' or '}'\n  cpu{a=\"b\"\n           ^"},
      {"cpu{a=\"b\"} x", "selector: expected nothing after '}'\n  cpu{a=\"b\"} x\n             ^"},
      {"cpu{a=~\"(\"}", "selector: the regular expression is not valid: missing ): (\n  cpu{a=~\"(\"}\n         ^"},
      {"cpu{a=\"\\q\"}",
       "selector: unknown escape; known are \\\\ \\\" \\' \\n \\r \\t \\xHH \\uHHHH (in regular expressions write "
       "\\\\. or "
       "use `…`)\n  cpu{a=\"\\q\"}\n         ^"},
      {"cpu{a=\"\\xZ\"}", "selector: expected 2 hexadecimal digits\n  cpu{a=\"\\xZ\"}\n           ^"},
      {"cpu{a=\"\\ud800\"}", "selector: not a character: half of a surrogate pair\n  cpu{a=\"\\ud800\"}\n         ^"},
      {"cpu{a=\"\\xff\"}", "selector: the escapes of this string do not make UTF-8\n  cpu{a=\"\\xff\"}\n        ^"},
      {"cpu{\"\"=\"b\"}", "selector: the label name is empty\n  cpu{\"\"=\"b\"}\n      ^"},
      // Columns are characters, not bytes.
      {"cpu{a=\"\u00fc\u00fc\" b}",
       "selector: expected ',' or '}' after the value\n  cpu{a=\"\u00fc\u00fc\" b}\n             ^"},
      // Control characters do not break the picture.
      {"cpu{\n}x", "selector: expected nothing after '}'\n  cpu{ }x\n        ^"},
  };
  for (const auto& c : cases) {
    const Status status = ParseSelector(c.text).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.text;
    EXPECT_EQ(Message(status), c.message);
  }
}

TEST(Selector, LongTextIsCutAroundTheError) {
  const std::string text = "cpu{a=\"" + std::string(500, 'x') + "\" b=\"" + std::string(500, 'y') + "\"}";
  const std::string message(Message(ParseSelector(text).status()));
  EXPECT_THAT(message, StartsWith("selector: expected ',' or '}' after the value\n  …xxx"));
  EXPECT_THAT(message, HasSubstr("yyy…\n"));
  EXPECT_LT(message.size(), 300u);
  // The caret stands under the b.
  const size_t line = message.find("\n  ") + 1;
  const size_t caret_line = message.find("\n", line) + 1;
  const size_t caret = message.find('^', caret_line) - caret_line;
  EXPECT_EQ(message[line + caret + 2], 'b');  // the ellipsis has three bytes and one column
}

TEST(Selector, Limits) {
  EXPECT_FALSE(ParseSelector("cpu{a=\"" + std::string(kMaxSelectorBytes, 'x') + "\"}").ok());
  std::string many = "cpu{";
  for (size_t i = 0; i <= kMaxMatchers; ++i) many += "a=\"b\",";
  EXPECT_THAT(std::string(Message(ParseSelector(many + "}").status())), HasSubstr("more than 64 conditions"));
  EXPECT_THAT(std::string(Message(ParseSelector("cpu{" + std::string(300, 'n') + "=\"b\"}").status())),
              HasSubstr("longer than 256 bytes"));
  EXPECT_THAT(std::string(Message(ParseSelector("cpu{a=~\"((a{100}){100}){100}\"}").status())),
              HasSubstr("the regular expression is not valid"));
  EXPECT_THAT(std::string(Message(ParseSelector("cpu{a=~\"" + std::string(5000, 'x') + "\"}").status())),
              HasSubstr("the limit is 4096"));
  EXPECT_FALSE(ParseSelector("cpu{a=\"\xff\"}").ok());
}

TEST(Selector, MatchesAsPrometheusDoes) {
  const LabelSet shop = L({{"service", "shop"}, {"node", "eu-1"}});
  const LabelSet session = L({{"service", "shop"}, {"session", "s1"}});
  const struct {
    std::string_view text;
    bool shop, session;
  } cases[] = {
      {"cpu", true, false},
      {"off_cpu", false, false},
      {"cpu{service=\"shop\"}", true, false},
      {"cpu{service!=\"shop\"}", false, false},
      {"cpu{node=~\"eu-.*\"}", true, false},
      {"cpu{node=~\"eu\"}", false, false},  // anchored
      {"cpu{node!~\"eu.*\"}", false, false},
      {"cpu{pod=\"\"}", true, false},  // an absent label is ""
      {"cpu{pod!=\"\"}", false, false},
      {"cpu{pod=~\".*\"}", true, false},
      {"cpu{pod=~\".+\"}", false, false},
      {"cpu{session=\"s1\"}", false, true},
      {"cpu{session!=\"\"}", false, true},
      {"cpu{session=~\".*\"}", true, true},
      {"cpu{session=\"\"}", true, false},
  };
  for (const auto& c : cases) {
    const Selector selector = ParseSelector(c.text).value();
    EXPECT_EQ(selector.Matches("cpu", shop), c.shop) << c.text;
    EXPECT_EQ(selector.Matches("cpu", session), c.session) << c.text;
  }
}

TEST(Selector, RandomTextNeverCrashesAndGoodTextRoundTrips) {
  std::mt19937_64 random(8);
  const std::string alphabet = "cpu{}=!~\"'`\\,ab.*(|[] \n\xc3\xbcx1u";
  int accepted = 0;
  for (int round = 0; round < 200'000; ++round) {
    std::string text = random() % 2 == 0 ? "cpu{a=\"" : "";
    for (size_t i = 0, n = random() % 12; i < n; ++i) text += alphabet[random() % alphabet.size()];
    if (random() % 3 == 0) text += "\"}";
    const StatusOr<Selector> selector = ParseSelector(text, "cpu");
    if (!selector.ok()) {
      ASSERT_THAT(std::string(Message(selector.status())), StartsWith("selector: "));
      continue;
    }
    ++accepted;
    const StatusOr<Selector> again = ParseSelector(selector->ToString());
    ASSERT_TRUE(again.ok()) << text << " -> " << selector->ToString() << ": " << again.status();
    ASSERT_EQ(again->ToString(), selector->ToString());
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace pyrometer::query

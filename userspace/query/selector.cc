#include "userspace/query/selector.h"

#include <algorithm>

#include "userspace/base/strings.h"

namespace pyrometer::query {
namespace {

using store::LabelMatcher;
using store::MatchOp;

// Characters of the selector shown on each side of the error; longer ones are cut.
constexpr size_t kShownBytes = 60;

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsTypeChar(char c) { return IsLetter(c) || IsDigit(c) || c == '.' || c == ':'; }
bool IsNameChar(char c) { return IsTypeChar(c) || c == '-' || c == '/'; }
bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xC0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xE0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  StatusOr<Selector> Parse(std::string_view default_type) {
    if (text_.size() > kMaxSelectorBytes) {
      return InvalidArgumentError(StrFormat("selector: %d bytes; the limit is %d", text_.size(), kMaxSelectorBytes));
    }
    if (!IsUtf8(text_)) return InvalidArgumentError("selector: the text is not UTF-8");
    Selector selector;
    SkipSpace();
    if (AtEnd()) {
      return Error(default_type.empty() ? "expected a profile type such as cpu, or '{'"
                                        : "expected a profile type or '{' (for everything write {})");
    }
    const size_t type_at = at_;
    if (IsLetter(Peek())) {
      while (!AtEnd() && IsTypeChar(Peek())) selector.type += text_[at_++];
      SkipSpace();
    }
    if (!AtEnd()) {
      if (Peek() != '{') {
        return Error(selector.type.empty() ? "expected a profile type such as cpu, or '{'"
                                           : "expected '{' after the profile type");
      }
      RETURN_IF_ERROR(ParseMatchers(&selector));
    }
    if (selector.type.empty()) {
      if (default_type.empty()) {
        at_ = type_at;
        return Error("a profile type is needed before '{', for example cpu{…}");
      }
      selector.type = default_type;
    }
    return selector;
  }

 private:
  bool AtEnd() const { return at_ == text_.size(); }
  char Peek() const { return text_[at_]; }
  void SkipSpace() {
    while (!AtEnd() && IsSpace(Peek())) ++at_;
  }

  // "selector: <what>", the text, and a caret under the character at at_.
  Status Error(std::string_view what) const {
    size_t begin = at_ > kShownBytes ? at_ - kShownBytes : 0;
    size_t end = std::min(text_.size(), at_ + kShownBytes);
    while (begin > 0 && IsContinuation(text_[begin])) --begin;
    while (end < text_.size() && IsContinuation(text_[end])) ++end;
    std::string line = begin > 0 ? "…" : "";
    // Columns, not bytes: one per code point (wide characters may be off by their extra width).
    size_t column = begin > 0 ? 1 : 0;
    for (size_t i = begin; i < end; ++i) {
      const char c = text_[i];
      line += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
      if (i < at_ && !IsContinuation(c)) ++column;
    }
    if (end < text_.size()) line += "…";
    return InvalidArgumentError(StrFormat("selector: %s\n  %s\n  %s^", what, line, std::string(column, ' ')));
  }

  Status ParseMatchers(Selector* selector) {
    ++at_;  // '{'
    while (true) {
      SkipSpace();
      if (AtEnd()) return Error("expected a label name or '}'");
      if (Peek() == '}') break;
      if (selector->matchers.size() == kMaxMatchers) {
        return Error(StrFormat("more than %d conditions", kMaxMatchers));
      }
      RETURN_IF_ERROR(ParseMatcher(selector));
      SkipSpace();
      if (AtEnd()) return Error("expected ',' or '}'");
      if (Peek() == '}') break;
      if (Peek() != ',') return Error("expected ',' or '}' after the value");
      ++at_;
    }
    ++at_;  // '}'
    SkipSpace();
    if (!AtEnd()) return Error("expected nothing after '}'");
    return OkStatus();
  }

  Status ParseMatcher(Selector* selector) {
    const size_t name_at = at_;
    std::string name;
    if (IsQuote(Peek())) {
      ASSIGN_OR_RETURN(name, ParseString());
      if (name.empty()) {
        at_ = name_at;
        return Error("the label name is empty");
      }
    } else if (IsLetter(Peek())) {
      while (!AtEnd() && IsNameChar(Peek())) name += text_[at_++];
    } else {
      return Error("expected a label name or '}'");
    }
    if (name.size() > profile::kMaxLabelNameBytes) {
      at_ = name_at;
      return Error(StrFormat("the label name is longer than %d bytes", profile::kMaxLabelNameBytes));
    }
    SkipSpace();
    ASSIGN_OR_RETURN(const MatchOp op, ParseOp());
    SkipSpace();
    if (AtEnd() || !IsQuote(Peek())) return Error("expected the value in quotes, for example \"shop\"");
    const size_t value_at = at_;
    ASSIGN_OR_RETURN(const std::string value, ParseString());
    StatusOr<LabelMatcher> matcher = LabelMatcher::Make(name, op, value);
    if (!matcher.ok()) {
      at_ = value_at;
      return Error(Message(matcher.status()));
    }
    selector->matchers.push_back(*std::move(matcher));
    return OkStatus();
  }

  StatusOr<MatchOp> ParseOp() {
    const char first = AtEnd() ? '\0' : text_[at_];
    const char second = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (first == '=' && second == '~') return Take(2, MatchOp::kRegex);
    if (first == '!' && second == '=') return Take(2, MatchOp::kNotEqual);
    if (first == '!' && second == '~') return Take(2, MatchOp::kNotRegex);
    if (first == '=') return Take(1, MatchOp::kEqual);
    return Error("expected '=', '!=', '=~' or '!~' after the label name");
  }
  MatchOp Take(size_t bytes, MatchOp op) {
    at_ += bytes;
    return op;
  }

  static bool IsQuote(char c) { return c == '"' || c == '\'' || c == '`'; }

  StatusOr<uint32_t> ParseHex(size_t digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const std::optional<uint64_t> digit = AtEnd() ? std::nullopt : ParseUint64(text_.substr(at_, 1), 16);
      if (!digit.has_value()) return Error(StrFormat("expected %d hexadecimal digits", digits));
      value = value << 4 | static_cast<uint32_t>(*digit);
    }
    return value;
  }

  StatusOr<std::string> ParseString() {
    const size_t start = at_;
    const char quote = text_[at_++];
    std::string value;
    while (true) {
      if (AtEnd()) {
        at_ = start;
        return Error("this quote is never closed");
      }
      const char c = text_[at_];
      if (c == quote) {
        ++at_;
        break;
      }
      if (c != '\\' || quote == '`') {
        value += c;
        ++at_;
        continue;
      }
      const size_t escape_at = at_++;
      const char kind = AtEnd() ? '\0' : text_[at_++];
      switch (kind) {
        case '\\':
        case '"':
        case '\'':
          value += kind;
          break;
        case 'n':
          value += '\n';
          break;
        case 'r':
          value += '\r';
          break;
        case 't':
          value += '\t';
          break;
        case 'x': {
          ASSIGN_OR_RETURN(const uint32_t byte, ParseHex(2));
          value += static_cast<char>(byte);
          break;
        }
        case 'u': {
          ASSIGN_OR_RETURN(const uint32_t code, ParseHex(4));
          if (code >= 0xD800 && code < 0xE000) {
            at_ = escape_at;
            return Error("not a character: half of a surrogate pair");
          }
          AppendUtf8(code, &value);
          break;
        }
        default:
          at_ = escape_at;
          return Error(
              "unknown escape; known are \\\\ \\\" \\' \\n \\r \\t \\xHH \\uHHHH (in regular expressions write \\\\. "
              "or use "
              "`…`)");
      }
    }
    if (value.size() > profile::kMaxLabelValueBytes + store::kMaxRegexBytes) {
      at_ = start;
      return Error("the string is too long");
    }
    if (!IsUtf8(value)) {
      at_ = start;
      return Error("the escapes of this string do not make UTF-8");
    }
    return value;
  }

  const std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

store::SeriesFilter Selector::Filter() const {
  store::SeriesFilter filter{.type = type, .matchers = matchers};
  const bool asks = std::any_of(matchers.begin(), matchers.end(),
                                [](const LabelMatcher& matcher) { return matcher.name() == profile::kLabelSession; });
  if (!asks) filter.matchers.push_back(LabelMatcher::Equal(profile::kLabelSession, ""));
  return filter;
}

bool Selector::Matches(std::string_view series_type, const profile::LabelSet& labels) const {
  const store::SeriesFilter filter = Filter();
  return series_type == type && std::all_of(filter.matchers.begin(), filter.matchers.end(),
                                            [&](const LabelMatcher& matcher) { return matcher.Matches(labels); });
}

std::string Selector::ToString() const {
  std::string out = type + "{";
  for (size_t i = 0; i < matchers.size(); ++i) {
    if (i > 0) out += ',';
    out += matchers[i].ToString();
  }
  return out + "}";
}

StatusOr<Selector> ParseSelector(std::string_view text, std::string_view default_type) {
  return Parser(text).Parse(default_type);
}

}  // namespace pyrometer::query

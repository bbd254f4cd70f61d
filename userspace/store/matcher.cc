#include "userspace/store/matcher.h"

#include <re2/re2.h>

#include "userspace/base/strings.h"

namespace pyrometer::store {

std::string_view MatchOpText(MatchOp op) {
  switch (op) {
    case MatchOp::kEqual:
      return "=";
    case MatchOp::kNotEqual:
      return "!=";
    case MatchOp::kRegex:
      return "=~";
    case MatchOp::kNotRegex:
      return "!~";
  }
  return "=";
}

StatusOr<LabelMatcher> LabelMatcher::Make(std::string_view name, MatchOp op, std::string_view value) {
  LabelMatcher matcher(name, op, value);
  if (name.empty()) return InvalidArgumentError("a label name is empty");
  if (op == MatchOp::kRegex || op == MatchOp::kNotRegex) {
    if (value.size() > kMaxRegexBytes) {
      return InvalidArgumentError(
          StrFormat("the regular expression has %d bytes; the limit is %d", value.size(), kMaxRegexBytes));
    }
    re2::RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(kMaxRegexMemoryBytes);
    options.set_dot_nl(true);
    auto regex = std::make_shared<re2::RE2>(re2::StringPiece(value.data(), value.size()), options);
    if (!regex->ok()) {
      return InvalidArgumentError(StrFormat("the regular expression is not valid: %s", regex->error()));
    }
    matcher.regex_ = std::move(regex);
  }
  return matcher;
}

LabelMatcher LabelMatcher::Equal(std::string_view name, std::string_view value) {
  return LabelMatcher(name, MatchOp::kEqual, value);
}

bool LabelMatcher::Matches(std::string_view label_value) const {
  switch (op_) {
    case MatchOp::kEqual:
      return label_value == value_;
    case MatchOp::kNotEqual:
      return label_value != value_;
    case MatchOp::kRegex:
    case MatchOp::kNotRegex: {
      const bool full = re2::RE2::FullMatch(re2::StringPiece(label_value.data(), label_value.size()), *regex_);
      return full == (op_ == MatchOp::kRegex);
    }
  }
  return false;
}

std::string LabelMatcher::ToString() const {
  const auto plain = [](std::string_view name) {
    for (size_t i = 0; i < name.size(); ++i) {
      const char c = name[i];
      const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
      const bool more = (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '/' || c == ':';
      if (!letter && (i == 0 || !more)) return false;
    }
    return !name.empty();
  };
  const auto quote = [](std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        out += '\\';
        out += c;
      } else if (c == '\n') {
        out += "\\n";
      } else if (c == '\t') {
        out += "\\t";
      } else if (c == '\r') {
        out += "\\r";
      } else if (byte < 0x20 || byte == 0x7f) {
        out += StrFormat("\\x%02x", static_cast<unsigned>(byte));
      } else {
        out += c;
      }
    }
    return out + "\"";
  };
  return (plain(name_) ? name_ : quote(name_)) + std::string(MatchOpText(op_)) + quote(value_);
}

}  // namespace pyrometer::store

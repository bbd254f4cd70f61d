// One condition on one label, as selectors are made of.
//
//   ASSIGN_OR_RETURN(LabelMatcher m, LabelMatcher::Make("node", MatchOp::kRegex, "eu-.*"));
//   m.Matches("eu-west-1");        // true
//
// A label that a series does not have counts as "" (as in Prometheus), so {pod=""} finds series
// without a pod. Regular expressions are RE2 (linear time) and anchored at both ends.
// Threads: const methods from any. Cost: copies share the compiled expression.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/profile/label_set.h"

namespace re2 {
class RE2;
}

namespace pyrometer::store {

// Longest accepted regular expression; Kubernetes selectors seen in dashboards stay below 1 KiB.
inline constexpr size_t kMaxRegexBytes = 4096;
// Memory one compiled expression may take; a{1000}{1000} and friends are refused by it.
inline constexpr int64_t kMaxRegexMemoryBytes = 1 << 20;

enum class MatchOp : uint8_t {
  kEqual = 0,     // =
  kNotEqual = 1,  // !=
  kRegex = 2,     // =~
  kNotRegex = 3,  // !~
};
std::string_view MatchOpText(MatchOp op);

class LabelMatcher {
 public:
  // INVALID_ARGUMENT with RE2's reason when the expression is malformed or over a limit.
  static StatusOr<LabelMatcher> Make(std::string_view name, MatchOp op, std::string_view value);
  // name="value"; cannot fail.
  static LabelMatcher Equal(std::string_view name, std::string_view value);

  const std::string& name() const { return name_; }
  MatchOp op() const { return op_; }
  const std::string& value() const { return value_; }

  // `label_value`: "" when the series has no such label.
  bool Matches(std::string_view label_value) const;
  bool Matches(const profile::LabelSet& labels) const { return Matches(labels.Get(name_)); }
  // name="value", with the value escaped; parses back to an equal matcher.
  std::string ToString() const;

 private:
  LabelMatcher(std::string_view name, MatchOp op, std::string_view value) : name_(name), op_(op), value_(value) {}

  std::string name_;
  MatchOp op_;
  std::string value_;
  std::shared_ptr<const re2::RE2> regex_;  // only for the two regex kinds
};

}  // namespace pyrometer::store

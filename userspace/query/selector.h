// The selector language: a profile type and conditions on labels.
//
//   cpu{service="checkout",node=~"eu-.*",comm!="bash"}
//   {container.name="shop"}          // the type is the command's default
//   cpu                              // every series of the type
//
//   ASSIGN_OR_RETURN(Selector s, ParseSelector("{container.name=\"shop\"}", "cpu"));
//
// Grammar:
//   selector = [type] [ "{" [ matcher { "," matcher } [ "," ] ] "}" ]      (not both left out)
//   matcher  = name ( "=" | "!=" | "=~" | "!~" ) string
//   type     = letter or "_", then letters, digits, "_", ".", ":"
//   name     = letter or "_", then letters, digits, "_", ".", "-", "/", ":" ; or any string
//   string   = "…" or '…' with escapes \\ \" \' \n \r \t \xHH \uHHHH ; or `…` without escapes
// White space is free between tokens. All matchers must hold; a label that a series lacks is "".
// Regular expressions are RE2, anchored at both ends.
//
// The label `session` is reserved: a selector that does not mention it matches only series without
// it, so that an on-demand session beside the always-on profile counts nothing twice.
//
// Errors are INVALID_ARGUMENT and point at the character:
//   selector: expected '=', '!=', '=~' or '!~' after the label name
//     cpu{service"x"}
//                ^
// Threads: pure. Limits below.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/label_set.h"
#include "userspace/store/matcher.h"
#include "userspace/store/reader.h"

namespace pyrometer::query {

inline constexpr size_t kMaxSelectorBytes = 16384;
inline constexpr size_t kMaxMatchers = 64;

struct Selector {
  std::string type;
  // As written; the session rule is not among them (see Filter).
  std::vector<store::LabelMatcher> matchers;

  // What to ask the store: the matchers plus, when none mentions it, session="".
  store::SeriesFilter Filter() const;
  bool Matches(std::string_view series_type, const profile::LabelSet& labels) const;
  // Canonical text; parses back to an equal selector.
  std::string ToString() const;
};

// `default_type`: used when the text has no type; when it is empty too, a type is required.
StatusOr<Selector> ParseSelector(std::string_view text, std::string_view default_type = "");

}  // namespace pyrometer::query

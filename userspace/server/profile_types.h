// What is known about profile types: kind, unit and a line of help. Unknown names (of newer agents)
// are taken for stack profiles of a count.
//
//   KindOf("tcp_rtt") == TypeKind::kHistogram
//
// Threads: constants.
#pragma once

#include <string_view>

namespace pyrometer::server {

enum class TypeKind {
  kProfile,    // stacks
  kHistogram,  // log-linear buckets and exemplars
  kCounter,    // one number per window
};

struct ProfileType {
  std::string_view name;
  TypeKind kind;
  std::string_view unit;  // of values: "nanoseconds", "bytes", "count"
  std::string_view help;
};

// The entry for `name`; for unknown ones a general one (its name is then the argument).
ProfileType TypeInfo(std::string_view name);
std::string_view KindName(TypeKind kind);  // "profile", "histogram", "counter"

}  // namespace pyrometer::server

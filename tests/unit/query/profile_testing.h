// Profiles and batches in one line, for the tests of this folder.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/profile/profile.h"

namespace pyrometer::query {

inline profile::Profile EmptyProfile() {
  profile::Profile p;
  p.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  p.default_value = 1;
  return p;
}

inline profile::FrameId FrameNamed(profile::Dictionary* d, std::string_view name, std::string_view module = "/bin/app",
                                   profile::FrameKind kind = profile::FrameKind::kNative, uint64_t address = 0) {
  const auto mapping = d->InternMapping({.file = d->InternString(module)});
  const auto function = d->InternFunction({.name = d->InternString(name)});
  return d->InternFrame(
      {.kind = kind, .mapping = mapping, .address = ElfAddress(address), .lines = {{.function = function}}});
}

// "main;work;hot": root first.
inline profile::StackId StackOf(profile::Dictionary* d, std::string_view folded) {
  profile::StackId stack = profile::kEmptyStack;
  while (!folded.empty()) {
    const size_t end = std::min(folded.find(';'), folded.size());
    stack = d->InternStack(stack, FrameNamed(d, folded.substr(0, end)));
    folded.remove_prefix(std::min(end + 1, folded.size()));
  }
  return stack;
}

}  // namespace pyrometer::query

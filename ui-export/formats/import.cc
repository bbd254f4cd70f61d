#include "ui-export/formats/import.h"

#include "ui-export/formats/format.h"
#include "ui-export/formats/frame_kinds.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {

bool LimitDepth(profile::Dictionary* dictionary, std::vector<profile::FrameId>* frames) {
  if (frames->size() <= kMaxStackDepth) return false;
  frames->resize(kMaxStackDepth - 1);
  frames->push_back(InternNamedFrame(dictionary, {.name = kTruncatedFrame, .kind = profile::FrameKind::kSynthetic}));
  return true;
}

profile::StackId StackInterner::Intern(profile::Dictionary* dictionary,
                                       const std::vector<profile::FrameId>& leaf_first) {
  const size_t depth = leaf_first.size();
  size_t shared = 0;
  while (shared < depth && shared < path_.size() && path_[shared].frame == leaf_first[depth - 1 - shared]) ++shared;
  path_.resize(shared);
  profile::StackId stack = shared == 0 ? profile::kEmptyStack : path_.back().parent;
  for (size_t i = shared; i < depth; ++i) {
    stack = dictionary->InternStack(stack, leaf_first[depth - 1 - i]);
    path_.push_back({.parent = stack, .frame = leaf_first[depth - 1 - i]});
  }
  return stack;
}

std::string DepthNote() {
  return StrFormat("stacks deeper than %d frames lost their root side, now shown as %s", kMaxStackDepth,
                   kTruncatedFrame);
}

Status CheckStackBudget(const profile::Dictionary& dictionary) {
  if (dictionary.stack_count() <= kMaxStackNodes) return OkStatus();
  return ResourceExhaustedError(
      StrFormat("the profile has more than %d distinct stack positions; cut it by time or by label", kMaxStackNodes));
}

Status InlineDepthError() {
  return ResourceExhaustedError(StrFormat("more than %d functions inlined at one address", kMaxInlineDepth));
}

profile::Line InternNamedLine(profile::Dictionary* dictionary, const NamedFrame& frame) {
  const profile::FunctionId function = dictionary->InternFunction({.name = dictionary->InternString(ToUtf8(frame.name)),
                                                                   .file = dictionary->InternString(ToUtf8(frame.file)),
                                                                   .start_line = frame.line});
  return {.function = function, .column = frame.column};
}

profile::FrameId InternNamedFrame(profile::Dictionary* dictionary, const NamedFrame& frame) {
  profile::Frame made{.kind = frame.kind, .lines = {InternNamedLine(dictionary, frame)}};
  if (frame.kind == profile::FrameKind::kKernel) {
    made.mapping = dictionary->InternMapping({.file = dictionary->InternString(kKernelMapping)});
  }
  return dictionary->InternFrame(std::move(made));
}

}  // namespace pyrometer::formats

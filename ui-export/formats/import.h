// What readers share: bounding stacks and building frames from bare names.
// Threads: none shared.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// Cuts `frames` (leaf first) to kMaxStackDepth, with "[truncated]" as the new root frame. True if it cut.
bool LimitDepth(profile::Dictionary* dictionary, std::vector<profile::FrameId>* frames);
std::string DepthNote();

// Stack nodes that a reader may make: they cost some 60 bytes in memory for 1 or 2 in the file. The
// largest real profile seen (a day of a 64-node fleet) holds 3 million.
inline constexpr size_t kMaxStackNodes = size_t{16} << 20;
// RESOURCE_EXHAUSTED when `dictionary` holds more.
Status CheckStackBudget(const profile::Dictionary& dictionary);

// Functions inlined into one another at one address; compilers stop far below.
inline constexpr size_t kMaxInlineDepth = 256;
Status InlineDepthError();

// Dictionary::InternStackLeafFirst for a run of stacks: what one shares with the one before it, from the
// root, is not looked up again. Files list stacks in the order of their trees, so most of it is shared.
class StackInterner {
 public:
  profile::StackId Intern(profile::Dictionary* dictionary, const std::vector<profile::FrameId>& leaf_first);

 private:
  std::vector<profile::StackNode> path_;  // root first: frame, and (in `parent`) the stack that ends with it
};

// A frame that has a name and nothing else but, perhaps, a source position.
struct NamedFrame {
  std::string_view name;
  profile::FrameKind kind = profile::FrameKind::kUnknown;
  std::string_view file;  // source file; "" = unknown
  int64_t line = 0;       // of the function: files of bare names have one line per function
  int64_t column = 0;
};
profile::FrameId InternNamedFrame(profile::Dictionary* dictionary, const NamedFrame& frame);
profile::Line InternNamedLine(profile::Dictionary* dictionary, const NamedFrame& frame);

}  // namespace pyrometer::formats

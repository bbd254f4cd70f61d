// A profile as people look at it: one tree of function names, inlined functions as frames of their
// own, equal functions at different addresses or lines merged. Every format for people is made of it.
//
//   CallTree tree = BuildCallTree(profile, {"container.name"});
//   std::vector<int64_t> self = tree.SelfValues(profile, profile.default_value);
//   std::vector<int64_t> total = tree.TotalValues(self);
//
// Threads: none shared. Cost: 12 bytes per node and one hash entry while building.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// Nodes beyond this are not made; what belongs there counts for their deepest ancestor that exists.
inline constexpr size_t kMaxCallTreeNodes = size_t{16} << 20;

struct CallTreeFrame {
  std::string_view name;  // demangled, or "libx.so+0x12", "[unknown]"
  profile::FrameKind kind = profile::FrameKind::kUnknown;
  std::string_view module;  // the mapping's file, "" = none
  std::string_view file;    // source file, "" = unknown
  int64_t line = 0;         // where the function starts, 0 = unknown
  bool inlined = false;
  bool operator==(const CallTreeFrame&) const = default;
};

class CallTree {
 public:
  struct Node {
    uint32_t frame = 0;   // index into frames()
    uint32_t parent = 0;  // always smaller than the node's own index, but for the root's
  };

  CallTree() = default;
  // Frames hold views into owned_, which survive a move but not a copy.
  CallTree(CallTree&&) = default;
  CallTree& operator=(CallTree&&) = default;
  CallTree(const CallTree&) = delete;
  CallTree& operator=(const CallTree&) = delete;

  // Node 0 is the root; its frame 0 is called "all".
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<CallTreeFrame>& frames() const { return frames_; }
  const CallTreeFrame& frame_of(uint32_t node) const { return frames_[nodes_[node].frame]; }
  // The node where sample `i` of the profile ends.
  uint32_t node_of_sample(size_t i) const { return sample_nodes_[i]; }
  // True when kMaxCallTreeNodes was reached.
  bool truncated() const { return truncated_; }

  // By node: what ends there.
  std::vector<int64_t> SelfValues(const profile::Profile& profile, size_t value_index) const;
  // By node: what ends there or below.
  std::vector<int64_t> TotalValues(const std::vector<int64_t>& self) const;
  // By node: its children, those of equal parents by name.
  std::vector<std::vector<uint32_t>> SortedChildren() const;

 private:
  friend class CallTreeBuilder;
  std::vector<Node> nodes_;
  std::vector<CallTreeFrame> frames_;
  std::vector<uint32_t> sample_nodes_;
  std::deque<std::string> owned_;  // names made up here; the rest are views into the dictionary
  bool truncated_ = false;
};

// The values of `root_labels` become the first frames of a sample that has them; without a container's
// name it is "host". `profile` must outlive the tree.
CallTree BuildCallTree(const profile::Profile& profile, const std::vector<std::string>& root_labels = {});

// Distinct values of a label over all samples, sorted; "" counts as one when some sample lacks it.
std::vector<std::string> LabelValues(const profile::Profile& profile, std::string_view label);

}  // namespace pyrometer::formats

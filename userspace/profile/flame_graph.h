// A flame graph that is ready to be shown: boxes with names, the smallest ones perhaps summed up. What query makes of a
// store's stacks (query/flame_merge.h) and ui-export/formats writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "userspace/profile/profile.h"

namespace pyrometer::profile {

struct FlameGraph {
  // Types (the first is samples), times, accounting and comments; no samples. Label sets of `rows` are in its
  // dictionary.
  Profile header;
  // What was asked: windows whose start lies in [from_ns, to_ns).
  int64_t from_ns = 0;
  int64_t to_ns = 0;

  // What boxes are called.
  struct Function {
    std::string name;    // "libx.so+0x12", "[unknown]" where none is known
    std::string module;  // file of the mapping
    std::string file;    // source file; "" unknown
    int32_t line = 0;    // where it begins, else of a call; 0 unknown
    FrameKind kind = FrameKind::kUnknown;
    std::string build_id;  // only where a name or a line is missing: a file of symbols might tell
    bool operator==(const Function&) const = default;
  };
  std::vector<Function> functions;  // 0: the root, "all"

  // Parents before children; 0 is the root.
  struct Node {
    uint32_t parent = 0;
    uint32_t function = 0;
    bool inlined = false;
    uint32_t hidden = 0;  // boxes that it stands for, those below them not counted
    int64_t samples = 0;  // totals
    int64_t value = 0;    // 0 for types that have no value
  };
  std::vector<Node> nodes;

  // What ended in a node itself, or in those that it stands for.
  struct Row {
    uint32_t node = 0;
    LabelSetId labels = 0;
    int64_t samples = 0;
    int64_t value = 0;
  };
  std::vector<Row> rows;  // by node
};

// The same as a profile, for what reads profiles: a frame per box. One that stands for others is called "(12 smaller)".
Profile ToProfile(const FlameGraph& flame);

}  // namespace pyrometer::profile

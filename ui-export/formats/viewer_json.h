// The data that the page draws a flame graph from, in one JSON object; embedded in exported HTML and
// sent by the HTTP API.
//
//   {"version":1, "title":"cpu of n1",
//    "profile":{"timeNs":"1760000000000000000", "durationNs":"10000000000", "period":10101010,
//               "types":[{"type":"cpu","unit":"nanoseconds"}], "defaultType":0,
//               "accounting":{"taken":990,"delivered":990,"dropped":{},"stopReasons":{},"missReasons":{},"expected":0,"means":{},"frames":0},
//               "comments":[]},
//    "strings":["", "all", "main", …],
//    "frames":{"name":[1,2], "kind":[5,1], "module":[0,3], "file":[0,0], "line":[0,0], "inlined":[0,0]},
//    "nodes":{"frame":[0,1], "parent":[-1,0]},
//    "labelSets":[{"container.name":"shop"}],
//    "samples":{"labels":[0], "node":[1], "values":[[10101010]]}}
//
// `name`, `module` and `file` index `strings`; `kind` is profile::FrameKind; node 0 is the root "all" and
// parents stand before children; `values` has one array per type, each as long as `labels` and `node`.
// Inlined functions are frames of their own. Numbers fit a double exactly; larger ones are clamped,
// and a comment says so. The text is safe inside <script>: no `<`, no line separators.
//
// Threads: pure. Cost: about 1 s for a million nodes.
#pragma once

#include <string>
#include <string_view>

#include "userspace/profile/flame_graph.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// `title` "" = DefaultTitle(profile).
std::string ViewerJson(const profile::Profile& profile, std::string_view title = {});
// The same of a merge that is cut already, with the range that was asked: "range":[fromMs,toMs]. Cost: 0.3 µs a node.
std::string ViewerJson(const profile::FlameGraph& flame, std::string_view title);

// "cpu of container shop", "cpu of node n1", "cpu".
std::string DefaultTitle(const profile::Profile& profile);

}  // namespace pyrometer::formats

// Label sets: sorted, unique key/value pairs that name a series. Immutable once built.
//
//   ASSIGN_OR_RETURN(LabelSet labels, LabelSet::Make({{"service", "shop"}, {"node", "n1"}}));
//   labels.Get("service");   // "shop"
//   labels.ToString();       // {node="n1",service="shop"}
//
// Limits keep strangers (container labels, foreign profiles) from growing the index without bound.
#pragma once

#include <compare>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::profile {

inline constexpr size_t kMaxLabelsPerSet = 64;
inline constexpr size_t kMaxLabelNameBytes = 256;
inline constexpr size_t kMaxLabelValueBytes = 2048;

struct Label {
  std::string name;
  std::string value;
  auto operator<=>(const Label&) const = default;
};

class LabelSet {
 public:
  LabelSet() = default;

  // Sorts; an empty value means "no such label" and is left out. INVALID_ARGUMENT, naming the label, when a
  // name is empty, repeated, not UTF-8 or over a limit.
  static StatusOr<LabelSet> Make(std::vector<Label> labels);
  // The same for labels from strangers: repairs instead of refusing (bad bytes replaced, long values cut,
  // first of repeated names kept, labels beyond the limit left out).
  static LabelSet MakeLenient(std::vector<Label> labels);

  // "" when absent. The view lives as long as this set.
  std::string_view Get(std::string_view name) const;
  bool Has(std::string_view name) const;
  const std::vector<Label>& labels() const { return labels_; }
  bool empty() const { return labels_.empty(); }

  // This set with one label set or (empty value) removed.
  LabelSet With(std::string_view name, std::string_view value) const;
  // Only the named labels.
  LabelSet Only(const std::vector<std::string>& names) const;

  // {a="b",c="d"} with Prometheus escapes (\\, \", \n). Canonical: equal sets give equal text.
  std::string ToString() const;

  auto operator<=>(const LabelSet&) const = default;

 private:
  std::vector<Label> labels_;
};

struct LabelSetHash {
  size_t operator()(const LabelSet& set) const;
};

// Label names used across rooms.
inline constexpr std::string_view kLabelNode = "node";
inline constexpr std::string_view kLabelService = "service";
inline constexpr std::string_view kLabelComm = "comm";
inline constexpr std::string_view kLabelContainerId = "container.id";
inline constexpr std::string_view kLabelContainerName = "container.name";
inline constexpr std::string_view kLabelImage = "image";
inline constexpr std::string_view kLabelPod = "pod";
inline constexpr std::string_view kLabelNamespace = "namespace";
inline constexpr std::string_view kLabelSyscall = "syscall";
inline constexpr std::string_view kLabelPeer = "peer";
inline constexpr std::string_view kLabelDirection = "direction";
inline constexpr std::string_view kLabelLocalPort = "local.port";
// Why a thread waited ("lock", "block_io", …; of split times also "running"), or what became of TCP segments.
inline constexpr std::string_view kLabelCause = "cause";
// Why samples were dropped, on `pyrometer_samples_dropped`.
inline constexpr std::string_view kLabelReason = "reason";
// Series of an on-demand session carry its id. Selectors that do not mention this label never match
// them, so a session beside the always-on profile does not count time twice.
inline constexpr std::string_view kLabelSession = "session";

}  // namespace pyrometer::profile

// Names the frames of a closed window: once per distinct frame, off the path of samples.
//
//   NamingCounts counts;
//   std::vector<profile::StackId> stacks = naming.Name(window, &batch.dictionary, &counts);
//   // stacks[raw stack id] is the same stack in the batch's dictionary
//
// A frame has a line for each function inlined at its address, innermost first, and one for the function around
// them. One without a name keeps its address and says why (Frame::miss); `misses` counts them, weighted by samples.
//
// Threads: any. Cost: a first look at a binary builds its symbol index (tens of ms; seconds where it has hundreds of
// MB of debug information) unless the folder of indexes has it; later about 1 µs per distinct frame.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "userspace/agent/raw_window.h"
#include "userspace/profile/dictionary.h"
#include "userspace/symbolize/symbolizer.h"
#include "userspace/symbolize/vdso.h"

namespace pyrometer::agent {

// Frames of all samples, each as often as it was sampled.
struct NamingCounts {
  uint64_t frames = 0;
  std::map<std::string, uint64_t> misses;  // those without a name, by reason
};

class Naming {
 public:
  explicit Naming(symbolize::Symbolizer::Options options = {});

  std::vector<profile::StackId> Name(const RawWindow& window, profile::Dictionary* dictionary, NamingCounts* counts);
  // The process runs code that it made itself: opens its perf map while it lives.
  void PrepareJit(const ProcessKey& process) { symbolizer_.PrepareJit(process); }

  // Everything that is known about the names of one binary; never null.
  std::shared_ptr<const symbolize::BinarySymbols> SymbolsOf(const std::shared_ptr<const process::Binary>& binary);

  symbolize::Symbolizer& symbolizer() { return symbolizer_; }

 private:
  profile::FrameId NameFrame(const RawWindow& window, const RawFrame& raw, profile::Dictionary& dictionary);

  symbolize::Symbolizer symbolizer_;
  std::optional<symbolize::VdsoImage> vdso_;
};

}  // namespace pyrometer::agent

#include "userspace/agent/naming.h"

#include <algorithm>
#include <utility>

#include "userspace/agent/sample_resolver.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/profile_lines.h"

namespace pyrometer::agent {
namespace {

using profile::FrameKind;
using symbolize::Symbol;

symbolize::BinarySource SourceOf(const std::shared_ptr<const process::Binary>& binary) {
  symbolize::BinarySource source;
  source.path = binary->path();
  source.root = binary->RootPrefix();
  source.openers = {[binary] { return binary->Open(); }};
  return source;
}

}  // namespace

Naming::Naming(symbolize::Symbolizer::Options options) : symbolizer_(std::move(options)) {
  auto vdso = symbolize::OwnVdso();
  if (vdso.ok()) vdso_ = *std::move(vdso);
}

std::shared_ptr<const symbolize::BinarySymbols> Naming::SymbolsOf(
    const std::shared_ptr<const process::Binary>& binary) {
  return symbolizer_.Get(binary->build_id(), SourceOf(binary));
}

profile::FrameId Naming::NameFrame(const RawWindow& window, const RawFrame& raw, profile::Dictionary& dictionary) {
  profile::Frame frame;
  frame.kind = raw.kind;
  frame.address = ElfAddress(raw.address);
  const std::string& reason = window.reasons()[raw.reason];
  const auto mapping = [&](std::string_view file, std::string_view build_id) {
    profile::Mapping entry;
    entry.file = dictionary.InternString(ToUtf8(file));
    entry.build_id = dictionary.InternString(build_id);
    return dictionary.InternMapping(entry);
  };
  Symbol symbol;
  switch (raw.kind) {
    case FrameKind::kKernel: {
      symbol = symbolizer_.SymbolizeKernel(VirtualAddress(raw.address));
      const std::string module(symbol.module());
      frame.mapping = mapping(module.empty() ? "[kernel]" : "[" + module + "]", "");
      break;
    }
    case FrameKind::kJit:
      symbol = symbolizer_.SymbolizeJit(window.processes()[raw.origin], VirtualAddress(raw.address));
      frame.mapping = mapping("[jit]", "");
      // Addresses of one process's generated code mean nothing in another's: without a name they would only
      // make stacks that can never merge.
      if (!symbol.found()) frame.address = ElfAddress(0);
      break;
    case FrameKind::kNative:
      if (reason == kVdsoReason) {
        frame.mapping = mapping("[vdso]", vdso_ ? vdso_->build_id.hex : "");
        symbol = vdso_ ? symbolizer_.Symbolize(vdso_->build_id, vdso_->source, frame.address)
                       : symbolizer_.CountMiss(symbolize::MissReason::kFileGone);
      } else {
        const auto& binary = window.binaries()[raw.origin];
        frame.mapping = mapping(binary->path(), binary->build_id().hex);
        if (!reason.empty()) {
          symbol = symbolizer_.CountMiss(symbolize::MissReason::kFileGone);
        } else {
          symbol = symbolizer_.Symbolize(binary->build_id(), SourceOf(binary), frame.address);
          if (symbol.miss == symbolize::MissReason::kOutsideSymbols) {
            // A return address that was made up leads to the first byte of what nobody called (signal trampolines, the
            // start of a coroutine); the byte before it, where a call would be, is padding.
            symbolize::Symbol entered =
                symbolizer_.Symbolize(binary->build_id(), SourceOf(binary), ElfAddress(frame.address.value + 1));
            if (entered.found() && entered.offset == 0) symbol = std::move(entered);
          }
        }
      }
      break;
    case FrameKind::kSynthetic:
      frame.lines.push_back({.function = dictionary.InternFunction({.name = dictionary.InternString(reason)})});
      return dictionary.InternFrame(std::move(frame));
    case FrameKind::kUnknown:
    case FrameKind::kInterpreted:
      frame.miss = dictionary.InternString(reason.empty() ? "no mapping" : reason);
      return dictionary.InternFrame(std::move(frame));
  }
  symbolize::SetLines(symbol, &dictionary, &frame);
  if (raw.upside_down) std::reverse(frame.lines.begin(), frame.lines.end());
  return dictionary.InternFrame(std::move(frame));
}

std::vector<profile::StackId> Naming::Name(const RawWindow& window, profile::Dictionary* dictionary,
                                           NamingCounts* counts) {
  std::vector<profile::FrameId> frames(window.frames().size());
  for (size_t i = 1; i < frames.size(); ++i) frames[i] = NameFrame(window, window.frames()[i], *dictionary);

  std::vector<profile::StackId> stacks(window.stacks().size(), profile::kEmptyStack);
  // Parents come before children, so their ids are known.
  for (size_t i = 1; i < stacks.size(); ++i) {
    const profile::StackNode node = window.stacks()[i];
    stacks[i] = dictionary->InternStack(stacks[node.parent], frames[node.frame]);
  }

  // Samples at or below each node: one pass from the leaves.
  std::vector<uint64_t> weights(window.stacks().size(), 0);
  for (const auto& [group, sums_by_stack] : window.samples()) {
    for (const auto& [stack, sums] : sums_by_stack) weights[stack] += sums.count;
  }
  for (size_t i = weights.size(); i > 1; --i) weights[window.stacks()[i - 1].parent] += weights[i - 1];
  for (size_t i = 1; i < weights.size(); ++i) {
    const profile::StringId miss = dictionary->frame(frames[window.stacks()[i].frame]).miss;
    counts->frames += weights[i];
    if (miss != 0 && weights[i] > 0) counts->misses[std::string(dictionary->string(miss))] += weights[i];
  }
  return stacks;
}

}  // namespace pyrometer::agent

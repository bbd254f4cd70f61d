#include "userspace/profile/dictionary.h"

#include <algorithm>

#include "userspace/base/strings.h"

namespace pyrometer::profile {
namespace {

size_t Mix(size_t hash, uint64_t value) {
  hash ^= value + 0x9E3779B97F4A7C15u + (hash << 6) + (hash >> 2);
  return hash * 0xff51afd7ed558ccdu;
}

template <typename Id, typename Table, typename Index, typename Value>
Id InternInto(Table& table, Index& index, const Value& value) {
  const auto found = index.find(value);
  if (found != index.end()) return found->second;
  const Id id = static_cast<Id>(table.size());
  table.push_back(value);
  index.emplace(value, id);
  return id;
}

// Looks up the memo of a mapper; returns a reference to the slot for `id`.
uint32_t& Slot(std::vector<uint32_t>& memo, uint32_t id) {
  if (memo.size() <= id) memo.resize(std::max<size_t>(id + 1, memo.size() * 2));
  return memo[id];
}

}  // namespace

std::string_view FrameKindName(FrameKind kind) {
  switch (kind) {
    case FrameKind::kUnknown:
      return "unknown";
    case FrameKind::kNative:
      return "native";
    case FrameKind::kKernel:
      return "kernel";
    case FrameKind::kJit:
      return "jit";
    case FrameKind::kInterpreted:
      return "interpreted";
    case FrameKind::kSynthetic:
      return "synthetic";
  }
  return "unknown";
}

Dictionary::Dictionary() {
  strings_.emplace_back();
  string_ids_.emplace(strings_.back(), 0);
  mappings_.emplace_back();
  mapping_ids_.emplace(Mapping{}, 0);
  functions_.emplace_back();
  function_ids_.emplace(Function{}, 0);
  frames_.emplace_back();
  frame_ids_.emplace(Frame{}, 0);
  stacks_.emplace_back();
  label_sets_.emplace_back();
  label_set_ids_.emplace(LabelSet{}, 0);
}

Dictionary::Dictionary(const Dictionary& other)
    : strings_(other.strings_),
      mappings_(other.mappings_),
      mapping_ids_(other.mapping_ids_),
      functions_(other.functions_),
      function_ids_(other.function_ids_),
      frames_(other.frames_),
      frame_ids_(other.frame_ids_),
      stacks_(other.stacks_),
      stack_ids_(other.stack_ids_),
      label_sets_(other.label_sets_),
      label_set_ids_(other.label_set_ids_) {
  // The string index holds views into our own copies.
  for (size_t i = 0; i < strings_.size(); ++i) string_ids_.emplace(strings_[i], static_cast<StringId>(i));
}

Dictionary& Dictionary::operator=(const Dictionary& other) {
  if (this != &other) *this = Dictionary(other);
  return *this;
}

size_t Dictionary::MappingHash::operator()(const Mapping& m) const {
  return Mix(Mix(Mix(Mix(Mix(0, m.build_id), m.file), m.start), m.limit), m.file_offset);
}
size_t Dictionary::FunctionHash::operator()(const Function& f) const {
  return Mix(Mix(Mix(Mix(0, f.name), f.system_name), f.file), static_cast<uint64_t>(f.start_line));
}
size_t Dictionary::FrameHash::operator()(const Frame& f) const {
  size_t hash = Mix(Mix(Mix(Mix(0, static_cast<uint64_t>(f.kind)), f.mapping), f.address.value), f.miss);
  for (const Line& line : f.lines) {
    hash = Mix(Mix(Mix(hash, line.function), static_cast<uint64_t>(line.line)), static_cast<uint64_t>(line.column));
  }
  return hash;
}

StringId Dictionary::InternString(std::string_view text) {
  const auto found = string_ids_.find(text);
  if (found != string_ids_.end()) return found->second;
  const StringId id = static_cast<StringId>(strings_.size());
  strings_.emplace_back(text);
  string_ids_.emplace(strings_.back(), id);
  return id;
}

MappingId Dictionary::InternMapping(const Mapping& mapping) {
  return InternInto<MappingId>(mappings_, mapping_ids_, mapping);
}
FunctionId Dictionary::InternFunction(const Function& function) {
  return InternInto<FunctionId>(functions_, function_ids_, function);
}
FrameId Dictionary::InternFrame(Frame frame) { return InternInto<FrameId>(frames_, frame_ids_, frame); }
LabelSetId Dictionary::InternLabelSet(const LabelSet& labels) {
  return InternInto<LabelSetId>(label_sets_, label_set_ids_, labels);
}

StackId Dictionary::InternStack(StackId parent, FrameId frame) {
  DCHECK(parent < stacks_.size() && frame < frames_.size());
  const auto [entry, added] =
      stack_ids_.try_emplace(uint64_t{parent} << 32 | frame, static_cast<StackId>(stacks_.size()));
  if (added) stacks_.push_back({parent, frame});
  return entry->second;
}

StackId Dictionary::InternStackLeafFirst(std::span<const FrameId> frames) {
  StackId stack = kEmptyStack;
  for (size_t i = frames.size(); i > 0; --i) stack = InternStack(stack, frames[i - 1]);
  return stack;
}

std::vector<FrameId> Dictionary::FramesLeafFirst(StackId stack) const {
  std::vector<FrameId> frames;
  for (; stack != kEmptyStack; stack = stacks_[stack].parent) frames.push_back(stacks_[stack].frame);
  return frames;
}

size_t Dictionary::Depth(StackId stack) const {
  size_t depth = 0;
  for (; stack != kEmptyStack; stack = stacks_[stack].parent) ++depth;
  return depth;
}

std::string Dictionary::FrameName(FrameId id, size_t line_index) const {
  const Frame& frame = frames_[id];
  if (line_index < frame.lines.size()) {
    const std::string_view name = string(functions_[frame.lines[line_index].function].name);
    if (!name.empty()) return std::string(name);
  }
  const std::string_view file = string(mappings_[frame.mapping].file);
  if (frame.kind == FrameKind::kJit) return "[jit]";
  if (!file.empty()) {
    const std::string_view base = file.substr(file.rfind('/') == std::string_view::npos ? 0 : file.rfind('/') + 1);
    return StrFormat("%s+0x%x", base, frame.address.value);
  }
  return "[unknown]";
}

StringId DictionaryMapper::String(StringId id) {
  uint32_t& slot = Slot(strings_, id);
  if (slot == 0) slot = to_.InternString(from_.string(id)) + 1;
  return slot - 1;
}

MappingId DictionaryMapper::Mapping(MappingId id) {
  if (Slot(mappings_, id) == 0) {
    profile::Mapping copy = from_.mapping(id);
    copy.build_id = String(copy.build_id);
    copy.file = String(copy.file);
    mappings_[id] = to_.InternMapping(copy) + 1;
  }
  return mappings_[id] - 1;
}

FunctionId DictionaryMapper::Function(FunctionId id) {
  if (Slot(functions_, id) == 0) {
    profile::Function copy = from_.function(id);
    copy.name = String(copy.name);
    copy.system_name = String(copy.system_name);
    copy.file = String(copy.file);
    functions_[id] = to_.InternFunction(copy) + 1;
  }
  return functions_[id] - 1;
}

FrameId DictionaryMapper::Frame(FrameId id) {
  if (Slot(frames_, id) == 0) {
    profile::Frame copy = from_.frame(id);
    copy.mapping = Mapping(copy.mapping);
    copy.miss = String(copy.miss);
    for (Line& line : copy.lines) line.function = Function(line.function);
    frames_[id] = to_.InternFrame(std::move(copy)) + 1;
  }
  return frames_[id] - 1;
}

StackId DictionaryMapper::Stack(StackId id) {
  // Iterative: an imported profile may hold stacks of any depth.
  std::vector<StackId> pending;
  StackId at = id;
  while (at != kEmptyStack && Slot(stacks_, at) == 0) {
    pending.push_back(at);
    at = from_.stack(at).parent;
  }
  StackId mapped = at == kEmptyStack ? kEmptyStack : stacks_[at] - 1;
  for (size_t i = pending.size(); i > 0; --i) {
    mapped = to_.InternStack(mapped, Frame(from_.stack(pending[i - 1]).frame));
    stacks_[pending[i - 1]] = mapped + 1;
  }
  return mapped;
}

LabelSetId DictionaryMapper::LabelSet(LabelSetId id) {
  uint32_t& slot = Slot(label_sets_, id);
  if (slot == 0) slot = to_.InternLabelSet(from_.label_set(id)) + 1;
  return slot - 1;
}

}  // namespace pyrometer::profile

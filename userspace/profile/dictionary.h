// The tables that profiles and batches share: strings, mappings, functions, frames, stacks, label
// sets. Every table hands out dense u32 ids in order of first use; id 0 means "none" (for stacks:
// the empty stack, the root of the trie). Equal content gives the equal id.
//
//   Dictionary d;
//   FrameId f = d.InternFrame({.kind = FrameKind::kNative, .mapping = m, .address = ElfAddress(0x1234),
//                              .lines = {{.function = d.InternFunction({.name = d.InternString("main")})}}});
//   StackId s = d.InternStack(kEmptyStack, f);        // child of the empty stack: f is the root frame
//
// Ids come only from this dictionary; using another's is a bug. Views stay valid until the
// dictionary dies. Threads: none shared. Cost: about 60 bytes per string beside its text, 100 per
// frame, 32 per stack node; interning is one hash look-up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/base/types.h"
#include "userspace/profile/label_set.h"

namespace pyrometer::profile {

using StringId = uint32_t;
using MappingId = uint32_t;
using FunctionId = uint32_t;
using FrameId = uint32_t;
using StackId = uint32_t;
using LabelSetId = uint32_t;

inline constexpr StackId kEmptyStack = 0;

// What executed in a frame. Values are stored on disk and wire: append only.
enum class FrameKind : uint8_t {
  kUnknown = 0,      // e.g. imported from a format that does not say
  kNative = 1,       // machine code of an ELF file in user space
  kKernel = 2,       // kernel, modules, BPF programs
  kJit = 3,          // code in anonymous memory, named by a perf map or not at all
  kInterpreted = 4,  // an interpreter's own frame: function, file, line; no address
  kSynthetic = 5,    // ours: "[truncated]", "[process comm]"; no address
};
std::string_view FrameKindName(FrameKind kind);

struct Mapping {
  StringId build_id = 0;  // lower-case hex, or "hash:…" for a fallback; 0 = unknown
  StringId file = 0;      // path as the process saw it, "[kernel]", "[vdso]"
  uint64_t start = 0;     // virtual range; 0…0 when merged over processes
  uint64_t limit = 0;
  uint64_t file_offset = 0;
  bool operator==(const Mapping&) const = default;
};

struct Function {
  StringId name = 0;         // for people: demangled
  StringId system_name = 0;  // as in the symbol table; 0 = same as name
  StringId file = 0;         // source file; 0 = unknown
  int64_t start_line = 0;
  bool operator==(const Function&) const = default;
};

struct Line {
  FunctionId function = 0;
  int64_t line = 0;  // 0 = unknown
  int64_t column = 0;
  bool operator==(const Line&) const = default;
};

// A place in code. Several lines mean inlining: innermost first, the outermost caller last.
// No line at all: not symbolized, then `miss` says why (a MissReason name such as "no symbols").
struct Frame {
  FrameKind kind = FrameKind::kUnknown;
  MappingId mapping = 0;
  ElfAddress address;  // as linked for kNative, virtual for kKernel and kJit
  StringId miss = 0;
  std::vector<Line> lines;
  bool operator==(const Frame&) const = default;
};

struct StackNode {
  StackId parent = kEmptyStack;
  FrameId frame = 0;
  bool operator==(const StackNode&) const = default;
};

class Dictionary {
 public:
  Dictionary();
  Dictionary(Dictionary&&) = default;
  Dictionary& operator=(Dictionary&&) = default;
  Dictionary(const Dictionary& other);
  Dictionary& operator=(const Dictionary& other);

  StringId InternString(std::string_view text);  // "" is 0
  MappingId InternMapping(const Mapping& mapping);
  FunctionId InternFunction(const Function& function);
  FrameId InternFrame(Frame frame);
  // The stack that is `parent` with `frame` called from it.
  StackId InternStack(StackId parent, FrameId frame);
  // A whole stack, leaf first as samples list it.
  StackId InternStackLeafFirst(std::span<const FrameId> frames);
  LabelSetId InternLabelSet(const LabelSet& labels);  // the empty set is 0

  // Preconditions: the id came from this dictionary.
  std::string_view string(StringId id) const {
    DCHECK(id < strings_.size());
    return strings_[id];
  }
  const Mapping& mapping(MappingId id) const { return mappings_[id]; }
  const Function& function(FunctionId id) const { return functions_[id]; }
  const Frame& frame(FrameId id) const { return frames_[id]; }
  StackNode stack(StackId id) const { return stacks_[id]; }
  const LabelSet& label_set(LabelSetId id) const { return label_sets_[id]; }

  // Table sizes including entry 0; valid ids are 0…size-1. For stacks parent < child always.
  size_t string_count() const { return strings_.size(); }
  size_t mapping_count() const { return mappings_.size(); }
  size_t function_count() const { return functions_.size(); }
  size_t frame_count() const { return frames_.size(); }
  size_t stack_count() const { return stacks_.size(); }
  size_t label_set_count() const { return label_sets_.size(); }

  // Frames of a stack, leaf first.
  std::vector<FrameId> FramesLeafFirst(StackId stack) const;
  size_t Depth(StackId stack) const;
  // The name people see for a frame's outermost-to-innermost line `line_index`; without lines:
  // "<file base name>+0xADDR" or "[unknown]".
  std::string FrameName(FrameId frame, size_t line_index = 0) const;

 private:
  struct MappingHash {
    size_t operator()(const Mapping& m) const;
  };
  struct FunctionHash {
    size_t operator()(const Function& f) const;
  };
  struct FrameHash {
    size_t operator()(const Frame& f) const;
  };

  std::deque<std::string> strings_;  // deque: keys of the index point into it
  std::unordered_map<std::string_view, StringId> string_ids_;
  std::vector<Mapping> mappings_;
  std::unordered_map<Mapping, MappingId, MappingHash> mapping_ids_;
  std::vector<Function> functions_;
  std::unordered_map<Function, FunctionId, FunctionHash> function_ids_;
  std::deque<Frame> frames_;
  std::unordered_map<Frame, FrameId, FrameHash> frame_ids_;
  std::vector<StackNode> stacks_;
  std::unordered_map<uint64_t, StackId> stack_ids_;  // parent << 32 | frame
  std::deque<LabelSet> label_sets_;
  std::unordered_map<LabelSet, LabelSetId, LabelSetHash> label_set_ids_;
};

// Copies entries of one dictionary into another on demand; remembers what it copied.
//
//   DictionaryMapper mapper(from, &to);
//   StackId there = mapper.Stack(here);
class DictionaryMapper {
 public:
  // Both must outlive the mapper; `from` may grow meanwhile.
  DictionaryMapper(const Dictionary& from, Dictionary* to) : from_(from), to_(*to) {}

  StringId String(StringId id);
  MappingId Mapping(MappingId id);
  FunctionId Function(FunctionId id);
  FrameId Frame(FrameId id);
  StackId Stack(StackId id);
  LabelSetId LabelSet(LabelSetId id);

 private:
  const Dictionary& from_;
  Dictionary& to_;
  // Index: id there + 1; 0 = not copied yet.
  std::vector<uint32_t> strings_, mappings_, functions_, frames_, stacks_, label_sets_;
};

}  // namespace pyrometer::profile

// What samples refer to, read-only: strings, mappings, functions, frames, stacks, each by dense id from 1 (0 = none).
// Whoever takes samples in (the store) reads definitions through this, whether they lie in a Dictionary or in the
// tables of a stream, which need no look-up by content and take a third of the memory.
//
//   DictionaryDefinitions definitions(&batch.dictionary);
//
// Threads: as the tables behind it. Cost: a virtual call per definition; those who see many keep what they made of
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "userspace/profile/dictionary.h"

namespace pyrometer::profile {

// A frame without its lines' storage.
struct FrameView {
  FrameKind kind = FrameKind::kUnknown;
  MappingId mapping = 0;
  ElfAddress address;
  StringId miss = 0;
  std::span<const Line> lines;  // innermost first
};

class Definitions {
 public:
  virtual ~Definitions() = default;

  // Sizes including entry 0.
  virtual size_t string_count() const = 0;
  virtual size_t mapping_count() const = 0;
  virtual size_t function_count() const = 0;
  virtual size_t frame_count() const = 0;
  virtual size_t stack_count() const = 0;

  // Preconditions: id below the count. Views stay valid as long as the tables live.
  virtual std::string_view string(StringId id) const = 0;
  virtual Mapping mapping(MappingId id) const = 0;
  virtual Function function(FunctionId id) const = 0;
  virtual FrameView frame(FrameId id) const = 0;
  virtual StackNode stack(StackId id) const = 0;
};

class DictionaryDefinitions : public Definitions {
 public:
  // `dictionary` must outlive this.
  explicit DictionaryDefinitions(const Dictionary* dictionary) : dictionary_(*dictionary) {}

  size_t string_count() const override { return dictionary_.string_count(); }
  size_t mapping_count() const override { return dictionary_.mapping_count(); }
  size_t function_count() const override { return dictionary_.function_count(); }
  size_t frame_count() const override { return dictionary_.frame_count(); }
  size_t stack_count() const override { return dictionary_.stack_count(); }
  std::string_view string(StringId id) const override { return dictionary_.string(id); }
  Mapping mapping(MappingId id) const override { return dictionary_.mapping(id); }
  Function function(FunctionId id) const override { return dictionary_.function(id); }
  FrameView frame(FrameId id) const override {
    const Frame& frame = dictionary_.frame(id);
    return {frame.kind, frame.mapping, frame.address, frame.miss, frame.lines};
  }
  StackNode stack(StackId id) const override { return dictionary_.stack(id); }

 private:
  const Dictionary& dictionary_;
};

}  // namespace pyrometer::profile

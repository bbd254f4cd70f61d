// The tables of one stream at the store's end: definitions as they came, by number, without any look-up by content.
// Inside this room only.
//
// Threads: none shared. Memory: text once, 16 bytes per string, 40 per mapping, 24 per function, 32 per frame, 24 per
// line, 10 per stack node: a third of what a Dictionary takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/definitions.h"

namespace pyrometer::v1 {
class Batch;
}

namespace pyrometer::rpc {

class StreamTables : public profile::Definitions {
 public:
  // `max_entries`: of each table.
  StreamTables(size_t max_entries, size_t max_string_bytes);

  // Extends the tables by the definitions of `message`. INVALID_ARGUMENT when malformed; then unusable.
  Status Read(const v1::Batch& message);
  uint64_t bytes() const;

  size_t string_count() const override { return strings_.size(); }
  size_t mapping_count() const override { return mappings_.size(); }
  size_t function_count() const override { return functions_.size(); }
  size_t frame_count() const override { return frames_.size(); }
  size_t stack_count() const override { return stacks_.size(); }
  std::string_view string(profile::StringId id) const override { return strings_[id]; }
  profile::Mapping mapping(profile::MappingId id) const override { return mappings_[id]; }
  profile::Function function(profile::FunctionId id) const override { return functions_[id]; }
  profile::FrameView frame(profile::FrameId id) const override {
    const Frame& frame = frames_[id];
    return {frame.kind, frame.mapping, frame.address, frame.miss, {&lines_[frame.first_line], frame.line_count}};
  }
  profile::StackNode stack(profile::StackId id) const override { return stacks_[id]; }

 private:
  struct Frame {
    ElfAddress address;
    profile::MappingId mapping = 0;
    profile::StringId miss = 0;
    uint32_t first_line = 0;
    uint16_t line_count = 0;
    profile::FrameKind kind = profile::FrameKind::kUnknown;
  };
  Status CheckRoom(size_t size, int more, const char* what) const;
  void AddString(std::string_view text);

  const size_t max_entries_;
  const size_t max_string_bytes_;
  size_t string_bytes_ = 0;
  std::vector<std::unique_ptr<char[]>> blocks_;  // of text
  size_t block_left_ = 0;
  char* block_at_ = nullptr;
  uint64_t block_bytes_ = 0;
  std::vector<std::string_view> strings_;
  std::vector<profile::Mapping> mappings_;
  std::vector<profile::Function> functions_;
  std::vector<Frame> frames_;
  std::vector<profile::Line> lines_;
  std::vector<profile::StackNode> stacks_;
  std::vector<uint16_t> depths_;  // by stack
};

}  // namespace pyrometer::rpc

#include "userspace/rpc/stream_tables.h"

#include <algorithm>
#include <cstring>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"

namespace pyrometer::rpc {
namespace {

constexpr size_t kBlockBytes = 16u << 10;

Status Undefined(const char* what, uint32_t id, size_t size) {
  return InvalidArgumentError(StrFormat("%s %d was never defined (%d are)", what, id, size - 1));
}

}  // namespace

StreamTables::StreamTables(size_t max_entries, size_t max_string_bytes)
    : max_entries_(max_entries),
      max_string_bytes_(max_string_bytes),
      strings_(1),
      mappings_(1),
      functions_(1),
      frames_(1),
      lines_(1),
      stacks_(1),
      depths_(1) {}

uint64_t StreamTables::bytes() const {
  return block_bytes_ + strings_.capacity() * sizeof(strings_[0]) + mappings_.capacity() * sizeof(mappings_[0]) +
         functions_.capacity() * sizeof(functions_[0]) + frames_.capacity() * sizeof(frames_[0]) +
         lines_.capacity() * sizeof(lines_[0]) + stacks_.capacity() * sizeof(stacks_[0]) +
         depths_.capacity() * sizeof(depths_[0]);
}

Status StreamTables::CheckRoom(size_t size, int more, const char* what) const {
  if (size + static_cast<size_t>(more) > max_entries_) {
    return InvalidArgumentError(StrFormat("more than %d %s", max_entries_, what));
  }
  return OkStatus();
}

void StreamTables::AddString(std::string_view text) {
  if (text.size() > block_left_) {
    const size_t size = std::max(kBlockBytes, text.size());
    blocks_.push_back(std::make_unique<char[]>(size));
    block_at_ = blocks_.back().get();
    block_left_ = size;
    block_bytes_ += size;
  }
  if (!text.empty()) std::memcpy(block_at_, text.data(), text.size());
  strings_.emplace_back(block_at_, text.size());
  block_at_ += text.size();
  block_left_ -= text.size();
}

Status StreamTables::Read(const v1::Batch& message) {
  RETURN_IF_ERROR(CheckRoom(strings_.size(), message.strings_size(), "strings"));
  for (const std::string& text : message.strings()) {
    string_bytes_ += text.size();
    if (text.size() > kMaxStringBytes || string_bytes_ > max_string_bytes_) {
      return InvalidArgumentError(StrFormat("strings over the limit: %s each, %s together",
                                            FormatBytes(kMaxStringBytes), FormatBytes(max_string_bytes_)));
    }
    AddString(text);
  }
  const auto check = [](const auto& table, uint32_t id, const char* what) {
    return id < table.size() ? OkStatus() : Undefined(what, id, table.size());
  };
  RETURN_IF_ERROR(CheckRoom(mappings_.size(), message.mappings_size(), "mappings"));
  for (const v1::Mapping& wire : message.mappings()) {
    RETURN_IF_ERROR(check(strings_, wire.build_id(), "string"));
    RETURN_IF_ERROR(check(strings_, wire.file(), "string"));
    mappings_.push_back({wire.build_id(), wire.file(), wire.start(), wire.limit(), wire.file_offset()});
  }
  RETURN_IF_ERROR(CheckRoom(functions_.size(), message.functions_size(), "functions"));
  for (const v1::Function& wire : message.functions()) {
    for (const uint32_t id : {wire.name(), wire.system_name(), wire.file()}) {
      RETURN_IF_ERROR(check(strings_, id, "string"));
    }
    functions_.push_back({wire.name(), wire.system_name(), wire.file(), wire.start_line()});
  }
  RETURN_IF_ERROR(CheckRoom(frames_.size(), message.frames_size(), "frames"));
  for (const v1::Frame& wire : message.frames()) {
    if (static_cast<size_t>(wire.lines_size()) > kMaxLinesPerFrame) {
      return InvalidArgumentError(
          StrFormat("a frame with %d inlined calls; the limit is %d", wire.lines_size(), kMaxLinesPerFrame));
    }
    RETURN_IF_ERROR(check(mappings_, wire.mapping(), "mapping"));
    RETURN_IF_ERROR(check(strings_, wire.miss(), "string"));
    RETURN_IF_ERROR(CheckRoom(lines_.size(), wire.lines_size(), "lines"));
    Frame frame{.address = ElfAddress(wire.address()),
                .mapping = wire.mapping(),
                .miss = wire.miss(),
                .first_line = static_cast<uint32_t>(wire.lines_size() == 0 ? 0 : lines_.size()),
                .line_count = static_cast<uint16_t>(wire.lines_size())};
    // A kind that a newer sender knows and we do not is unknown, not an error.
    if (wire.kind() <= static_cast<uint32_t>(profile::FrameKind::kSynthetic)) {
      frame.kind = static_cast<profile::FrameKind>(wire.kind());
    }
    for (const v1::Line& line : wire.lines()) {
      RETURN_IF_ERROR(check(functions_, line.function(), "function"));
      lines_.push_back({line.function(), line.line(), line.column()});
    }
    frames_.push_back(frame);
  }
  RETURN_IF_ERROR(CheckRoom(stacks_.size(), message.stacks_size(), "stacks"));
  for (const v1::StackNode& wire : message.stacks()) {
    RETURN_IF_ERROR(check(stacks_, wire.parent(), "stack"));
    RETURN_IF_ERROR(check(frames_, wire.frame(), "frame"));
    const uint16_t depth = depths_[wire.parent()];
    if (depth >= kMaxStackDepth) {
      return InvalidArgumentError(StrFormat("a stack deeper than %d frames", kMaxStackDepth));
    }
    depths_.push_back(depth + 1);
    stacks_.push_back({wire.parent(), wire.frame()});
  }
  return OkStatus();
}

}  // namespace pyrometer::rpc

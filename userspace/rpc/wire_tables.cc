#include "userspace/rpc/wire_tables.h"

#include <google/protobuf/stubs/logging.h>

#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"

namespace pyrometer::rpc {

void SilenceProtobuf() {
  static const auto before = google::protobuf::SetLogHandler(nullptr);
  (void)before;
}

std::string WireText(std::string_view text, size_t limit) {
  std::string copy = IsUtf8(text) ? std::string(text) : ToUtf8(text);
  if (copy.size() > limit) {
    size_t end = limit;
    while (end > 0 && (static_cast<unsigned char>(copy[end]) & 0xC0) == 0x80) --end;
    copy.resize(end);
  }
  return copy;
}

template <typename Message>
Status TableWriter::Emit(Message* message) {
  for (; strings_ < tables.string_count(); ++strings_) {
    std::string* text = message->add_strings();
    *text = WireText(tables.string(static_cast<profile::StringId>(strings_)), kMaxStringBytes);
    string_bytes_ += text->size();
  }
  for (; mappings_ < tables.mapping_count(); ++mappings_) {
    const profile::Mapping& mapping = tables.mapping(static_cast<profile::MappingId>(mappings_));
    v1::Mapping* wire = message->add_mappings();
    wire->set_build_id(mapping.build_id);
    wire->set_file(mapping.file);
    wire->set_start(mapping.start);
    wire->set_limit(mapping.limit);
    wire->set_file_offset(mapping.file_offset);
  }
  for (; functions_ < tables.function_count(); ++functions_) {
    const profile::Function& function = tables.function(static_cast<profile::FunctionId>(functions_));
    v1::Function* wire = message->add_functions();
    wire->set_name(function.name);
    wire->set_system_name(function.system_name);
    wire->set_file(function.file);
    wire->set_start_line(function.start_line);
  }
  for (; frames_ < tables.frame_count(); ++frames_) {
    const profile::Frame& frame = tables.frame(static_cast<profile::FrameId>(frames_));
    if (frame.lines.size() > kMaxLinesPerFrame) {
      return InvalidArgumentError(
          StrFormat("a frame with %d inlined calls; the limit is %d", frame.lines.size(), kMaxLinesPerFrame));
    }
    v1::Frame* wire = message->add_frames();
    wire->set_kind(static_cast<uint32_t>(frame.kind));
    wire->set_mapping(frame.mapping);
    wire->set_address(frame.address.value);
    wire->set_miss(frame.miss);
    for (const profile::Line& line : frame.lines) {
      v1::Line* wire_line = wire->add_lines();
      wire_line->set_function(line.function);
      wire_line->set_line(line.line);
      wire_line->set_column(line.column);
    }
  }
  for (size_t id = depths_.size(); id < tables.stack_count(); ++id) {
    const profile::StackNode node = tables.stack(static_cast<profile::StackId>(id));
    if (depths_[node.parent] >= kMaxStackDepth) {
      return InvalidArgumentError(StrFormat("a stack deeper than %d frames", kMaxStackDepth));
    }
    depths_.push_back(depths_[node.parent] + 1);
    v1::StackNode* wire = message->add_stacks();
    wire->set_parent(node.parent);
    wire->set_frame(node.frame);
  }
  return OkStatus();
}

StatusOr<uint32_t> TableReader::Find(const std::vector<uint32_t>& table, uint32_t id, const char* what) {
  if (id >= table.size()) {
    return InvalidArgumentError(StrFormat("%s %d was never defined (%d are)", what, id, table.size() - 1));
  }
  return table[id];
}

Status TableReader::CheckRoom(const std::vector<uint32_t>& table, int more, const char* what) const {
  if (table.size() + static_cast<size_t>(more) > max_entries_) {
    return InvalidArgumentError(StrFormat("more than %d %s", max_entries_, what));
  }
  return OkStatus();
}

Status TableReader::ReadFrame(const v1::Frame& wire) {
  if (static_cast<size_t>(wire.lines_size()) > kMaxLinesPerFrame) {
    return InvalidArgumentError(
        StrFormat("a frame with %d inlined calls; the limit is %d", wire.lines_size(), kMaxLinesPerFrame));
  }
  profile::Frame frame;
  // A kind that a newer sender knows and we do not is unknown, not an error.
  if (wire.kind() <= static_cast<uint32_t>(profile::FrameKind::kSynthetic)) {
    frame.kind = static_cast<profile::FrameKind>(wire.kind());
  }
  ASSIGN_OR_RETURN(frame.mapping, Find(mappings_, wire.mapping(), "mapping"));
  frame.address = ElfAddress(wire.address());
  ASSIGN_OR_RETURN(frame.miss, Find(strings_, wire.miss(), "string"));
  frame.lines.reserve(static_cast<size_t>(wire.lines_size()));
  for (const v1::Line& line : wire.lines()) {
    ASSIGN_OR_RETURN(const profile::FunctionId function, Find(functions_, line.function(), "function"));
    frame.lines.push_back({.function = function, .line = line.line(), .column = line.column()});
  }
  frames_.push_back(tables.InternFrame(std::move(frame)));
  return OkStatus();
}

template <typename Message>
Status TableReader::Read(const Message& message) {
  RETURN_IF_ERROR(CheckRoom(strings_, message.strings_size(), "strings"));
  for (const std::string& text : message.strings()) {
    string_bytes_ += text.size();
    if (text.size() > kMaxStringBytes || string_bytes_ > max_string_bytes_) {
      return InvalidArgumentError(StrFormat("strings over the limit: %s each, %s together",
                                            FormatBytes(kMaxStringBytes), FormatBytes(max_string_bytes_)));
    }
    strings_.push_back(tables.InternString(text));
  }
  RETURN_IF_ERROR(CheckRoom(mappings_, message.mappings_size(), "mappings"));
  for (const v1::Mapping& wire : message.mappings()) {
    profile::Mapping mapping{.start = wire.start(), .limit = wire.limit(), .file_offset = wire.file_offset()};
    ASSIGN_OR_RETURN(mapping.build_id, Find(strings_, wire.build_id(), "string"));
    ASSIGN_OR_RETURN(mapping.file, Find(strings_, wire.file(), "string"));
    mappings_.push_back(tables.InternMapping(mapping));
  }
  RETURN_IF_ERROR(CheckRoom(functions_, message.functions_size(), "functions"));
  for (const v1::Function& wire : message.functions()) {
    profile::Function function{.start_line = wire.start_line()};
    ASSIGN_OR_RETURN(function.name, Find(strings_, wire.name(), "string"));
    ASSIGN_OR_RETURN(function.system_name, Find(strings_, wire.system_name(), "string"));
    ASSIGN_OR_RETURN(function.file, Find(strings_, wire.file(), "string"));
    functions_.push_back(tables.InternFunction(function));
  }
  RETURN_IF_ERROR(CheckRoom(frames_, message.frames_size(), "frames"));
  for (const v1::Frame& wire : message.frames()) RETURN_IF_ERROR(ReadFrame(wire));
  RETURN_IF_ERROR(CheckRoom(stacks_, message.stacks_size(), "stacks"));
  for (const v1::StackNode& wire : message.stacks()) {
    ASSIGN_OR_RETURN(const profile::StackId parent, Find(stacks_, wire.parent(), "stack"));
    ASSIGN_OR_RETURN(const profile::FrameId frame, Find(frames_, wire.frame(), "frame"));
    const uint16_t depth = depths_[wire.parent()];
    if (depth >= kMaxStackDepth)
      return InvalidArgumentError(StrFormat("a stack deeper than %d frames", kMaxStackDepth));
    depths_.push_back(depth + 1);
    stacks_.push_back(tables.InternStack(parent, frame));
  }
  return OkStatus();
}

template Status TableWriter::Emit(v1::Batch* message);
template Status TableWriter::Emit(v1::ProfileChunk* message);
template Status TableReader::Read(const v1::ProfileChunk& message);

}  // namespace pyrometer::rpc

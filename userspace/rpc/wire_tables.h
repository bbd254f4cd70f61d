// The tables that Batch and ProfileChunk share on the wire (strings, mappings, functions, frames,
// stacks): written as they grow, read with every id checked. Inside this room only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/status.h"
#include "userspace/profile/dictionary.h"

namespace pyrometer::rpc {

// `text` as the wire takes it: UTF-8, at most `limit` bytes.
std::string WireText(std::string_view text, size_t limit);

// Protobuf would tell stderr about each malformed message; the sender gets an error instead.
void SilenceProtobuf();

// Wire ids are the ids of `tables`: definitions are emitted in order of interning.
class TableWriter {
 public:
  profile::Dictionary tables;

  // Adds everything interned since the last call. INVALID_ARGUMENT when a stack or frame is over a limit.
  template <typename Message>
  Status Emit(Message* message);

  // Of the strings emitted so far.
  size_t string_bytes() const { return string_bytes_; }

 private:
  size_t strings_ = 1, mappings_ = 1, functions_ = 1, frames_ = 1;  // emitted, entry 0 included
  size_t string_bytes_ = 0;
  std::vector<uint16_t> depths_ = {0};  // by stack id, of those emitted
};

class TableReader {
 public:
  // `max_entries`: of each table.
  TableReader(size_t max_entries, size_t max_string_bytes)
      : max_entries_(max_entries), max_string_bytes_(max_string_bytes) {}

  profile::Dictionary tables;

  // Extends the tables by the definitions of `message`. INVALID_ARGUMENT when malformed; then unusable.
  template <typename Message>
  Status Read(const Message& message);

  // Wire id -> id in `tables`; INVALID_ARGUMENT for an id that was not defined.
  StatusOr<profile::StringId> String(uint32_t id) const { return Find(strings_, id, "string"); }
  StatusOr<profile::StackId> Stack(uint32_t id) const { return Find(stacks_, id, "stack"); }

 private:
  static StatusOr<uint32_t> Find(const std::vector<uint32_t>& table, uint32_t id, const char* what);
  Status CheckRoom(const std::vector<uint32_t>& table, int more, const char* what) const;
  Status ReadFrame(const v1::Frame& wire);

  const size_t max_entries_;
  const size_t max_string_bytes_;
  size_t string_bytes_ = 0;
  // Wire id -> id in tables; they differ when a sender defines equal content twice.
  std::vector<uint32_t> strings_ = {0}, mappings_ = {0}, functions_ = {0}, frames_ = {0}, stacks_ = {0};
  std::vector<uint16_t> depths_ = {0};  // by wire stack id
};

}  // namespace pyrometer::rpc

// Frames seen as functions: each line of a frame (inlining) is one function, named as people see it.
// Shared by the flame tree and the table of functions. Inside this room only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/profile/dictionary.h"
#include "userspace/query/engine.h"

namespace pyrometer::query {

// Texts with dense ids; 0 is "".
class TextTable {
 public:
  TextTable() { Id(""); }
  uint32_t Id(std::string_view text) {
    const auto [entry, added] = ids_.try_emplace(std::string(text), static_cast<uint32_t>(texts_.size()));
    if (added) texts_.push_back(entry->first);
    return entry->second;
  }
  const std::string& text(uint32_t id) const { return texts_[id]; }
  std::vector<std::string> Take() { return std::move(texts_); }

 private:
  std::vector<std::string> texts_;
  std::unordered_map<std::string, uint32_t> ids_;
};

struct FunctionPlace {
  uint32_t name = 0;    // in names
  uint32_t module = 0;  // in modules
  uint32_t file = 0;    // in files
  int32_t line = 0;     // start of the function, else the line of the call; 0 unknown
  profile::FrameKind kind = profile::FrameKind::kUnknown;
};

// Most expensive first; names decide among equals.
void SortTop(TopOrder order, std::vector<FunctionCost>* rows);

class FunctionTable {
 public:
  explicit FunctionTable(const profile::Dictionary& dictionary)
      : dictionary_(dictionary), places_(dictionary.frame_count()) {}

  // Innermost first, at least one. Valid until the next call for another frame.
  const std::vector<FunctionPlace>& Of(profile::FrameId frame);

  TextTable names, modules, files;

 private:
  const profile::Dictionary& dictionary_;
  std::vector<std::vector<FunctionPlace>> places_;  // by frame; empty = not yet
};

}  // namespace pyrometer::query

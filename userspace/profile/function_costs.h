// A table of functions by what they cost: what query makes of stacks, a store sends, and page and terminal show.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "userspace/profile/dictionary.h"
#include "userspace/profile/label_set.h"

namespace pyrometer::profile {

enum class TopOrder : uint8_t {
  kSelf = 0,   // by value in the function itself
  kTotal = 1,  // by value in it and what it called
};

// A function is name + module + kind.
struct FunctionCost {
  std::string name;    // "[unknown]" etc. for frames without a name
  std::string module;  // file of the mapping
  std::string file;    // source file; "" unknown
  FrameKind kind = FrameKind::kUnknown;
  int64_t self = 0;
  int64_t total = 0;  // a sample in which the function occurs several times (recursion) counts once
  double self_percent = 0;
  double total_percent = 0;
};

struct TopTable {
  std::vector<FunctionCost> rows;
  int64_t total = 0;     // of the profile, in the value's unit
  size_t functions = 0;  // distinct in the profile; rows may be fewer

  // Percentages of all rows from their values and `total`.
  void SetPercents() {
    if (total == 0) return;
    for (FunctionCost& row : rows) {
      row.self_percent = 100.0 * static_cast<double>(row.self) / static_cast<double>(total);
      row.total_percent = 100.0 * static_cast<double>(row.total) / static_cast<double>(total);
    }
  }
};

// The table of what carries these labels.
struct LabelledTop {
  LabelSet labels;
  TopTable table;
};

}  // namespace pyrometer::profile

#include "ui-export/formats/folded.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <utility>

#include "ui-export/formats/call_tree.h"
#include "ui-export/formats/frame_kinds.h"
#include "ui-export/formats/import.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

using profile::FrameKind;

constexpr std::string_view kKernelSuffix = "_[k]";
constexpr std::string_view kInlinedSuffix = "_[i]";
constexpr std::string_view kJitSuffix = "_[j]";
// A sample without any frame; the format has no empty stack.
constexpr std::string_view kNoStack = "[no stack]";

// Characters with a meaning in the format, as in URLs. A bare '%' stays: decoding touches these only.
struct Escape {
  char plain;
  std::string_view code;
};
constexpr Escape kEscapes[] = {{';', "%3B"}, {'\n', "%0A"}, {'\r', "%0D"}};

void AppendEscaped(std::string* out, std::string_view name) {
  for (const char c : name) {
    std::string_view code;
    for (const Escape& escape : kEscapes) {
      if (c == escape.plain) code = escape.code;
    }
    if (code.empty()) {
      out->push_back(c);
    } else {
      *out += code;
    }
  }
}

std::string Unescape(std::string_view name) {
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    bool found = false;
    for (const Escape& escape : kEscapes) {
      if (!name.substr(i).starts_with(escape.code)) continue;
      out.push_back(escape.plain);
      i += escape.code.size() - 1;
      found = true;
      break;
    }
    if (!found) out.push_back(name[i]);
  }
  return out;
}

std::string_view Suffix(const CallTreeFrame& frame) {
  if (frame.inlined) return kInlinedSuffix;
  if (frame.kind == FrameKind::kKernel) return kKernelSuffix;
  if (frame.kind == FrameKind::kJit) return kJitSuffix;
  return {};
}

std::optional<int64_t> ParseCount(std::string_view text, bool* rounded) {
  if (const auto whole = ParseInt64(text)) return whole;
  // Some writers weigh samples and print fractions.
  if (text.empty() || text.size() > 32 || text.find_first_not_of("0123456789.-+eE") != std::string_view::npos) {
    return std::nullopt;
  }
  char* end = nullptr;
  const std::string copy(text);
  const double value = std::strtod(copy.c_str(), &end);
  constexpr double kLimit = 9.2e18;  // just below INT64_MAX
  if (end != copy.c_str() + copy.size() || !(std::fabs(value) < kLimit)) return std::nullopt;
  *rounded = true;
  return std::llround(value);
}

// "stack count" into its parts; nullopt when there is no count.
struct Line {
  std::string_view stack;
  int64_t count = 0;
};
std::optional<Line> CutCount(std::string_view text, bool* rounded) {
  text = StripWhitespace(text);
  const size_t space = text.find_last_of(" \t");
  if (space == std::string_view::npos) return std::nullopt;
  const auto count = ParseCount(text.substr(space + 1), rounded);
  if (!count) return std::nullopt;
  return Line{StripWhitespace(text.substr(0, space)), *count};
}

// Calls `each` with number and content of every line that is neither blank nor a comment.
template <typename Each>
Status ForEachLine(std::string_view text, const Each& each) {
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = StripWhitespace(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (line.empty() || line.starts_with("# ") || line == "#") continue;
    RETURN_IF_ERROR(each(number, line));
  }
  return OkStatus();
}

// Two counts on every line make a comparison; one line without makes it a plain file.
bool IsComparison(std::string_view text) {
  bool any = false;
  bool ignored = false;
  const Status status = ForEachLine(text, [&](size_t, std::string_view line) {
    const auto after = CutCount(line, &ignored);
    if (!after || !CutCount(after->stack, &ignored)) return CancelledError("one count");
    any = true;
    return OkStatus();
  });
  return status.ok() && any;
}

class FoldedReader {
 public:
  explicit FoldedReader(std::string_view text) : text_(text), comparison_(IsComparison(text)) {}

  StatusOr<profile::Profile> Read(std::vector<std::string>* notes) {
    if (comparison_) {
      profile_.value_types = {{"before", "count"}, {"after", "count"}};
      profile_.default_value = 1;
    } else {
      profile_.value_types = {{"samples", "count"}};
    }
    RETURN_IF_ERROR(ForEachLine(text_, [this](size_t number, std::string_view line) { return Add(number, line); }));
    if (profile_.sample_count() == 0) return InvalidArgumentError("no folded stacks in it: every line is blank");
    if (notes != nullptr) {
      if (rounded_) notes->push_back("fractional counts were rounded");
      if (truncated_) notes->push_back(DepthNote());
    }
    return std::move(profile_);
  }

 private:
  Status Add(size_t number, std::string_view text) {
    auto line = CutCount(text, &rounded_);
    if (!line) {
      return InvalidArgumentError(
          StrFormat("line %d is not a folded stack: expected \"frame;frame;… count\", got \"%s\"", number,
                    ToUtf8(text.substr(0, 60))));
    }
    const int64_t last = line->count;
    if (comparison_) line = CutCount(line->stack, &rounded_);
    const profile::StackId stack = Stack(line->stack);
    if (comparison_) {
      profile_.Add(0, stack, {line->count, last});
    } else {
      profile_.Add(0, stack, {last});
    }
    return CheckStackBudget(profile_.dictionary);
  }

  profile::StackId Stack(std::string_view text) {
    if (text == kNoStack) return profile::kEmptyStack;
    frames_.clear();
    profile::Dictionary& dictionary = profile_.dictionary;
    const std::vector<std::string_view> names = Split(text, ';');
    // Leaf first; inlined functions gather until the one that they were inlined into.
    profile::Frame frame;
    for (size_t i = names.size(); i > 0; --i) {
      std::string_view name = names[i - 1];
      bool inlined = false;
      FrameKind kind = FrameKind::kUnknown;
      const auto strip = [&name](std::string_view suffix) {
        if (!name.ends_with(suffix)) return false;
        name.remove_suffix(suffix.size());
        return true;
      };
      if (strip(kInlinedSuffix)) {
        inlined = true;
      } else if (strip(kKernelSuffix)) {
        kind = FrameKind::kKernel;
      } else if (strip(kJitSuffix)) {
        kind = FrameKind::kJit;
      } else if (name == kTruncatedFrame) {
        kind = FrameKind::kSynthetic;
      }
      frame.lines.push_back(InternNamedLine(&dictionary, {.name = Unescape(name)}));
      if (inlined && i > 1 && frame.lines.size() < kMaxInlineDepth) continue;
      frame.kind = kind;
      if (kind == FrameKind::kKernel) {
        frame.mapping = dictionary.InternMapping({.file = dictionary.InternString(kKernelMapping)});
      }
      frames_.push_back(dictionary.InternFrame(std::move(frame)));
      frame = {};
    }
    truncated_ |= LimitDepth(&dictionary, &frames_);
    return stacks_.Intern(&dictionary, frames_);
  }

  std::string_view text_;
  bool comparison_;
  profile::Profile profile_;
  std::vector<profile::FrameId> frames_;
  StackInterner stacks_;
  bool rounded_ = false;
  bool truncated_ = false;
};

}  // namespace

StatusOr<std::string> WriteFolded(const profile::Profile& profile, const WriteOptions& options,
                                  std::vector<std::string>* notes) {
  const size_t value_index = options.value_index.value_or(profile.default_value);
  if (value_index >= profile.value_types.size()) {
    return InvalidArgumentError(StrFormat("the profile has no value %d to write", value_index));
  }
  const CallTree tree = BuildCallTree(profile, options.root_labels.value_or(std::vector<std::string>{}));
  const std::vector<int64_t> self = tree.SelfValues(profile, value_index);
  const std::vector<std::vector<uint32_t>> children = tree.SortedChildren();
  const auto text_less = [&tree](uint32_t a, uint32_t b) {
    const CallTreeFrame& left = tree.frame_of(a);
    const CallTreeFrame& right = tree.frame_of(b);
    return left.name != right.name ? left.name < right.name : Suffix(left) < Suffix(right);
  };
  // Depth first with an explicit stack. Siblings that differ only in what the format does not show (module, file)
  // are one step and one line. path_length is what to cut `path` back to.
  struct Step {
    std::vector<uint32_t> nodes;
    size_t path_length = 0;
  };
  std::string out;
  std::string path;
  bool negative = false;
  std::vector<Step> steps;
  steps.push_back({.nodes = {0}});
  while (!steps.empty()) {
    const Step step = std::move(steps.back());
    steps.pop_back();
    path.resize(step.path_length);
    const bool root = step.nodes[0] == 0;
    if (!root) {
      const CallTreeFrame& frame = tree.frame_of(step.nodes[0]);
      if (!path.empty()) path += ';';
      AppendEscaped(&path, frame.name);
      if (options.annotate_kinds) path += Suffix(frame);
    }
    uint64_t sum = 0;
    std::vector<uint32_t> below;
    for (const uint32_t node : step.nodes) {
      sum += static_cast<uint64_t>(self[node]);
      below.insert(below.end(), children[node].begin(), children[node].end());
    }
    const int64_t value = static_cast<int64_t>(sum);
    negative |= value < 0;
    if (value > 0) {
      out += root ? kNoStack : std::string_view(path);
      out += ' ';
      out += std::to_string(value);
      out += '\n';
      if (out.size() > kMaxOutputBytes) {
        return ResourceExhaustedError(
            StrFormat("folded stacks would exceed %s; write pprof instead", FormatBytes(kMaxOutputBytes)));
      }
    }
    // Pushed from the last to the first, so that the first comes out first.
    std::stable_sort(below.begin(), below.end(), text_less);
    for (size_t end = below.size(); end > 0;) {
      size_t begin = end - 1;
      while (begin > 0 && !text_less(below[begin - 1], below[end - 1])) --begin;
      steps.push_back(
          {.nodes = {below.begin() + static_cast<ptrdiff_t>(begin), below.begin() + static_cast<ptrdiff_t>(end)},
           .path_length = path.size()});
      end = begin;
    }
  }
  if (notes != nullptr) {
    const profile::ValueType& type = profile.value_types[value_index];
    if (profile.value_types.size() > 1) {
      notes->push_back(StrFormat("folded stacks hold one value: only %s (%s) is written", type.type, type.unit));
    }
    notes->push_back("folded stacks hold names only: addresses, build IDs, files, lines, times and labels are lost");
    if (negative) notes->push_back("stacks with negative values were left out");
    if (tree.truncated()) notes->push_back("too many distinct stacks: the deepest count for their callers");
  }
  return out;
}

StatusOr<profile::Profile> ReadFolded(std::string_view text, std::vector<std::string>* notes) {
  return FoldedReader(text).Read(notes);
}

}  // namespace pyrometer::formats

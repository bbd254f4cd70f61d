#include "userspace/regression/changed_lines.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "userspace/base/strings.h"

namespace pyrometer::regression {
namespace {

// "b/src/scan.c" and a time stamp after a tab, as the header lines have them.
std::string HeaderPath(std::string_view text) {
  text = StripWhitespace(text.substr(0, text.find('\t')));
  // Git quotes paths with unusual bytes; their escapes are not undone, such a file matches nothing.
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  if (text == "/dev/null") return "";
  if (text.starts_with("a/") || text.starts_with("b/")) text.remove_prefix(2);
  while (text.starts_with("./")) text.remove_prefix(2);
  return std::string(text);
}

// The numbers of "@@ -12,3 +14,8 @@ …".
struct Hunk {
  int64_t old_lines = 1;
  int64_t new_start = 0;
  int64_t new_lines = 1;
};

std::optional<Hunk> ParseHunk(std::string_view line) {
  if (!line.starts_with("@@ -")) return std::nullopt;
  const size_t end = line.find(" @@", 3);
  if (end == std::string_view::npos) return std::nullopt;
  const std::vector<std::string_view> ranges = Split(line.substr(4, end - 4), ' ');
  if (ranges.size() != 2 || !ranges[1].starts_with('+')) return std::nullopt;
  const auto range = [](std::string_view text, int64_t* start, int64_t* lines) {
    const size_t comma = text.find(',');
    const auto from = ParseUint64(text.substr(0, comma));
    const auto count =
        comma == std::string_view::npos ? std::optional<uint64_t>(1) : ParseUint64(text.substr(comma + 1));
    constexpr uint64_t kMost = std::numeric_limits<int32_t>::max();
    if (!from || !count || *from > kMost || *count > kMost - *from) return false;
    *start = static_cast<int64_t>(*from);
    *lines = static_cast<int64_t>(*count);
    return true;
  };
  Hunk hunk;
  int64_t old_start = 0;
  if (!range(ranges[0], &old_start, &hunk.old_lines) || !range(ranges[1].substr(1), &hunk.new_start, &hunk.new_lines)) {
    return std::nullopt;
  }
  return hunk;
}

// Equal components from the last one on when one path ends with the other, else 0.
size_t CommonTail(std::string_view a, std::string_view b) {
  std::vector<std::string_view> one = Split(a, '/'), other = Split(b, '/');
  for (auto* parts : {&one, &other})
    std::erase_if(*parts, [](std::string_view part) { return part.empty() || part == "."; });
  const size_t shorter = std::min(one.size(), other.size());
  for (size_t i = 1; i <= shorter; ++i) {
    if (one[one.size() - i] != other[other.size() - i]) return 0;
  }
  return shorter;
}

// Which changed line is within which function, as far as the profile knows functions.
class Attribution {
 public:
  Attribution(const RunSet& runs, const ChangedLines& changed) : runs_(runs) {
    std::map<std::string, const ChangedLines::File*> file_of;
    std::map<const ChangedLines::File*, std::map<int32_t, std::vector<FunctionIndex>>> starts;
    for (FunctionIndex f = 1; f < runs.functions().size(); ++f) {
      const FunctionFacts& facts = runs.functions()[f];
      if (facts.file.empty()) continue;
      const auto [entry, added] = file_of.try_emplace(facts.file, nullptr);
      if (added) entry->second = changed.Find(facts.file);
      if (entry->second == nullptr) continue;
      touched_file_[f] = entry->second;
      if (facts.line > 0) starts[entry->second][facts.line].push_back(f);
    }
    for (const auto& [file, by_line] : starts) {
      for (const int32_t line : file->lines) {
        auto next = by_line.upper_bound(line);
        if (next == by_line.begin()) continue;
        for (const FunctionIndex f : std::prev(next)->second) first_line_.try_emplace(f, line);
      }
    }
    for (size_t i = 1; i < runs.nodes().size(); ++i) {
      const StackNode& node = runs.nodes()[i];
      const FunctionIndex caller = runs.nodes()[node.parent].function;
      if (caller == 0 || caller == node.function) continue;
      if (first_line_.contains(caller)) changed_caller_[node.function].insert(caller);
      if (first_line_.contains(node.function)) changed_callee_[caller].insert(node.function);
    }
  }

  ChangeLink Of(FunctionIndex function) const {
    if (const auto own = first_line_.find(function); own != first_line_.end()) {
      return {ChangeRelation::kItself, function, own->second};
    }
    for (const auto& [relation, map] : {std::pair{ChangeRelation::kCallsChanged, &changed_callee_},
                                        {ChangeRelation::kCalledByChanged, &changed_caller_}}) {
      const auto found = map->find(function);
      if (found == map->end()) continue;
      const FunctionIndex other = *found->second.begin();
      return {relation, other, first_line_.at(other)};
    }
    if (const auto file = touched_file_.find(function); file != touched_file_.end()) {
      return {ChangeRelation::kSameFile, function, file->second->lines.empty() ? 0 : file->second->lines.front()};
    }
    return {};
  }

 private:
  const RunSet& runs_;
  std::map<FunctionIndex, const ChangedLines::File*> touched_file_;
  std::map<FunctionIndex, int32_t> first_line_;  // of changed functions: the first changed line within
  std::map<FunctionIndex, std::set<FunctionIndex>> changed_caller_, changed_callee_;
};

}  // namespace

StatusOr<ChangedLines> ChangedLines::Parse(std::string_view diff) {
  ChangedLines changed;
  std::map<std::string, size_t> index;
  std::string old_path;
  File* file = nullptr;
  int64_t old_left = 0, new_left = 0, line_number = 0;
  const auto touch = [&file](int64_t line) {
    const auto at = static_cast<int32_t>(std::min<int64_t>(line, std::numeric_limits<int32_t>::max()));
    if (file->lines.empty() || file->lines.back() != at) file->lines.push_back(at);
  };
  for (const std::string_view line : Split(diff, '\n')) {
    if (file != nullptr && (old_left > 0 || new_left > 0)) {
      const char kind = line.empty() ? ' ' : line.front();
      if (kind == '+') {
        touch(line_number++);
        --new_left;
      } else if (kind == '-') {
        touch(std::max<int64_t>(1, line_number));
        --old_left;
      } else if (kind != '\\') {  // "\ No newline at end of file"
        ++line_number;
        --old_left;
        --new_left;
      }
      continue;
    }
    if (line.starts_with("--- ")) {
      old_path = HeaderPath(line.substr(4));
    } else if (line.starts_with("+++ ")) {
      std::string path = HeaderPath(line.substr(4));
      if (path.empty()) path = old_path;
      const auto [entry, added] = index.try_emplace(path, changed.files_.size());
      if (added) changed.files_.push_back({path, {}});
      file = &changed.files_[entry->second];
    } else if (const auto hunk = ParseHunk(line); hunk && file != nullptr) {
      old_left = hunk->old_lines;
      new_left = hunk->new_lines;
      // A hunk that adds nothing names the line before it.
      line_number = hunk->new_lines == 0 ? hunk->new_start + 1 : hunk->new_start;
    }
  }
  if (changed.files_.empty() && !StripWhitespace(diff).empty()) {
    // Renames, modes and binary files alone have no lines.
    if (!diff.starts_with("diff ")) return InvalidArgumentError("this is not a unified diff, as `git diff` writes it");
  }
  for (File& one : changed.files_) {
    std::sort(one.lines.begin(), one.lines.end());
    one.lines.erase(std::unique(one.lines.begin(), one.lines.end()), one.lines.end());
  }
  return changed;
}

const ChangedLines::File* ChangedLines::Find(std::string_view source_path) const {
  const File* best = nullptr;
  size_t longest = 0;
  for (const File& file : files_) {
    const size_t common = CommonTail(source_path, file.path);
    if (common > longest) {
      longest = common;
      best = &file;
    }
  }
  return best;
}

void RankByChange(const RunSet& runs, const ChangedLines& changed, Verdict* verdict) {
  const Attribution attribution(runs, changed);
  for (std::vector<Finding>* list : {&verdict->findings, &verdict->moved}) {
    for (Finding& finding : *list) {
      if (finding.function != 0) finding.change = attribution.Of(finding.function);
    }
    std::stable_sort(list->begin(), list->end(),
                     [](const Finding& a, const Finding& b) { return a.change.relation > b.change.relation; });
  }
}

}  // namespace pyrometer::regression

#include "userspace/cli/ci_layout.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"
#include "userspace/regression/function_name.h"
#include "userspace/regression/same_code.h"

namespace pyrometer::cli {
namespace {

// Equal word by word, but for words that name files.
bool SameButForPaths(std::string_view baseline, std::string_view candidate) {
  const auto words = [](std::string_view text) {
    std::vector<std::string_view> list = Split(text, ' ');
    std::erase(list, std::string_view());
    return list;
  };
  const std::vector<std::string_view> one = words(baseline), other = words(candidate);
  if (one.size() != other.size()) return false;
  for (size_t i = 0; i < one.size(); ++i) {
    std::error_code unknown;
    if (one[i] != other[i] &&
        !(std::filesystem::exists(one[i], unknown) && std::filesystem::exists(other[i], unknown))) {
      return false;
    }
  }
  return true;
}

// Files that only one side has mapped, by module.
std::vector<std::string> OnlyIn(const std::set<std::string>& files, const std::set<std::string>& others) {
  std::vector<std::string> only;
  for (const std::string& file : files) {
    if (file.starts_with('/') && !others.contains(file)) only.push_back(file);
  }
  std::stable_sort(only.begin(), only.end(), [](const std::string& a, const std::string& b) {
    return regression::NormalizeModule(a) < regression::NormalizeModule(b);
  });
  return only;
}

bool SameCode(const std::string& before, const std::string& after) {
  const auto one = elf::ElfFile::Open(before), other = elf::ElfFile::Open(after);
  if (!one.ok() || !other.ok()) return false;
  const auto compared = regression::CompareCode(*one, *other);
  return compared.ok() && compared->same;
}

}  // namespace

void SuspectLayout(const std::set<std::string>& baseline_files, const std::set<std::string>& candidate_files,
                   regression::Report* report) {
  if (report->decision != regression::Decision::kRegression) return;
  if (!SameButForPaths(report->baseline, report->candidate)) return;
  const std::vector<std::string> before = OnlyIn(baseline_files, candidate_files),
                                 after = OnlyIn(candidate_files, baseline_files);
  // The very same files on both sides: then it is what they were given to do.
  if (before.empty() || before.size() != after.size()) return;
  for (size_t i = 0; i < before.size(); ++i) {
    if (!SameCode(before[i], after[i])) return;
  }
  report->layout = std::move(report->findings);
  report->findings.clear();
  report->findings_left_out = 0;
  report->decision = regression::Decision::kPass;
  report->layout_reason = "the code is the same on both sides and only lies elsewhere: a suspected layout effect";
  report->reason = StrFormat("%d function%s slower, but %s", report->layout.size(),
                             report->layout.size() == 1 ? " is" : "s are", report->layout_reason);
}

}  // namespace pyrometer::cli

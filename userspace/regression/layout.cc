#include "userspace/regression/layout.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"
#include "userspace/regression/function_name.h"
#include "userspace/regression/same_code.h"
#include "userspace/symbolize/demangle.h"

namespace pyrometer::regression {
namespace {

// Instructions are "no more" when they may have grown by this part of what the findings take more.
constexpr double kFlatPart = 0.1;

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
  std::stable_sort(only.begin(), only.end(),
                   [](const std::string& a, const std::string& b) { return NormalizeModule(a) < NormalizeModule(b); });
  return only;
}

// Of what cannot be compared nothing is the same.
CodeComparison Compare(const std::string& before, const std::string& after) {
  const auto one = elf::ElfFile::Open(before), other = elf::ElfFile::Open(after);
  if (!one.ok() || !other.ok()) return {};
  return CompareCode(*one, *other).value_or(CodeComparison{});
}

// As reports name them; a name that also stands for code that differs is not among them. None where data differ: a
// table of other numbers makes the same code do other work.
std::set<std::string> EqualNames(const CodeComparison& compared) {
  if (!compared.objects_same) return {};
  std::set<std::string> equal, differing;
  for (const auto& [name, same] : compared.functions) {
    (same ? equal : differing).insert(NormalizeFunctionName(symbolize::Demangle(name)));
  }
  for (const std::string& name : differing) equal.erase(name);
  return equal;
}

bool NoMoreInstructions(const Report& report) {
  double excess = 0;
  for (const ReportFinding& finding : report.findings) excess += finding.effect.excess;
  return report.instructions.tested && report.instructions.excess_interval.high <= kFlatPart * excess;
}

// Each function of the findings has its code on both sides: in the same file, or the same bytes in files that differ.
bool CodeOfFindingsIsSame(const Report& report, const std::vector<std::string>& before,
                          const std::vector<std::string>& after, const std::vector<CodeComparison>& compared) {
  std::vector<std::set<std::string>> equal;
  std::transform(compared.begin(), compared.end(), std::back_inserter(equal), EqualNames);
  return std::all_of(report.findings.begin(), report.findings.end(), [&](const ReportFinding& finding) {
    // With what it calls, a function is slower through code that is not its own.
    if (finding.function.name.empty() || finding.inclusive) return false;
    bool differs = false, same = false;
    for (size_t i = 0; i < before.size(); ++i) {
      const std::string& module = finding.function.module;
      if (module != NormalizeModule(before[i]) && module != NormalizeModule(after[i])) continue;
      differs = true;
      same = same || equal[i].contains(finding.function.name);
    }
    return same || !differs;
  });
}

}  // namespace

void SuspectLayout(const std::set<std::string>& baseline_files, const std::set<std::string>& candidate_files,
                   Report* report) {
  if (report->decision != Decision::kRegression) return;
  if (!SameButForPaths(report->baseline, report->candidate)) return;
  const std::vector<std::string> before = OnlyIn(baseline_files, candidate_files),
                                 after = OnlyIn(candidate_files, baseline_files);
  // The very same files on both sides: then it is what they were given to do.
  if (before.empty() || before.size() != after.size()) return;
  std::vector<CodeComparison> compared;
  std::transform(before.begin(), before.end(), after.begin(), std::back_inserter(compared), Compare);
  if (std::all_of(compared.begin(), compared.end(), [](const CodeComparison& one) { return one.same; })) {
    report->layout_reason = "the code is the same on both sides and only lies elsewhere: a suspected layout effect";
  } else if (report->findings_left_out == 0 && report->faster.empty() && report->moved.empty() &&
             NoMoreInstructions(*report) && CodeOfFindingsIsSame(*report, before, after, compared)) {
    report->layout_reason = StrFormat(
        "no more instructions were executed, and the code of %s is the same on both "
        "sides: a suspected layout effect",
        report->findings.size() == 1 ? "it" : "them");
  } else {
    return;
  }
  report->layout = std::move(report->findings);
  report->findings.clear();
  report->findings_left_out = 0;
  report->decision = Decision::kPass;
  report->reason = StrFormat("%d function%s slower, but %s", report->layout.size(),
                             report->layout.size() == 1 ? " is" : "s are", report->layout_reason);
}

}  // namespace pyrometer::regression

// What the commands of `pyrometer ci` share: their flags, the way from runs to a report, and to where a report is said.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/cli/ci_store.h"
#include "userspace/cli/connection.h"
#include "userspace/regression/changed_lines.h"
#include "userspace/regression/report.h"

namespace pyrometer::cli {

inline constexpr size_t kDefaultCiPairs = 16;
inline constexpr double kDefaultCiAlpha = 0.01;
inline constexpr size_t kCiDraws = 10'000;
inline constexpr const char* kDefaultCiHistory = "-30d";  // as long as a store keeps runs by default

struct CiFlags {
  std::string baseline, candidate;   // run: command lines; compare: files
  std::vector<std::string> command;  // record
  size_t pairs = kDefaultCiPairs;
  size_t warm_up = 1;
  uint32_t frequency_hz = 0;  // 0 = CiRunner's choice
  double alpha = kDefaultCiAlpha;
  double min_effect_percent = 0.2;
  std::optional<uint64_t> seed;
  std::string diff;         // a file, or a range of revisions
  std::string source_root;  // "" = the current folder
  std::vector<std::string> outputs;
  bool json = false;
  bool github = false;
  bool benchmark = false;
  // Of a store.
  std::shared_ptr<ConnectionFlags> connection;
  std::shared_ptr<RangeFlags> range;
  bool push = false;
  RunLabels labels;
  std::string selector;            // baseline of compare, history of check
  std::vector<std::string> files;  // of compare
};

Status CanWrite(const std::string& path);
// Formats of all -o, before any work is done.
StatusOr<std::vector<regression::ReportFormat>> ResolveReports(const CiFlags& flags);
// What --diff names, read before any work is done; nothing without --diff.
StatusOr<std::optional<regression::ChangedLines>> ReadChange(const CiFlags& flags);

struct ExamineOptions {
  double level = 0;
  bool one_block = false;
  size_t draws = kCiDraws;
  uint64_t seed = 1;
  const regression::ChangedLines* changed = nullptr;
};
struct Examined {
  regression::Report report;
  bool rules_out = false;  // Analysis::RulesOutMinEffect()
};
Examined Examine(const regression::RunSet& runs, const CiFlags& flags, const ExamineOptions& options);

// --seed, else a random one.
uint64_t SeedOf(const CiFlags& flags);
// What could not be measured as usual, to stderr.
void ShowNotes(const std::vector<std::string>& notes);

// Writes and prints; returns the exit code.
int FinishCheck(const regression::Report& report, const CiFlags& flags,
                const std::vector<regression::ReportFormat>& formats);
// A check that cannot decide before it has looked at any run.
int FinishUndecided(const std::string& reason, const std::string& remedy, const CiFlags& flags,
                    const std::vector<regression::ReportFormat>& formats);

// The same for --pairs that no arrangement makes rare enough for `alpha`.
int FinishTooFewPairs(double alpha, const CiFlags& flags, const std::vector<regression::ReportFormat>& formats);

}  // namespace pyrometer::cli

// `pyrometer ci`: did a change make the program slower, and which function?
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <random>

#include "userspace/agent/folders.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/cli/ci_runner.h"
#include "userspace/cli/command.h"
#include "userspace/cli/terminal.h"
#include "userspace/regression/report.h"
#include "userspace/regression/run_file.h"
#include "userspace/regression/schedule.h"

namespace pyrometer::cli {
namespace {

using regression::Analysis;
using regression::Decision;
using regression::Report;
using regression::RunSet;
using regression::Side;

// Prime, so that no timer of the program runs in step with it; at 30 µs a sample it costs the program 6 % of its time,
// equally on both sides.
constexpr uint32_t kDefaultFrequencyHz = 1999;
constexpr size_t kDefaultPairs = 16;
constexpr double kDefaultAlpha = 0.01;
// Draws for the figure on the progress line, which need not be exact.
constexpr size_t kProgressDraws = 1000;
constexpr size_t kRowsShown = 10;

struct CiFlags {
  std::string baseline, candidate;   // run: command lines; compare: files
  std::vector<std::string> command;  // record
  size_t pairs = kDefaultPairs;
  size_t warm_up = 1;
  uint32_t frequency_hz = kDefaultFrequencyHz;
  double alpha = kDefaultAlpha;
  double min_effect_percent = 0.2;
  std::optional<uint64_t> seed;
  std::vector<std::string> outputs;
  bool json = false;
  bool github = false;
};

std::atomic<bool> stop_requested{false};
void OnSignal(int) { stop_requested = true; }

void CatchSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

// A word as /bin/sh takes it.
std::string Quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("_@%+=:,./-").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

Status CanWrite(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    return ErrnoError(errno, StrFormat("cannot write into the folder %s of %s", folder.string(), path));
  }
  return OkStatus();
}

// Formats of all -o, before any work is done.
StatusOr<std::vector<regression::ReportFormat>> ResolveReports(const CiFlags& flags) {
  std::vector<regression::ReportFormat> formats;
  for (const std::string& path : flags.outputs) {
    ASSIGN_OR_RETURN(const auto format, regression::ReportFormatFor(path));
    RETURN_IF_ERROR(CanWrite(path));
    formats.push_back(format);
  }
  return formats;
}

uint64_t SeedOf(const CiFlags& flags) {
  if (flags.seed) return *flags.seed;
  std::random_device device;
  // 53 bits: a reader of the JSON report keeps them exactly.
  return (uint64_t{device()} << 32 | device()) >> 11;
}

std::string RenderFindings(const std::vector<regression::ReportFinding>& findings) {
  Table table({{"slower by", Table::Align::kRight},
               {"95 % interval", Table::Align::kRight},
               {"of total", Table::Align::kRight},
               {"p", Table::Align::kRight},
               {"function"}});
  for (size_t i = 0; i < std::min(findings.size(), kRowsShown); ++i) {
    const regression::ReportFinding& finding = findings[i];
    const regression::Effect& effect = finding.effect;
    std::string name = finding.function.name.empty() ? "the whole program" : finding.function.name;
    if (!finding.function.module.empty()) name += StrFormat(" (%s)", finding.function.module);
    if (finding.inclusive) name += ", with what it calls";
    if (!finding.callers.empty()) name += ", called by " + finding.callers.front().function.name;
    const auto percent = [](double ratio) { return StrFormat("%+.1f %%", 100 * (ratio - 1)); };
    table.AddRow({effect.is_new     ? "new"
                  : effect.vanished ? "gone"
                                    : percent(effect.ratio),
                  effect.is_new || effect.vanished
                      ? ""
                      : percent(effect.ratio_interval.low) + " … " + percent(effect.ratio_interval.high),
                  StrFormat("%+.2f %%", 100 * effect.excess),
                  StrFormat("%.2g", effect.excess < 0 ? effect.p_faster : effect.p), name});
  }
  std::string out = table.ToString();
  if (findings.size() > kRowsShown)
    out += StrFormat("and %d more; -o report.json has all\n", findings.size() - kRowsShown);
  return out;
}

void PrintReport(const Report& report) {
  const char* word = report.decision == Decision::kPass         ? "pass"
                     : report.decision == Decision::kRegression ? "REGRESSION"
                                                                : "CANNOT DECIDE";
  std::printf("%s: %s\n", word, report.reason.c_str());
  if (!report.remedy.empty()) std::printf("%s\n", report.remedy.c_str());
  if (!report.findings.empty()) std::printf("\n%s", RenderFindings(report.findings).c_str());
  if (!report.moved.empty()) {
    std::printf("\nmoved, not slower\n");
    for (const regression::ReportFinding& finding : report.moved) {
      std::vector<std::string> from;
      for (const auto& function : finding.moved_from) from.push_back(function.name);
      std::printf("  %s, from %s\n", finding.function.name.c_str(), Join(from, ", ").c_str());
    }
  }
  if (!report.faster.empty()) std::printf("\nfaster\n%s", RenderFindings(report.faster).c_str());
  if (report.baseline_runs == 0) return;
  std::printf("\n");
  if (report.total.tested) {
    std::printf("total CPU time: %+.1f %% (%+.1f to %+.1f)\n", 100 * (report.total.ratio - 1),
                100 * (report.total.ratio_interval.low - 1), 100 * (report.total.ratio_interval.high - 1));
  }
  if (std::isfinite(report.detectable_share)) {
    std::printf("a slowdown of one function by %.2f %% of the total would have been seen\n",
                100 * report.detectable_share);
  }
  std::printf("%zu and %zu runs, %s samples (%s), %zu figures tested at a false-alarm rate of %.2g %%, seed %llu\n",
              report.baseline_runs, report.candidate_runs, FormatCount(report.samples).c_str(), report.how.c_str(),
              report.functions_tested, 100 * report.alpha, static_cast<unsigned long long>(report.seed));
}

int Finish(const Report& report, const CiFlags& flags, const std::vector<regression::ReportFormat>& formats) {
  for (size_t i = 0; i < formats.size(); ++i) {
    const Status written = WriteFileAtomically(flags.outputs[i], regression::RenderReport(report, formats[i]));
    if (!written.ok()) return Fail(written);
    std::fprintf(stderr, "wrote %s\n", flags.outputs[i].c_str());
  }
  if (flags.json) {
    std::fputs(regression::RenderReport(report, regression::ReportFormat::kJson).c_str(), stdout);
  } else {
    PrintReport(report);
  }
  if (flags.github) std::fputs(regression::GitHubAnnotations(report).c_str(), stdout);
  switch (report.decision) {
    case Decision::kPass:
      return kExitDone;
    case Decision::kRegression:
      return kExitRegression;
    case Decision::kUndecided:
      return kExitUndecided;
  }
  return kExitUndecided;
}

// A check that cannot decide before it has looked at any run.
int FinishUndecided(const std::string& reason, const std::string& remedy, const CiFlags& flags,
                    const std::vector<regression::ReportFormat>& formats) {
  Report report;
  report.decision = Decision::kUndecided;
  report.reason = reason;
  report.remedy = remedy;
  report.alpha = flags.alpha;
  report.min_effect = flags.min_effect_percent / 100;
  report.detectable_share = std::numeric_limits<double>::infinity();
  report.baseline = flags.baseline;
  report.candidate = flags.candidate;
  return Finish(report, flags, formats);
}

struct Examined {
  Report report;
  bool rules_out = false;  // Analysis::RulesOutMinEffect()
};

Examined Examine(const RunSet& runs, double level, bool one_block, size_t draws, uint64_t seed, const CiFlags& flags) {
  const RunSet matched = regression::MatchExecutables(runs);
  const regression::CountTable counts = regression::CountFunctions(matched);
  const Analysis analysis(counts, matched.MakeDesign(one_block),
                          {.level = level, .min_effect = flags.min_effect_percent / 100, .draws = draws, .seed = seed});
  const regression::Verdict verdict = regression::Judge(matched, analysis, {});
  return {regression::MakeReport(matched, analysis, verdict, {.alpha = flags.alpha, .seed = seed}),
          analysis.RulesOutMinEffect()};
}

void ShowNotes(const CiRunner& runner) {
  for (const std::string& note : runner.notes()) std::fprintf(stderr, "note: %s\n", note.c_str());
}

constexpr size_t kDraws = 10'000;

int RunRun(const CiFlags& flags) {
  const auto formats = ResolveReports(flags);
  if (!formats.ok()) return FailQuery(formats.status());
  const std::vector<regression::Look> looks = regression::PlanLooks(flags.pairs, flags.alpha);
  if (looks.empty()) {
    size_t enough = flags.pairs;
    while (regression::PlanLooks(enough, flags.alpha).empty()) enough += regression::kPairsPerBlock;
    enough = regression::PlanLooks(enough, flags.alpha).back().pairs;
    return FinishUndecided(
        StrFormat("%d pairs of runs are too few for a false-alarm rate of %.2g %%", flags.pairs, 100 * flags.alpha),
        StrFormat("at least %d pairs are needed (--pairs); nothing was run", enough), flags, *formats);
  }
  CatchSignals();
  const uint64_t seed = SeedOf(flags);
  regression::Random random(seed);
  CiRunner runner(
      {.frequency_hz = flags.frequency_hz, .cache_folder = agent::DefaultCacheFolder(), .stop = &stop_requested});
  const auto command = [&](Side side) -> const std::string& {
    return side == Side::kBaseline ? flags.baseline : flags.candidate;
  };

  Progress progress("running");
  RunSet runs;
  const size_t planned = 2 * (looks.back().pairs + flags.warm_up);
  size_t done = 0;
  std::string seen;
  const auto one = [&](Side side, uint32_t block, RunSet* into) -> Status {
    progress.Update(static_cast<double>(done) / static_cast<double>(planned),
                    StrFormat("run %d of %d%s", done + 1, planned, seen));
    ++done;
    return runner.Run(command(side), side, block, into);
  };
  const auto failed = [&](const Status& status) {
    progress.Clear();
    ShowNotes(runner);
    return Fail(status);
  };
  for (size_t i = 0; i < flags.warm_up; ++i) {
    for (const Side side : {Side::kBaseline, Side::kCandidate}) {
      if (const Status status = one(side, 0, nullptr); !status.ok()) return failed(status);
    }
  }
  size_t next_look = 0;
  Examined examined;
  for (uint32_t block = 0;; ++block) {
    for (const Side side : regression::DrawBlock(&random)) {
      if (const Status status = one(side, block, &runs); !status.ok()) return failed(status);
    }
    const size_t pairs = (block + 1) * regression::kPairsPerBlock;
    if (pairs == looks[next_look].pairs) {
      examined = Examine(runs, looks[next_look].level, /*one_block=*/false, kDraws, seed, flags);
      const bool last = ++next_look == looks.size();
      const bool pass = examined.report.decision == Decision::kPass && examined.rules_out;
      if (last || pass || examined.report.decision == Decision::kRegression) break;
    } else if (::isatty(STDERR_FILENO) == 1) {
      examined = Examine(runs, flags.alpha, /*one_block=*/false, kProgressDraws, seed, flags);
    }
    if (std::isfinite(examined.report.detectable_share)) {
      seen = StrFormat(", sees %.2f %% of the total", 100 * examined.report.detectable_share);
    }
  }
  progress.Clear();
  ShowNotes(runner);
  return Finish(examined.report, flags, *formats);
}

int RunRecordRuns(const CiFlags& flags) {
  if (flags.outputs.size() != 1)
    return FailUsage(InvalidArgumentError("-o names the file to write, once: -o base.pyro"));
  const std::string& path = flags.outputs.front();
  if (const Status status = CanWrite(path); !status.ok()) return Fail(status);
  std::vector<std::string> words;
  for (const std::string& word : flags.command) words.push_back(Quoted(word));
  const std::string line = Join(words, " ");
  CatchSignals();
  CiRunner runner(
      {.frequency_hz = flags.frequency_hz, .cache_folder = agent::DefaultCacheFolder(), .stop = &stop_requested});
  Progress progress("running");
  RunSet runs;
  const size_t planned = flags.pairs + flags.warm_up;
  for (size_t i = 0; i < planned; ++i) {
    progress.Update(static_cast<double>(i) / static_cast<double>(planned), StrFormat("run %d of %d", i + 1, planned));
    const bool warm_up = i < flags.warm_up;
    const auto block = static_cast<uint32_t>(warm_up ? 0 : i - flags.warm_up);
    const Status status = runner.Run(line, Side::kBaseline, block, warm_up ? nullptr : &runs);
    if (!status.ok()) {
      progress.Clear();
      ShowNotes(runner);
      return Fail(status);
    }
  }
  progress.Clear();
  ShowNotes(runner);
  if (const Status written = regression::WriteRunFile(path, runs); !written.ok()) return Fail(written);
  uint64_t samples = 0;
  for (const regression::Run& run : runs.runs()) samples += run.facts.samples;
  std::printf("wrote %s: %zu runs, %s samples (%s)\n", path.c_str(), runs.runs().size(), FormatCount(samples).c_str(),
              runs.origin(Side::kBaseline).how.c_str());
  return kExitDone;
}

int RunCompare(const CiFlags& flags) {
  const auto formats = ResolveReports(flags);
  if (!formats.ok()) return FailQuery(formats.status());
  auto baseline = regression::ReadRunFile(flags.baseline);
  if (!baseline.ok()) return Fail(baseline.status());
  auto candidate = regression::ReadRunFile(flags.candidate);
  if (!candidate.ok()) return Fail(candidate.status());
  for (const auto& [set, path] : {std::pair{&*baseline, &flags.baseline}, {&*candidate, &flags.candidate}}) {
    if (set->runs().empty())
      return FinishUndecided(StrFormat("%s holds no runs", *path), "record some", flags, *formats);
  }
  const regression::RunOrigin &before = baseline->origin(Side::kBaseline), &after = candidate->origin(Side::kBaseline);
  std::string differs = before.machine.WhyDiffers(after.machine);
  if (differs.empty() && before.frequency_hz != after.frequency_hz) {
    differs = StrFormat("the sampling frequency differs: %d Hz against %d Hz", before.frequency_hz, after.frequency_hz);
  }
  if (!differs.empty()) {
    return FinishUndecided(differs, "record both on the same kind of machine, or use `pyrometer ci run`", flags,
                           *formats);
  }
  RunSet runs;
  runs.Append(*baseline, Side::kBaseline);
  runs.Append(*candidate, Side::kCandidate);
  const uint64_t seed = flags.seed.value_or(1);
  return Finish(Examine(runs, flags.alpha, /*one_block=*/true, kDraws, seed, flags).report, flags, *formats);
}

void AddRecordingFlags(CLI::App* command, const std::shared_ptr<CiFlags>& flags) {
  command->add_option("-F,--frequency", flags->frequency_hz, "Samples per second and busy CPU (default 1999)")
      ->check(CLI::Range(1, 50'000))
      ->type_name("HZ");
  command->add_option("--warm-up", flags->warm_up, "Runs of each command before those that count (default 1)")
      ->check(CLI::Range(0, 1000))
      ->type_name("N");
}

void AddDecisionFlags(CLI::App* command, const std::shared_ptr<CiFlags>& flags) {
  command->add_option("--alpha", flags->alpha, "Chance of a false alarm for unchanged code (default 0.01)")
      ->check(CLI::Range(0.0001, 0.2))
      ->type_name("P");
  command
      ->add_option("--min-effect", flags->min_effect_percent,
                   "Smallest slowdown of a function worth failing for, in percent of the total CPU time (default 0.2)")
      ->check(CLI::Range(0.0, 50.0))
      ->type_name("PERCENT");
  command->add_option("--seed", flags->seed, "Seed of all random choices; a report names the one it used")
      ->type_name("N");
  command
      ->add_option("-o,--output", flags->outputs,
                   "Report to write, may repeat; the extension chooses the format: .json .md .xml (JUnit) .sarif "
                   ".codequality.json (GitLab)")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_flag("--json", flags->json, "Print the JSON report");
  command->add_flag("--github", flags->github, "Print annotations for GitHub Actions as well");
}

}  // namespace

void AddCiCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* ci = app.add_subcommand("ci", "Check for performance regressions: which function became slower");
  ci->require_subcommand(1);

  auto run_flags = std::make_shared<CiFlags>();
  CLI::App* run =
      AddCommand(*ci, "run", "Run baseline and candidate in turn, and decide; exit code 3 is a regression, 4 undecided",
                 "pyrometer ci run --baseline './bench-main' --candidate './bench-branch' -o report.md");
  run->add_option("--baseline", run_flags->baseline, "Command line of the version before the change")
      ->required()
      ->type_name("CMD");
  run->add_option("--candidate", run_flags->candidate, "Command line of the version after it")
      ->required()
      ->type_name("CMD");
  run->add_option("-n,--pairs", run_flags->pairs,
                  "Runs of either command, at most; a clear result ends the check earlier (default 16)")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  AddRecordingFlags(run, run_flags);
  AddDecisionFlags(run, run_flags);
  run->callback([&invocation, run_flags] { invocation.run = [run_flags] { return RunRun(*run_flags); }; });

  auto record_flags = std::make_shared<CiFlags>();
  CLI::App* record = AddCommand(*ci, "record", "Record runs of one command into a file, to compare later",
                                "pyrometer ci record -n 12 -o base.pyro -- ./bench --quick");
  record->add_option("-o,--output", record_flags->outputs, "File to write")
      ->required()
      ->type_name("FILE")
      ->allow_extra_args(false);
  record->add_option("-n,--runs", record_flags->pairs, "Runs (default 16)")->check(CLI::Range(1, 1000))->type_name("N");
  AddRecordingFlags(record, record_flags);
  record->add_option("COMMAND", record_flags->command, "After --: the command")->required();
  record->callback(
      [&invocation, record_flags] { invocation.run = [record_flags] { return RunRecordRuns(*record_flags); }; });

  auto compare_flags = std::make_shared<CiFlags>();
  CLI::App* compare =
      AddCommand(*ci, "compare", "Decide from two recorded files; exit code 3 is a regression, 4 undecided",
                 "pyrometer ci compare base.pyro branch.pyro -o report.sarif");
  compare->add_option("BASELINE", compare_flags->baseline, "File of the version before the change")->required();
  compare->add_option("CANDIDATE", compare_flags->candidate, "File of the version after it")->required();
  AddDecisionFlags(compare, compare_flags);
  compare->callback(
      [&invocation, compare_flags] { invocation.run = [compare_flags] { return RunCompare(*compare_flags); }; });
}

}  // namespace pyrometer::cli

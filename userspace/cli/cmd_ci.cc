// `pyrometer ci`: did a change make the program slower, and which function?
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "userspace/agent/folders.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/cli/ci_benchmark.h"
#include "userspace/cli/ci_output.h"
#include "userspace/cli/ci_runner.h"
#include "userspace/cli/command.h"
#include "userspace/cli/terminal.h"
#include "userspace/regression/drift.h"
#include "userspace/regression/layout.h"
#include "userspace/regression/report.h"
#include "userspace/regression/run_file.h"
#include "userspace/regression/schedule.h"

namespace pyrometer::cli {
namespace {

using regression::Decision;
using regression::RunSet;
using regression::Side;

// Draws for the figure on the progress line, which need not be exact.
constexpr size_t kProgressDraws = 1000;

int RunRun(const CiFlags& flags) {
  const auto formats = ResolveReports(flags);
  if (!formats.ok()) return FailQuery(formats.status());
  if (flags.benchmark) return RunBenchmarks(flags, *formats);
  const std::vector<regression::Look> looks = regression::PlanLooks(flags.pairs, flags.alpha);
  if (looks.empty()) return FinishTooFewPairs(flags.alpha, flags, *formats);
  const auto changed = ReadChange(flags);
  if (!changed.ok()) return FailQuery(changed.status());
  const uint64_t seed = SeedOf(flags);
  regression::Random random(seed);
  CiRunner runner(
      {.frequency_hz = flags.frequency_hz, .cache_folder = agent::DefaultCacheFolder(), .stop = CatchStopSignals()});
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
    ShowNotes(runner.notes());
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
      examined = Examine(runs, flags,
                         {.level = looks[next_look].level, .seed = seed, .changed = *changed ? &**changed : nullptr});
      const bool last = ++next_look == looks.size();
      const bool pass = examined.report.decision == Decision::kPass && examined.rules_out;
      if (last || pass || examined.report.decision == Decision::kRegression) break;
    } else if (::isatty(STDERR_FILENO) == 1) {
      examined = Examine(runs, flags, {.level = flags.alpha, .draws = kProgressDraws, .seed = seed});
    }
    if (std::isfinite(examined.report.detectable_share)) {
      seen = StrFormat(", sees %.2f %% of the total", 100 * examined.report.detectable_share);
    }
  }
  progress.Clear();
  ShowNotes(runner.notes());
  regression::SuspectLayout(runner.files(Side::kBaseline), runner.files(Side::kCandidate), &examined.report);
  return FinishCheck(examined.report, flags, *formats);
}

int RunRecordRuns(CiFlags flags) {
  if (flags.outputs.size() > 1 || (flags.outputs.empty() && !flags.push)) {
    return FailUsage(
        InvalidArgumentError("-o names the file to write, once: --output base.pyro; or --push to a store"));
  }
  const std::string path = flags.outputs.empty() ? "" : flags.outputs.front();
  if (!path.empty()) {
    if (const Status status = CanWrite(path); !status.ok()) return Fail(status);
  }
  if (flags.push) {
    if (const Status status = CompleteRunLabels(flags.command, &flags.labels); !status.ok()) return Fail(status);
  }
  std::vector<std::string> words;
  for (const std::string& word : flags.command) words.push_back(ShellQuoted(word));
  const std::string line = Join(words, " ");
  CiRunner runner(
      {.frequency_hz = flags.frequency_hz, .cache_folder = agent::DefaultCacheFolder(), .stop = CatchStopSignals()});
  RunSet runs;
  std::unique_ptr<RunPusher> pusher;
  if (flags.push) {
    auto connected = RunPusher::Connect(*flags.connection, flags.labels);
    if (!connected.ok()) return Fail(connected.status());
    pusher = *std::move(connected);
  }
  const auto push = [&](const profile::Profile* profile, const regression::RunFacts* facts,
                        const regression::RunOrigin& origin) {
    return pusher == nullptr ? OkStatus() : pusher->Push(*profile, *facts, origin);
  };
  Progress progress("running");
  const size_t planned = flags.pairs + flags.warm_up;
  for (size_t i = 0; i < planned; ++i) {
    progress.Update(static_cast<double>(i) / static_cast<double>(planned), StrFormat("run %d of %d", i + 1, planned));
    const bool warm_up = i < flags.warm_up;
    const auto block = static_cast<uint32_t>(warm_up ? 0 : i - flags.warm_up);
    const Status status = runner.Run(line, Side::kBaseline, block, warm_up ? nullptr : &runs, push);
    if (!status.ok()) {
      progress.Clear();
      ShowNotes(runner.notes());
      return Fail(status);
    }
  }
  progress.Clear();
  ShowNotes(runner.notes());
  uint64_t samples = 0;
  for (const regression::Run& run : runs.runs()) samples += run.facts.samples;
  const std::string what =
      StrFormat("%d runs, %s samples (%s)", runs.runs().size(), FormatCount(samples), runs.origin(Side::kBaseline).how);
  if (!path.empty()) {
    if (const Status written = regression::WriteRunFile(path, runs); !written.ok()) return Fail(written);
    std::printf("wrote %s: %s\n", path.c_str(), what.c_str());
  }
  if (flags.push) {
    std::printf("pushed to %s: %s, as service %s, version %s%s\n", flags.connection->store.c_str(), what.c_str(),
                flags.labels.service.c_str(), flags.labels.version.c_str(),
                flags.labels.branch.empty() ? "" : (", branch " + flags.labels.branch).c_str());
  }
  return kExitDone;
}

// The stored runs of one version that were made on a machine like the candidate's.
StatusOr<RunSet> FetchBaseline(const CiFlags& flags, const regression::RunOrigin& candidate, std::string* refused) {
  ASSIGN_OR_RETURN(const auto store, Connect(*flags.connection));
  ASSIGN_OR_RETURN(const Range range, ResolveRange(*flags.range));
  ASSIGN_OR_RETURN(std::vector<StoredRuns> stored, FetchRuns(*store, flags.selector, range));
  if (stored.empty()) {
    return NotFoundError(StrFormat("no runs of `pyrometer ci record --push` match %s from %s to %s", flags.selector,
                                   flags.range->from, flags.range->to));
  }
  for (StoredRuns& one : stored) {
    const std::string differs = one.machine.WhyDiffers(candidate.machine);
    if (!differs.empty()) {
      *refused = differs;
      one.runs = RunSet();
    }
  }
  std::erase_if(stored, [](const StoredRuns& one) { return one.runs.runs().empty(); });
  if (stored.empty()) return RunSet();
  refused->clear();
  if (stored.size() > 1) {
    std::vector<std::string> names;
    for (const StoredRuns& one : stored) {
      names.push_back(StrFormat("service %s version %s branch %s", one.labels.service, one.labels.version,
                                one.labels.branch.empty() ? "unknown" : one.labels.branch));
    }
    return InvalidArgumentError(
        StrFormat("--baseline-selector: a baseline is one version of one service; this selects %s", Join(names, "; ")));
  }
  return std::move(stored.front().runs);
}

int RunCompare(CiFlags flags) {
  const size_t wanted = flags.selector.empty() ? 2 : 1;
  if (flags.files.size() != wanted) {
    return FailUsage(InvalidArgumentError(wanted == 2
                                              ? "compare takes two files: the baseline's and the candidate's"
                                              : "with --baseline-selector, compare takes the candidate's file"));
  }
  flags.candidate = flags.files.back();
  flags.baseline = wanted == 2 ? flags.files.front() : flags.selector;
  const auto formats = ResolveReports(flags);
  if (!formats.ok()) return FailQuery(formats.status());
  const auto changed = ReadChange(flags);
  if (!changed.ok()) return FailQuery(changed.status());
  std::string refused;
  auto baseline = wanted == 2 ? regression::ReadRunFile(flags.baseline) : StatusOr<RunSet>(RunSet());
  if (!baseline.ok()) return Fail(baseline.status());
  auto candidate = regression::ReadRunFile(flags.candidate);
  if (!candidate.ok()) return Fail(candidate.status());
  if (wanted == 1) {
    baseline = FetchBaseline(flags, candidate->origin(Side::kBaseline), &refused);
    if (!baseline.ok()) return FailQuery(baseline.status());
  }
  if (!refused.empty()) {
    return FinishUndecided(refused, "push runs of the baseline from a machine of this kind, or use `pyrometer ci run`",
                           flags, *formats);
  }
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
  for (const Side side : {Side::kBaseline, Side::kCandidate}) {
    const std::string drifts = regression::WhyDrifts(
        runs, side,
        {.level = flags.alpha, .min_effect = flags.min_effect_percent / 100, .seed = flags.seed.value_or(1)});
    if (!drifts.empty()) {
      return FinishUndecided(drifts, "record them again while the machine is at rest, or use `pyrometer ci run`", flags,
                             *formats);
    }
  }
  const Examined examined = Examine(runs, flags,
                                    {.level = flags.alpha,
                                     .one_block = true,
                                     .seed = flags.seed.value_or(1),
                                     .changed = *changed ? &**changed : nullptr});
  return FinishCheck(examined.report, flags, *formats);
}

void AddRecordingFlags(CLI::App* command, const std::shared_ptr<CiFlags>& flags) {
  command
      ->add_option("-F,--frequency", flags->frequency_hz,
                   "Samples per second and busy CPU (default 9973 with BPF, 1999 without)")
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
                   "Report to write, may repeat; the extension chooses the format: .json .md .html .xml (JUnit) .sarif "
                   ".codequality.json (GitLab)")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command
      ->add_option("--diff", flags->diff,
                   "What changed, to rank the findings by: a unified diff, or a range for `git diff` (main...HEAD)")
      ->type_name("FILE|RANGE");
  command
      ->add_option("--source-root", flags->source_root,
                   "Folder that reports name source files from (default: the current one)")
      ->type_name("DIR");
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
  run->add_flag("--benchmark", run_flags->benchmark,
                "Both are Google Benchmark programs: a verdict for each benchmark, their own times included");
  AddRecordingFlags(run, run_flags);
  AddDecisionFlags(run, run_flags);
  run->callback([&invocation, run_flags] { invocation.run = [run_flags] { return RunRun(*run_flags); }; });

  auto record_flags = std::make_shared<CiFlags>();
  CLI::App* record = AddCommand(*ci, "record", "Record runs of one command into a file, to compare later",
                                "pyrometer ci record -n 12 -o base.pyro -- ./bench --quick");
  record->add_option("-o,--output", record_flags->outputs, "File to write; with --push none is needed")
      ->type_name("FILE")
      ->allow_extra_args(false);
  record->add_option("-n,--runs", record_flags->pairs, "Runs (default 16)")->check(CLI::Range(1, 1000))->type_name("N");
  AddRecordingFlags(record, record_flags);
  record->add_flag("--push", record_flags->push, "Send the runs to a store, for --baseline-selector and ci check");
  record->add_option("--service", record_flags->labels.service, "What runs (default: the name of the program)")
      ->type_name("NAME");
  record->add_option("--commit", record_flags->labels.version, "Its version (default: that of the git repository here)")
      ->type_name("NAME");
  record->add_option("--branch", record_flags->labels.branch, "Its branch (default: that of the git repository here)")
      ->type_name("NAME");
  record_flags->connection = AddConnectionFlags(record);
  record->add_option("COMMAND", record_flags->command, "After --: the command")->required();
  record->callback(
      [&invocation, record_flags] { invocation.run = [record_flags] { return RunRecordRuns(*record_flags); }; });

  auto compare_flags = std::make_shared<CiFlags>();
  CLI::App* compare =
      AddCommand(*ci, "compare", "Decide from two recorded files; exit code 3 is a regression, 4 undecided",
                 "pyrometer ci compare base.pyro branch.pyro -o report.sarif");
  compare->add_option("FILE", compare_flags->files, "Files of the version before the change, and after it");
  compare
      ->add_option("--baseline-selector", compare_flags->selector,
                   "The version before the change is in a store: cpu{service=\"bench\",version=\"…\"}")
      ->type_name("SELECTOR");
  compare_flags->connection = AddConnectionFlags(compare);
  compare_flags->range = AddRangeFlags(compare);
  compare_flags->range->from = kDefaultCiHistory;
  compare->get_option("--from")->description(
      "Start of what is looked at in the store: -30d (default), Unix seconds, 2026-01-31T12:00:00Z");
  AddDecisionFlags(compare, compare_flags);
  compare->callback(
      [&invocation, compare_flags] { invocation.run = [compare_flags] { return RunCompare(*compare_flags); }; });

  AddCiCheckCommand(*ci, invocation);
}

}  // namespace pyrometer::cli

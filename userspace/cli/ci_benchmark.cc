#include "userspace/cli/ci_benchmark.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <span>
#include <string>

#include "userspace/agent/folders.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/cli/ci_runner.h"
#include "userspace/cli/scratch_file.h"
#include "userspace/cli/terminal.h"
#include "userspace/regression/google_benchmark.h"
#include "userspace/regression/schedule.h"

namespace pyrometer::cli {
namespace {

using regression::Decision;
using regression::RunSet;
using regression::Side;

constexpr size_t kMaxListBytes = 4u << 20;
constexpr size_t kMaxTimesBytes = 4u << 20;

// Names as `command` lists them.
StatusOr<std::vector<std::string>> ListBenchmarks(CiRunner* runner, const std::string& command) {
  ASSIGN_OR_RETURN(const ScratchFile list, ScratchFile::Make());
  RETURN_IF_ERROR(
      runner->Run(command + " --benchmark_list_tests=true >" + ShellQuoted(list.path()), Side::kBaseline, 0, nullptr));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(list.path(), kMaxListBytes));
  auto names = regression::ParseBenchmarkList(text);
  if (!names.ok()) return WithContext(names.status(), command);
  return names;
}

struct Benchmark {
  std::string name;
  RunSet runs;
  std::vector<Side> order;  // of the block that is being taken
  Examined examined;
  bool decided = false;
};

double MeanRealNs(const RunSet& runs, Side side) {
  double sum = 0, count = 0;
  for (const regression::Run& run : runs.runs()) {
    if (run.side != side) continue;
    sum += run.facts.iteration_real_ns;
    ++count;
  }
  return count > 0 ? sum / count : 0;
}

bool NamesFunction(const regression::Report& report) {
  return std::any_of(report.findings.begin(), report.findings.end(),
                     [](const regression::ReportFinding& finding) { return !finding.function.name.empty(); });
}

class Check {
 public:
  explicit Check(const CiFlags& flags)
      : flags_(flags),
        seed_(SeedOf(flags)),
        random_(seed_),
        runner_({.frequency_hz = flags.frequency_hz,
                 .cache_folder = agent::DefaultCacheFolder(),
                 .stop = CatchStopSignals()}) {}

  Status List() {
    ASSIGN_OR_RETURN(const std::vector<std::string> before, ListBenchmarks(&runner_, flags_.baseline));
    ASSIGN_OR_RETURN(const std::vector<std::string> after, ListBenchmarks(&runner_, flags_.candidate));
    const auto has = [](const std::vector<std::string>& list, const std::string& name) {
      return std::find(list.begin(), list.end(), name) != list.end();
    };
    for (const std::string& name : before) {
      if (has(after, name)) {
        benchmarks_.push_back({.name = name, .runs = {}, .order = {}, .examined = {}});
      } else {
        only_in_[0].push_back(name);
      }
    }
    for (const std::string& name : after) {
      if (!has(before, name)) only_in_[1].push_back(name);
    }
    if (benchmarks_.empty()) {
      return FailedPreconditionError("baseline and candidate have no benchmark of the same name");
    }
    return OkStatus();
  }

  double AlphaEach() const { return flags_.alpha / static_cast<double>(benchmarks_.size()); }

  Status Decide(const std::vector<regression::Look>& looks, const regression::ChangedLines* changed) {
    Progress progress("running");
    planned_ = benchmarks_.size() * 2 * (looks.back().pairs + flags_.warm_up);
    for (size_t i = 0; i < flags_.warm_up; ++i) {
      for (Benchmark& one : benchmarks_) {
        for (const Side side : {Side::kBaseline, Side::kCandidate}) {
          RETURN_IF_ERROR(Run(&one, side, 0, /*counts=*/false, &progress));
        }
      }
    }
    size_t next_look = 0;
    for (uint32_t block = 0; next_look < looks.size(); ++block) {
      std::vector<Benchmark*> left;
      for (Benchmark& one : benchmarks_) {
        if (!one.decided) left.push_back(&one);
      }
      if (left.empty()) break;
      for (Benchmark* one : left) one->order = regression::DrawBlock(&random_);
      for (size_t position = 0; position < 2 * regression::kPairsPerBlock; ++position) {
        random_.Shuffle(std::span(left));
        for (Benchmark* one : left) RETURN_IF_ERROR(Run(one, one->order[position], block, /*counts=*/true, &progress));
      }
      if ((block + 1) * regression::kPairsPerBlock != looks[next_look].pairs) continue;
      for (Benchmark* one : left) {
        Examined now = Examine(one->runs, flags_, {.level = looks[next_look].level, .seed = seed_, .changed = changed});
        // Its total alone may be slower first: the alarm stands, and more runs are to find where.
        const bool stands = one->examined.report.decision == Decision::kRegression;
        if (!stands || now.report.decision == Decision::kRegression) one->examined = std::move(now);
        const regression::Report& report = one->examined.report;
        one->decided = (report.decision == Decision::kRegression && NamesFunction(report)) ||
                       (report.decision == Decision::kPass && one->examined.rules_out);
      }
      ++next_look;
    }
    return OkStatus();
  }

  regression::Report Result() {
    std::vector<regression::NamedReport> reports;
    for (Benchmark& one : benchmarks_) {
      reports.push_back({one.name, std::move(one.examined.report), MeanRealNs(one.runs, Side::kBaseline),
                         MeanRealNs(one.runs, Side::kCandidate)});
    }
    regression::Report report = regression::MergeBenchmarks(std::move(reports), flags_.alpha);
    report.baseline = flags_.baseline;
    report.candidate = flags_.candidate;
    report.only_in_baseline = only_in_[0];
    report.only_in_candidate = only_in_[1];
    return report;
  }

  const std::vector<std::string>& notes() const { return runner_.notes(); }

 private:
  Status Run(Benchmark* one, Side side, uint32_t block, bool counts, Progress* progress) {
    progress->Update(static_cast<double>(done_) / static_cast<double>(planned_),
                     StrFormat("run %d of at most %d: %s", done_ + 1, planned_, one->name));
    ++done_;
    ASSIGN_OR_RETURN(const ScratchFile times, ScratchFile::Make());
    // The last of equal flags counts: whatever the command asks for itself, it runs this benchmark once.
    const std::string line =
        (side == Side::kBaseline ? flags_.baseline : flags_.candidate) +
        " --benchmark_filter=" + ShellQuoted(regression::ExactBenchmarkFilter(one->name)) +
        " --benchmark_repetitions=1 --benchmark_out_format=json --benchmark_out=" + ShellQuoted(times.path());
    const auto read_times = [&](profile::Profile* profile, regression::RunFacts* facts,
                                const regression::RunOrigin&) -> Status {
      *profile = regression::InsideBenchmarks(std::move(*profile));
      ASSIGN_OR_RETURN(const std::string text, ReadFile(times.path(), kMaxTimesBytes));
      const auto parsed = regression::ParseBenchmarkTimes(text);
      if (!parsed.ok()) return WithContext(parsed.status(), one->name);
      facts->iterations = parsed->iterations;
      facts->iteration_cpu_ns = parsed->cpu_ns;
      facts->iteration_real_ns = parsed->real_ns;
      return OkStatus();
    };
    return runner_.Run(line, side, block, counts ? &one->runs : nullptr, read_times);
  }

  const CiFlags& flags_;
  const uint64_t seed_;
  regression::Random random_;
  CiRunner runner_;
  std::vector<Benchmark> benchmarks_;
  std::vector<std::string> only_in_[2];
  size_t planned_ = 1, done_ = 0;
};

}  // namespace

int RunBenchmarks(const CiFlags& flags, const std::vector<regression::ReportFormat>& formats) {
  const auto changed = ReadChange(flags);
  if (!changed.ok()) return FailQuery(changed.status());
  Check check(flags);
  if (const Status listed = check.List(); !listed.ok()) {
    ShowNotes(check.notes());
    return Fail(listed);
  }
  const std::vector<regression::Look> looks = regression::PlanLooks(flags.pairs, check.AlphaEach());
  if (looks.empty()) return FinishTooFewPairs(check.AlphaEach(), flags, formats);
  const Status done = check.Decide(looks, *changed ? &**changed : nullptr);
  ShowNotes(check.notes());
  if (!done.ok()) return Fail(done);
  return FinishCheck(check.Result(), flags, formats);
}

}  // namespace pyrometer::cli

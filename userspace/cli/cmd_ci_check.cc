// `pyrometer ci check --history`: since which version is which function slower?
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "userspace/base/strings.h"
#include "userspace/cli/ci_output.h"
#include "userspace/cli/ci_store.h"
#include "userspace/cli/command.h"
#include "userspace/cli/terminal.h"
#include "userspace/regression/history.h"

namespace pyrometer::cli {
namespace {

using regression::History;
using regression::HistoryChange;
using regression::RunSet;
using regression::Side;

struct CheckFlags : CiFlags {
  bool history = false;
};

struct Collected {
  RunSet runs;
  std::vector<uint32_t> version_of_run;
  std::vector<std::string> versions;
  std::string left_out;  // of other machines, in words; "" none
};

// One service, and the machines that are like the last one's: a version is a point of the history, in order of its
// first run.
StatusOr<Collected> Collect(const std::vector<StoredRuns>& stored) {
  std::set<std::string> services;
  for (const StoredRuns& one : stored) services.insert(one.labels.service);
  if (services.size() > 1) {
    return InvalidArgumentError(StrFormat("the selector matches several services: %s. Name one: {service=\"%s\"}",
                                          Join({services.begin(), services.end()}, ", "), *services.begin()));
  }
  Collected all;
  std::map<std::string, uint32_t> number;
  size_t other_machines = 0;
  std::string differs;
  for (const StoredRuns& one : stored) {
    std::string why = one.machine.WhyDiffers(stored.back().machine);
    if (why.empty() && one.frequency_hz != stored.back().frequency_hz) why = "the sampling frequency differs";
    if (!why.empty()) {
      other_machines += one.runs.runs().size();
      differs = why;
      continue;
    }
    const auto [entry, added] = number.try_emplace(one.labels.version, static_cast<uint32_t>(all.versions.size()));
    if (added) all.versions.push_back(one.labels.version);
    all.runs.Append(one.runs, Side::kBaseline);
    all.version_of_run.resize(all.runs.runs().size(), entry->second);
  }
  if (other_machines > 0) {
    all.left_out = StrFormat("%d runs were made on another kind of machine than the last ones (%s) and are left out",
                             other_machines, differs);
  }
  return all;
}

std::string NameOf(const RunSet& runs, regression::FunctionIndex function) {
  if (function == 0) return "the total CPU time";
  const regression::FunctionFacts& facts = runs.functions()[function];
  return facts.module.empty() ? facts.name : StrFormat("%s (%s)", facts.name, facts.module);
}

nlohmann::json ToJson(const RunSet& runs, const History& history, const HistoryChange& change) {
  nlohmann::json item = {
      {"version", history.versions[change.version]},
      {"before_version", history.versions[change.version - 1]},
      {"ratio", std::isfinite(change.ratio) ? nlohmann::json(change.ratio) : nlohmann::json(nullptr)},
      {"share_before", change.share_before},
      {"share_after", change.share_after},
      {"p", change.p},
      {"standing", change.standing},
      {"moved_from", nlohmann::json::array()}};
  const auto name = [&](regression::FunctionIndex function) -> nlohmann::json {
    if (function == 0) return nullptr;
    return {{"name", runs.functions()[function].name}, {"module", runs.functions()[function].module}};
  };
  item["function"] = name(change.function);
  for (const regression::FunctionIndex from : change.moved_from) item["moved_from"].push_back(name(from));
  return item;
}

int Say(const Collected& all, const History& history, bool enough, const CheckFlags& flags) {
  const bool regression = history.HasStandingRegression();
  const char* decision = !enough ? "undecided" : regression ? "regression" : "pass";
  if (flags.json) {
    nlohmann::json out = {{"format", "pyrometer-ci-history"},
                          {"version", 1},
                          {"decision", decision},
                          {"versions", history.versions},
                          {"runs", all.runs.runs().size()},
                          {"columns_tested", history.columns},
                          {"left_out", all.left_out},
                          {"changes", nlohmann::json::array()}};
    for (const HistoryChange& change : history.changes) out["changes"].push_back(ToJson(all.runs, history, change));
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    if (!enough) {
      std::printf("CANNOT DECIDE: %zu versions are too few to see a change that stays; at least %zu are needed\n",
                  history.versions.size(), regression::kLeastVersions);
    } else {
      std::printf("%s: %zu versions, %zu runs, %zu figures tested at a false-alarm rate of %.2g %%\n",
                  regression ? "REGRESSION" : "pass", history.versions.size(), all.runs.runs().size(), history.columns,
                  100 * flags.alpha);
    }
    Table table({{"since"},
                 {"change", Table::Align::kRight},
                 {"of total", Table::Align::kRight},
                 {"p", Table::Align::kRight},
                 {"function"}});
    for (const HistoryChange& change : history.changes) {
      std::string name = NameOf(all.runs, change.function);
      std::vector<std::string> from;
      for (const regression::FunctionIndex one : change.moved_from) from.push_back(NameOf(all.runs, one));
      if (!from.empty()) name += ", moved from " + Join(from, ", ");
      if (!change.standing) name += ", changed again later";
      table.AddRow({history.versions[change.version].substr(0, 12),
                    std::isfinite(change.ratio) ? StrFormat("%+.1f %%", 100 * (change.ratio - 1)) : "new",
                    StrFormat("%+.2f %%", 100 * (change.share_after - change.share_before)),
                    StrFormat("%.2g", change.p), name});
    }
    if (!history.changes.empty()) std::printf("\n%s", table.ToString().c_str());
    if (!all.left_out.empty()) std::printf("%s\n", all.left_out.c_str());
  }
  return !enough ? kExitUndecided : regression ? kExitRegression : kExitDone;
}

int RunCheck(const CheckFlags& flags) {
  const auto store = Connect(*flags.connection);
  if (!store.ok()) return Fail(store.status());
  const auto range = ResolveRange(*flags.range);
  if (!range.ok()) return FailUsage(range.status());
  const auto stored = FetchRuns(**store, flags.selector, *range);
  if (!stored.ok()) return FailQuery(stored.status());
  if (stored->empty()) {
    return Fail(NotFoundError(StrFormat("no runs of `pyrometer ci record --push` match %s from %s to %s",
                                        flags.selector, flags.range->from, flags.range->to)));
  }
  const auto all = Collect(*stored);
  if (!all.ok()) return FailQuery(all.status());
  const bool enough = all->versions.size() >= regression::kLeastVersions;
  const History history = regression::FindHistory(
      all->runs, all->version_of_run, all->versions,
      {.level = flags.alpha, .min_effect = flags.min_effect_percent / 100, .seed = flags.seed.value_or(1)});
  return Say(*all, history, enough, flags);
}

}  // namespace

void AddCiCheckCommand(CLI::App& ci, Invocation& invocation) {
  auto flags = std::make_shared<CheckFlags>();
  CLI::App* check =
      AddCommand(ci, "check", "Look for changes that stayed, over the versions in a store; exit code 3 is a regression",
                 "pyrometer ci check --history 'cpu{service=\"bench\",branch=\"main\"}' --from -30d");
  check->add_flag("--history", flags->history, "Over all stored versions (the only check so far)")->required();
  check->add_option("SELECTOR", flags->selector, "Runs that `ci record --push` stored, of one service")->required();
  flags->connection = AddConnectionFlags(check);
  flags->range = AddRangeFlags(check);
  flags->range->from = kDefaultCiHistory;
  check->get_option("--from")->description("Start: -30d (default), Unix seconds or milliseconds, 2026-01-31T12:00:00Z");
  check->add_option("--alpha", flags->alpha, "Chance of any change being found in a history without one (default 0.01)")
      ->check(CLI::Range(0.0001, 0.2))
      ->type_name("P");
  check
      ->add_option("--min-effect", flags->min_effect_percent,
                   "Smallest change of a function worth telling, in percent of the total CPU time (default 0.2)")
      ->check(CLI::Range(0.0, 50.0))
      ->type_name("PERCENT");
  check->add_option("--seed", flags->seed, "Seed of the orders that are drawn (default 1)")->type_name("N");
  check->add_flag("--json", flags->json, "Print JSON");
  check->callback([&invocation, flags] { invocation.run = [flags] { return RunCheck(*flags); }; });
}

}  // namespace pyrometer::cli

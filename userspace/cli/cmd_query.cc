// `pyrometer top|flame|series|export`: questions to a store, answered in the terminal or to a file.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/cli/command.h"
#include "userspace/cli/connection.h"
#include "userspace/cli/output.h"
#include "userspace/cli/render.h"
#include "userspace/cli/terminal.h"
#include "userspace/query/selector.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kDefaultRows = 20;
constexpr double kDefaultMinSharePercent = 1;
constexpr uint64_t kDefaultStepNs = 10 * kNsPerSecond;
constexpr size_t kSparklineColumns = 40;

// What the four commands share.
struct QueryFlags {
  std::string selector = "cpu";
  std::shared_ptr<ConnectionFlags> connection;
  std::shared_ptr<RangeFlags> range;
  std::vector<std::string> by;
  bool json = false;
};

void AddQueryFlags(CLI::App* command, QueryFlags& flags) {
  command->add_option(
      "SELECTOR", flags.selector,
      "What to look at: cpu{container.name=\"shop\",node=~\"eu-.*\"}; without a type: cpu (default: cpu)");
  flags.connection = AddConnectionFlags(command);
  flags.range = AddRangeFlags(command);
}

void AddByFlag(CLI::App* command, QueryFlags& flags, const std::string& help) {
  command->add_option("--by", flags.by, help)->delimiter(',')->type_name("LABEL,…")->allow_extra_args(false);
}

// A store and what it is asked. A selector is checked here, before anything is asked of a store that may not answer.
struct Question {
  std::unique_ptr<rpc::QueryClient> client;
  Range range;
};

StatusOr<Question> Begin(const QueryFlags& flags) {
  RETURN_IF_ERROR(query::ParseSelector(flags.selector, profile::kTypeCpu).status());
  ASSIGN_OR_RETURN(const Range range, ResolveRange(*flags.range));
  ASSIGN_OR_RETURN(auto client, Connect(*flags.connection));
  return Question{std::move(client), range};
}

// All stacks, for files.
StatusOr<profile::Profile> FetchProfile(const QueryFlags& flags) {
  ASSIGN_OR_RETURN(const Question question, Begin(flags));
  return question.client->MergeProfile({.query = flags.selector,
                                        .from_ns = question.range.from_ns,
                                        .to_ns = question.range.to_ns,
                                        .by = flags.by,
                                        .min_ns = 0,
                                        .max_ns = 0});
}

// What the terminal shows of them.
StatusOr<profile::Profile> FetchFlame(const QueryFlags& flags, double min_share) {
  ASSIGN_OR_RETURN(const Question question, Begin(flags));
  return question.client->MergeFlame({.query = flags.selector,
                                      .from_ns = question.range.from_ns,
                                      .to_ns = question.range.to_ns,
                                      .by = flags.by,
                                      .tenant = "",
                                      .min_share = min_share});
}

int NothingFound(const QueryFlags& flags) {
  return Fail(
      NotFoundError(StrFormat("nothing matches %s from %s to %s; `pyrometer series --by container.name` shows "
                              "what there is, and the first window arrives some 10 s after a start",
                              flags.selector, flags.range->from, flags.range->to)));
}

struct TopFlags : QueryFlags {
  size_t rows = kDefaultRows;
  bool total = false;
};

StatusOr<rpc::MergeTopReply> FetchTop(const TopFlags& flags) {
  ASSIGN_OR_RETURN(const Question question, Begin(flags));
  return question.client->MergeTop({.query = flags.selector,
                                    .from_ns = question.range.from_ns,
                                    .to_ns = question.range.to_ns,
                                    .by = flags.json ? std::vector<std::string>() : flags.by,
                                    .tenant = "",
                                    .rows = flags.rows,
                                    .order = flags.total ? profile::TopOrder::kTotal : profile::TopOrder::kSelf});
}

int RunTop(const TopFlags& flags) {
  const auto reply = FetchTop(flags);
  if (!reply.ok()) return FailQuery(reply.status());
  const profile::Profile& whole = reply->whole;
  const std::string& unit = DefaultUnit(whole);
  if (flags.json) {
    std::printf("%s", TopJson(reply->tops.empty() ? profile::TopTable() : reply->tops.front().table, unit).c_str());
    return kExitDone;
  }
  if (whole.sample_count() == 0) return NothingFound(flags);
  std::printf("%s\n", RenderSummary(whole).c_str());
  for (const profile::LabelledTop& top : reply->tops) {
    if (flags.by.empty()) {
      std::printf("%s", RenderTop(top.table, unit).c_str());
      continue;
    }
    const auto value = static_cast<double>(top.table.total);
    std::printf("%s: %s, %s of all\n%s\n", top.labels.ToString().c_str(), FormatValue(value, unit).c_str(),
                Percent(value, static_cast<double>(whole.Total(whole.default_value))).c_str(),
                RenderTop(top.table, unit).c_str());
  }
  return kExitDone;
}

struct FlameFlags : QueryFlags {
  double min_share_percent = kDefaultMinSharePercent;
  std::shared_ptr<OutputFlags> output;
};

int RunFlame(const FlameFlags& flags) {
  const auto formats = ResolveOutputs(*flags.output);
  if (!formats.ok()) return FailQuery(formats.status());
  const bool to_file = !flags.output->paths.empty();
  const auto profile = to_file ? FetchProfile(flags) : FetchFlame(flags, flags.min_share_percent / 100);
  if (!profile.ok()) return FailQuery(profile.status());
  if (profile->sample_count() == 0) return NothingFound(flags);
  if (to_file) {
    const Status written = WriteOutputs(*profile, *flags.output, *formats, flags.selector);
    return written.ok() ? kExitDone : Fail(written);
  }
  // The store has put the labels first and the smaller boxes together.
  std::printf("%s\n%s", RenderSummary(*profile).c_str(), RenderFlame(*profile).c_str());
  return kExitDone;
}

struct ExportFlags : QueryFlags {
  std::shared_ptr<OutputFlags> output;
};

int RunExport(const ExportFlags& flags) {
  const auto formats = ResolveOutputs(*flags.output);
  if (!formats.ok()) return FailQuery(formats.status());
  if (formats->empty())
    return FailUsage(InvalidArgumentError("export needs -o FILE; -o - --format pprof writes to standard output"));
  const auto profile = FetchProfile(flags);
  if (!profile.ok()) return FailQuery(profile.status());
  if (profile->sample_count() == 0) return NothingFound(flags);
  const Status written = WriteOutputs(*profile, *flags.output, *formats, flags.selector);
  return written.ok() ? kExitDone : Fail(written);
}

struct SeriesFlags : QueryFlags {
  std::string step;
};

int RunSeries(const SeriesFlags& flags) {
  const auto selector = query::ParseSelector(flags.selector, profile::kTypeCpu);
  if (!selector.ok()) return FailQuery(selector.status());
  const auto range = ResolveRange(*flags.range);
  if (!range.ok()) return FailUsage(range.status());
  uint64_t step_ns = std::max(kDefaultStepNs, static_cast<uint64_t>(range->to_ns - range->from_ns) / kSparklineColumns /
                                                  kDefaultStepNs * kDefaultStepNs);
  if (!flags.step.empty()) {
    const auto step = ParseDuration(flags.step);
    if (!step.ok()) return FailUsage(WithContext(step.status(), "--step"));
    if (*step == 0) return FailUsage(InvalidArgumentError("--step: must be above 0"));
    step_ns = *step;
  }
  const auto client = Connect(*flags.connection);
  if (!client.ok()) return Fail(client.status());
  const auto reply = (*client)->TimeSeries(
      {.query = flags.selector, .from_ns = range->from_ns, .to_ns = range->to_ns, .step_ns = step_ns, .by = flags.by});
  if (!reply.ok()) return FailQuery(reply.status());
  if (flags.json) {
    nlohmann::ordered_json out;
    out["unit"] = reply->unit;
    out["stepNs"] = step_ns;
    out["series"] = nlohmann::json::array();
    for (const rpc::TimeSeriesRow& row : reply->series) {
      nlohmann::ordered_json item;
      item["labels"] = nlohmann::json::object();
      for (const profile::Label& label : row.labels.labels()) item["labels"][label.name] = label.value;
      item["points"] = nlohmann::json::array();
      for (size_t i = 0; i < row.times_ns.size(); ++i) {
        item["points"].push_back({row.times_ns[i] / 1'000'000, row.values[i], row.counts[i]});
      }
      out["series"].push_back(std::move(item));
    }
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return kExitDone;
  }
  if (reply->series.empty()) return NothingFound(flags);
  const bool cpu = selector->type == profile::kTypeCpu;
  Table table({{"labels"},
               {"total", Table::Align::kRight},
               {cpu ? "cores" : "per second", Table::Align::kRight},
               {"highest", Table::Align::kRight},
               {StrFormat("each column %s", FormatDurationNs(step_ns))}});
  std::vector<const rpc::TimeSeriesRow*> rows;
  for (const rpc::TimeSeriesRow& row : reply->series) rows.push_back(&row);
  const auto total_of = [](const rpc::TimeSeriesRow& row) {
    double total = 0;
    for (const double value : row.values) total += value;
    return total;
  };
  std::stable_sort(rows.begin(), rows.end(), [&](const auto* a, const auto* b) { return total_of(*a) > total_of(*b); });
  // Steps are aligned to the epoch: the first and the last may lie partly outside of the range.
  const int64_t step = static_cast<int64_t>(step_ns);
  const int64_t first = range->from_ns / step * step;
  const size_t columns = static_cast<size_t>((range->to_ns - first + step - 1) / step);
  for (const rpc::TimeSeriesRow* row : rows) {
    std::vector<double> line(std::min(columns, 4 * kSparklineColumns), 0.0);
    double highest = 0;
    for (size_t i = 0; i < row->times_ns.size(); ++i) {
      const size_t column = static_cast<size_t>((row->times_ns[i] - first) / step);
      if (column < line.size()) line[column] += row->values[i];
      highest = std::max(highest, row->values[i]);
    }
    // Only steps with data count: a node that came up a minute ago was not idle before.
    const double seconds = static_cast<double>(row->times_ns.size()) * static_cast<double>(step_ns) / 1e9;
    const double total = total_of(*row);
    const auto rate = [&](double value, double over_seconds) {
      return cpu ? StrFormat("%.2f", value / 1e9 / over_seconds) : FormatValue(value / over_seconds, reply->unit);
    };
    table.AddRow({row->labels.ToString(), FormatValue(total, reply->unit), seconds > 0 ? rate(total, seconds) : "",
                  rate(highest, static_cast<double>(step_ns) / 1e9), Sparkline(line)});
  }
  std::printf("%s", table.ToString().c_str());
  return kExitDone;
}

}  // namespace

void AddTopCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command = AddCommand(app, "top", "The hottest functions of a selection, from a store",
                                 "pyrometer top '{container.name=\"shop\"}' --from -5m");
  auto flags = std::make_shared<TopFlags>();
  AddQueryFlags(command, *flags);
  AddByFlag(command, *flags, "One table for each value of these labels: container.name,service");
  command->add_option("-n,--rows", flags->rows, "Functions shown (default 20, 0 = all)")->type_name("N");
  command->add_flag("--total", flags->total, "Sort by total (with callees) instead of self");
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([&invocation, flags] { invocation.run = [flags] { return RunTop(*flags); }; });
}

void AddFlameCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "flame", "The flame graph of a selection: as a tree in the terminal, or to a file",
                 "pyrometer flame '{service=\"shop\"}' -o shop.html");
  auto flags = std::make_shared<FlameFlags>();
  AddQueryFlags(command, *flags);
  AddByFlag(command, *flags, "These labels' values are the first levels: container.name,comm");
  command->add_option("--min-percent", flags->min_share_percent, "Smallest share shown in the terminal (default 1)")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("P");
  flags->output = AddOutputFlags(command);
  command->callback([&invocation, flags] { invocation.run = [flags] { return RunFlame(*flags); }; });
}

void AddSeriesCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command = AddCommand(app, "series", "A selection over time, from a store",
                                 "pyrometer series cpu --by container.name --from -1h");
  auto flags = std::make_shared<SeriesFlags>();
  AddQueryFlags(command, *flags);
  AddByFlag(command, *flags, "One row for each value of these labels: container.name,node");
  command->add_option("--step", flags->step, "Time per column (default: a fortieth of the range, at least 10s)")
      ->type_name("TIME");
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([&invocation, flags] { invocation.run = [flags] { return RunSeries(*flags); }; });
}

void AddExportCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "export", "Write a selection as a profile file", "pyrometer export cpu --from -1h -o node.pb.gz");
  auto flags = std::make_shared<ExportFlags>();
  AddQueryFlags(command, *flags);
  AddByFlag(command, *flags, "Labels kept on samples: container.name,comm");
  flags->output = AddOutputFlags(command);
  command->callback([&invocation, flags] { invocation.run = [flags] { return RunExport(*flags); }; });
}

}  // namespace pyrometer::cli

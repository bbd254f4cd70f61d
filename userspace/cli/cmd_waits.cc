// `pyrometer syscalls|waits`: what system calls cost and what threads wait for, from a store, once or again and again.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/cli/command.h"
#include "userspace/cli/connection.h"
#include "userspace/cli/render.h"
#include "userspace/cli/terminal.h"
#include "userspace/profile/batch.h"
#include "userspace/query/selector.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kDefaultRows = 20;
constexpr double kDefaultMinSharePercent = 2;
constexpr size_t kCausesShown = 3;
constexpr std::string_view kRunning = "running";

struct LatencyFlags {
  std::string selector;
  std::shared_ptr<ConnectionFlags> connection;
  std::shared_ptr<RangeFlags> range;
  size_t rows = kDefaultRows;
  std::string watch;
  bool json = false;
};

void AddLatencyFlags(CLI::App* command, LatencyFlags& flags) {
  command->add_option("SELECTOR", flags.selector, "Which series: {container.name=\"shop\"} (default: all)");
  flags.connection = AddConnectionFlags(command);
  flags.range = AddRangeFlags(command);
  command->add_option("-n,--rows", flags.rows, "Rows shown (default 20, 0 = all)")->type_name("N");
  command->add_option("--watch", flags.watch, "Show it again at this interval until Ctrl-C: 10s")->type_name("TIME");
  command->add_flag("--json", flags.json, "Print JSON");
}

// The user's conditions on another profile type. INVALID_ARGUMENT when the selector names a type.
StatusOr<std::string> SelectorFor(const std::string& selector, std::string_view type) {
  ASSIGN_OR_RETURN(query::Selector parsed, query::ParseSelector(selector.empty() ? "{}" : selector, "-"));
  if (parsed.type != "-") {
    return InvalidArgumentError(
        StrFormat("selector: leave out the type '%s': this command reads several; {container.name=\"shop\"} will do",
                  parsed.type));
  }
  parsed.type = std::string(type);
  return parsed.ToString();
}

// Nanoseconds (or counts) by cause, of one group of labels.
using ByCause = std::map<std::string, double>;
using Groups = std::map<profile::LabelSet, ByCause>;

struct Question {
  rpc::QueryClient& client;
  const LatencyFlags& flags;
  Range range;

  StatusOr<Groups> Causes(std::string_view type, std::vector<std::string> by) const {
    ASSIGN_OR_RETURN(const std::string query, SelectorFor(flags.selector, type));
    std::vector<std::string> with_cause = by;
    with_cause.emplace_back(profile::kLabelCause);
    ASSIGN_OR_RETURN(const rpc::TimeSeriesReply reply, client.TimeSeries({.query = query,
                                                                          .from_ns = range.from_ns,
                                                                          .to_ns = range.to_ns,
                                                                          .step_ns = 0,
                                                                          .by = with_cause,
                                                                          .tenant = ""}));
    Groups groups;
    for (const rpc::TimeSeriesRow& row : reply.series) {
      double& sum = groups[row.labels.Only(by)][std::string(row.labels.Get(profile::kLabelCause))];
      for (const double value : row.values) sum += value;
    }
    return groups;
  }

  // `latest`: of each node's newest window only.
  StatusOr<std::vector<rpc::LabelledHistogram>> Histograms(std::string_view type, std::vector<std::string> by,
                                                           bool latest = false) const {
    ASSIGN_OR_RETURN(const std::string query, SelectorFor(flags.selector, type));
    return client.Histograms({.query = query,
                              .from_ns = range.from_ns,
                              .to_ns = range.to_ns,
                              .by = std::move(by),
                              .latest = latest,
                              .tenant = ""});
  }
};

double Sum(const ByCause& causes) {
  double sum = 0;
  for (const auto& [cause, value] : causes) sum += value;
  return sum;
}

// "lock 81.0%, runnable 3.2%": the largest ones, of `whole`.
std::string DescribeCauses(const ByCause& causes, double whole) {
  std::vector<std::pair<double, std::string>> sorted;
  for (const auto& [cause, value] : causes) {
    if (cause != kRunning && value > 0) sorted.emplace_back(value, cause);
  }
  std::sort(sorted.rbegin(), sorted.rend());
  std::vector<std::string> parts;
  for (const auto& [value, cause] : sorted) {
    if (parts.size() == kCausesShown) break;
    parts.push_back(StrFormat("%s %s", cause, Percent(value, whole)));
  }
  return Join(parts, ", ");
}

std::string Owner(const profile::LabelSet& labels) {
  const std::string_view container = labels.Get(profile::kLabelContainerName);
  return std::string(container.empty() ? labels.Get(profile::kLabelService) : container);
}

const std::vector<std::string>& OwnerLabels() {
  static const std::vector<std::string> labels = {std::string(profile::kLabelContainerName),
                                                  std::string(profile::kLabelService)};
  return labels;
}

nlohmann::ordered_json LabelsJson(const profile::LabelSet& labels) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const profile::Label& label : labels.labels()) json[label.name] = label.value;
  return json;
}

nlohmann::ordered_json CausesJson(const ByCause& causes) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [cause, value] : causes) json[cause] = static_cast<uint64_t>(value);
  return json;
}

void PrintJson(const nlohmann::ordered_json& json) {
  std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

Status NothingFound(const LatencyFlags& flags, std::string_view probe) {
  return NotFoundError(StrFormat(
      "nothing of this kind was recorded from %s to %s; `pyrometer up` and `agent` record it with --probes %s, "
      "and the first window arrives some 10 s after a start",
      flags.range->from, flags.range->to, probe));
}

// A call by name in one container or service.
struct CallRow {
  rpc::LabelledHistogram returned;
  profile::Histogram open;                                  // ages of those that have not returned
  std::map<std::string, profile::Histogram> open_by_cause;  // of these, those of which it is known
};

// Those with the most time first: time of what returned, and of what is in flight as much as lies in the range.
StatusOr<std::vector<CallRow>> AskCalls(const Question& question, const std::vector<std::string>& by) {
  std::vector<std::string> with_cause = by;
  with_cause.emplace_back(profile::kLabelCause);
  // First: a call that returns between the two questions is in both answers then, not in neither.
  ASSIGN_OR_RETURN(const std::vector<rpc::LabelledHistogram> open,
                   question.Histograms(profile::kTypeSyscallOpen, with_cause, /*latest=*/true));
  ASSIGN_OR_RETURN(std::vector<rpc::LabelledHistogram> returned, question.Histograms(profile::kTypeSyscallLatency, by));
  std::map<profile::LabelSet, CallRow> by_labels;
  for (rpc::LabelledHistogram& call : returned) {
    profile::LabelSet labels = call.labels;
    by_labels[std::move(labels)].returned = std::move(call);
  }
  for (const rpc::LabelledHistogram& call : open) {
    const profile::LabelSet labels = call.labels.Only(by);
    CallRow& row = by_labels[labels];
    row.returned.labels = labels;
    row.open.Merge(call.histogram);
    const std::string_view cause = call.labels.Get(profile::kLabelCause);
    if (!cause.empty()) row.open_by_cause[std::string(cause)].Merge(call.histogram);
  }
  const auto range_ns = static_cast<double>(question.range.to_ns - question.range.from_ns);
  const auto weight = [&](const CallRow& row) {
    return static_cast<double>(row.returned.histogram.sum()) +
           std::min(static_cast<double>(row.open.sum()), static_cast<double>(row.open.count()) * range_ns);
  };
  std::vector<CallRow> rows;
  for (auto& [labels, row] : by_labels) rows.push_back(std::move(row));
  std::stable_sort(rows.begin(), rows.end(), [&](const CallRow& a, const CallRow& b) { return weight(a) > weight(b); });
  return rows;
}

// "lock 3, network 1": most first; "-" if not known of any.
std::string DescribeOpen(const std::map<std::string, profile::Histogram>& by_cause) {
  std::vector<std::pair<uint64_t, std::string>> sorted;
  for (const auto& [cause, ages] : by_cause) sorted.emplace_back(ages.count(), cause);
  std::sort(sorted.rbegin(), sorted.rend());
  std::vector<std::string> parts;
  for (const auto& [calls, cause] : sorted) {
    if (parts.size() == kCausesShown) break;
    parts.push_back(StrFormat("%s %s", cause, FormatCount(calls)));
  }
  return parts.empty() ? "-" : Join(parts, ", ");
}

Status ShowSyscalls(const Question& question) {
  const LatencyFlags& flags = question.flags;
  std::vector<std::string> by = OwnerLabels();
  by.emplace_back(profile::kLabelSyscall);
  ASSIGN_OR_RETURN(std::vector<CallRow> calls, AskCalls(question, by));
  ASSIGN_OR_RETURN(const Groups times, question.Causes(profile::kTypeSyscallTime, by));
  if (flags.rows > 0 && calls.size() > flags.rows) calls.resize(flags.rows);
  const auto split_of = [&](const rpc::LabelledHistogram& call) {
    const auto found = times.find(call.labels);
    return found == times.end() ? ByCause() : found->second;
  };
  if (flags.json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const auto& [call, open, open_by_cause] : calls) {
      nlohmann::ordered_json in_flight = nlohmann::ordered_json::object();
      for (const auto& [cause, ages] : open_by_cause) {
        in_flight[cause] = {{"calls", ages.count()}, {"oldestNs", ages.max()}};
      }
      nlohmann::ordered_json errors = nlohmann::ordered_json::object();
      for (const auto& [error, count] : call.errors) errors[StrFormat("%d", error)] = count;
      out.push_back({{"labels", LabelsJson(call.labels)},
                     {"calls", call.histogram.count()},
                     {"errors", errors},
                     {"p50Ns", call.histogram.Quantile(0.5)},
                     {"p99Ns", call.histogram.Quantile(0.99)},
                     {"maxNs", call.histogram.max()},
                     {"totalNs", call.histogram.sum()},
                     {"inFlight", open.count()},
                     {"oldestNs", open.max()},
                     {"inFlightOn", std::move(in_flight)},
                     {"timeNs", CausesJson(split_of(call))}});
    }
    PrintJson(out);
    return OkStatus();
  }
  if (calls.empty()) return NothingFound(flags, "syscalls,waits");
  Table table({{"container or service"},
               {"call"},
               {"calls", Table::Align::kRight},
               {"errors", Table::Align::kRight},
               {"p50", Table::Align::kRight},
               {"p99", Table::Align::kRight},
               {"max", Table::Align::kRight},
               {"total", Table::Align::kRight},
               {"in flight", Table::Align::kRight},
               {"oldest", Table::Align::kRight},
               {"so far on"},
               {"running", Table::Align::kRight},
               {"waiting"}});
  for (const auto& [call, open, open_by_cause] : calls) {
    uint64_t errors = 0;
    for (const auto& [error, count] : call.errors) errors += count;
    const ByCause split = split_of(call);
    const double whole = Sum(split);
    const auto running = split.find(std::string(kRunning));
    const auto lasted = [returned = !call.histogram.empty()](uint64_t ns) {
      return returned ? FormatDurationNs(ns) : std::string("-");
    };
    table.AddRow(
        {Owner(call.labels), std::string(call.labels.Get(profile::kLabelSyscall)), FormatCount(call.histogram.count()),
         FormatCount(errors), lasted(call.histogram.Quantile(0.5)), lasted(call.histogram.Quantile(0.99)),
         lasted(call.histogram.max()), lasted(call.histogram.sum()), FormatCount(open.count()),
         open.empty() ? "-" : FormatDurationNs(open.max()), DescribeOpen(open_by_cause),
         whole > 0 ? Percent(running == split.end() ? 0 : running->second, whole) : "-", DescribeCauses(split, whole)});
  }
  std::printf("%s", table.ToString().c_str());
  if (times.empty()) {
    std::printf("What the calls waited for was not recorded: `pyrometer up --probes cpu,syscalls,tcp,waits`.\n");
  }
  return OkStatus();
}

struct SyscallsFlags : LatencyFlags {
  size_t examples = 0;
  bool typical = false;
};

constexpr size_t kFramesShown = 12;

// "read ‹ main", innermost first: the program's side, where there is one. The cause on top, if any, is said apart.
std::string StackLine(const std::vector<std::string>& frames) {
  std::vector<std::string> shown;
  const auto entry = std::find_if(frames.begin(), frames.end(),
                                  [](const std::string& frame) { return frame.starts_with("entry_SYSCALL"); });
  const bool called = entry != frames.end() && entry + 1 != frames.end();
  for (auto at = called ? entry + 1 : frames.begin(); at != frames.end(); ++at) {
    const std::string& frame = *at;
    if (shown.empty() && frame.starts_with('[') && frame.ends_with(']')) continue;
    if (shown.size() == kFramesShown) {
      shown.push_back("…");
      break;
    }
    shown.push_back(frame);
  }
  return shown.empty() ? "(no stack)" : Join(shown, " ‹ ");
}

std::string WhichOne(const profile::Exemplar& call) {
  if (call.weight == 0) return "one of the slowest";
  const std::string stands = StrFormat("stands for %s calls", FormatCount(call.weight));
  return (call.typical ? "drawn among all calls, " : "one of the slowest, and drawn among all calls, ") + stands;
}

Status ShowExamples(const Question& question, const SyscallsFlags& flags) {
  ASSIGN_OR_RETURN(const std::string query, SelectorFor(flags.selector, profile::kTypeSyscallLatency));
  ASSIGN_OR_RETURN(const std::vector<rpc::CallExample> examples,
                   question.client.Exemplars({.query = query,
                                              .from_ns = question.range.from_ns,
                                              .to_ns = question.range.to_ns,
                                              .drawn = flags.typical,
                                              .limit = static_cast<uint32_t>(flags.examples)}));
  if (flags.json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const rpc::CallExample& example : examples) {
      const profile::Exemplar& call = example.exemplar;
      nlohmann::ordered_json split = nlohmann::ordered_json::object();
      for (const profile::TimePart& part : call.split) split[part.cause] = part.ns;
      nlohmann::ordered_json waker = nullptr;
      if (call.waker.wait_ns != 0) {
        waker = {{"comm", call.waker.comm},
                 {"tid", call.waker.tid},
                 {"cause", call.waker.cause},
                 {"waitNs", call.waker.wait_ns},
                 {"frames", example.waker_frames}};
      }
      out.push_back({{"labels", LabelsJson(example.labels)},
                     {"timeMs", call.time_ns / static_cast<int64_t>(kNsPerMs)},
                     {"durationNs", call.value},
                     {"comm", call.comm},
                     {"tid", call.tid},
                     {"call", call.call},
                     {"slow", !call.typical},
                     {"weight", call.weight},
                     {"splitNs", std::move(split)},
                     {"waker", std::move(waker)},
                     {"frames", example.frames}});
    }
    PrintJson(out);
    return OkStatus();
  }
  if (examples.empty()) return NothingFound(flags, "syscalls,waits");
  for (const rpc::CallExample& example : examples) {
    const profile::Exemplar& call = example.exemplar;
    const std::string_view name = example.labels.Get(profile::kLabelSyscall);
    std::printf("%s  %s  in %s, thread %s (%u): %s\n", FormatDurationNs(call.value).c_str(),
                call.call.empty() ? std::string(name).c_str() : call.call.c_str(), Owner(example.labels).c_str(),
                call.comm.c_str(), call.tid, WhichOne(call).c_str());
    std::vector<std::string> parts;
    for (const profile::TimePart& part : call.split) {
      parts.push_back(StrFormat("%s %s", part.cause, FormatDurationNs(part.ns)));
    }
    if (!parts.empty()) std::printf("    time       %s\n", Join(parts, ", ").c_str());
    std::printf("    asked by   %s\n", StackLine(example.frames).c_str());
    if (call.waker.wait_ns == 0) continue;
    const std::string who =
        call.waker.comm.empty() ? "an interrupt" : StrFormat("%s (%d)", call.waker.comm, call.waker.tid);
    std::printf("    woken by   %s, after %s of %s: %s\n", who.c_str(), FormatDurationNs(call.waker.wait_ns).c_str(),
                call.waker.cause.c_str(), StackLine(example.waker_frames).c_str());
  }
  return OkStatus();
}

struct WaitsFlags : LatencyFlags {
  bool wakers = false;
  double min_share_percent = kDefaultMinSharePercent;
};

Status ShowWaits(const Question& question, const WaitsFlags& flags) {
  ASSIGN_OR_RETURN(const Groups times, question.Causes(profile::kTypeWaitTime, OwnerLabels()));
  ASSIGN_OR_RETURN(const Groups counts, question.Causes(profile::kTypeWaits, OwnerLabels()));
  ASSIGN_OR_RETURN(const std::vector<rpc::LabelledHistogram> queues,
                   question.Histograms(profile::kTypeRunQueue, OwnerLabels()));
  const auto queue_of = [&](const profile::LabelSet& labels) -> const profile::Histogram* {
    for (const rpc::LabelledHistogram& row : queues) {
      if (row.labels == labels) return &row.histogram;
    }
    return nullptr;
  };
  std::vector<std::pair<double, const profile::LabelSet*>> order;
  for (const auto& [labels, causes] : times) order.emplace_back(Sum(causes), &labels);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  if (flags.rows > 0 && order.size() > flags.rows) order.resize(flags.rows);
  if (flags.json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const auto& [sum, labels] : order) {
      const auto count = counts.find(*labels);
      nlohmann::ordered_json row = {{"labels", LabelsJson(*labels)},
                                    {"timeNs", CausesJson(times.at(*labels))},
                                    {"waits", CausesJson(count == counts.end() ? ByCause() : count->second)}};
      if (const profile::Histogram* queue = queue_of(*labels)) {
        row["queueP50Ns"] = queue->Quantile(0.5);
        row["queueP99Ns"] = queue->Quantile(0.99);
        row["queueMaxNs"] = queue->max();
      }
      out.push_back(std::move(row));
    }
    PrintJson(out);
    return OkStatus();
  }
  if (order.empty()) return NothingFound(flags, "cpu,syscalls,tcp,waits");
  Table table({{"container or service"},
               {"waits", Table::Align::kRight},
               {"time", Table::Align::kRight},
               {"queue p50", Table::Align::kRight},
               {"queue p99", Table::Align::kRight},
               {"throttled", Table::Align::kRight},
               {"causes"}});
  for (const auto& [sum, labels] : order) {
    const ByCause& causes = times.at(*labels);
    const auto count = counts.find(*labels);
    const auto throttled = causes.find("throttled");
    const profile::Histogram* queue = queue_of(*labels);
    table.AddRow({Owner(*labels), FormatCount(static_cast<uint64_t>(count == counts.end() ? 0 : Sum(count->second))),
                  FormatDurationNs(static_cast<uint64_t>(sum)),
                  queue == nullptr ? "-" : FormatDurationNs(queue->Quantile(0.5)),
                  queue == nullptr ? "-" : FormatDurationNs(queue->Quantile(0.99)),
                  FormatDurationNs(static_cast<uint64_t>(throttled == causes.end() ? 0 : throttled->second)),
                  DescribeCauses(causes, sum)});
  }
  std::printf("%s", table.ToString().c_str());
  const std::string_view type = flags.wakers ? profile::kTypeOffCpuWakers : profile::kTypeOffCpu;
  ASSIGN_OR_RETURN(const std::string query, SelectorFor(flags.selector, type));
  ASSIGN_OR_RETURN(const profile::Profile profile,
                   question.client.MergeFlame({.query = query,
                                               .from_ns = question.range.from_ns,
                                               .to_ns = question.range.to_ns,
                                               .by = {},
                                               .tenant = "",
                                               .min_share = flags.min_share_percent / 100}));
  if (profile.sample_count() == 0) return OkStatus();
  std::printf("\n%s", RenderFlame(profile).c_str());
  return OkStatus();
}

volatile std::sig_atomic_t stop_requested = 0;
void OnSignal(int) { stop_requested = 1; }

// Once, or until a signal with --watch.
int Repeat(const LatencyFlags& flags, const std::function<Status(const Question&)>& show) {
  if (const auto selector = SelectorFor(flags.selector, profile::kTypeWaitTime); !selector.ok()) {
    return FailQuery(selector.status());
  }
  uint64_t every_ns = 0;
  if (!flags.watch.empty()) {
    const auto every = ParseDuration(flags.watch);
    if (!every.ok()) return FailUsage(WithContext(every.status(), "--watch"));
    if (*every < kNsPerSecond) return FailUsage(InvalidArgumentError("--watch: at least 1s"));
    every_ns = *every;
    struct sigaction action {};
    action.sa_handler = OnSignal;
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
  }
  const auto client = Connect(*flags.connection);
  if (!client.ok()) return Fail(client.status());
  while (true) {
    // Anew each time: "-1m" moves on.
    const auto range = ResolveRange(*flags.range);
    if (!range.ok()) return FailUsage(range.status());
    if (every_ns > 0 && StdoutIsTerminal()) std::printf("\033[H\033[2J");
    const Status status = show({**client, flags, *range});
    if (every_ns == 0) return status.ok() ? kExitDone : FailQuery(status);
    // Nothing yet is no reason to stop watching.
    if (status.code() == StatusCode::kNotFound) {
      std::printf("%s\n", std::string(Message(status)).c_str());
    } else if (!status.ok()) {
      return FailQuery(status);
    }
    std::fflush(stdout);
    for (uint64_t waited = 0; waited < every_ns && stop_requested == 0; waited += 100 * kNsPerMs) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    if (stop_requested != 0) return kExitDone;
  }
}

}  // namespace

void AddSyscallsCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command = AddCommand(app, "syscalls", "How long system calls take, and what they wait for, from a store",
                                 "pyrometer syscalls '{container.name=\"shop\"}' --from -5m");
  auto flags = std::make_shared<SyscallsFlags>();
  AddLatencyFlags(command, *flags);
  command
      ->add_option("--examples", flags->examples,
                   "In place of sums, the N slowest single calls: what each spent its "
                   "time on, whose code asked, who woke it")
      ->type_name("N")
      ->check(CLI::Range(1, 10'000));
  command->add_flag("--typical", flags->typical, "With --examples: calls drawn among all, not the slowest");
  command->callback([&invocation, flags] {
    invocation.run = [flags] {
      if (flags->typical && flags->examples == 0) {
        return FailUsage(InvalidArgumentError("--typical: says which --examples; add --examples 20"));
      }
      return Repeat(*flags, [&](const Question& question) {
        return flags->examples > 0 ? ShowExamples(question, *flags) : ShowSyscalls(question);
      });
    };
  });
}

void AddWaitsCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "waits", "Why threads do not run: causes, run-queue latency, stacks, from a store",
                 "pyrometer waits '{container.name=\"shop\"}' --from -1m --watch 10s");
  auto flags = std::make_shared<WaitsFlags>();
  AddLatencyFlags(command, *flags);
  command->add_flag("--wakers", flags->wakers, "Stacks go on, above the cause, into who ended the wait");
  command->add_option("--min-percent", flags->min_share_percent, "Smallest share of a stack shown (default 2)")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("P");
  command->callback([&invocation, flags] {
    invocation.run = [flags] {
      return Repeat(*flags, [&](const Question& question) { return ShowWaits(question, *flags); });
    };
  });
}

}  // namespace pyrometer::cli

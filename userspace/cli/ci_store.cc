#include "userspace/cli/ci_store.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/cli/git.h"
#include "userspace/profile/batch.h"
#include "userspace/query/selector.h"
#include "userspace/rpc/ingest_client.h"

namespace pyrometer::cli {
namespace {

using profile::kLabelNode;
using profile::kLabelService;
using profile::kLabelSession;

constexpr std::string_view kLabelVersion = "version";
constexpr std::string_view kLabelBranch = "branch";
constexpr std::string_view kLabelMachine = "machine";
constexpr std::string_view kLabelFrequency = "frequency_hz";
constexpr std::string_view kSessionOfRuns = "ci";
constexpr std::string_view kTypeRunCpu = "ci_run_cpu";    // nanoseconds
constexpr std::string_view kTypeRunLost = "ci_run_lost";  // samples
constexpr std::string_view kTypeRunInstructions = "ci_run_instructions";

constexpr int64_t kSecondNs = static_cast<int64_t>(kNsPerSecond);
// Of one answer of the store (query::kMaxSteps), with room for the ends.
constexpr int64_t kSteps = 19'000;
constexpr size_t kMaxRuns = 10'000;
constexpr int64_t kMostAheadNs = 3600 * kSecondNs;  // a store takes nothing from further ahead
constexpr uint64_t kAckTimeoutNs = 60 * kNsPerSecond;

std::string HostName() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : "unknown";
}

class Pusher : public RunPusher {
 public:
  Status Connect(const ConnectionFlags& flags, const RunLabels& labels) {
    ASSIGN_OR_RETURN(const rpc::Credentials credentials, LoadCredentials(flags));
    run_labels_ = labels;
    RETURN_IF_ERROR(Labels({}).status());
    // One sender per machine, whoever runs the check: its numbers go on.
    hello_.agent_id = "ci-" + HostName();
    // Not the name of the machine's own agent, which may be connected too.
    hello_.node = HostName() + "-ci";
    hello_.tenant = credentials.tenant;
    ASSIGN_OR_RETURN(
        client_, rpc::IngestClient::Connect(
                     flags.store, credentials, hello_,
                     {.ack = [this](const rpc::Ack& ack) { Heard([&] { acked_ = ack.sequence; }); },
                      .reject =
                          [this](uint64_t, const std::string& message) {
                            Heard([&] { failure_ = InvalidArgumentError("the store refused the run: " + message); });
                          },
                      .start_session = {},
                      .stop_session = {},
                      .closed = [this](const Status& status) { Heard([&] { failure_ = status; }); }}));
    sequence_ = client_->welcome().last_sequence;
    return OkStatus();
  }
  ~Pusher() override {
    if (client_ != nullptr) client_->Close();
  }

  Status Push(const profile::Profile& profile, const regression::RunFacts& facts,
              const regression::RunOrigin& origin) override {
    ASSIGN_OR_RETURN(const profile::LabelSet labels, Labels(origin));
    const uint64_t period_ns = kNsPerSecond / std::max<uint32_t>(1, origin.frequency_hz);
    profile::Batch batch;
    batch.tenant = hello_.tenant;
    batch.agent_id = hello_.agent_id;
    batch.node = hello_.node;
    batch.sequence = ++sequence_;
    batch.dictionary = profile.dictionary;
    last_ns_ = std::max(last_ns_ + kSecondNs, facts.started_ns / kSecondNs * kSecondNs);
    std::map<profile::StackId, uint64_t> counts;
    for (size_t i = 0; i < profile.sample_count(); ++i) {
      const int64_t count = profile.values(i)[0];
      if (count > 0) counts[profile.sample(i).stack] += static_cast<uint64_t>(count);
    }
    profile::ProfilePoint point{
        .time_ns = last_ns_, .duration_ns = facts.wall_ns, .period_ns = period_ns, .samples = {}, .offsets_ms = {}};
    for (const auto& [stack, count] : counts) point.samples.push_back({stack, count, count * period_ns});
    batch.profiles.push_back(std::move(point));
    for (const auto& [type, value] : {std::pair{profile::kTypeCpu, uint64_t{0}},
                                      {kTypeRunCpu, facts.cpu_ns},
                                      {kTypeRunLost, facts.lost_samples},
                                      {kTypeRunInstructions, facts.instructions}}) {
      if (type == kTypeRunInstructions && value == 0) continue;  // not counted
      batch.series.push_back({std::string(type), labels});
      if (type == profile::kTypeCpu) continue;
      batch.counters.push_back({.series = static_cast<uint32_t>(batch.series.size() - 1),
                                .time_ns = last_ns_,
                                .duration_ns = facts.wall_ns,
                                .value = value});
    }
    RETURN_IF_ERROR(client_->Send(batch));
    std::unique_lock lock(mutex_);
    const bool heard = changed_.wait_for(lock, std::chrono::nanoseconds(kAckTimeoutNs),
                                         [&] { return acked_ >= sequence_ || !failure_.ok(); });
    if (!failure_.ok()) return failure_;
    if (!heard) return DeadlineExceededError("the store took the run but did not confirm it within a minute");
    return OkStatus();
  }

 private:
  template <typename F>
  void Heard(F set) {
    const std::lock_guard lock(mutex_);
    set();
    changed_.notify_all();
  }

  StatusOr<profile::LabelSet> Labels(const regression::RunOrigin& origin) const {
    return profile::LabelSet::Make({{std::string(kLabelService), run_labels_.service},
                                    {std::string(kLabelVersion), run_labels_.version},
                                    {std::string(kLabelBranch), run_labels_.branch},
                                    {std::string(kLabelNode), HostName()},
                                    {std::string(kLabelMachine), MachineText(origin.machine)},
                                    {std::string(kLabelFrequency), std::to_string(origin.frequency_hz)},
                                    {std::string(kLabelSession), std::string(kSessionOfRuns)}});
  }

  rpc::Hello hello_;
  RunLabels run_labels_;
  uint64_t sequence_ = 0;
  int64_t last_ns_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t acked_ = 0;
  Status failure_;
  std::unique_ptr<rpc::IngestClient> client_;  // last: its callbacks use the members above
};

// Starts of the windows that `selector` matches, ascending, each a whole second, with what a counter holds there.
StatusOr<std::map<int64_t, double>> Windows(rpc::QueryApi& store, const query::Selector& selector, int64_t from_ns,
                                            int64_t to_ns) {
  from_ns = from_ns / kSecondNs * kSecondNs;
  const int64_t seconds = (to_ns - from_ns) / kSecondNs + 1;
  const int64_t step_ns = (seconds + kSteps - 1) / kSteps * kSecondNs;
  ASSIGN_OR_RETURN(const rpc::TimeSeriesReply reply, store.TimeSeries({.query = selector.ToString(),
                                                                       .from_ns = from_ns,
                                                                       .to_ns = to_ns,
                                                                       .step_ns = static_cast<uint64_t>(step_ns),
                                                                       .by = {},
                                                                       .tenant = {}}));
  std::map<int64_t, double> windows;
  for (const rpc::TimeSeriesRow& row : reply.series) {
    for (size_t i = 0; i < row.times_ns.size(); ++i) {
      if (step_ns == kSecondNs) {
        windows[row.times_ns[i]] = row.values[i];
        continue;
      }
      // Steps that lie side by side are one group of runs, as long as seconds of it fit into one answer.
      const int64_t begin = row.times_ns[i];
      size_t last = i;
      while (last + 1 < row.times_ns.size() && row.times_ns[last + 1] == row.times_ns[last] + step_ns &&
             row.times_ns[last + 1] + step_ns - begin <= kSteps * kSecondNs) {
        ++last;
      }
      ASSIGN_OR_RETURN(const auto finer, Windows(store, selector, std::max(begin, from_ns),
                                                 std::min(row.times_ns[last] + step_ns, to_ns)));
      windows.insert(finer.begin(), finer.end());
      i = last;
    }
  }
  return windows;
}

}  // namespace

std::string MachineText(const regression::MachineClass& machine) {
  return Join({machine.architecture, machine.cpu, std::to_string(machine.cpus), machine.kernel, machine.governor,
               machine.virtualization},
              "; ");
}

StatusOr<regression::MachineClass> ParseMachineText(std::string_view text) {
  const std::vector<std::string_view> parts = Split(text, ';');
  const auto cpus = parts.size() == 6 ? ParseUint64(StripWhitespace(parts[2])) : std::nullopt;
  if (!cpus || *cpus > UINT32_MAX) {
    return DataLossError(StrFormat("the label machine=\"%s\" is none of `pyrometer ci record --push`", text));
  }
  const auto part = [&](size_t i) { return std::string(StripWhitespace(parts[i])); };
  return regression::MachineClass{.cpu = part(1),
                                  .cpus = static_cast<uint32_t>(*cpus),
                                  .kernel = part(3),
                                  .architecture = part(0),
                                  .governor = part(4),
                                  .virtualization = part(5)};
}

Status CompleteRunLabels(const std::vector<std::string>& command, RunLabels* labels) {
  if (labels->service.empty() && !command.empty()) {
    labels->service = std::filesystem::path(command.front()).filename().string();
  }
  if (labels->version.empty()) {
    const auto commit = GitOutput({"rev-parse", "HEAD"});
    if (!commit.ok()) {
      return FailedPreconditionError("the runs need a version: --commit NAME (this folder is in no git repository)");
    }
    labels->version = std::string(StripWhitespace(*commit));
  }
  if (labels->branch.empty()) {
    // A detached HEAD has none.
    if (const auto branch = GitOutput({"symbolic-ref", "--short", "HEAD"}); branch.ok()) {
      labels->branch = std::string(StripWhitespace(*branch));
    }
  }
  return OkStatus();
}

StatusOr<std::unique_ptr<RunPusher>> RunPusher::Connect(const ConnectionFlags& flags, const RunLabels& labels) {
  auto pusher = std::make_unique<Pusher>();
  RETURN_IF_ERROR(pusher->Connect(flags, labels));
  return pusher;
}

StatusOr<std::vector<StoredRuns>> FetchRuns(rpc::QueryApi& store, const std::string& text, const Range& range) {
  ASSIGN_OR_RETURN(query::Selector selector, query::ParseSelector(text, profile::kTypeCpu));
  if (selector.type != profile::kTypeCpu) {
    return InvalidArgumentError(StrFormat("runs are of the type cpu, not %s", selector.type));
  }
  const bool by_session = std::any_of(selector.matchers.begin(), selector.matchers.end(),
                                      [](const store::LabelMatcher& m) { return m.name() == kLabelSession; });
  if (!by_session) selector.matchers.push_back(store::LabelMatcher::Equal(kLabelSession, kSessionOfRuns));

  const std::vector<std::string> by = {std::string(kLabelService), std::string(kLabelVersion),
                                       std::string(kLabelBranch), std::string(kLabelMachine),
                                       std::string(kLabelFrequency)};
  // Each run has a second of its own, so that many short ones lie ahead of the clock.
  const int64_t now_ns = UnixNowNs();
  const int64_t to_ns = range.to_ns >= now_ns - kSecondNs ? now_ns + kMostAheadNs : range.to_ns;
  ASSIGN_OR_RETURN(const rpc::TimeSeriesReply found, store.TimeSeries({.query = selector.ToString(),
                                                                       .from_ns = range.from_ns,
                                                                       .to_ns = to_ns,
                                                                       .step_ns = 0,
                                                                       .by = by,
                                                                       .tenant = {}}));
  std::vector<StoredRuns> all;
  size_t runs = 0;
  for (const rpc::TimeSeriesRow& row : found.series) {
    if (!row.labels.Has(kLabelMachine)) continue;  // no runs of ours
    StoredRuns stored;
    stored.labels = {std::string(row.labels.Get(kLabelService)), std::string(row.labels.Get(kLabelVersion)),
                     std::string(row.labels.Get(kLabelBranch))};
    ASSIGN_OR_RETURN(stored.machine, ParseMachineText(row.labels.Get(kLabelMachine)));
    stored.frequency_hz =
        static_cast<uint32_t>(std::min<uint64_t>(ParseUint64(row.labels.Get(kLabelFrequency)).value_or(0), UINT32_MAX));
    query::Selector one = selector;
    for (const std::string& name : by) one.matchers.push_back(store::LabelMatcher::Equal(name, row.labels.Get(name)));
    query::Selector cpu = one, lost = one, instructions = one;
    cpu.type = kTypeRunCpu;
    lost.type = kTypeRunLost;
    instructions.type = kTypeRunInstructions;
    // A window without its counters is a sum of an hour, or not of a run.
    ASSIGN_OR_RETURN(const auto cpu_ns, Windows(store, cpu, range.from_ns, to_ns));
    ASSIGN_OR_RETURN(const auto lost_samples, Windows(store, lost, range.from_ns, to_ns));
    ASSIGN_OR_RETURN(const auto executed, Windows(store, instructions, range.from_ns, to_ns));
    runs += cpu_ns.size();
    if (runs > kMaxRuns) {
      return ResourceExhaustedError(StrFormat("more than %d runs: narrow the selector, --from or --to", kMaxRuns));
    }
    for (const auto& [time_ns, value] : cpu_ns) {
      ASSIGN_OR_RETURN(
          const profile::Profile profile,
          store.MergeProfile(
              {.query = one.ToString(), .from_ns = time_ns, .to_ns = time_ns + kSecondNs, .by = {}, .tenant = {}}));
      regression::RunFacts facts;
      facts.started_ns = time_ns;
      facts.wall_ns = profile.duration_ns;
      facts.cpu_ns = static_cast<uint64_t>(value);
      const auto at = [time_ns = time_ns](const std::map<int64_t, double>& counter) {
        const auto here = counter.find(time_ns);
        return here == counter.end() ? 0 : static_cast<uint64_t>(here->second);
      };
      facts.lost_samples = at(lost_samples);
      facts.instructions = at(executed);
      stored.runs.Add(regression::Side::kBaseline, static_cast<uint32_t>(stored.runs.runs().size()), facts, profile,
                      /*value_index=*/0);
    }
    if (stored.runs.runs().empty()) continue;
    regression::RunOrigin& origin = stored.runs.origin(regression::Side::kBaseline);
    origin.command = StrFormat("%s, version %s", stored.labels.service, stored.labels.version);
    origin.how = StrFormat("from the store, %d Hz", stored.frequency_hz);
    origin.frequency_hz = stored.frequency_hz;
    origin.machine = stored.machine;
    all.push_back(std::move(stored));
  }
  std::stable_sort(all.begin(), all.end(), [](const StoredRuns& a, const StoredRuns& b) {
    return a.runs.runs().front().facts.started_ns < b.runs.runs().front().facts.started_ns;
  });
  return all;
}

}  // namespace pyrometer::cli

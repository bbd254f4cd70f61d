#include "tests/support/fleet.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "userspace/base/strings.h"

namespace pyrometer::testing {
namespace {

constexpr uint32_t kOwnFunctions = 1000;     // of each service's binary
constexpr uint32_t kSharedFunctions = 2000;  // of libraries, of all services
constexpr uint32_t kSharedUsed = 1000;       // of those, by one service
constexpr uint32_t kAddresses = 3;           // seen per function
constexpr double kMeanCallees = 3;
constexpr double kMeanCut = 4;   // frames above its leaf where a new stack leaves an old one
constexpr double kMeanMore = 3;  // frames that it goes on
constexpr size_t kMaxDepth = 64;
// One stack in ten has code that a deploy changed.
constexpr uint32_t kChangedByDeploy = 10;

size_t Geometric(std::mt19937_64& random, double mean) {
  const double u = std::uniform_real_distribution<>(0, 1)(random);
  return static_cast<size_t>(std::log1p(-u) / std::log1p(-1 / (1 + mean)));
}

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t hash = (a + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u ^ b;
  hash = (hash ^ hash >> 29) * 0x94D049BB133111EBu;
  return hash ^ hash >> 32;
}

}  // namespace

struct Fleet::Service {
  std::vector<std::vector<uint32_t>> stacks;  // by rank, root first
};

Fleet::Fleet(FleetOptions options) : options_(std::move(options)) {
  for (int service = 0; service < options_.services; ++service) {
    std::mt19937_64 random(Mix(options_.seed, static_cast<uint64_t>(service)));
    auto made = std::make_unique<Service>();
    const uint32_t frames = static_cast<uint32_t>(FramesOfService());
    std::vector<std::vector<uint32_t>> callees(frames);
    for (std::vector<uint32_t>& list : callees) {
      list.resize(1 + Geometric(random, kMeanCallees));
      for (uint32_t& callee : list) callee = static_cast<uint32_t>(random() % frames);
    }
    std::set<std::vector<uint32_t>> known;
    while (made->stacks.size() < static_cast<size_t>(options_.stacks)) {
      std::vector<uint32_t> stack = {0};
      size_t more = 14;
      if (!made->stacks.empty()) {
        // Popular stacks came first and have more branches.
        const double u = std::pow(std::uniform_real_distribution<>(0, 1)(random), 1.3);
        stack = made->stacks[static_cast<size_t>(u * static_cast<double>(made->stacks.size()))];
        const size_t cut = Geometric(random, kMeanCut);
        stack.resize(std::max<size_t>(std::min<size_t>(3, stack.size()), stack.size() - std::min(cut, stack.size())));
        more = 1 + Geometric(random, kMeanMore);
        if (stack.size() + more > kMaxDepth) more = 1;
      }
      for (; more > 0; --more) {
        const std::vector<uint32_t>& next = callees[stack.back()];
        const double u = std::uniform_real_distribution<>(0, 1)(random);
        stack.push_back(next[static_cast<size_t>(u * u * static_cast<double>(next.size()))]);
      }
      if (known.insert(stack).second) made->stacks.push_back(std::move(stack));
    }
    services_.push_back(std::move(made));
  }
}

Fleet::~Fleet() = default;

size_t Fleet::FramesOfService() const { return (kOwnFunctions + kSharedUsed) * kAddresses; }

uint64_t Fleet::SamplesPerBatch(int node) const {
  const int total = options_.services * options_.pods;
  const int here = total / options_.nodes + (node < total % options_.nodes ? 1 : 0);
  return static_cast<uint64_t>(here) * static_cast<uint64_t>(options_.samples);
}

std::vector<Fleet::PodWindow> Fleet::Draw(int node, int window) const {
  std::mt19937_64 random(Mix(Mix(options_.seed, static_cast<uint64_t>(node)), static_cast<uint64_t>(window)));
  std::vector<PodWindow> result;
  const double span = std::log(static_cast<double>(options_.stacks) + 1);
  std::vector<uint32_t> ranks(static_cast<size_t>(options_.samples));
  for (int at = node; at < options_.services * options_.pods; at += options_.nodes) {
    PodWindow pod;
    pod.service = at % options_.services;
    pod.pod = at / options_.services;
    pod.deploy = options_.deploy_every > 0 ? window / options_.deploy_every : 0;
    for (uint32_t& rank : ranks) {
      const double u = static_cast<double>(random() >> 11) * 0x1.0p-53;
      rank = std::min(static_cast<uint32_t>(std::exp(u * span)) - 1, static_cast<uint32_t>(options_.stacks) - 1);
    }
    std::sort(ranks.begin(), ranks.end());
    for (const uint32_t rank : ranks) {
      if (pod.counts.empty() || pod.counts.back().first != rank) pod.counts.emplace_back(rank, 0);
      ++pod.counts.back().second;
    }
    if (options_.offsets) {
      const uint64_t length_ms = options_.window_ns / 1'000'000;
      for (const auto& [rank, count] : pod.counts) {
        const size_t begin = pod.offsets_ms.size();
        for (uint32_t i = 0; i < count; ++i) pod.offsets_ms.push_back(static_cast<uint16_t>(random() % length_ms));
        std::sort(pod.offsets_ms.begin() + static_cast<ptrdiff_t>(begin), pod.offsets_ms.end());
      }
    }
    result.push_back(std::move(pod));
  }
  return result;
}

profile::SeriesKey Fleet::Series(int node, const PodWindow& pod) const {
  const std::string service = StrFormat("service-%d", pod.service);
  return {"cpu", profile::LabelSet::Make({{"node", StrFormat("node-%d", node)},
                                          {"namespace", pod.service % 3 == 0 ? "batch" : "production"},
                                          {"service", service},
                                          {"pod", StrFormat("%s-%x-%d", service, pod.deploy * 7919 + 17, pod.pod)},
                                          {"version", StrFormat("v%d", pod.deploy + 1)}})
                     .value()};
}

const std::vector<uint32_t>& Fleet::Stack(int service, uint32_t rank, int) const {
  return services_[static_cast<size_t>(service)]->stacks[rank];
}

profile::FrameId Fleet::Frame(profile::Dictionary* d, int service, uint32_t frame, int deploy) const {
  const uint32_t function = frame / kAddresses;
  const bool own = function < kOwnFunctions;
  // Which of the shared functions a service uses differs from service to service.
  const uint32_t id =
      own ? function : (function - kOwnFunctions + static_cast<uint32_t>(service) * 37) * 7 % kSharedFunctions;
  // New code of a deploy: another address in the same function.
  const uint32_t moved = own && function % kChangedByDeploy == 0 ? static_cast<uint32_t>(deploy) : 0;
  const std::string owner = own ? StrFormat("service%d", service) : "runtime";
  const auto mapping =
      d->InternMapping({.build_id = d->InternString(own ? StrFormat("6f1d3c0f5a7be0d84a1b%08x", service)
                                                        : "b1946ac92492d2347c6235b4d2611184"),
                        .file = d->InternString(own ? StrFormat("/usr/bin/service-%d", service)
                                                    : "/usr/lib/x86_64-linux-gnu/libruntime.so.6")});
  const uint64_t hash = Mix(own ? static_cast<uint64_t>(service) + 1 : 0, id);
  const auto name = d->InternString(StrFormat("company::%s::component%d::%s%x::%s%x(%s)", owner, hash % 97,
                                              hash % 2 == 0 ? "RequestHandler" : "Storage", hash >> 52,
                                              hash % 3 == 0 ? "ProcessNext" : "Load", hash >> 44 & 0xfff,
                                              hash % 5 == 0 ? "absl::string_view, int" : "const Context&"));
  const auto function_id =
      d->InternFunction({.name = name,
                         .file = d->InternString(StrFormat("src/%s/component%d.cc", owner, hash % 97)),
                         .start_line = static_cast<int64_t>(hash >> 40 & 0x3ff)});
  const uint64_t address = 0x1000 + id * 256 + (frame % kAddresses) * 40 + moved * 16'000'000;
  return d->InternFrame({.kind = profile::FrameKind::kNative,
                         .mapping = mapping,
                         .address = ElfAddress(address),
                         .lines = {{.function = function_id,
                                    .line = static_cast<int64_t>((hash >> 40 & 0x3ff) + 3 + frame % kAddresses * 5)}}});
}

profile::Batch Fleet::Window(int node, int window) const {
  profile::Batch batch;
  batch.tenant = options_.tenant;
  batch.agent_id = StrFormat("agent-%d", node);
  batch.node = StrFormat("node-%d", node);
  batch.sequence = static_cast<uint64_t>(window) + 1;
  for (PodWindow& pod : Draw(node, window)) {
    batch.series.push_back(Series(node, pod));
    profile::ProfilePoint point{.series = static_cast<uint32_t>(batch.series.size() - 1),
                                .time_ns = options_.start_ns + static_cast<int64_t>(options_.window_ns) * window,
                                .duration_ns = options_.window_ns,
                                .period_ns = kPeriodNs};
    for (const auto& [rank, count] : pod.counts) {
      profile::StackId stack = profile::kEmptyStack;
      for (const uint32_t frame : Stack(pod.service, rank, pod.deploy)) {
        stack = batch.dictionary.InternStack(stack, Frame(&batch.dictionary, pod.service, frame, pod.deploy));
      }
      point.samples.push_back({stack, count, count * kPeriodNs});
    }
    point.offsets_ms = std::move(pod.offsets_ms);
    batch.profiles.push_back(std::move(point));
  }
  return batch;
}

profile::BatchView FleetStream::Batch::view() const {
  return {.tenant = tenant,
          .agent_id = agent_id,
          .node = node,
          .sequence = sequence,
          .definitions = definitions,
          .series = *series,
          .profiles = profiles};
}

profile::StackId FleetStream::Stack(int service, uint32_t rank, int deploy) {
  std::vector<profile::StackId>& stacks = stacks_[{service, deploy}];
  if (stacks.empty()) stacks.resize(static_cast<size_t>(fleet_.options().stacks));
  profile::StackId& stack = stacks[rank];
  if (stack != profile::kEmptyStack) return stack;
  std::vector<profile::FrameId>& frames = frames_[{service, deploy}];
  if (frames.empty()) frames.resize(fleet_.FramesOfService());
  for (const uint32_t frame : fleet_.Stack(service, rank, deploy)) {
    if (frames[frame] == 0) frames[frame] = fleet_.Frame(&whole_.dictionary, service, frame, deploy);
    stack = whole_.dictionary.InternStack(stack, frames[frame]);
  }
  return stack;
}

FleetStream::Batch FleetStream::Window(int node, int window) {
  Batch batch{.tenant = fleet_.options().tenant,
              .agent_id = StrFormat("agent-%d", node),
              .node = StrFormat("node-%d", node),
              .sequence = static_cast<uint64_t>(window) + 1,
              .definitions = &definitions_,
              .series = &whole_.series};
  for (Fleet::PodWindow& pod : fleet_.Draw(node, window)) {
    const auto [entry, added] =
        series_ids_.try_emplace(fleet_.Series(node, pod), static_cast<uint32_t>(whole_.series.size()));
    if (added) whole_.series.push_back(entry->first);
    profile::ProfilePoint point{
        .series = entry->second,
        .time_ns = fleet_.options().start_ns + static_cast<int64_t>(fleet_.options().window_ns) * window,
        .duration_ns = fleet_.options().window_ns,
        .period_ns = Fleet::kPeriodNs};
    for (const auto& [rank, count] : pod.counts) {
      point.samples.push_back({Stack(pod.service, rank, pod.deploy), count, count * Fleet::kPeriodNs});
    }
    point.offsets_ms = std::move(pod.offsets_ms);
    batch.profiles.push_back(std::move(point));
  }
  return batch;
}

const profile::Batch& FleetStream::Whole(const Batch& batch) {
  whole_.tenant = batch.tenant;
  whole_.agent_id = batch.agent_id;
  whole_.node = batch.node;
  whole_.sequence = batch.sequence;
  whole_.profiles = batch.profiles;
  return whole_;
}

}  // namespace pyrometer::testing

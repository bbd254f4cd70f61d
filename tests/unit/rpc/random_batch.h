// Random but well-formed batches and profiles for round trips, and a reading of them that does not
// depend on ids.
#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/profile/batch.h"
#include "userspace/profile/profile.h"

namespace pyrometer::rpc {

class RandomData {
 public:
  explicit RandomData(uint32_t seed) : random_(seed) {}

  uint64_t Below(uint64_t limit) { return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random_); }

  profile::FrameId Frame(profile::Dictionary* d) {
    const profile::MappingId mapping =
        Below(4) == 0 ? 0
                      : d->InternMapping({.build_id = d->InternString(StrFormat("b%d", Below(5))),
                                          .file = d->InternString(StrFormat("/lib/%d.so", Below(5))),
                                          .start = Below(1000),
                                          .limit = 1000 + Below(1000),
                                          .file_offset = Below(3) * 4096});
    profile::Frame frame{.kind = static_cast<profile::FrameKind>(Below(6)),
                         .mapping = mapping,
                         .address = ElfAddress(Below(200)),
                         .miss = Below(3) == 0 ? d->InternString("no symbols") : 0};
    for (uint64_t i = Below(3); i > 0; --i) {
      frame.lines.push_back({.function = d->InternFunction({.name = d->InternString(StrFormat("f%d", Below(50))),
                                                            .system_name = d->InternString(StrFormat("_Z%d", Below(9))),
                                                            .file = d->InternString(StrFormat("%d.cc", Below(9))),
                                                            .start_line = static_cast<int64_t>(Below(100))}),
                             .line = static_cast<int64_t>(Below(500)),
                             .column = static_cast<int64_t>(Below(80))});
    }
    return d->InternFrame(std::move(frame));
  }

  profile::StackId Stack(profile::Dictionary* d) {
    profile::StackId stack = profile::kEmptyStack;
    for (uint64_t i = Below(12); i > 0; --i) stack = d->InternStack(stack, Frame(d));
    return stack;
  }

  profile::LabelSet Labels() {
    std::vector<profile::Label> labels;
    for (const char* name : {"node", "service", "comm", "container.name"}) {
      if (Below(2) == 0) labels.push_back({name, StrFormat("%s-%d", name, Below(4))});
    }
    return profile::LabelSet::Make(std::move(labels)).value();
  }

  profile::Batch Batch(uint64_t sequence) {
    profile::Batch b;
    b.agent_id = "agent-1";
    b.node = "node-1";
    b.sequence = sequence;
    for (uint64_t i = 1 + Below(5); i > 0; --i) b.series.push_back({"cpu", Labels()});
    const auto series = [&] { return static_cast<uint32_t>(Below(b.series.size())); };
    for (uint64_t i = Below(4); i > 0; --i) {
      profile::ProfilePoint p{
          .series = series(), .time_ns = Time(), .duration_ns = Below(1u << 30), .period_ns = 10'101'010};
      const bool derived = Below(2) == 0;
      for (uint64_t n = Below(30); n > 0; --n) {
        const uint64_t count = Below(1000);
        p.samples.push_back({Stack(&b.dictionary), count, derived ? count * p.period_ns : Below(1u << 30)});
      }
      b.profiles.push_back(std::move(p));
    }
    for (uint64_t i = Below(4); i > 0; --i) {
      profile::HistogramPoint p{.series = series(), .time_ns = Time(), .duration_ns = Below(1u << 30)};
      for (uint64_t n = Below(20); n > 0; --n) p.histogram.Record(Below(uint64_t{1} << Below(50)), 1 + Below(9));
      for (uint64_t n = Below(3); n > 0; --n) p.errors[static_cast<int32_t>(1 + Below(4000))] = Below(99);
      for (uint64_t n = Below(3); n > 0; --n) {
        p.exemplars.push_back({Time(), Below(1u << 30), Stack(&b.dictionary), "comm", static_cast<uint32_t>(Below(99)),
                               Below(2) == 0 ? "" : StrFormat("read(%d → /tmp/x)", Below(99))});
        profile::Exemplar& exemplar = p.exemplars.back();
        exemplar.weight = Below(3) * Below(1u << 20);
        exemplar.typical = Below(2) == 0;
        for (uint64_t k = Below(3); k > 0; --k) exemplar.split.push_back({StrFormat("cause%d", Below(4)), Below(99)});
        if (Below(2) == 0) exemplar.waker = {Stack(&b.dictionary), "waker", 7, "poll", 1 + Below(99)};
      }
      b.histograms.push_back(std::move(p));
    }
    for (uint64_t i = Below(4); i > 0; --i) b.counters.push_back({series(), Time(), Below(1u << 30), Below(1u << 30)});
    return b;
  }

  profile::Profile Profile() {
    profile::Profile p;
    p.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
    p.default_value = 1;
    p.period_type = {"cpu", "nanoseconds"};
    p.period = 10'101'010;
    p.time_ns = Time();
    p.duration_ns = Below(1u << 30);
    p.comments = {"one", "two"};
    p.accounting = {.taken = 10,
                    .delivered = 8,
                    .dropped = {{"ring full", 2}},
                    .stop_reasons = {{"root", 7}},
                    .miss_reasons = {{"no symbols", 3}},
                    .means = {{"unwind tables", 6}, {"frame pointers: generated code", 1}},
                    .frames = 77};
    for (uint64_t n = Below(200); n > 0; --n) {
      const int64_t count = static_cast<int64_t>(Below(1000)) - 100;
      p.Add(p.dictionary.InternLabelSet(Labels()), Stack(&p.dictionary), {count, count * 7});
    }
    return p;
  }

 private:
  int64_t Time() { return 1'760'000'000'000'000'000 + static_cast<int64_t>(Below(uint64_t{1} << 40)); }

  std::mt19937 random_;
};

inline std::string StackText(const profile::Dictionary& d, profile::StackId stack) {
  std::string text;
  for (const profile::FrameId id : d.FramesLeafFirst(stack)) {
    const profile::Frame& f = d.frame(id);
    const profile::Mapping& m = d.mapping(f.mapping);
    text += StrFormat("%d %s %s %d-%d+%d @%d miss=%s", static_cast<int>(f.kind), d.string(m.build_id), d.string(m.file),
                      m.start, m.limit, m.file_offset, f.address.value, d.string(f.miss));
    for (const profile::Line& line : f.lines) {
      const profile::Function& fn = d.function(line.function);
      text += StrFormat(" [%s %s %s:%d %d:%d]", d.string(fn.name), d.string(fn.system_name), d.string(fn.file),
                        fn.start_line, line.line, line.column);
    }
    text += ";";
  }
  return text;
}

// Everything that a batch says, in order, without ids.
inline std::vector<std::string> BatchText(const profile::Batch& b) {
  std::vector<std::string> lines = {StrFormat("%s %s %d", b.agent_id, b.node, b.sequence)};
  const auto series = [&](uint32_t i) { return b.series.at(i).type + b.series.at(i).labels.ToString(); };
  for (const profile::ProfilePoint& p : b.profiles) {
    lines.push_back(StrFormat("profile %s %d %d %d", series(p.series), p.time_ns, p.duration_ns, p.period_ns));
    for (const auto& s : p.samples) {
      lines.push_back(StrFormat("  %d %d %s", s.count, s.value, StackText(b.dictionary, s.stack)));
    }
  }
  for (const profile::HistogramPoint& p : b.histograms) {
    std::string line = StrFormat("histogram %s %d %d sum=%d max=%d", series(p.series), p.time_ns, p.duration_ns,
                                 p.histogram.sum(), p.histogram.max());
    for (const auto& bucket : p.histogram.buckets()) line += StrFormat(" %d:%d", bucket.index, bucket.count);
    for (const auto& [error, calls] : p.errors) line += StrFormat(" E%d=%d", error, calls);
    lines.push_back(std::move(line));
    for (const auto& e : p.exemplars) {
      lines.push_back(StrFormat("  %d %d %s %d %s %s", e.time_ns, e.value, e.comm, e.tid, e.call,
                                StackText(b.dictionary, e.stack)));
      lines.push_back(StrFormat("    stands for %d%s", e.weight, e.typical ? ", typical" : ""));
      for (const profile::TimePart& part : e.split) lines.push_back(StrFormat("    %s %d", part.cause, part.ns));
      if (e.waker.wait_ns == 0) continue;
      lines.push_back(StrFormat("    woken by %s %d from %s after %d: %s", e.waker.comm, e.waker.tid, e.waker.cause,
                                e.waker.wait_ns, StackText(b.dictionary, e.waker.stack)));
    }
  }
  for (const profile::CounterPoint& p : b.counters) {
    lines.push_back(StrFormat("counter %s %d %d %d", series(p.series), p.time_ns, p.duration_ns, p.value));
  }
  return lines;
}

// (labels, stack) -> values.
inline std::map<std::string, std::vector<int64_t>> ProfileText(const profile::Profile& p) {
  std::map<std::string, std::vector<int64_t>> samples;
  for (size_t i = 0; i < p.sample_count(); ++i) {
    samples[p.dictionary.label_set(p.sample(i).labels).ToString() + StackText(p.dictionary, p.sample(i).stack)] = {
        p.values(i).begin(), p.values(i).end()};
  }
  return samples;
}

}  // namespace pyrometer::rpc

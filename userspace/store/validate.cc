#include "userspace/store/validate.h"

#include <unordered_map>

#include "userspace/base/strings.h"
#include "userspace/store/chunk.h"
#include "userspace/store/store.h"

namespace pyrometer::store {
namespace {

using profile::BatchView;

template <typename... Args>
Status Bad(const absl::FormatSpec<Args...>& format, const Args&... args) {
  return InvalidArgumentError("batch refused: " + StrFormat(format, args...));
}

Status ValidateDefinitions(const profile::Definitions& all, CheckedDefinitions* checked) {
  for (; checked->strings < all.string_count(); ++checked->strings) {
    const size_t bytes = all.string(static_cast<profile::StringId>(checked->strings)).size();
    if (bytes > kMaxStringBytes) {
      return Bad("string %d has %d bytes; the limit is %d", checked->strings, bytes, kMaxStringBytes);
    }
  }
  const auto string_ok = [&](profile::StringId id) { return id < all.string_count(); };
  for (size_t& i = checked->mappings; i < all.mapping_count(); ++i) {
    const profile::Mapping mapping = all.mapping(static_cast<profile::MappingId>(i));
    if (!string_ok(mapping.build_id) || !string_ok(mapping.file)) return Bad("mapping %d: string out of range", i);
  }
  for (size_t& i = checked->functions; i < all.function_count(); ++i) {
    const profile::Function function = all.function(static_cast<profile::FunctionId>(i));
    if (!string_ok(function.name) || !string_ok(function.system_name) || !string_ok(function.file)) {
      return Bad("function %d: string out of range", i);
    }
  }
  for (size_t& i = checked->frames; i < all.frame_count(); ++i) {
    const profile::FrameView frame = all.frame(static_cast<profile::FrameId>(i));
    if (static_cast<uint8_t>(frame.kind) > static_cast<uint8_t>(profile::FrameKind::kSynthetic)) {
      return Bad("frame %d: unknown kind %d", i, static_cast<int>(frame.kind));
    }
    if (frame.mapping >= all.mapping_count() || !string_ok(frame.miss)) {
      return Bad("frame %d: mapping or string out of range", i);
    }
    if (frame.lines.size() > kMaxLinesPerFrame) {
      return Bad("frame %d has %d lines; the limit is %d", i, frame.lines.size(), kMaxLinesPerFrame);
    }
    for (const profile::Line& line : frame.lines) {
      if (line.function >= all.function_count()) return Bad("frame %d: function out of range", i);
    }
  }
  checked->depths.resize(all.stack_count());
  for (size_t& i = checked->stacks; i < all.stack_count(); ++i) {
    if (i == 0) continue;
    const profile::StackNode node = all.stack(static_cast<profile::StackId>(i));
    if (node.parent >= i) return Bad("stack %d: its parent %d does not come before it", i, node.parent);
    if (node.frame >= all.frame_count()) return Bad("stack %d: frame out of range", i);
    if (checked->depths[node.parent] >= kMaxStackDepth)
      return Bad("stack %d is deeper than %d frames", i, kMaxStackDepth);
    checked->depths[i] = static_cast<uint16_t>(checked->depths[node.parent] + 1);
  }
  return OkStatus();
}

class PointChecker {
 public:
  PointChecker(const BatchView& batch, int64_t now_ns) : batch_(batch), now_ns_(now_ns) {}

  template <typename Point>
  Status Check(std::string_view what, size_t index, const Point& point, PointKind kind) {
    if (point.series >= batch_.series.size()) {
      return Bad("%s point %d: series %d of %d", what, index, point.series, batch_.series.size());
    }
    const auto [entry, first] = kinds_.try_emplace(point.series, kind);
    if (first) RETURN_IF_ERROR(CheckType(point.series));
    if (entry->second != kind) {
      return Bad("%s point %d: series %s has points of another kind", what, index, batch_.series[point.series].type);
    }
    if (point.time_ns < kMinTimeNs) {
      return Bad("%s point %d: its window starts before the year 2000; check the clock of node %s", what, index,
                 batch_.node);
    }
    if (point.time_ns > now_ns_ + static_cast<int64_t>(kMaxClockAheadNs)) {
      return Bad(
          "%s point %d: its window starts %s ahead of the store's clock (allowed: %s); check the clock of node %s",
          what, index, FormatDurationNs(static_cast<uint64_t>(point.time_ns - now_ns_)),
          FormatDurationNs(kMaxClockAheadNs), batch_.node);
    }
    if (point.duration_ns > kMaxWindowNs) {
      return Bad("%s point %d: a window of %s; the limit is %s", what, index, FormatDurationNs(point.duration_ns),
                 FormatDurationNs(kMaxWindowNs));
    }
    return OkStatus();
  }

 private:
  Status CheckType(uint32_t series) const {
    const std::string& type = batch_.series[series].type;
    if (type.empty() || type.size() > kMaxTypeBytes || !IsUtf8(type)) {
      return Bad("series %d: its type is empty, longer than %d bytes or not UTF-8", series, kMaxTypeBytes);
    }
    return OkStatus();  // LabelSet keeps its own limits
  }

  const BatchView& batch_;
  const int64_t now_ns_;
  std::unordered_map<uint32_t, PointKind> kinds_;  // by series; a stream may have many more than a batch uses
};

Status ValidatePoints(const BatchView& batch, int64_t now_ns) {
  PointChecker checker(batch, now_ns);
  for (size_t i = 0; i < batch.profiles.size(); ++i) {
    const profile::ProfilePoint& point = batch.profiles[i];
    RETURN_IF_ERROR(checker.Check("profile", i, point, PointKind::kProfile));
    uint64_t count = 0, value = 0;
    for (const profile::ProfilePoint::Sample& sample : point.samples) {
      if (sample.stack >= batch.definitions->stack_count()) {
        return Bad("profile point %d: stack %d of %d", i, sample.stack, batch.definitions->stack_count());
      }
      count = SaturatingAdd(count, sample.count);
      value = SaturatingAdd(value, sample.value);
    }
    if (count > kMaxPointTotal || value > kMaxPointTotal) return Bad("profile point %d: its sum is above 2^56", i);
    if (!point.offsets_ms.empty() && (point.offsets_ms.size() != count || point.duration_ns > kMaxOffsetsWindowNs)) {
      return Bad("profile point %d: %d offsets for %d samples in a window of %s", i, point.offsets_ms.size(), count,
                 FormatDurationNs(point.duration_ns));
    }
  }
  for (size_t i = 0; i < batch.histograms.size(); ++i) {
    const profile::HistogramPoint& point = batch.histograms[i];
    RETURN_IF_ERROR(checker.Check("histogram", i, point, PointKind::kHistogram));
    uint64_t count = 0;
    for (const profile::Histogram::Bucket& bucket : point.histogram.buckets())
      count = SaturatingAdd(count, bucket.count);
    if (count > kMaxPointTotal) return Bad("histogram point %d: its count is above 2^56", i);
    if (point.errors.size() > kMaxErrnosPerPoint) {
      return Bad("histogram point %d: %d error numbers; the limit is %d", i, point.errors.size(), kMaxErrnosPerPoint);
    }
    if (point.exemplars.size() > kMaxExemplarsPerPoint) {
      return Bad("histogram point %d: %d exemplars; the limit is %d", i, point.exemplars.size(), kMaxExemplarsPerPoint);
    }
    for (const profile::Exemplar& exemplar : point.exemplars) {
      if (exemplar.stack >= batch.definitions->stack_count()) {
        return Bad("histogram point %d: exemplar with stack %d of %d", i, exemplar.stack,
                   batch.definitions->stack_count());
      }
      if (exemplar.comm.size() > kMaxCommBytes)
        return Bad("histogram point %d: exemplar with a comm that is too long", i);
      if (exemplar.call.size() > kMaxCallBytes)
        return Bad("histogram point %d: exemplar with a call of %d bytes; the limit is %d", i, exemplar.call.size(),
                   kMaxCallBytes);
      if (exemplar.split.size() > kMaxTimeParts) {
        return Bad("histogram point %d: exemplar with %d parts of its time; the limit is %d", i, exemplar.split.size(),
                   kMaxTimeParts);
      }
      for (const profile::TimePart& part : exemplar.split) {
        if (part.cause.size() > kMaxCommBytes) return Bad("histogram point %d: exemplar with a cause too long", i);
      }
      if (exemplar.waker.stack >= batch.definitions->stack_count()) {
        return Bad("histogram point %d: exemplar with stack %d of %d", i, exemplar.waker.stack,
                   batch.definitions->stack_count());
      }
      if (exemplar.waker.comm.size() > kMaxCommBytes || exemplar.waker.cause.size() > kMaxCommBytes) {
        return Bad("histogram point %d: exemplar whose waker has a name that is too long", i);
      }
    }
  }
  for (size_t i = 0; i < batch.counters.size(); ++i) {
    RETURN_IF_ERROR(checker.Check("counter", i, batch.counters[i], PointKind::kCounter));
    if (batch.counters[i].value > kMaxPointTotal) return Bad("counter point %d: its value is above 2^56", i);
  }
  return OkStatus();
}

}  // namespace

Status ValidateBatch(const BatchView& batch, CheckedDefinitions* checked, int64_t now_ns) {
  if (batch.agent_id.empty()) return Bad("it has no agent id");
  if (batch.agent_id.size() > kMaxAgentIdBytes || !IsUtf8(batch.agent_id)) {
    return Bad("its agent id is not UTF-8 of at most %d bytes", kMaxAgentIdBytes);
  }
  if (batch.node.size() > kMaxNodeNameBytes || !IsUtf8(batch.node)) {
    return Bad("its node name is not UTF-8 of at most %d bytes", kMaxNodeNameBytes);
  }
  if (batch.sequence == 0) return Bad("its sequence number is 0; they start at 1");
  const size_t points = batch.profiles.size() + batch.histograms.size() + batch.counters.size();
  if (points > kMaxPointsPerBatch) return Bad("%d points; the limit is %d", points, kMaxPointsPerBatch);
  RETURN_IF_ERROR(ValidateDefinitions(*batch.definitions, checked));
  return ValidatePoints(batch, now_ns);
}

}  // namespace pyrometer::store

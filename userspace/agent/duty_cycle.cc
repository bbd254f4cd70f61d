#include "userspace/agent/duty_cycle.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/profile/histogram.h"

namespace pyrometer::agent {
namespace {

// Above this share it is not worth estimating.
constexpr double kWhole = 0.9;

}  // namespace

uint64_t MeasuredSlices::MeasureNs(uint64_t length_ns) const {
  uint64_t sum = 0;
  for (const kernel::SyscallSlice& slice : slices) {
    const uint64_t last = slice.end_ns > length_ns ? std::min(slice.entries_end_ns, slice.end_ns - length_ns) : 0;
    if (last > slice.begin_ns) sum += last - slice.begin_ns;
  }
  return sum;
}

std::vector<std::pair<uint64_t, uint64_t>> PlanSlices(uint64_t window_ns, uint64_t on_ns, uint64_t at_ns) {
  on_ns = std::min(on_ns, window_ns);
  at_ns = std::min(at_ns, window_ns);
  const uint64_t end = at_ns + on_ns;
  if (end <= window_ns) return {{at_ns, end}};
  return {{0, end - window_ns}, {at_ns, window_ns}};
}

uint64_t ScaleToWindow(const MeasuredSlices& measured, std::mt19937_64& random, kernel::SyscallWindow& window) {
  std::uniform_real_distribution<double> uniform(0, 1);
  const auto rounded = [&](double value) { return static_cast<uint64_t>(std::floor(value + uniform(random))); };
  const uint64_t whole = measured.MeasureNs(0);
  const auto window_ns = static_cast<double>(measured.window_ns);
  uint64_t left_out = 0, count = 0;
  double before_ns = 0, after_ns = 0, kept = 0;
  std::vector<kernel::LatencyHistogram::Bucket> buckets;
  for (const auto& bucket : window.latency.buckets) {
    const uint64_t low = profile::BucketLowerBound(bucket.index);
    const uint64_t length = low + (profile::BucketUpperBound(bucket.index) - low) / 2;
    const auto calls = static_cast<double>(bucket.count);
    before_ns += calls * static_cast<double>(length);
    const uint64_t measure = measured.MeasureNs(length);
    if (measure == 0 || measure < whole / 10) {
      left_out += bucket.count;
      continue;
    }
    kept += calls;
    const uint64_t scaled = rounded(calls * window_ns / static_cast<double>(measure));
    if (scaled == 0) continue;
    count += scaled;
    after_ns += static_cast<double>(scaled) * static_cast<double>(length);
    buckets.push_back({.index = bucket.index, .count = scaled});
  }
  const double times = before_ns == 0 ? 0 : after_ns / before_ns;
  window.latency.sum_ns = static_cast<uint64_t>(static_cast<double>(window.latency.sum_ns) * times);
  if (left_out != 0) {
    const uint64_t longest = buckets.empty() ? 0 : profile::BucketUpperBound(buckets.back().index);
    window.latency.max_ns = std::min(window.latency.max_ns, longest);
  }
  // Which of its calls failed and waited is not known by length.
  const double calls = kept == 0 ? 0 : static_cast<double>(count) / kept;
  for (kernel::SyscallError& error : window.errors) error.count = rounded(static_cast<double>(error.count) * calls);
  std::erase_if(window.errors, [](const kernel::SyscallError& error) { return error.count == 0; });
  for (uint64_t& waited : window.waited_ns) waited = static_cast<uint64_t>(static_cast<double>(waited) * times);
  window.waited_calls = rounded(static_cast<double>(window.waited_calls) * calls);
  window.latency.count = count;
  window.latency.buckets = std::move(buckets);
  return left_out;
}

DutyCycle::DutyCycle(kernel::SyscallLatency* probe, const Options& options)
    : probe_(probe),
      options_(options),
      random_(options.seed != 0 ? options.seed : std::random_device{}()),
      window_begin_ns_(MonotonicNowNs()) {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "pyro-duty");
    Run();
  });
}

DutyCycle::~DutyCycle() { Stop(); }

void DutyCycle::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = cancel_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void DutyCycle::Run() {
  std::unique_lock lock(mutex_);
  const auto sleep_until = [&](uint64_t when_ns) {
    while (!cancel_) {
      const uint64_t now = MonotonicNowNs();
      if (now >= when_ns) return;
      changed_.wait_for(lock, std::chrono::nanoseconds(when_ns - now));
    }
  };
  const auto without_lock = [&](auto&& work) {
    lock.unlock();
    auto result = work();
    lock.lock();
    return result;
  };
  const auto pause = [&] {
    const uint64_t tail_ns = cancel_ ? 0 : kTailNs;
    StatusOr<kernel::SyscallSlice> slice = without_lock([&] { return probe_->Pause(tail_ns); });
    attached_ = false;
    if (!slice.ok()) {
      failure_.Update(slice.status());
      return;
    }
    // What was counted before the window is in the last one.
    slice->begin_ns = std::max(slice->begin_ns, window_begin_ns_);
    slices_.push_back(*slice);
  };
  while (true) {
    changed_.wait(lock, [&] { return stop_ || busy_; });
    if (!busy_) return;
    for (const auto& [begin, end] : std::exchange(plan_, {})) {
      if (attached_) pause();  // the window before was measured to its end
      sleep_until(begin);
      if (cancel_) break;
      const Status resumed = without_lock([&] { return probe_->Resume(); });
      if (!resumed.ok()) {
        failure_.Update(resumed);
        break;
      }
      attached_ = true;
      sleep_until(end);
      pause();
      if (cancel_) break;
    }
    busy_ = false;
    changed_.notify_all();
  }
}

StatusOr<std::optional<MeasuredSlices>> DutyCycle::EndWindow() {
  std::unique_lock lock(mutex_);
  if (share_ < 1) {
    cancel_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !busy_; });  // also after Stop: the thread ends idle
    cancel_ = stop_;
  }
  const uint64_t now = MonotonicNowNs();
  last_window_ns_ = now - std::exchange(window_begin_ns_, now);
  RETURN_IF_ERROR(std::exchange(failure_, OkStatus()));
  MeasuredSlices measured = {.slices = std::exchange(slices_, {}), .window_ns = last_window_ns_};
  if (share_ < 1) return std::optional(std::move(measured));
  if (resumed_ns_ == 0) return std::optional<MeasuredSlices>();
  measured.slices.push_back({.begin_ns = std::exchange(resumed_ns_, 0), .entries_end_ns = now, .end_ns = now});
  return std::optional(std::move(measured));
}

double DutyCycle::BeginWindow(uint64_t calls) {
  const std::lock_guard lock(mutex_);
  if (stop_ || last_window_ns_ == 0) return share_;
  const double cores = static_cast<double>(calls) * kCallCostNs / static_cast<double>(last_window_ns_);
  const double affordable = cores == 0 ? 1 : options_.budget_cores / cores;
  share_ = affordable >= kWhole ? 1 : std::max(affordable, kLeastShare);
  if (share_ >= 1) {
    if (attached_) return 1;
    const Status resumed = probe_->Resume();
    failure_.Update(resumed);
    attached_ = resumed.ok();
    resumed_ns_ = MonotonicNowNs();
    return 1;
  }
  const uint64_t usable = options_.window_ns - std::min(options_.window_ns / 2, kGuardNs);
  const auto on = static_cast<uint64_t>(static_cast<double>(usable) * share_);
  plan_ = PlanSlices(usable, on, std::uniform_int_distribution<uint64_t>(0, usable - 1)(random_));
  for (auto& [begin, end] : plan_) {
    begin += window_begin_ns_;
    end += window_begin_ns_;
  }
  busy_ = true;
  changed_.notify_all();
  return share_;
}

}  // namespace pyrometer::agent

#include "userspace/regression/google_benchmark.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "userspace/base/strings.h"

namespace pyrometer::regression {
namespace {

using nlohmann::json;

constexpr size_t kMaxBenchmarks = 1000;
constexpr size_t kMaxNameBytes = 4096;

Status Malformed(std::string_view what) {
  return InvalidArgumentError(
      StrFormat("the program did not write what a Google Benchmark program writes (--benchmark): %s", what));
}

double NsPerUnit(std::string_view unit) {
  if (unit == "ns") return 1;
  if (unit == "us") return 1e3;
  if (unit == "ms") return 1e6;
  if (unit == "s") return 1e9;
  return 0;
}

const json& Member(const json& object, const char* name) {
  static const json kNull;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return found == object.end() ? kNull : *found;
}

}  // namespace

StatusOr<std::vector<std::string>> ParseBenchmarkList(std::string_view text) {
  std::vector<std::string> names;
  for (const std::string_view line : Split(text, '\n')) {
    const std::string_view name = StripWhitespace(line);
    if (name.empty()) continue;
    if (name.size() > kMaxNameBytes || !IsUtf8(name)) return Malformed("a line of the list is no name");
    names.emplace_back(name);
  }
  if (names.empty()) return NotFoundError("the program lists no benchmarks (--benchmark_list_tests)");
  if (names.size() > kMaxBenchmarks) {
    return InvalidArgumentError(
        StrFormat("more than %d benchmarks: choose some with --benchmark_filter in both commands", kMaxBenchmarks));
  }
  return names;
}

std::string ExactBenchmarkFilter(std::string_view name) {
  std::string filter = "^";
  for (const char c : name) {
    if (std::string_view("\\^$.[]|()*+?{}").find(c) != std::string_view::npos) filter += '\\';
    filter += c;
  }
  return filter + "$";
}

StatusOr<BenchmarkTimes> ParseBenchmarkTimes(std::string_view text) {
  const json file = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const json& list = Member(file, "benchmarks");
  if (file.is_discarded() || !list.is_array()) return Malformed("no JSON with \"benchmarks\"");
  BenchmarkTimes times;
  double repetitions = 0;
  for (const json& one : list) {
    if (Member(one, "error_occurred") == true) {
      const json& message = Member(one, "error_message");
      return FailedPreconditionError(StrFormat(
          "the benchmark failed: %s", message.is_string() ? message.get<std::string>() : "it does not say why"));
    }
    if (Member(one, "run_type") == "aggregate") continue;
    const json &unit = Member(one, "time_unit"), &cpu = Member(one, "cpu_time"), &real = Member(one, "real_time"),
               &iterations = Member(one, "iterations");
    const double scale = unit.is_string() ? NsPerUnit(unit.get<std::string>()) : 0;
    if (scale == 0 || !cpu.is_number() || !real.is_number() || !iterations.is_number_unsigned()) {
      return Malformed("a result without time_unit, cpu_time, real_time or iterations");
    }
    times.cpu_ns += cpu.get<double>() * scale;
    times.real_ns += real.get<double>() * scale;
    times.iterations += iterations.get<uint64_t>();
    ++repetitions;
  }
  if (repetitions == 0) return Malformed("no result");
  times.cpu_ns /= repetitions;
  times.real_ns /= repetitions;
  if (!(times.cpu_ns > 0) || !std::isfinite(times.cpu_ns) || !std::isfinite(times.real_ns) || times.iterations == 0) {
    return Malformed("an iteration took no time");
  }
  return times;
}

profile::Profile InsideBenchmarks(profile::Profile profile) {
  const profile::Dictionary& dictionary = profile.dictionary;
  std::vector<bool> takes_state(dictionary.frame_count());
  for (profile::FrameId frame = 1; frame < dictionary.frame_count(); ++frame) {
    for (const profile::Line& line : dictionary.frame(frame).lines) {
      const profile::Function& function = dictionary.function(line.function);
      if (dictionary.string(function.name).find("benchmark::State&") != std::string_view::npos ||
          dictionary.string(function.system_name).find("N9benchmark5StateE") != std::string_view::npos) {
        takes_state[frame] = true;
      }
    }
  }
  std::vector<bool> inside(dictionary.stack_count());
  for (profile::StackId stack = 1; stack < dictionary.stack_count(); ++stack) {  // parents stand before children
    const profile::StackNode node = dictionary.stack(stack);
    inside[stack] = inside[node.parent] || takes_state[node.frame];
  }
  profile::Profile kept;
  kept.value_types = profile.value_types;
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const profile::Profile::Sample& sample = profile.sample(i);
    if (inside[sample.stack]) kept.Add(sample.labels, sample.stack, profile.values(i));
  }
  if (kept.sample_count() == 0) return profile;
  kept.dictionary = std::move(profile.dictionary);
  kept.default_value = profile.default_value;
  kept.period_type = profile.period_type;
  kept.period = profile.period;
  kept.time_ns = profile.time_ns;
  kept.duration_ns = profile.duration_ns;
  kept.comments = std::move(profile.comments);
  kept.accounting = std::move(profile.accounting);
  return kept;
}

}  // namespace pyrometer::regression

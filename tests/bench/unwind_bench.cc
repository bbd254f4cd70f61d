// What unwind tables cost in user space.
//
//   BuildTable            reading a binary's call frame information and making its table (warm page cache)
//   SerializeTable        to the bytes of the table's file
//   ParseTable            and back, checked
//   FindRule              the rule of a random address of the code
//
// The table's size is set against the code's: its sections (.text and the like), and the segments they are loaded with,
// which in some libraries hold as many constants again (libLLVM: 48 MiB of code in a segment of 97).
//
// The binary: $PYROMETER_BENCH_BINARY, else libLLVM-14 (110 MB), else this program.
#include <benchmark/benchmark.h>
#include <elf.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/elf/elf_file.h"
#include "userspace/unwind/table_builder.h"
#include "userspace/unwind/table_file.h"

namespace pyrometer::unwind {
namespace {

std::string BenchBinary() {
  if (const char* path = std::getenv("PYROMETER_BENCH_BINARY"); path != nullptr) return path;
  constexpr char kLlvm[] = "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1";
  return ::access(kLlvm, R_OK) == 0 ? kLlvm : "/proc/self/exe";
}

UnwindTable Build() {
  const auto file = elf::ElfFile::Open(BenchBinary());
  CHECK(file.ok());
  StatusOr<UnwindTable> table = BuildUnwindTable(*file, {});
  CHECK(table.ok());
  return *std::move(table);
}

uint64_t ExecutableSegmentBytes() {
  const auto file = elf::ElfFile::Open(BenchBinary());
  CHECK(file.ok());
  uint64_t bytes = 0;
  for (const elf::Segment& segment : file->segments()) {
    if (segment.type == PT_LOAD && (segment.flags & PF_X) != 0) bytes += segment.memory_size;
  }
  return bytes;
}

void Describe(const UnwindTable& table, benchmark::State& state) {
  const auto bytes = static_cast<double>(table.word_count()) * 4;
  state.counters["rows"] = static_cast<double>(table.stats.rows);
  state.counters["KiB"] = bytes / 1024;
  state.counters["KiB/MiB of code"] = bytes * 1024 / static_cast<double>(table.stats.code_bytes);
  state.counters["KiB/MiB of segment"] = bytes * 1024 / static_cast<double>(ExecutableSegmentBytes());
}

void BuildTable(benchmark::State& state) {
  UnwindTable table;
  for (auto _ : state) table = Build();
  Describe(table, state);
}
BENCHMARK(BuildTable)->Unit(benchmark::kMillisecond);

void Serialize(benchmark::State& state) {
  const UnwindTable table = Build();
  size_t bytes = 0;
  for (auto _ : state) bytes = SerializeTable(table).size();
  state.counters["KiB"] = static_cast<double>(bytes) / 1024;
}
BENCHMARK(Serialize)->Name("SerializeTable")->Unit(benchmark::kMillisecond);

void Parse(benchmark::State& state) {
  const std::string bytes = SerializeTable(Build());
  for (auto _ : state) CHECK(ParseTable(bytes).ok());
}
BENCHMARK(Parse)->Name("ParseTable")->Unit(benchmark::kMillisecond);

void Find(benchmark::State& state) {
  const UnwindTable table = Build();
  CHECK(!table.parts.empty());
  std::mt19937_64 random(1);
  std::vector<ElfAddress> addresses(1 << 20);
  for (ElfAddress& address : addresses) {
    const UnwindPart& part = table.parts[random() % table.parts.size()];
    address = ElfAddress(part.base.value + random() % (part.end().value - part.base.value));
  }
  size_t at = 0;
  for (auto _ : state) benchmark::DoNotOptimize(FindRule(table, addresses[at++ & (addresses.size() - 1)]));
}
BENCHMARK(Find)->Name("FindRule");

}  // namespace
}  // namespace pyrometer::unwind

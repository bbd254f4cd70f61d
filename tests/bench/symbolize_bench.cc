// What names cost.
//
//   IndexFind             one address in a table, random addresses of the binary's code
//   SymbolizeIn           the same with the shared name (warm cache)
//   Symbolize             the same through the look-up by build ID
//   BuildTable            reading the binary and building its table (warm page cache)
//   DemangleNames         the binary's own mangled names, one after the other
//   KernelRefresh         reading and parsing /proc/kallsyms
//   KernelSymbolize       one kernel address
//   PerfMapParse          a perf map of 100,000 functions
//   PerfMapSymbolize      one address in it
//
// The binary: $PYROMETER_BENCH_BINARY, else libLLVM-14 (110 MB, 34,000 functions), else this program.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/symbolizer.h"

namespace pyrometer::symbolize {
namespace {

std::string BenchBinary() {
  if (const char* path = std::getenv("PYROMETER_BENCH_BINARY"); path != nullptr) return path;
  for (const char* path : {"/usr/lib/llvm-14/lib/libLLVM-14.so.1", "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1"}) {
    if (::access(path, R_OK) == 0) return path;
  }
  return "/proc/self/exe";
}

BinarySource BenchSource() {
  BinarySource source;
  source.path = BenchBinary();
  source.openers = {FileInRoot("", source.path)};
  return source;
}

constexpr size_t kAddresses = 1 << 20;

// Uniformly random bytes of .text, fixed seed.
std::vector<ElfAddress> CodeAddresses(const std::string& path) {
  const auto file = elf::ElfFile::Open(path);
  CHECK(file.ok());
  const elf::Section* text = file->FindSection(".text");
  CHECK(text != nullptr && text->size > 0);
  std::mt19937_64 random(1);
  std::vector<ElfAddress> addresses(kAddresses);
  for (ElfAddress& address : addresses) address = ElfAddress(text->address.value + random() % text->size);
  return addresses;
}

void IndexFind(benchmark::State& state) {
  const auto symbols = BinarySymbols::Build({}, BenchSource(), {});
  const std::vector<ElfAddress> addresses = CodeAddresses(BenchBinary());
  size_t i = 0, found = 0;
  for (auto _ : state) {
    found += symbols->index().Find(addresses[i++ % kAddresses]).has_value();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
  state.counters["named"] = static_cast<double>(found) / static_cast<double>(state.iterations());
  state.counters["ranges"] = static_cast<double>(symbols->index().range_count());
  state.counters["KiB"] = static_cast<double>(symbols->memory_bytes() >> 10);
}
BENCHMARK(IndexFind);

void SymbolizeIn(benchmark::State& state) {
  Symbolizer symbolizer(Symbolizer::Options{});
  const auto symbols = symbolizer.Get({}, BenchSource());
  const std::vector<ElfAddress> addresses = CodeAddresses(BenchBinary());
  for (const ElfAddress address : addresses) symbolizer.SymbolizeIn(*symbols, address);
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(symbolizer.SymbolizeIn(*symbols, addresses[i++ % kAddresses]));
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(SymbolizeIn);

void Symbolize(benchmark::State& state) {
  Symbolizer symbolizer(Symbolizer::Options{});
  const BinarySource source = BenchSource();
  const BuildId id = symbolizer.Get({}, source)->build_id();
  const std::vector<ElfAddress> addresses = CodeAddresses(BenchBinary());
  for (const ElfAddress address : addresses) symbolizer.Symbolize(id, source, address);
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(symbolizer.Symbolize(id, source, addresses[i++ % kAddresses]));
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(Symbolize);

void BuildTable(benchmark::State& state) {
  size_t ranges = 0;
  for (auto _ : state) ranges = BinarySymbols::Build({}, BenchSource(), {})->index().range_count();
  state.counters["ranges"] = static_cast<double>(ranges);
}
BENCHMARK(BuildTable)->Unit(benchmark::kMillisecond);

void DemangleNames(benchmark::State& state) {
  const auto symbols = BinarySymbols::Build({}, BenchSource(), {});
  std::vector<std::string> names;
  for (const ElfAddress address : CodeAddresses(BenchBinary())) {
    if (names.size() == 10'000) break;
    if (const auto hit = symbols->index().Find(address)) names.emplace_back(symbols->index().name(hit->function));
  }
  CHECK(!names.empty());
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(Demangle(names[i++ % names.size()]));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(DemangleNames);

void KernelRefresh(benchmark::State& state) {
  KernelSymbols kernel(KernelSymbols::Options{});
  for (auto _ : state) {
    if (!kernel.Refresh().ok()) return state.SkipWithError("cannot read /proc/kallsyms");
  }
  state.counters["functions"] = static_cast<double>(kernel.function_count());
}
BENCHMARK(KernelRefresh)->Unit(benchmark::kMillisecond);

void KernelSymbolize(benchmark::State& state) {
  KernelSymbols kernel(KernelSymbols::Options{});
  std::mt19937_64 random(1);
  std::vector<VirtualAddress> addresses(4096);
  for (VirtualAddress& address : addresses) address = VirtualAddress(0xffffffff81000000 + random() % (8u << 20));
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(kernel.Symbolize(addresses[i++ % addresses.size()]));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(KernelSymbolize);

constexpr int kJitFunctions = 100'000;

// Our own perf map, gone when the program ends.
class OwnPerfMap {
 public:
  OwnPerfMap() : path_(StrFormat("/tmp/perf-%d.map", ::getpid())) {
    std::ofstream file(path_);
    for (int i = 0; i < kJitFunctions; ++i) {
      file << StrFormat("%x 80 LazyCompile:*function_%d /srv/app/module_%d.js:%d\n", 0x10000000 + i * 256, i, i % 97,
                        i);
    }
  }
  ~OwnPerfMap() { ::unlink(path_.c_str()); }

 private:
  std::string path_;
};

void PerfMapParse(benchmark::State& state) {
  const OwnPerfMap file;
  size_t bytes = 0;
  for (auto _ : state) {
    MissReason why;
    const auto map = PerfMap::Open({.tgid = static_cast<uint32_t>(::getpid())}, PerfMap::Options{}, &why);
    CHECK(map != nullptr && map->entry_count() == kJitFunctions);
    bytes = map->memory_bytes();
  }
  state.counters["KiB"] = static_cast<double>(bytes >> 10);
}
BENCHMARK(PerfMapParse)->Unit(benchmark::kMillisecond);

void PerfMapSymbolize(benchmark::State& state) {
  const OwnPerfMap file;
  MissReason why;
  const auto map = PerfMap::Open({.tgid = static_cast<uint32_t>(::getpid())}, PerfMap::Options{}, &why);
  CHECK(map != nullptr);
  std::mt19937_64 random(1);
  std::vector<VirtualAddress> addresses(4096);
  for (VirtualAddress& address : addresses) address = VirtualAddress(0x10000000 + random() % (kJitFunctions * 256));
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(map->Symbolize(addresses[i++ % addresses.size()]));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(PerfMapSymbolize);

}  // namespace
}  // namespace pyrometer::symbolize

// Names addresses of one binary, for tests/bench/symbolizer_compare: prints them as llvm-symbolizer does, or
// measures. Reads one hexadecimal address per line from standard input.
//
//   symbolizer_driver BINARY [--index FILE] [--mode functions|frames] [--print] [--demangle] [--repeat N]
//
// --index FILE: loads the index from there, or builds it and writes it there when FILE is absent.
// Measurements go to standard error as "key value" lines.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_symbols.h"
#include "userspace/symbolize/demangle.h"

namespace pyrometer::symbolize {
namespace {

double CpuSeconds() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void Report(const char* key, double value) { std::fprintf(stderr, "%s %.6g\n", key, value); }

int Run(int argc, char** argv) {
  std::string binary, index_file, mode = "frames", scratch;
  bool print = false, demangle = false;
  int repeat = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--index") {
      index_file = argv[++i];
    } else if (argument == "--mode") {
      mode = argv[++i];
    } else if (argument == "--scratch") {
      scratch = argv[++i];
    } else if (argument == "--repeat") {
      repeat = std::atoi(argv[++i]);
    } else if (argument == "--print") {
      print = true;
    } else if (argument == "--demangle") {
      demangle = true;
    } else {
      binary = argument;
    }
  }
  std::vector<ElfAddress> addresses;
  for (std::string line; std::getline(std::cin, line);) {
    addresses.push_back(ElfAddress(std::strtoull(line.c_str(), nullptr, 16)));
  }

  const double start = CpuSeconds();
  SymbolIndex index;
  if (!index_file.empty() && ::access(index_file.c_str(), R_OK) == 0) {
    StatusOr<MappedFile> file = MappedFile::Map(index_file);
    StatusOr<SymbolIndex> loaded = file.ok() ? SymbolIndex::FromFile(*std::move(file)) : file.status();
    if (!loaded.ok()) {
      std::fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
      return 1;
    }
    index = *std::move(loaded);
    Report("load_seconds", CpuSeconds() - start);
  } else {
    BinarySource source;
    source.path = binary;
    source.openers = {FileInRoot("", binary)};
    BuildOptions options;
    options.scratch_folder = scratch;
    const auto symbols = BinarySymbols::Build({}, source, options);
    if (!symbols->problem_detail().empty()) std::fprintf(stderr, "problem: %s\n", symbols->problem_detail().c_str());
    const dwarf::Reader::Counters& counters = symbols->debug_counters();
    Report("build_seconds", CpuSeconds() - start);
    Report("dwarf_bytes_read", static_cast<double>(counters.bytes));
    Report("units", static_cast<double>(counters.units));
    Report("functions", static_cast<double>(counters.functions));
    Report("inlined", static_cast<double>(counters.inlined));
    Report("missing_splits", static_cast<double>(counters.missing_splits));
    index = symbols->index();
    if (!index_file.empty()) {
      if (Status status = WriteFileAtomically(index_file, index.bytes()); !status.ok()) {
        std::fprintf(stderr, "%s\n", status.ToString().c_str());
        return 1;
      }
    }
  }
  Report("index_bytes", static_cast<double>(index.memory_bytes()));

  std::vector<double> rates;
  SymbolIndex::FrameLists lists;
  std::vector<SymbolIndex::Hit> hits;
  for (int i = 0; i < repeat; ++i) {
    const double before = CpuSeconds();
    if (mode == "functions") {
      index.Find(addresses, &hits);
    } else {
      index.Frames(addresses, &lists);
    }
    const double took = CpuSeconds() - before;
    if (took > 0) rates.push_back(static_cast<double>(addresses.size()) / took);
    if (i == 0) Report("first_rate", static_cast<double>(addresses.size()) / std::max(took, 1e-9));
  }
  std::sort(rates.begin(), rates.end());
  if (!rates.empty()) Report("rate", rates[rates.size() / 2]);

  if (print) {
    const double before = CpuSeconds();
    std::string text;
    const auto name_of = [&](uint32_t function) {
      const std::string_view name = index.name(function);
      if (name.empty()) return std::string("??");
      return demangle ? Demangle(name) : std::string(name);
    };
    for (size_t i = 0; i < addresses.size(); ++i) {
      if (mode == "functions") {
        text += name_of(hits[i].function) + "\n\n";
      } else {
        for (uint32_t f = lists.first[i]; f < lists.first[i + 1]; ++f) {
          const SymbolIndex::Frame& frame = lists.frames[f];
          const std::string_view file = index.file(frame.file);
          text += name_of(frame.function);
          text += '\n';
          text += file.empty() ? "??" : file;
          text += StrFormat(":%d\n", frame.line);
        }
        if (lists.first[i] == lists.first[i + 1]) text += "??\n??:0\n";
        text += '\n';
      }
      if (text.size() > (1u << 20)) {
        std::fwrite(text.data(), 1, text.size(), stdout);
        text.clear();
      }
    }
    std::fwrite(text.data(), 1, text.size(), stdout);
    Report("print_seconds", CpuSeconds() - before);
  }
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  Report("peak_rss_kib", static_cast<double>(usage.ru_maxrss));
  Report("total_seconds", CpuSeconds());
  return 0;
}

}  // namespace
}  // namespace pyrometer::symbolize

int main(int argc, char** argv) { return pyrometer::symbolize::Run(argc, argv); }

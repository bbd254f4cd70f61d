// Our names beside those of binutils, which has its own reader: thousands of random addresses of
// real libraries and of this test program.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/binary_symbols.h"

namespace pyrometer::symbolize {
namespace {

std::string WithoutVersion(const std::string& name) {
  const size_t at = name.find('@');
  return at == std::string::npos || at == 0 ? name : name.substr(0, at);
}

// What nm says: for each address the names of the innermost sized functions over it.
class NmOracle {
 public:
  explicit NmOracle(const std::vector<NmSymbol>& symbols) {
    for (const NmSymbol& symbol : symbols) {
      if (std::string("tTwWiu").find(symbol.type) == std::string::npos) continue;
      starts_[symbol.address].push_back({symbol.size, WithoutVersion(symbol.name)});
    }
  }
  // Empty: no function that has a size covers it.
  std::set<std::string> At(uint64_t address) const {
    constexpr int kLookBack = 400;  // starts; enclosing functions lie no farther back
    auto it = starts_.upper_bound(address);
    for (int i = 0; i < kLookBack && it != starts_.begin(); ++i) {
      --it;
      std::set<std::string> names;
      bool covers = false;
      for (const auto& [size, name] : it->second) {
        covers = covers || address - it->first < size;
        names.insert(name);
      }
      if (covers) return names;
    }
    return {};
  }
  // A function without size begins here or before, and nothing else since.
  bool BehindUnsized(uint64_t address) const {
    auto it = starts_.upper_bound(address);
    if (it == starts_.begin()) return false;
    --it;
    return std::any_of(it->second.begin(), it->second.end(), [](const auto& s) { return s.first == 0; });
  }

 private:
  std::map<uint64_t, std::vector<std::pair<uint64_t, std::string>>> starts_;
};

struct Comparison {
  int named = 0;    // both have the same name
  int missed = 0;   // both have none
  int unsized = 0;  // we extended a function without size; nm has no word on that
  int wrong = 0;
};

Comparison CompareWithNm(const std::string& binary, const std::vector<NmSymbol>& nm, int count) {
  const auto symbols = BinarySymbols::Build({}, SourceOf(binary), BuildOptions{});
  EXPECT_EQ(symbols->problem(), MissReason::kNone) << symbols->problem_detail();
  const auto file = elf::ElfFile::Open(binary);
  const elf::Section* text = file->FindSection(".text");
  const NmOracle oracle(nm);
  std::mt19937_64 random(4711);
  Comparison result;
  for (int i = 0; i < count; ++i) {
    const uint64_t address = text->address.value + random() % text->size;
    const auto hit = symbols->index().Find(ElfAddress(address));
    const std::string ours = hit.has_value() ? std::string(symbols->index().name(hit->function)) : "";
    const std::set<std::string> expected = oracle.At(address);
    if (hit.has_value() && expected.contains(ours)) {
      ++result.named;
    } else if (!hit.has_value() && expected.empty()) {
      ++result.missed;
    } else if (hit.has_value() && oracle.BehindUnsized(address)) {
      ++result.unsized;
    } else {
      ++result.wrong;
      ADD_FAILURE() << binary
                    << StrFormat(" %#x: ours \"%s\", nm \"%s\"", address, ours,
                                 expected.empty() ? "" : *expected.begin());
      if (result.wrong > 5) break;
    }
  }
  std::printf("%s: %d named, %d outside, %d behind unsized symbols\n", binary.c_str(), result.named, result.missed,
              result.unsized);
  return result;
}

TEST(OracleTest, LibcFromItsDebugFileOrItsDynamicSymbols) {
  std::string libc;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.ends_with("/libc.so.6")) libc = line.substr(line.find('/'));
  }
  if (libc.empty()) GTEST_SKIP() << "this C library is not glibc";
  const BuildId id = *elf::ElfFile::Open(libc)->ReadBuildId();
  const std::string debug = "/usr/lib/debug/.build-id/" + id.hex.substr(0, 2) + "/" + id.hex.substr(2) + ".debug";
  std::vector<NmSymbol> nm = RunNm("-D --defined-only", libc);
  const bool has_debug = ::access(debug.c_str(), R_OK) == 0;
  if (has_debug) {
    for (NmSymbol& symbol : RunNm("--defined-only", debug)) nm.push_back(std::move(symbol));
  }
  const Comparison result = CompareWithNm(libc, nm, 20'000);
  EXPECT_GT(result.named, has_debug ? 19'000 : 8'000);
  EXPECT_LT(result.unsized, 400);
}

TEST(OracleTest, ThisProgramWithItsOwnSymbolTable) {
  // Without debug information, which knows functions that nm does not.
  const TempFolder temp;
  const std::string self = temp.path() + "/program";
  Lines("strip --strip-debug -o " + self + " " + std::filesystem::read_symlink("/proc/self/exe").string());
  const Comparison result = CompareWithNm(self, RunNm("--defined-only", self), 20'000);
  EXPECT_GT(result.named, 19'000);
}

TEST(OracleTest, Addr2lineGivesTheSameNames) {
  // Without debug information, or addr2line would name inlined functions.
  const TempFolder temp;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string plain = temp.path() + "/program";
  Lines("strip --strip-debug -o " + plain + " " + self);
  const auto symbols = BinarySymbols::Build({}, SourceOf(plain), BuildOptions{});
  const auto file = elf::ElfFile::Open(plain);
  const elf::Section* text = file->FindSection(".text");
  std::map<uint64_t, std::set<std::string>> aliases;
  for (const NmSymbol& symbol : RunNm("--defined-only", plain)) aliases[symbol.address].insert(symbol.name);

  std::mt19937_64 random(99);
  std::vector<uint64_t> addresses;
  std::ofstream list(temp.path() + "/addresses");
  for (int i = 0; i < 3000; ++i) {
    addresses.push_back(text->address.value + random() % text->size);
    list << StrFormat("%#x\n", addresses.back());
  }
  list.close();
  // Two lines each: function, file:line.
  const std::vector<std::string> answers = Lines("addr2line -f -e " + plain + " <" + temp.path() + "/addresses");
  ASSERT_EQ(answers.size(), 2 * addresses.size());
  int same = 0, alias = 0, gap = 0;
  for (size_t i = 0; i < addresses.size(); ++i) {
    const std::string& theirs = answers[2 * i];
    const auto hit = symbols->index().Find(ElfAddress(addresses[i]));
    if (!hit.has_value()) {
      ++gap;  // addr2line names the function before a gap; checked against sizes by the tests above
      continue;
    }
    const std::string ours(symbols->index().name(hit->function));
    const std::set<std::string>& names = aliases[addresses[i] - hit->offset];
    if (ours == theirs) {
      ++same;
    } else if (names.contains(ours) && names.contains(theirs)) {
      ++alias;
    } else {
      ADD_FAILURE() << StrFormat("%#x: ours %s, addr2line %s", addresses[i], ours, theirs);
    }
  }
  std::printf("%d same, %d an alias, %d in gaps\n", same, alias, gap);
  EXPECT_GT(same + alias, 2700);
  EXPECT_LT(gap, 300);
}

}  // namespace
}  // namespace pyrometer::symbolize

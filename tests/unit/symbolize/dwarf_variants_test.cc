// The same small program, its debug information written in every way there is: DWARF 2 to 5, split, packaged,
// with type units, dwz'ed, compressed, with LTO, by GCC, clang, rustc and Go. Every instruction's frames are
// compared with llvm-symbolizer's or, where that does not read the form, with those of the same code
// with ordinary debug information.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/binary_symbols.h"

namespace pyrometer::symbolize {
namespace {

std::string DwarfFixture(const std::string& name) { return std::string(PYROMETER_DWARF_FIXTURES) + "/" + name; }

struct Answer {
  std::string function;
  std::string place;  // file:line
  bool operator==(const Answer&) const = default;
};
using Answers = std::vector<Answer>;

void PrintTo(const Answers& answers, std::ostream* stream) {
  for (const Answer& answer : answers) *stream << answer.function << " " << answer.place << "; ";
}

std::vector<uint64_t> CodeOf(const std::string& path, uint64_t step) {
  const auto file = elf::ElfFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  const elf::Section* text = file->FindSection(".text");
  std::vector<uint64_t> addresses;
  for (uint64_t at = 0; at < text->size; at += step) addresses.push_back(text->address.value + at);
  return addresses;
}

std::vector<Answers> Ours(const BinarySymbols& symbols, const std::vector<uint64_t>& addresses) {
  const SymbolIndex& index = symbols.index();
  std::vector<ElfAddress> batch;
  for (const uint64_t address : addresses) batch.push_back(ElfAddress(address));
  SymbolIndex::FrameLists lists;
  index.Frames(batch, &lists);
  std::vector<Answers> all;
  for (size_t i = 0; i < addresses.size(); ++i) {
    Answers answers;
    for (uint32_t f = lists.first[i]; f < lists.first[i + 1]; ++f) {
      const SymbolIndex::Frame& frame = lists.frames[f];
      const std::string_view file = index.file(frame.file);
      answers.push_back(
          {std::string(index.name(frame.function)), file.empty() ? "" : StrFormat("%s:%d", file, frame.line)});
    }
    // The single question must give what the batch gives.
    std::vector<SymbolIndex::Frame> single;
    index.Frames(batch[i], &single);
    EXPECT_EQ(single.size(), answers.size());
    // Alone, a line without a function is no answer.
    if (answers.size() == 1 && answers[0].function.empty()) answers.clear();
    all.push_back(std::move(answers));
  }
  return all;
}

std::vector<Answers> Llvm(const std::string& path, const std::vector<uint64_t>& addresses) {
  const TempFolder temp;
  std::ofstream list(temp.path() + "/addresses");
  for (const uint64_t address : addresses) list << StrFormat("%#x\n", address);
  list.close();
  std::vector<Answers> all;
  Answers answers;
  std::string function;
  for (const std::string& line :
       Lines("llvm-symbolizer --no-demangle --inlines -e " + path + " <" + temp.path() + "/addresses")) {
    if (line.empty()) {
      if (answers.size() == 1 && answers[0].function.empty()) answers.clear();
      all.push_back(std::exchange(answers, {}));
      function.clear();
    } else if (function.empty()) {
      function = line;
    } else {
      std::string place = line.substr(0, line.rfind(':'));  // without column
      // "crtstuff.c:0" is a guess from the symbol table's file entries, not a line.
      if (place == "??:0" || (place.ends_with(":0") && place.find('/') == std::string::npos)) place.clear();
      answers.push_back({function == "??" ? "" : function, place});
      function.clear();
    }
  }
  return all;
}

// Names that stand for one address in the symbol table are equally right.
class Aliases {
 public:
  explicit Aliases(const std::string& path) {
    std::map<uint64_t, std::string> first;
    for (const NmSymbol& symbol : RunNm("--defined-only", path)) {
      const auto [position, added] = first.emplace(symbol.address, symbol.name);
      same_[symbol.name] = position->second;
    }
  }
  std::string Of(const std::string& name) const {
    const auto found = same_.find(name);
    return found == same_.end() ? name : found->second;
  }

 private:
  std::map<std::string, std::string> same_;
};

void ExpectSame(const std::string& path, const std::vector<uint64_t>& addresses, std::vector<Answers> ours,
                std::vector<Answers> theirs) {
  ASSERT_EQ(ours.size(), addresses.size());
  ASSERT_EQ(theirs.size(), addresses.size());
  const Aliases aliases(path);
  int wrong = 0, inlined = 0;
  for (size_t i = 0; i < addresses.size() && wrong < 5; ++i) {
    for (Answers* answers : {&ours[i], &theirs[i]}) {
      if (!answers->empty()) answers->back().function = aliases.Of(answers->back().function);
    }
    inlined += theirs[i].size() > 1;
    wrong += ours[i] != theirs[i];
    EXPECT_EQ(ours[i], theirs[i]) << path << StrFormat(" %#x", addresses[i]);
  }
  std::printf("%s: %d addresses, %d with inlined functions\n", path.c_str(), static_cast<int>(addresses.size()),
              inlined);
}

std::shared_ptr<const BinarySymbols> BuildOf(const std::string& path) {
  auto symbols = BinarySymbols::Build({}, SourceOf(path), BuildOptions{});
  EXPECT_EQ(symbols->problem(), MissReason::kNone) << symbols->problem_detail();
  EXPECT_EQ(symbols->problem_detail(), "");
  EXPECT_TRUE(symbols->origin().dwarf);
  EXPECT_EQ(symbols->debug_counters().missing_splits, 0u);
  EXPECT_TRUE(symbols->index().Verify().ok());
  return symbols;
}

bool HasLlvm() { return ::access("/usr/bin/llvm-symbolizer", X_OK) == 0; }

struct Variant {
  std::string file;
  std::string plain;  // the same code with ordinary debug information; "": ask llvm-symbolizer
  uint64_t step = 1;
};

class DwarfVariantsTest : public testing::TestWithParam<Variant> {};

TEST_P(DwarfVariantsTest, EveryInstructionHasTheSameFrames) {
  const Variant& variant = GetParam();
  const std::string path = DwarfFixture(variant.file);
  if (::access(path.c_str(), R_OK) != 0) GTEST_SKIP() << variant.file << " could not be made here";
  const std::vector<uint64_t> addresses = CodeOf(path, variant.step);
  const std::vector<Answers> ours = Ours(*BuildOf(path), addresses);
  if (!variant.plain.empty()) {
    const std::string plain = DwarfFixture(variant.plain);
    ASSERT_EQ(addresses, CodeOf(plain, variant.step));
    ExpectSame(plain, addresses, ours, Ours(*BuildOf(plain), addresses));
  } else if (HasLlvm()) {
    ExpectSame(path, addresses, ours, Llvm(path, addresses));
  } else {
    GTEST_SKIP() << "llvm-symbolizer is not installed";
  }
}

std::vector<Variant> AllVariants() {
  std::vector<Variant> variants;
  for (const std::string compiler : {"gcc", "clang"}) {
    for (const char* version : {"2", "3", "4", "5"}) variants.push_back({compiler + "_v" + version, ""});
    for (const std::string version : {"4", "5"}) {
      variants.push_back({compiler + "_types_v" + version, ""});
      const std::string split = compiler + "_split_v" + version, package = compiler + "_package_v" + version;
      // llvm-symbolizer 14 loses inlined functions of more than one range in split units.
      variants.push_back({split + "/plain", ""});
      variants.push_back({split + "/split", split + "/plain"});
      variants.push_back({package + "/split", package + "/plain"});
    }
    variants.push_back({compiler + "_O0", ""});
    variants.push_back({compiler + "_sections", ""});
    variants.push_back({compiler + "_lto", ""});
  }
  for (const char* file : {"gcc_dwarf64", "gcc_gz", "gcc_zlib-gnu", "dwz_alone"}) variants.push_back({file, ""});
  variants.push_back({"gcc_zstd", "gcc_v4"});
  for (const std::string version : {"4", "5"}) {
    variants.push_back({"dwz_v" + version, "gcc_v" + version});
    variants.push_back({"dwz_other_v" + version, "other_v" + version});
  }
  variants.push_back({"separate/shop", "gcc_v5"});
  variants.push_back({"rust_legacy", "", 13});
  variants.push_back({"rust_v0", "", 13});
  variants.push_back({"go_full", "", 29});
  return variants;
}

INSTANTIATE_TEST_SUITE_P(All, DwarfVariantsTest, testing::ValuesIn(AllVariants()), [](const auto& chosen) {
  std::string name = chosen.param.file;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

TEST(DwarfTest, AMissingSplitFileLeavesNamesLinesAndAReason) {
  const std::string split = DwarfFixture("gcc_split_v5/split");
  if (::access(split.c_str(), R_OK) != 0) GTEST_SKIP() << "g++ is not installed";
  const TempFolder temp;
  const std::string path = temp.path() + "/moved";
  std::filesystem::copy_file(split, path);
  // The split files are found by the folder they were compiled in: hide it.
  std::string bytes;
  {
    std::ifstream in(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  const std::string folder = DwarfFixture("gcc_split_v5");
  for (size_t at = bytes.find(folder); at != std::string::npos; at = bytes.find(folder, at)) {
    bytes.replace(at, folder.size(), std::string(folder.size(), 'q'));
  }
  std::ofstream(path, std::ios::binary) << bytes;
  const auto symbols = BinarySymbols::Build({}, SourceOf(path), BuildOptions{});
  EXPECT_EQ(symbols->problem(), MissReason::kNone);
  EXPECT_EQ(symbols->debug_counters().missing_splits, 2u);
  EXPECT_NE(symbols->problem_detail().find(".dwo"), std::string::npos) << symbols->problem_detail();
  const auto main_symbol = RunNm("--defined-only", split);
  for (const NmSymbol& symbol : main_symbol) {
    if (symbol.name != "main") continue;
    std::vector<SymbolIndex::Frame> frames;
    EXPECT_EQ(symbols->index().Frames(ElfAddress(symbol.address), &frames), 1u);
    EXPECT_EQ(symbols->index().name(frames[0].function), "main");
    EXPECT_GT(frames[0].line, 0u) << "lines are not split";
  }
}

TEST(DwarfTest, AMissingSupplementLeavesNamesLinesAndAReason) {
  const std::string path = DwarfFixture("dwz_v5");
  if (::access(path.c_str(), R_OK) != 0) GTEST_SKIP() << "dwz is not installed";
  const TempFolder temp;
  const std::string moved = temp.path() + "/moved";
  std::filesystem::copy_file(path, moved);
  const auto symbols = BinarySymbols::Build({}, SourceOf(moved), BuildOptions{});
  EXPECT_EQ(symbols->problem(), MissReason::kNone);
  EXPECT_NE(symbols->problem_detail().find("dwz_common_v5.debug"), std::string::npos) << symbols->problem_detail();
  EXPECT_GT(symbols->index().inlined_count(), 10u);
}

TEST(DwarfTest, StartLinesAreKnown) {
  const std::string path = DwarfFixture("gcc_v5");
  if (::access(path.c_str(), R_OK) != 0) GTEST_SKIP() << "g++ is not installed";
  const auto symbols = BuildOf(path);
  for (const NmSymbol& symbol : RunNm("--defined-only", path)) {
    if (symbol.name != "main") continue;
    const auto hit = symbols->index().Find(ElfAddress(symbol.address));
    ASSERT_TRUE(hit.has_value());
    EXPECT_EQ(symbols->index().start_line(hit->function), 30u);
  }
}

}  // namespace
}  // namespace pyrometer::symbolize

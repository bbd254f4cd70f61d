// No frame that is wrong: the walk against the true call stack of whole programs, instruction by instruction, from the
// first one of ld.so on: prologues, epilogues, PLT stubs with their lazy binding, signal handlers, realigned frames,
// callbacks through libc and libstdc++ as Debian ships them (without frame pointers).
#include <gtest/gtest.h>
#include <sys/uio.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/step_oracle.h"
#include "userspace/base/strings.h"
#include "userspace/unwind/stack_walker.h"
#include "userspace/unwind/table_builder.h"

namespace pyrometer::unwind {
namespace {

using testing::PointKind;
using testing::StepPoint;

class StepMemory final : public UserMemory {
 public:
  explicit StepMemory(const StepPoint& point) : point_(point) {}
  bool Read(uint64_t address, std::span<char> out) const override {
    return point_.Read(address, out.data(), out.size());
  }

 private:
  const StepPoint& point_;
};

// Mappings and tables of the stepped process, read again when it executes what is not known.
class Program {
 public:
  void Refresh(const StepPoint& point) {
    regions_.clear();
    walker_.Clear();
    std::ifstream maps(StrFormat("/proc/%d/maps", point.pid()));
    for (std::string line; std::getline(maps, line);) {
      unsigned long start, end, offset;
      char protection[8] = {}, path[512] = {};
      if (std::sscanf(line.c_str(), "%lx-%lx %7s %lx %*s %*s %511s", &start, &end, protection, &offset, path) < 4)
        continue;
      if (protection[2] != 'x') continue;
      WalkMapping mapping{.start = VirtualAddress(start), .end = VirtualAddress(end), .kind = PYRO_MAPPING_UNREADABLE};
      const Binary& binary = BinaryOf(point, path, start, end);
      if (binary.table) {
        const auto address = binary.vdso ? ElfAddress(0) : *elf::ToElfAddress(binary.segments, FileOffset(offset));
        mapping.kind = PYRO_MAPPING_TABLE;
        mapping.table = binary.table.get();
        mapping.bias = start - address.value;
      }
      walker_.Map(mapping);
      regions_.emplace_back(start, end);
    }
  }
  bool Knows(uint64_t address) const {
    for (const auto& [start, end] : regions_) {
      if (address >= start && address < end) return true;
    }
    return false;
  }
  StackWalker& walker() { return walker_; }

 private:
  struct Binary {
    std::unique_ptr<UnwindTable> table;
    std::vector<elf::Segment> segments;
    bool vdso = false;
  };
  const Binary& BinaryOf(const StepPoint& point, const std::string& path, uint64_t start, uint64_t end) {
    const auto [found, added] = binaries_.try_emplace(path);
    Binary& binary = found->second;
    if (!added) return binary;
    StatusOr<elf::ElfFile> file = InvalidArgumentError("no file");
    if (path == "[vdso]") {
      auto image = std::make_shared<std::string>(end - start, '\0');
      EXPECT_TRUE(point.Read(start, image->data(), image->size()));
      file = elf::ElfFile::FromBytes(image, path);
      binary.vdso = true;
    } else if (path.starts_with('/')) {
      file = elf::ElfFile::Open(path);
    }
    if (!file.ok()) return binary;
    binary.segments = file->segments();
    auto table = BuildUnwindTable(*file, {});
    if (table.ok()) binary.table = std::make_unique<UnwindTable>(*std::move(table));
    return binary;
  }

  StackWalker walker_;
  std::vector<std::pair<uint64_t, uint64_t>> regions_;
  std::map<std::string, Binary> binaries_;
};

struct Case {
  const char* name;
  std::vector<std::string> arguments;  // program first, in the folder of the workloads
  double least_whole = 0.93;           // share of points whose stack ends where it should
  bool from_entry = false;
};

class Step : public ::testing::TestWithParam<Case> {};

TEST_P(Step, NoFrameIsWrong) {
  testing::StepOptions options;
  options.arguments = GetParam().arguments;
  options.arguments[0] = std::string(PYROMETER_WORKLOADS) + "/" + options.arguments[0];
  options.environment = {"SHAPE_SHIFT=12"};  // short loops
  options.max_points = 12'000;
  options.max_steps = 500'000;
  options.from_entry = GetParam().from_entry;

  Program program;
  uint64_t points = 0, whole = 0, wrong = 0;
  std::map<int, uint64_t> stops;
  const auto summary = testing::RunStepOracle(options, [&](const StepPoint& point) {
    Registers registers{};
    for (size_t i = 0; i < PYRO_REGISTERS; ++i) registers.reg[i] = point.registers()[i];
    registers.ip = point.registers()[testing::kDwarfRip];
    if (points == 0 || !program.Knows(registers.ip)) program.Refresh(point);
    const StepMemory memory(point);
    auto result = program.walker().Walk(registers, memory, PYRO_MAX_USER_FRAMES);
    if (result.stop == PYRO_STOP_NO_MAPPING) {
      program.Refresh(point);
      result = program.walker().Walk(registers, memory, PYRO_MAX_USER_FRAMES);
    }
    ++points;
    ++stops[result.stop];
    const auto truth = point.frames();
    bool right = result.frames.size() <= truth.size();
    for (size_t i = 0; right && i < result.frames.size(); ++i) {
      const bool exact = (result.frames[i] & PYRO_FRAME_EXACT) != 0;
      right = (result.frames[i] & ~PYRO_FRAME_EXACT) == truth[i].ip && exact == truth[i].interrupted;
    }
    // Ending early is no lie as long as it is said.
    if (result.stop == PYRO_STOP_END && result.frames.size() < truth.size()) right = false;
    if (result.stop == PYRO_STOP_END && result.frames.size() == truth.size()) ++whole;
    if (!right && ++wrong <= 5) {
      std::string text = point.Describe() + "\n  stop " + std::to_string(result.stop);
      for (size_t i = 0; i < std::max(truth.size(), result.frames.size()); ++i) {
        text += StrFormat("\n  %x  %x%s", i < result.frames.size() ? result.frames[i] : 0,
                          i < truth.size() ? truth[i].ip : 0,
                          i < truth.size() && truth[i].interrupted ? " interrupted" : "");
      }
      ADD_FAILURE() << text;
    }
    return true;
  });
  ASSERT_TRUE(summary.ok()) << summary.status();
  std::string kinds;
  for (const auto& [kind, count] : summary->kinds) kinds += StrFormat(" %s %d", testing::PointKindName(kind), count);
  std::string reasons;
  for (const auto& [stop, count] : stops) reasons += StrFormat(" %d:%d", stop, count);
  std::printf(
      "  %s: %lu points at %lu addresses (%s ), deepest %zu, %lu across signals; whole %.3f %%, wrong %lu; stops%s\n",
      GetParam().name, static_cast<unsigned long>(points), static_cast<unsigned long>(summary->addresses),
      kinds.c_str(), summary->deepest, static_cast<unsigned long>(summary->across_signals),
      100.0 * static_cast<double>(whole) / static_cast<double>(points), static_cast<unsigned long>(wrong),
      reasons.c_str());
  RecordProperty("points", static_cast<int>(points));
  RecordProperty("wrong", static_cast<int>(wrong));
  EXPECT_EQ(wrong, 0u);
  EXPECT_GE(points, 1500u);
  EXPECT_GE(static_cast<double>(whole), GetParam().least_whole * static_cast<double>(points));
}

INSTANTIATE_TEST_SUITE_P(Programs, Step,
                         ::testing::Values(Case{"deep", {"deep_nofp", "30", "0.001"}},
                                           Case{"deep_static_pie", {"deep_static_pie", "30", "0.001"}},
                                           Case{"deep_no_pie", {"deep_no_pie", "30", "0.001"}, 0.93, true},
                                           Case{"callbacks", {"callbacks", "0.001"}, 0.93, true},
                                           Case{"plt", {"plt_churn", "0.001"}, 0.93, true},
                                           Case{"signals", {"signals", "3"}, 0.93, true},
                                           Case{"frames", {"frames", "0.001"}, 0.93, true},
                                           Case{"exceptions", {"exceptions", "0.001"}, 0.93, true},
                                           Case{"coroutine", {"coroutine", "0.001"}, 0.93, true},
                                           Case{"asm_frames", {"asm_frames", "0.001"}, 0.3, true},
                                           Case{"vdso", {"vdso", "0.001"}, 0.93, true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace pyrometer::unwind

// The oracle against an unwinder that shares nothing with it: elfutils' libdw, which reads unwind tables. Where both
// are right they agree; a disagreement is a fault of one of them, and libdw's known ones are named below.
#include "tests/support/step_oracle.h"

#include <elfutils/libdwfl.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::testing {
namespace {

struct DwflDeleter {
  void operator()(Dwfl* dwfl) const { dwfl_end(dwfl); }
};

// libdw on a stopped process; opened anew whenever its mappings change.
class LibdwUnwinder {
 public:
  // Return addresses, innermost first; as far as libdw gets.
  std::vector<uint64_t> Unwind(pid_t pid) {
    const StatusOr<std::string> maps = ReadFile(StrFormat("/proc/%d/maps", static_cast<int>(pid)));
    if (!maps.ok()) return {};
    if (*maps != maps_) {
      maps_ = *maps;
      Open(pid);
    }
    std::vector<uint64_t> addresses;
    dwfl_getthread_frames(
        dwfl_.get(), pid,
        [](Dwfl_Frame* frame, void* into) -> int {
          Dwarf_Addr pc = 0;
          if (!dwfl_frame_pc(frame, &pc, nullptr)) return DWARF_CB_ABORT;
          static_cast<std::vector<uint64_t>*>(into)->push_back(pc);
          return DWARF_CB_OK;
        },
        &addresses);
    return addresses;
  }

  // True when the code at `address`, or before it for a return address, has unwind information.
  bool HasTables(uint64_t address, bool is_return_address) const {
    const Dwarf_Addr place = address - is_return_address;
    Dwfl_Module* module = dwfl_addrmodule(dwfl_.get(), place);
    if (module == nullptr) return false;
    for (const auto cfi_of : {dwfl_module_eh_cfi, dwfl_module_dwarf_cfi}) {
      Dwarf_Addr bias = 0;
      Dwarf_CFI* cfi = cfi_of(module, &bias);
      Dwarf_Frame* frame = nullptr;
      if (cfi != nullptr && dwarf_cfi_addrframe(cfi, place - bias, &frame) == 0) {
        std::free(frame);
        return true;
      }
    }
    return false;
  }

 private:
  void Open(pid_t pid) {
    static char no_debug_files[] = "";
    static char* path = no_debug_files;
    static const Dwfl_Callbacks callbacks = {.find_elf = dwfl_linux_proc_find_elf,
                                             .find_debuginfo = dwfl_standard_find_debuginfo,
                                             .section_address = nullptr,
                                             .debuginfo_path = &path};
    dwfl_.reset(dwfl_begin(&callbacks));
    ASSERT_NE(dwfl_, nullptr);
    ASSERT_EQ(dwfl_linux_proc_report(dwfl_.get(), pid), 0);
    ASSERT_EQ(dwfl_report_end(dwfl_.get(), nullptr, nullptr), 0);
    ASSERT_EQ(dwfl_linux_proc_attach(dwfl_.get(), pid, true), 0);
  }

  std::unique_ptr<Dwfl, DwflDeleter> dwfl_;
  std::string maps_;
};

// What came of a comparison. Only `different` accuses somebody: the others have a reason.
struct Agreement {
  StepSummary summary;
  uint64_t same = 0;
  uint64_t no_tables = 0;      // they part where the code has no unwind information (crtstuff.c); libdw then guesses
  uint64_t libdw_shorter = 0;  // libdw stopped before the end, no frame wrong
  uint64_t libdw_longer = 0;   // libdw went on beyond the first function of a stack
  uint64_t different = 0;
};

std::string Addresses(const std::vector<uint64_t>& addresses) {
  std::string text;
  for (size_t i = 0; i < addresses.size() && i < 8; ++i) text += StrFormat(" 0x%x", addresses[i]);
  return text;
}

Agreement Compare(std::vector<std::string> arguments, bool from_entry = true) {
  StepOptions options{.arguments = std::move(arguments),
                      .environment = {"SHAPE_SHIFT=12"},
                      .max_steps = 250'000,
                      .from_entry = from_entry};
  options.arguments[0] = StrFormat("%s/%s", PYROMETER_WORKLOADS, options.arguments[0]);
  Agreement result;
  LibdwUnwinder libdw;
  std::vector<std::string> examples;
  const StatusOr<StepSummary> summary = RunStepOracle(options, [&](const StepPoint& point) {
    const std::vector<uint64_t> truth = point.Addresses(), other = libdw.Unwind(point.pid());
    const size_t common = std::min(truth.size(), other.size());
    const auto parted =
        std::mismatch(truth.begin(), truth.begin() + static_cast<std::ptrdiff_t>(common), other.begin());
    const auto agreed = static_cast<size_t>(parted.first - truth.begin());
    if (agreed == common) {
      ++(truth.size() == other.size()  ? result.same
         : other.size() < truth.size() ? result.libdw_shorter
                                       : result.libdw_longer);
    } else if (agreed > 0 &&
               !libdw.HasTables(truth[agreed - 1], agreed > 1 && !point.frames()[agreed - 1].interrupted)) {
      ++result.no_tables;
    } else {
      ++result.different;
      if (examples.size() < 5) {
        examples.push_back(point.Describe() + ": true" + Addresses(truth) + "; libdw" + Addresses(other));
      }
    }
    return true;
  });
  EXPECT_TRUE(summary.ok()) << summary.status();
  if (!summary.ok()) return result;
  result.summary = *summary;
  const StepSummary& s = result.summary;
  const auto u = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf("%llu steps, %llu points at %llu addresses (", u(s.steps), u(s.points), u(s.addresses));
  for (const auto& [kind, count] : s.kinds) std::printf("%s %llu, ", PointKindName(kind), u(count));
  std::printf("across signals %llu), %llu uncertain, %llu signals, %llu stacks, deepest %zu\n", u(s.across_signals),
              u(s.uncertain), u(s.signals), u(s.stacks), s.deepest);
  std::printf("libdw: same %llu, no tables %llu, shorter %llu, longer %llu, different %llu\n", u(result.same),
              u(result.no_tables), u(result.libdw_shorter), u(result.libdw_longer), u(result.different));
  EXPECT_EQ(result.different, 0u) << Join(examples, "\n");
  // Passed over: instructions here and there, not a tenth of the program.
  EXPECT_LT(s.uncertain, s.addresses / 10);
  EXPECT_GT(result.same, s.points * 9 / 10);
  return result;
}

TEST(StepOracleTest, PrologueEpilogueAndPltOfARecursion) {
  const Agreement a = Compare({"deep_nofp", "30", "0.001"}, false);
  EXPECT_GE(a.summary.points, 10'000u);
  EXPECT_GT(a.summary.kinds.at(PointKind::kPrologue), 500u);
  EXPECT_GT(a.summary.kinds.at(PointKind::kEpilogue), 500u);
  EXPECT_GT(a.summary.kinds.at(PointKind::kPlt), 10u);
  EXPECT_GE(a.summary.deepest, 34u);
  EXPECT_EQ(a.summary.stacks, 1u);
  EXPECT_EQ(a.libdw_longer, 0u);
}

TEST(StepOracleTest, LazyBindingJumpsToItsTarget) {
  const Agreement a = Compare({"plt_churn", "0.001"});
  EXPECT_GT(a.summary.kinds.at(PointKind::kPlt), 100u);
  EXPECT_EQ(a.summary.stacks, 1u);
}

TEST(StepOracleTest, HandlersOnBothStacks) {
  const Agreement a = Compare({"signals", "3"});
  EXPECT_GT(a.summary.signals, 4u);
  EXPECT_GT(a.summary.across_signals, 50u);
  EXPECT_GT(a.summary.kinds.at(PointKind::kSignalReturn), 2u);
  EXPECT_EQ(a.summary.stacks, 1u) << "a handler's stack is not a new one";
}

TEST(StepOracleTest, AllocaAndRealignedFrames) { Compare({"frames", "0.001"}); }

TEST(StepOracleTest, StaticProgram) { Compare({"deep_static", "30", "0.001"}); }

TEST(StepOracleTest, ACoroutineHasAStackOfItsOwn) {
  const Agreement a = Compare({"coroutine", "0.001"});
  EXPECT_EQ(a.summary.stacks, 2u);
}

TEST(StepOracleTest, VforkTakesItsReturnAddressAlong) {
  const Agreement a = Compare({"vfork_exec", "0.001"});
  EXPECT_TRUE(a.summary.exited);
  EXPECT_GE(a.summary.uncertain, 5u) << "between pop %rdi and push %rdi of vfork nothing is certain";
}

TEST(StepOracleTest, LibrariesThatComeAndGo) {
  Compare({"dlopen_churn", PYROMETER_WORKLOADS "/libplt_library.so", "0.001"});
}

TEST(StepOracleTest, CallbacksThroughLibraries) { Compare({"callbacks", "0.001"}); }

TEST(StepOracleTest, ExceptionsDropManyFramesAtOnce) {
  const Agreement a = Compare({"exceptions", "0.001"});
  EXPECT_GT(a.summary.deepest, 25u);
}

TEST(StepOracleTest, AProgramThatIsNotThere) {
  const StatusOr<StepSummary> summary =
      RunStepOracle({.arguments = {"/nonexistent/program"}}, [](const StepPoint&) { return true; });
  EXPECT_FALSE(summary.ok());
}

}  // namespace
}  // namespace pyrometer::testing

#include "userspace/symbolize/kernel_symbols.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/file.h"

namespace pyrometer::symbolize {
namespace {

constexpr char kKallsyms[] =
    "0000000000000000 A fixed_percpu_data\n"
    "ffffffff81000000 T _stext\n"
    "ffffffff81000000 T _text\n"
    "ffffffff81000000 T startup_64\n"
    "ffffffff81000100 t do_work\n"
    "ffffffff81000200 W weak_work\n"
    "ffffffff81000300 d some_data\n"
    "ffffffff81000400 T last_in_text\n"
    "ffffffff81000500 T _etext\n"
    "ffffffffc0100000 t nft_do_chain\t[nf_tables]\n"
    "ffffffffc0100800 t nft_trace\t[nf_tables]\n"
    "ffffffffc0200000 t bpf_prog_6deef7357e7b4530_sd_fw_ingress\t[bpf]\n";
constexpr char kModules[] =
    "nf_tables 4096 8 nft_compat, Live 0xffffffffc0100000 (O)\n"
    "broken line\n";

// A kernel whose files we write.
class FakeKernel {
 public:
  FakeKernel() { Write(kKallsyms); }
  void Write(const std::string& kallsyms) {
    std::ofstream(temp_.path() + "/kallsyms") << kallsyms;
    std::ofstream(temp_.path() + "/modules") << kModules;
  }
  KernelSymbols::Options options(uint64_t min_refresh_ns = 0) const {
    return {temp_.path() + "/kallsyms", temp_.path() + "/modules", min_refresh_ns};
  }

 private:
  TempFolder temp_;
};

std::string At(KernelSymbols& kernel, uint64_t address) {
  const Symbol symbol = kernel.Symbolize(VirtualAddress(address));
  if (!symbol.found()) return "(" + std::string(MissReasonName(symbol.miss)) + ")";
  std::string name(symbol.name());
  if (!symbol.module().empty()) name += " [" + std::string(symbol.module()) + "]";
  return name + "+" + std::to_string(symbol.offset);
}

TEST(KernelSymbolsTest, FunctionsModulesAndBpfPrograms) {
  const FakeKernel fake;
  KernelSymbols kernel(fake.options());
  EXPECT_EQ(At(kernel, 0xffffffff81000010), "startup_64+16");  // aliases with underscores lose
  EXPECT_EQ(At(kernel, 0xffffffff810001ff), "do_work+255");
  EXPECT_EQ(At(kernel, 0xffffffff81000200), "weak_work+0");
  EXPECT_EQ(At(kernel, 0xffffffffc0100010), "nft_do_chain [nf_tables]+16");
  EXPECT_EQ(At(kernel, 0xffffffffc0200004), "bpf_prog_6deef7357e7b4530_sd_fw_ingress [bpf]+4");
}

TEST(KernelSymbolsTest, GapsAreMisses) {
  const FakeKernel fake;
  KernelSymbols kernel(fake.options(~uint64_t{0}));
  EXPECT_EQ(At(kernel, 0xffffffff81000310), "(unknown kernel address)");  // data
  EXPECT_EQ(At(kernel, 0xffffffff81000510), "(unknown kernel address)");  // behind the text's end
  EXPECT_EQ(At(kernel, 0xffffffffc0100fff), "nft_trace [nf_tables]+2047");
  EXPECT_EQ(At(kernel, 0xffffffffc0101000), "(unknown kernel address)");  // behind the module's end
  EXPECT_EQ(At(kernel, 0xffffffffc0208000), "(unknown kernel address)");  // too far behind a BPF program
  EXPECT_EQ(At(kernel, 0), "(unknown kernel address)");
  EXPECT_EQ(At(kernel, ~uint64_t{0}), "(unknown kernel address)");
  EXPECT_EQ(kernel.refreshes(), 1u) << "the rate limit holds";
}

TEST(KernelSymbolsTest, AnUnknownAddressReadsAgain) {
  FakeKernel fake;
  KernelSymbols kernel(fake.options(0));
  EXPECT_EQ(At(kernel, 0xffffffffc0300000), "(unknown kernel address)");
  fake.Write(std::string(kKallsyms) + "ffffffffc0300000 t bpf_prog_00_new\t[bpf]\n");
  EXPECT_EQ(At(kernel, 0xffffffffc0300000), "bpf_prog_00_new [bpf]+0");
  const uint64_t refreshes = kernel.refreshes();
  EXPECT_EQ(At(kernel, 0xffffffff81000100), "do_work+0");
  EXPECT_EQ(kernel.refreshes(), refreshes) << "known addresses do not read again";
}

TEST(KernelSymbolsTest, HiddenAddressesSaySo) {
  FakeKernel fake;
  fake.Write("0000000000000000 T _text\n0000000000000000 t do_work\n");
  KernelSymbols kernel(fake.options());
  EXPECT_EQ(kernel.Symbolize(VirtualAddress(0xffffffff81000100)).miss, MissReason::kKernelHidden);
  EXPECT_FALSE(MissRemedy(MissReason::kKernelHidden).empty());
}

TEST(KernelSymbolsTest, AnUnreadableFileIsAReason) {
  KernelSymbols kernel({"/no/such/kallsyms", "/no/such/modules", 0});
  EXPECT_EQ(kernel.Symbolize(VirtualAddress(1)).miss, MissReason::kReadFailed);
  EXPECT_FALSE(kernel.Refresh().ok());
}

TEST(KernelSymbolsTest, MalformedLinesAreCounted) {
  const KallsymsTable table = ParseKallsyms(
      "zzzz T bad\n"
      "ffffffff81000000\n"
      "ffffffff81000000 T\n"
      "ffffffff81000000 Tname\n"
      "\n"
      "ffffffff81000000 T good\n"
      "ffffffff81000100 T unterminated",
      "");
  EXPECT_EQ(table.bad_lines, 4u);
  EXPECT_EQ(table.functions, 2u);
  for (size_t n = 0; n < sizeof(kKallsyms); ++n) (void)ParseKallsyms(std::string_view(kKallsyms, n), kModules);
}

TEST(KernelSymbolsTest, TheRunningKernel) {
  KernelSymbols kernel(KernelSymbols::Options{});
  const Status status = kernel.Refresh();
  if (!status.ok()) GTEST_SKIP() << status;
  if (kernel.Symbolize(VirtualAddress(1)).miss == MissReason::kKernelHidden)
    GTEST_SKIP() << "kernel symbols are hidden";
  // Every 50th function of the file must come back under a name that the file has for this address.
  std::ifstream file("/proc/kallsyms");
  std::multimap<uint64_t, std::string> names;
  std::vector<uint64_t> starts;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string address, type, name;
    fields >> address >> type >> name;
    const uint64_t start = std::stoull(address, nullptr, 16);
    if (std::string("tTwW").find(type) == std::string::npos || start == 0) continue;
    names.emplace(start, name);
    starts.push_back(start);
  }
  size_t checked = 0, end_marks = 0;
  for (size_t i = 0; i < starts.size(); i += 50) {
    const Symbol symbol = kernel.Symbolize(VirtualAddress(starts[i]));
    if (!symbol.found()) {
      ++end_marks;  // _etext and the like are no functions
      continue;
    }
    bool found = false;
    for (auto [it, end] = names.equal_range(starts[i]); it != end; ++it) {
      found = found || it->second == symbol.name() || it->second == symbol.system_name();
    }
    EXPECT_TRUE(found) << std::hex << starts[i] << " " << symbol.name();
    EXPECT_EQ(symbol.offset, 0u);
    ++checked;
  }
  EXPECT_GT(checked, 500u);
  EXPECT_LT(end_marks, 20u);
}

}  // namespace
}  // namespace pyrometer::symbolize

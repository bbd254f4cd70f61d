// The bytes of a whole small store, key by key. docs/formats/store.md explains these very lines: a difference here is
// a change of the format and needs a new kFormatVersion.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/store/store_testing.h"
#include "userspace/base/strings.h"
#include "userspace/store/database.h"

namespace pyrometer::store {
namespace {

// Printable bytes as they are, others as \xHH.
std::string Show(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto c = static_cast<unsigned char>(bytes[i]);
    if (c > 0x20 && c < 0x7f && c != '\\') {
      out += static_cast<char>(c);
    } else {
      out += StrFormat("\\x%02x", static_cast<unsigned>(c));
    }
  }
  return out;
}

std::vector<std::string> Dump(const std::string& path) {
  std::vector<std::string> lines;
  const auto database = Database::Open(path, TestOptions(), nullptr, OpenMode::kReadOnly);
  EXPECT_TRUE(database.ok()) << database.status();
  if (!database.ok()) return lines;
  for (size_t i = 0; i < kFamilies; ++i) {
    const auto family = static_cast<Family>(i);
    EXPECT_TRUE((*database)
                    ->Scan(family, "", "",
                           [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
                             lines.push_back(StrFormat("%s %s = %s", FamilyName(family), Show(key), Show(value)));
                             return true;
                           })
                    .ok());
  }
  return lines;
}

TEST(Golden, BytesOfASmallStore) {
  const TempFolder folder;
  {
    auto store = MustOpen(folder.path());
    profile::Batch batch;
    batch.agent_id = "agent-1";
    batch.node = "n1";
    batch.sequence = 1;
    profile::Dictionary& d = batch.dictionary;
    const auto mapping = d.InternMapping({.build_id = d.InternString("abc"), .file = d.InternString("/bin/app")});
    const auto main_fn = d.InternFunction({.name = d.InternString("main"), .start_line = 3});
    const auto main_frame = d.InternFrame({.kind = profile::FrameKind::kNative,
                                           .mapping = mapping,
                                           .address = ElfAddress(0x1000),
                                           .lines = {{.function = main_fn, .line = 7}}});
    const auto fork_fn = d.InternFunction({.name = d.InternString("do_fork")});
    const auto fork_frame = d.InternFrame(
        {.kind = profile::FrameKind::kKernel, .address = ElfAddress(0x20), .lines = {{.function = fork_fn}}});
    const auto main_stack = d.InternStack(profile::kEmptyStack, main_frame);
    const auto fork_stack = d.InternStack(main_stack, fork_frame);
    batch.series = {{"cpu", Labels({{"service", "shop"}})},
                    {"syscall_latency", Labels({{"service", "shop"}})},
                    {"tcp_retransmits", Labels({})}};
    batch.profiles.push_back({.series = 0,
                              .time_ns = kT0,
                              .duration_ns = kWindow,
                              .period_ns = 10'000'000,
                              .samples = {{fork_stack, 2, 20'000'000}, {main_stack, 1, 10'000'000}}});
    profile::HistogramPoint histogram{.series = 1, .time_ns = kT0, .duration_ns = kWindow};
    histogram.histogram.Record(5);
    histogram.exemplars.push_back({.time_ns = kT0 + 3, .value = 5, .stack = fork_stack, .comm = "sh", .tid = 9});
    batch.histograms.push_back(histogram);
    batch.counters.push_back({.series = 2, .time_ns = kT0, .duration_ns = kWindow, .value = 4});
    ASSERT_TRUE(store->Append(batch).ok());
  }
  const std::vector<std::string> expected = {
#include "tests/unit/store/golden_store.inc"
  };
  const std::vector<std::string> lines = Dump(folder.path());
  EXPECT_EQ(lines, expected) << [&] {
    std::string all = "new content of golden_store.inc, if the change is meant:\n";
    for (const std::string& line : lines) all += "    R\"(" + line + ")\",\n";
    return all;
  }();
}

}  // namespace
}  // namespace pyrometer::store

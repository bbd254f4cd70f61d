#include "userspace/server/late_symbols.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <link.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"

// Outside of any namespace and not static: found under this very name.
extern "C" __attribute__((noinline)) int pyrometer_late_symbols_landmark(int x) {
  asm volatile("");
  return x + 1;
}

namespace pyrometer::server {
namespace {

using ::testing::HasSubstr;

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-symbols-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

constexpr size_t kMaxExecutable = 1u << 30;

uint64_t LoadBias() {
  uint64_t bias = 0;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        *static_cast<uint64_t*>(out) = info->dlpi_addr;
        return 1;  // the program comes first
      },
      &bias);
  return bias;
}

ElfAddress Landmark() {
  return ElfAddress(reinterpret_cast<uint64_t>(&pyrometer_late_symbols_landmark) - LoadBias() + 1);
}

std::string OwnBuildId() {
  const auto file = elf::ElfFile::Open("/proc/self/exe");
  return file.ok() ? file->ReadBuildId()->hex : "";
}

// A profile of three stacks: landmark, landmark again from elsewhere, and a frame of another binary.
profile::Profile Unnamed(const std::string& build_id) {
  profile::Profile p;
  p.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  profile::Dictionary& d = p.dictionary;
  const auto frame = [&](const std::string& id, ElfAddress address) {
    return d.InternFrame(
        {.kind = profile::FrameKind::kNative,
         .mapping = d.InternMapping({.build_id = d.InternString(id), .file = d.InternString("/srv/x")}),
         .address = address,
         .miss = d.InternString("no symbols"),
         .lines = {}});
  };
  const auto known = frame(build_id, Landmark()), other = frame("ab12cd34ef", ElfAddress(0x1000));
  p.Add(0, d.InternStack(profile::kEmptyStack, known), {1, 10});
  p.Add(0, d.InternStack(d.InternStack(profile::kEmptyStack, other), known), {2, 20});
  p.Add(0, d.InternStack(profile::kEmptyStack, other), {4, 40});
  p.accounting.taken = 7;
  p.duration_ns = 5;
  return p;
}

std::string Leaf(const profile::Profile& p, size_t i) {
  return p.dictionary.FrameName(p.dictionary.stack(p.sample(i).stack).frame);
}

StatusOr<LateSymbols::File> Upload(LateSymbols& symbols, const std::string& name, const std::string& bytes) {
  ASSIGN_OR_RETURN(const auto upload, symbols.Begin(name));
  for (size_t at = 0; at < bytes.size(); at += 1 << 20) {
    RETURN_IF_ERROR(upload->Write(std::string_view(bytes).substr(at, 1 << 20)));
  }
  return upload->Finish();
}

class LateSymbolsTest : public ::testing::Test {
 protected:
  std::unique_ptr<LateSymbols> Open(uint64_t max_file_bytes = uint64_t{8} << 30) {
    auto symbols = LateSymbols::Open({.folder = folder_.path(), .max_file_bytes = max_file_bytes});
    EXPECT_TRUE(symbols.ok()) << symbols.status();
    return *std::move(symbols);
  }
  std::string Own() {
    auto bytes = ReadFile("/proc/self/exe", kMaxExecutable);
    EXPECT_TRUE(bytes.ok());
    return *bytes;
  }
  size_t Unfinished() {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      n += entry.path().filename().string().starts_with(".unfinished");
    }
    return n;
  }
  TempFolder folder_;
};

TEST_F(LateSymbolsTest, OldSamplesGetNamesAndLines) {
  const auto symbols = Open();
  profile::Profile p = Unnamed(OwnBuildId());
  symbols->Name(&p);
  EXPECT_EQ(Leaf(p, 0), "x+0x" + StrFormat("%x", Landmark().value));

  const StatusOr<LateSymbols::File> file = Upload(*symbols, "own", Own());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->build_id.hex, OwnBuildId());
  EXPECT_FALSE(file->replaced);
  EXPECT_GT(file->functions, 10u);
  symbols->Name(&p);
  ASSERT_EQ(p.sample_count(), 3u);
  EXPECT_EQ(Leaf(p, 0), "pyrometer_late_symbols_landmark");
  EXPECT_EQ(Leaf(p, 1), "pyrometer_late_symbols_landmark");
  EXPECT_EQ(Leaf(p, 2), "x+0x1000");
  EXPECT_EQ(p.values(1)[1], 20);
  EXPECT_EQ(p.accounting.taken, 7u);
  EXPECT_EQ(p.duration_ns, 5u);
  if (file->has_lines) {
    const profile::Frame& frame = p.dictionary.frame(p.dictionary.stack(p.sample(0).stack).frame);
    EXPECT_GT(frame.lines.at(0).line, 0);
    EXPECT_EQ(frame.miss, 0u);
  }
  EXPECT_TRUE(Upload(*symbols, "own", Own())->replaced);
}

TEST_F(LateSymbolsTest, FilesOutliveTheProcessButUnfinishedOnesDoNot) {
  {
    const auto symbols = Open();
    ASSERT_TRUE(Upload(*symbols, "own", Own()).ok());
  }
  std::ofstream(folder_.path() + "/.unfinished-1-1") << "half";
  const auto symbols = Open();
  EXPECT_EQ(Unfinished(), 0u);
  ASSERT_EQ(symbols->List().size(), 1u);
  profile::Profile p = Unnamed(OwnBuildId());
  symbols->Name(&p);
  EXPECT_EQ(Leaf(p, 0), "pyrometer_late_symbols_landmark");
}

TEST_F(LateSymbolsTest, WhatCannotNameAnythingIsRefusedAndLeavesNothing) {
  const auto symbols = Open();
  Status status = Upload(*symbols, "text", "hello").status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("no ELF file"));
  status = Upload(*symbols, "cut", Own().substr(0, 4096)).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(Unfinished(), 0u);
  EXPECT_TRUE(symbols->List().empty());
}

TEST_F(LateSymbolsTest, TooLargeFilesAreRefused) {
  const auto symbols = Open(100'000);
  const Status status = Upload(*symbols, "own", Own()).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Unfinished(), 0u);
}

TEST_F(LateSymbolsTest, LeastUsedFilesMakeRoom) {
  auto opened = LateSymbols::Open({.folder = folder_.path(), .max_bytes = 1});
  ASSERT_TRUE(opened.ok());
  ASSERT_TRUE(Upload(**opened, "own", Own()).ok());
  EXPECT_EQ((*opened)->List().size(), 1u) << "the newest stays, however large";
}

}  // namespace
}  // namespace pyrometer::server

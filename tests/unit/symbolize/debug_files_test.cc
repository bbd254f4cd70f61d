#include "userspace/symbolize/debug_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/file.h"
#include "userspace/symbolize/binary_symbols.h"

namespace pyrometer::symbolize {
namespace {

namespace fs = std::filesystem;

// A container's root with one stripped program; debug files are put where a test wants them.
class DebugFilesTest : public testing::Test {
 protected:
  DebugFilesTest() {
    fs::create_directories(root_ + "/usr/bin");
    fs::copy_file(Fixture("fixture_split"), root_ + "/usr/bin/shop");
    id_ = *elf::ElfFile::Open(Fixture("fixture_pie"))->ReadBuildId();
    source_.path = "/usr/bin/shop";
    source_.root = root_;
    source_.openers = {FileInRoot(root_, "/usr/bin/shop")};
    options_.debug_folders = {"/usr/lib/debug"};
  }

  std::string BuildIdPlace() const {
    return "/usr/lib/debug/.build-id/" + id_.hex.substr(0, 2) + "/" + id_.hex.substr(2) + ".debug";
  }
  void Put(const std::string& from, const std::string& place) {
    fs::create_directories(fs::path(root_ + place).parent_path());
    fs::copy_file(from, root_ + place, fs::copy_options::overwrite_existing);
  }
  std::shared_ptr<const BinarySymbols> Build() const { return BinarySymbols::Build(id_, source_, options_); }

  TempFolder temp_;
  std::string root_ = temp_.path();
  BuildId id_;
  BinarySource source_;
  BuildOptions options_;
};

TEST_F(DebugFilesTest, NothingFoundIsNoSymbols) { EXPECT_EQ(Build()->problem(), MissReason::kNoSymbols); }

TEST_F(DebugFilesTest, ByBuildIdInTheContainersRoot) {
  Put(Fixture("fixture_split.debug"), BuildIdPlace());
  const auto symbols = Build();
  EXPECT_EQ(symbols->problem(), MissReason::kNone) << symbols->problem_detail();
  EXPECT_EQ(symbols->origin().debug_file_name, root_ + BuildIdPlace());
}

TEST_F(DebugFilesTest, ByDebugLinkInEachOfItsPlaces) {
  for (const std::string place : {"/usr/bin/fixture_split.debug", "/usr/bin/.debug/fixture_split.debug",
                                  "/usr/lib/debug/usr/bin/fixture_split.debug"}) {
    Put(Fixture("fixture_split.debug"), place);
    const auto symbols = Build();
    EXPECT_EQ(symbols->problem(), MissReason::kNone) << place;
    EXPECT_EQ(symbols->origin().debug_file_name, root_ + place);
    fs::remove(root_ + place);
  }
}

TEST_F(DebugFilesTest, AFileOfAnotherBuildIsNotTaken) {
  Put(Fixture("libfixture.so"), BuildIdPlace());
  Put(Fixture("libfixture.so"), "/usr/bin/fixture_split.debug");
  EXPECT_EQ(Build()->problem(), MissReason::kNoSymbols);
}

TEST_F(DebugFilesTest, AWrongChecksumIsNotTaken) {
  // No build id on either side: only the checksum decides.
  Put(Fixture("fixture_nopie_split"), "/usr/bin/shop");
  Put(Fixture(".debug/fixture_nopie_split.debug"), "/usr/bin/fixture_nopie_split.debug");
  id_ = {};
  EXPECT_EQ(Build()->problem(), MissReason::kNone);
  std::ofstream(root_ + "/usr/bin/fixture_nopie_split.debug", std::ios::app) << "x";
  EXPECT_EQ(Build()->problem(), MissReason::kNoSymbols);
}

TEST_F(DebugFilesTest, AGoneBinaryIsNamedByItsDebugFile) {
  Put(Fixture("fixture_split.debug"), BuildIdPlace());
  fs::remove(root_ + "/usr/bin/shop");
  EXPECT_EQ(Build()->problem(), MissReason::kNone);
  fs::remove(root_ + BuildIdPlace());
  EXPECT_EQ(Build()->problem(), MissReason::kFileGone);
}

TEST_F(DebugFilesTest, SymlinksStayWithinTheRoot) {
  // An absolute symlink means the container's file, not ours; climbing out ends at its root.
  fs::create_symlink("/usr/bin/shop", root_ + "/absolute");
  fs::create_symlink("../../../../../../../../etc/passwd", root_ + "/usr/bin/escape");
  EXPECT_TRUE(OpenInRoot(root_, "/absolute").ok());
  EXPECT_EQ(OpenInRoot(root_, "/usr/bin/escape").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(OpenInRoot(root_, "/../../../../../../../etc/passwd").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(OpenInRoot(root_ + "/gone", "/x").status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(OpenInRoot(root_, "/absolute", {.follow_last_symlink = false}).ok());
  EXPECT_TRUE(OpenInRoot("", "/etc/passwd").ok());
}

TEST_F(DebugFilesTest, OurOwnDebugFoldersServeContainersToo) {
  const TempFolder host;
  options_.debug_folders = {host.path()};
  const std::string place = host.path() + "/.build-id/" + id_.hex.substr(0, 2) + "/" + id_.hex.substr(2) + ".debug";
  fs::create_directories(fs::path(place).parent_path());
  fs::copy_file(Fixture("fixture_split.debug"), place);
  const auto symbols = Build();
  EXPECT_EQ(symbols->problem(), MissReason::kNone);
  EXPECT_EQ(symbols->origin().debug_file_name, place);
}

}  // namespace
}  // namespace pyrometer::symbolize

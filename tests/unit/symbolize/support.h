// Shared by the tests of symbolize/: fixture files, temporary folders, the words of binutils.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "userspace/symbolize/binary_source.h"

namespace pyrometer::symbolize {

inline std::string Fixture(const std::string& name) { return std::string(PYROMETER_ELF_FIXTURES) + "/" + name; }

inline BinarySource SourceOf(const std::string& path) {
  BinarySource source;
  source.path = path;
  source.openers = {FileInRoot("", path)};
  return source;
}

// A folder of its own, removed with its content.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = testing::TempDir() + "/pyrometer_symbolize_XXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    path_ = std::filesystem::canonical(pattern);
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

// Output lines of a command whose words are all ours.
inline std::vector<std::string> Lines(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string output;
  std::array<char, 65536> buffer;
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
  EXPECT_EQ(::pclose(pipe), 0) << command;
  std::istringstream stream(output);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

struct NmSymbol {
  std::string name;
  char type = 0;
  uint64_t address = 0;
  uint64_t size = 0;
};

inline std::vector<NmSymbol> RunNm(const std::string& options, const std::string& path) {
  std::vector<NmSymbol> symbols;
  for (const std::string& line : Lines("nm --format=posix " + options + " " + path)) {
    std::istringstream fields(line);
    NmSymbol symbol;
    std::string address, size;
    fields >> symbol.name >> symbol.type >> address >> size;
    symbol.address = std::strtoull(address.c_str(), nullptr, 16);
    symbol.size = std::strtoull(size.c_str(), nullptr, 16);
    symbols.push_back(symbol);
  }
  return symbols;
}

}  // namespace pyrometer::symbolize

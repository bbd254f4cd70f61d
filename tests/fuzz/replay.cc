// Feeds every file of the folders on the command line to a fuzz target: recorded inputs as a test.
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "userspace/base/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  size_t files = 0;
  for (int i = 1; i < argc; ++i) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i], error)) {
      const pyrometer::StatusOr<std::string> bytes = pyrometer::ReadFile(entry.path());
      if (!bytes.ok()) {
        std::fprintf(stderr, "%s\n", bytes.status().ToString().c_str());
        return 1;
      }
      std::printf("%s\n", entry.path().filename().c_str());
      std::fflush(stdout);  // a crash shall show which one it was
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size());
      ++files;
    }
    if (error) {
      std::fprintf(stderr, "cannot list %s: %s\n", argv[i], error.message().c_str());
      return 1;
    }
  }
  std::printf("%zu inputs\n", files);
  return files > 0 ? 0 : 1;
}

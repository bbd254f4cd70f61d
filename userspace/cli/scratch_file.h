// A temporary file that nobody else could name before us, gone with its owner.
#pragma once

#include <string>
#include <utility>

#include "userspace/base/status.h"

namespace pyrometer::cli {

class ScratchFile {
 public:
  // In $TMPDIR, else /tmp.
  static StatusOr<ScratchFile> Make();
  ScratchFile(ScratchFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchFile& operator=(ScratchFile&&) = delete;
  ~ScratchFile();
  const std::string& path() const { return path_; }

 private:
  explicit ScratchFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace pyrometer::cli

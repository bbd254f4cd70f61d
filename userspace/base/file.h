// Small file helpers with bounds. Nothing here trusts sizes reported by the file system:
// procfs reports 0, sparse files report terabytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"

namespace pyrometer {

// Largest text file read whole; the largest /proc/PID/maps seen (65,530 mappings, the kernel's
// default vm.max_map_count) is about 9 MiB.
inline constexpr size_t kMaxTextFileBytes = 64u << 20;

StatusOr<UniqueFd> OpenForReading(const std::string& path);
// The whole content, at most `max_bytes`; RESOURCE_EXHAUSTED when there is more.
StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes = kMaxTextFileBytes);
StatusOr<std::string> ReadFd(int fd, std::string_view name, size_t max_bytes = kMaxTextFileBytes);

// Writes all of `content` to "<path>.tmp.<pid>", syncs, renames over `path`: readers see the old
// file or the new one, and a failure (full disk) leaves nothing behind.
Status WriteFileAtomically(const std::string& path, std::string_view content);

Status CreateDirectories(const std::string& path);
Status WriteAll(int fd, std::string_view bytes, std::string_view name);

// A read-only private mapping of a whole regular file. Views into it live as long as it does.
// A file truncated by somebody else while mapped makes reads fault (SIGBUS): map only files that
// we wrote ourselves; read those of strangers with pread (elf/ does).
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  static StatusOr<MappedFile> Map(const std::string& path);
  static StatusOr<MappedFile> Map(UniqueFd fd, std::string_view name);

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pyrometer

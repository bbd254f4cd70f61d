#include "userspace/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer {

StatusOr<UniqueFd> OpenForReading(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, StrFormat("cannot open %s", path));
  return fd;
}

StatusOr<std::string> ReadFd(int fd, std::string_view name, size_t max_bytes) {
  // Small at first: most of what is read so is a line of /proc, read often.
  constexpr size_t kFirstStepBytes = 4 << 10, kLargestStepBytes = 64 << 10;
  size_t step_bytes = kFirstStepBytes;
  std::string content;
  while (true) {
    const size_t used = content.size();
    if (used > max_bytes) {
      return ResourceExhaustedError(StrFormat("%s is larger than the limit of %s", name, FormatBytes(max_bytes)));
    }
    content.resize(used + step_bytes);
    const ssize_t n = ::read(fd, content.data() + used, step_bytes);
    if (n < 0 && errno == EINTR) {
      content.resize(used);
      continue;
    }
    if (n < 0) return ErrnoError(errno, StrFormat("cannot read %s", name));
    content.resize(used + static_cast<size_t>(n));
    if (n == 0) return content;
    step_bytes = std::min(2 * step_bytes, kLargestStepBytes);
  }
}

StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenForReading(path));
  return ReadFd(fd.get(), path, max_bytes);
}

Status WriteAll(int fd, std::string_view bytes, std::string_view name) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, StrFormat("cannot write %s", name));
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return OkStatus();
}

Status WriteFileAtomically(const std::string& path, std::string_view content) {
  const std::string temporary = StrFormat("%s.tmp.%d", path, ::getpid());
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return ErrnoError(errno, StrFormat("cannot create %s", path));
  Status status = WriteAll(fd.get(), content, path);
  if (status.ok() && ::fsync(fd.get()) != 0) status = ErrnoError(errno, StrFormat("cannot sync %s", path));
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoError(errno, StrFormat("cannot replace %s", path));
  }
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

Status CreateDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoError(error.value(), StrFormat("cannot create the folder %s", path));
  return OkStatus();
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

StatusOr<MappedFile> MappedFile::Map(const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenForReading(path));
  return Map(std::move(fd), path);
}

StatusOr<MappedFile> MappedFile::Map(UniqueFd fd, std::string_view name) {
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return ErrnoError(errno, StrFormat("cannot stat %s", name));
  if (!S_ISREG(info.st_mode)) return InvalidArgumentError(StrFormat("%s is not a regular file", name));
  MappedFile file;
  if (info.st_size == 0) return file;
  void* address = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) return ErrnoError(errno, StrFormat("cannot map %s", name));
  file.data_ = static_cast<const std::byte*>(address);
  file.size_ = static_cast<size_t>(info.st_size);
  return file;
}

}  // namespace pyrometer

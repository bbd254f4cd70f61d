#include "userspace/elf/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::elf {
namespace {

constexpr uint64_t kHoleCheckBytes = 1u << 20;

Status PastEnd(const ByteSource& source, uint64_t offset, uint64_t size) {
  return DataLossError(
      StrFormat("%s: %d bytes at offset %d lie past its end at %d", source.name(), size, offset, source.size()));
}

class FdSource final : public ByteSource {
 public:
  FdSource(SharedFd fd, uint64_t size, std::string name) : fd_(std::move(fd)), size_(size), name_(std::move(name)) {}

  uint64_t size() const override { return size_; }
  const std::string& name() const override { return name_; }

  Status ReadAt(uint64_t offset, std::span<char> out) const override {
    if (out.size() > size_ || offset > size_ - out.size()) return PastEnd(*this, offset, out.size());
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = ::pread(fd_->get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, StrFormat("cannot read %s", name_));
      if (n == 0) return DataLossError(StrFormat("%s shrank while it was read", name_));
      done += static_cast<size_t>(n);
    }
    return OkStatus();
  }

  uint64_t NextData(uint64_t offset) const override {
    if (offset >= size_) return size_;
    const off_t next = ::lseek(fd_->get(), static_cast<off_t>(offset), SEEK_DATA);
    if (next >= 0) return static_cast<uint64_t>(next);
    if (errno != ENXIO) return offset;  // this file system cannot tell
    // A hole up to the end; or the file shrank, and then reading must say so.
    struct stat info;
    return ::fstat(fd_->get(), &info) == 0 && static_cast<uint64_t>(info.st_size) >= size_ ? size_ : offset;
  }

 private:
  SharedFd fd_;
  uint64_t size_;
  std::string name_;
};

class MemorySource final : public ByteSource {
 public:
  MemorySource(std::shared_ptr<const std::string> bytes, std::string name)
      : bytes_(std::move(bytes)), name_(std::move(name)) {}

  uint64_t size() const override { return bytes_->size(); }
  const std::string& name() const override { return name_; }
  uint64_t NextData(uint64_t offset) const override { return offset < size() ? offset : size(); }

  Status ReadAt(uint64_t offset, std::span<char> out) const override {
    if (out.size() > size() || offset > size() - out.size()) return PastEnd(*this, offset, out.size());
    if (!out.empty()) std::memcpy(out.data(), bytes_->data() + offset, out.size());
    return OkStatus();
  }

 private:
  std::shared_ptr<const std::string> bytes_;
  std::string name_;
};

}  // namespace

StatusOr<std::string> ByteSource::Read(uint64_t offset, uint64_t bytes, uint64_t max_bytes) const {
  if (bytes > size() || offset > size() - bytes) return PastEnd(*this, offset, bytes);
  if (bytes > max_bytes) {
    return ResourceExhaustedError(StrFormat("%s: %s at offset %d are more than the limit of %s", name(),
                                            FormatBytes(bytes), offset, FormatBytes(max_bytes)));
  }
  if (bytes > kHoleCheckBytes && NextData(offset) >= offset + bytes) {
    return DataLossError(StrFormat("%s: %s at offset %d are a hole", name(), FormatBytes(bytes), offset));
  }
  std::string content(bytes, '\0');
  RETURN_IF_ERROR(ReadAt(offset, content));
  return content;
}

StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer; it has no effect on regular files.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return ErrnoError(errno, StrFormat("cannot open %s", path));
  return MakeFdSource(std::make_shared<const UniqueFd>(std::move(fd)), path);
}

StatusOr<std::unique_ptr<ByteSource>> MakeFdSource(SharedFd fd, std::string name) {
  if (fd == nullptr || !*fd) return InvalidArgumentError(StrFormat("%s: no open descriptor", name));
  struct stat info;
  if (::fstat(fd->get(), &info) != 0) return ErrnoError(errno, StrFormat("cannot stat %s", name));
  if (!S_ISREG(info.st_mode)) return InvalidArgumentError(StrFormat("%s is not a regular file", name));
  return std::unique_ptr<ByteSource>(
      std::make_unique<FdSource>(std::move(fd), static_cast<uint64_t>(info.st_size), std::move(name)));
}

std::unique_ptr<ByteSource> MakeMemorySource(std::shared_ptr<const std::string> bytes, std::string name) {
  return std::make_unique<MemorySource>(std::move(bytes), std::move(name));
}

}  // namespace pyrometer::elf

// Random access to bytes that a stranger owns.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenByteSource("/usr/bin/python3"));
//   std::string header(64, '\0');
//   RETURN_IF_ERROR(source->ReadAt(0, header));
//
// Files are read with pread and never mapped: a file truncated or rewritten while we look at it
// gives a DATA_LOSS status, never a SIGBUS. Only regular files are accepted (a FIFO would block us,
// a device may have side effects).
//
// Threads: const methods from any thread. Cost: one system call per ReadAt of a file.
// Does not promise that two reads see the same version of the file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"

namespace pyrometer::elf {

// A descriptor shared by its users, closed by the last one. Held from exec on, it keeps the binary
// of an ended process readable.
using SharedFd = std::shared_ptr<const UniqueFd>;

class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Bytes at the time of opening.
  virtual uint64_t size() const = 0;
  // Fills `out` wholly from `offset`, or fails with DATA_LOSS (past the end, file shrank) or the
  // errno's code.
  virtual Status ReadAt(uint64_t offset, std::span<char> out) const = 0;
  // The first position >= `offset` that is not in a hole of a sparse file; size() when only a hole
  // follows. Sources that cannot tell return `offset`.
  virtual uint64_t NextData(uint64_t offset) const = 0;
  // For messages.
  virtual const std::string& name() const = 0;

  // `size` bytes from `offset`; RESOURCE_EXHAUSTED above `max_bytes`, DATA_LOSS past the end and
  // for ranges above 1 MiB that are one hole (nothing of interest is megabytes of zeros).
  StatusOr<std::string> Read(uint64_t offset, uint64_t size, uint64_t max_bytes) const;
};

// Opens without following the last link's blocking behaviour: never blocks on FIFOs, refuses
// anything but a regular file.
StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path);
// `name` is for messages.
StatusOr<std::unique_ptr<ByteSource>> MakeFdSource(SharedFd fd, std::string name);
// Keeps `bytes` alive.
std::unique_ptr<ByteSource> MakeMemorySource(std::shared_ptr<const std::string> bytes, std::string name);

}  // namespace pyrometer::elf

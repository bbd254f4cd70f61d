// One move-only owner for every C handle: a closer and an invalid value.
//
//   UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
//   if (!fd) return ErrnoError(errno, path);
//
// Threads: as a plain value. Destructors accept empty objects.
#pragma once

#include <dirent.h>
#include <unistd.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "userspace/base/status.h"

namespace pyrometer {

// `Traits` has: using Handle; static Handle Invalid(); static void Close(Handle).
template <typename Traits>
class Owned {
 public:
  using Handle = typename Traits::Handle;

  Owned() : handle_(Traits::Invalid()) {}
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(other.Release()) {}
  Owned& operator=(Owned&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { Reset(); }

  // Borrowed: valid as long as this owner holds it.
  Handle get() const { return handle_; }
  explicit operator bool() const { return !(handle_ == Traits::Invalid()); }

  // Gives the handle away; the caller closes it.
  [[nodiscard]] Handle Release() { return std::exchange(handle_, Traits::Invalid()); }
  void Reset(Handle handle = Traits::Invalid()) {
    const Handle old = std::exchange(handle_, handle);
    if (!(old == Traits::Invalid())) Traits::Close(old);
  }

 private:
  Handle handle_;
};

struct FdTraits {
  using Handle = int;
  static int Invalid() { return -1; }
  static void Close(int fd) { ::close(fd); }
};
using UniqueFd = Owned<FdTraits>;

struct DirTraits {
  using Handle = DIR*;
  static DIR* Invalid() { return nullptr; }
  static void Close(DIR* dir) { ::closedir(dir); }
};
using UniqueDir = Owned<DirTraits>;

}  // namespace pyrometer

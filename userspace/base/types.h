// Strong types for addresses and identities, so that the three kinds of "address" never mix.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace pyrometer {

// `Tag` makes otherwise equal integers distinct types; no implicit conversion either way.
template <typename Tag, typename Integer>
struct Strong {
  Integer value{};

  constexpr Strong() = default;
  constexpr explicit Strong(Integer v) : value(v) {}
  constexpr auto operator<=>(const Strong&) const = default;
};

// Where something lies in one process's (or the kernel's) address space at run time.
using VirtualAddress = Strong<struct VirtualAddressTag, uint64_t>;
// Where something lies by an ELF file's own program headers (p_vaddr space, "as linked").
using ElfAddress = Strong<struct ElfAddressTag, uint64_t>;
// Byte offset in a file.
using FileOffset = Strong<struct FileOffsetTag, uint64_t>;
// Kernel's id of a cgroup: inode number of its cgroup2 directory.
using CgroupId = Strong<struct CgroupIdTag, uint64_t>;

// Identity of a process over PID reuse: tgid and the start time of its main thread
// (nanoseconds since boot, task_struct::start_boottime).
struct ProcessKey {
  uint32_t tgid = 0;
  uint64_t start_time_ns = 0;
  auto operator<=>(const ProcessKey&) const = default;
};

// Identity of a binary: the NT_GNU_BUILD_ID note, as lower-case hex. Binaries without one get a
// fallback that starts with "hash:" so that nobody mistakes it for a real one.
struct BuildId {
  std::string hex;
  bool empty() const { return hex.empty(); }
  bool is_fallback() const { return hex.starts_with("hash:"); }
  auto operator<=>(const BuildId&) const = default;
};

}  // namespace pyrometer

template <typename Tag, typename Integer>
struct std::hash<pyrometer::Strong<Tag, Integer>> {
  size_t operator()(pyrometer::Strong<Tag, Integer> v) const noexcept { return std::hash<Integer>{}(v.value); }
};
template <>
struct std::hash<pyrometer::ProcessKey> {
  size_t operator()(const pyrometer::ProcessKey& k) const noexcept {
    return std::hash<uint64_t>{}(k.start_time_ns * 0x9E3779B97F4A7C15u ^ k.tgid);
  }
};
template <>
struct std::hash<pyrometer::BuildId> {
  size_t operator()(const pyrometer::BuildId& b) const noexcept { return std::hash<std::string>{}(b.hex); }
};

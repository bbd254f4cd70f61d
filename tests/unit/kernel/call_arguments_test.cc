#include "userspace/kernel/call_arguments.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>

namespace pyrometer::kernel {
namespace {

SlowCall Make(std::string_view name, std::array<uint64_t, 6> arguments, int64_t result) {
  SlowCall call;
  call.key.nr = SyscallNumber(name).value();
  call.arguments = arguments;
  call.result = result;
  return call;
}

TEST(CallText, AFileByItsName) {
  SlowCall call = Make("fsync", {7}, 0);
  call.descriptor = {.kind = PYRO_DESCRIPTOR_FILE, .fd = 7, .inode = 12};
  EXPECT_EQ(CallText(call, "/var/lib/db/wal"), "fsync(7 → /var/lib/db/wal) = 0");
  EXPECT_EQ(CallText(call, "(closed since)"), "fsync(7 → (closed since)) = 0");
  EXPECT_EQ(CallText(call, ""), "fsync(7) = 0");
}

TEST(CallText, ASocketByItsPeer) {
  SlowCall call = Make("recvfrom", {9, 0x7f0000001000, 4096, 0x40}, -EAGAIN);
  call.descriptor = {.kind = PYRO_DESCRIPTOR_SOCKET, .fd = 9, .family = AF_INET, .port = 5432, .peer = {10, 0, 0, 3}};
  EXPECT_EQ(CallText(call, ""), "recvfrom(9 → 10.0.0.3:5432, …, 4096, 0x40) = -1 EAGAIN");
  call.descriptor.family = AF_INET6;
  call.descriptor.peer = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 3};
  EXPECT_EQ(SocketText(call.descriptor), "10.0.0.3:5432");
  call.descriptor.peer = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(SocketText(call.descriptor), "[2001:db8::1]:5432");
  call.descriptor.port = 0;
  EXPECT_EQ(SocketText(call.descriptor), "socket without a peer");
  call.descriptor.family = AF_UNIX;
  EXPECT_EQ(CallText(call, "/never/asked"), "recvfrom(9 → unix socket, …, 4096, 0x40) = -1 EAGAIN");
}

TEST(CallText, WhatACallReturns) {
  SlowCall call = Make("openat", {static_cast<uint64_t>(-100), 0x7ffe00001234, 0x241, 0x1b6}, 5);
  call.descriptor = {.kind = PYRO_DESCRIPTOR_FILE, .fd = 5, .inode = 3};
  EXPECT_EQ(CallText(call, "/etc/passwd"), "openat(-100, …, O_WRONLY|O_CREAT|O_TRUNC, 0x1b6) = 5 → /etc/passwd");
  call.result = -ENOENT;
  call.descriptor = {};
  EXPECT_EQ(CallText(call, ""), "openat(-100, …, O_WRONLY|O_CREAT|O_TRUNC, 0x1b6) = -1 ENOENT");
}

TEST(CallText, FlagsOfOpenByName) {
  const auto flags = [](uint64_t value) {
    const std::string text = CallText(Make("open", {1, value, 0}, -EACCES), "");
    return text.substr(10, text.find(", 0x0)") - 10);  // "…" is three bytes
  };
  EXPECT_EQ(flags(0), "O_RDONLY");
  EXPECT_EQ(flags(0x80042), "O_RDWR|O_CREAT|O_CLOEXEC");
  EXPECT_EQ(flags(0x101002), "O_RDWR|O_SYNC");
  EXPECT_EQ(flags(0x1001), "O_WRONLY|O_DSYNC");
  EXPECT_EQ(flags(0x410001), "O_WRONLY|O_TMPFILE");
  EXPECT_EQ(flags(0x10000), "O_RDONLY|O_DIRECTORY");
  EXPECT_EQ(flags(0x48008003), "O_ACCMODE|O_LARGEFILE|0x48000000");
}

TEST(CallText, TwoDescriptors) {
  SlowCall call = Make("splice", {3, 0, 9, 0, 65536, 1}, 4096);
  call.descriptor = {.kind = PYRO_DESCRIPTOR_FILE, .fd = 3, .inode = 12};
  call.second_descriptor = {
      .kind = PYRO_DESCRIPTOR_SOCKET, .fd = 9, .family = AF_INET, .port = 80, .peer = {10, 0, 0, 3}};
  EXPECT_EQ(CallText(call, "pipe:[12]"), "splice(3 → pipe:[12], …, 9 → 10.0.0.3:80, …, 65536, 0x1) = 4096");
  call.second_descriptor = {.kind = PYRO_DESCRIPTOR_FILE, .fd = 9, .inode = 13};
  EXPECT_EQ(CallText(call, "pipe:[12]", "/a"), "splice(3 → pipe:[12], …, 9 → /a, …, 65536, 0x1) = 4096");
  const auto nr = [](std::string_view name) { return static_cast<size_t>(SyscallNumber(name).value()); };
  EXPECT_EQ(DescriptorByCall()[nr("splice")], 0x31);
  EXPECT_EQ(DescriptorByCall()[nr("sendfile")], 0x21);
  EXPECT_EQ(DescriptorByCall()[nr("read")], 1);
  // The probe takes the second one from two places only.
  for (const uint8_t entry : DescriptorByCall()) EXPECT_TRUE(entry >> 4 == 0 || entry >> 4 == 2 || entry >> 4 == 3);
}

TEST(CallText, NumbersAndAddresses) {
  // The upper halves of registers that hold an int may hold anything.
  EXPECT_EQ(CallText(Make("futex", {0x7f12345678, 0xdead00000000 + 128, 2}, -110), ""),
            "futex(0x7f12345678, 128, 2) = -1 ETIMEDOUT");
  EXPECT_EQ(CallText(Make("epoll_wait", {4, 1, 512, 0xffffffff}, 1), ""), "epoll_wait(4, …, 512, -1) = 1");
  EXPECT_EQ(CallText(Make("pread64", {3, 1, 8192, uint64_t{5} << 32}, 8192), ""),
            "pread64(3, …, 8192, 21474836480) = 8192");
  EXPECT_EQ(CallText(Make("mmap", {0, 4096, 3, 0x22, static_cast<uint64_t>(-1), 0}, 0x7f0000000000), ""),
            "mmap(0x0, 4096, 0x3, 0x22, -1, 0x0) = 0x7f0000000000");
  EXPECT_EQ(CallText(Make("read", {0, 1, 2}, -512), ""), "read(0, …, 2) = -1 errno 512");
}

TEST(CallText, CallsWithoutOne) {
  EXPECT_EQ(CallText(Make("getppid", {1, 2, 3}, 5), ""), "");
  SlowCall compat = Make("read", {0, 1, 2}, 1);
  compat.key.compat = true;
  EXPECT_EQ(CallText(compat, ""), "");
  SlowCall unknown = Make("read", {0, 1, 2}, 1);
  unknown.key.nr = 9999;
  EXPECT_EQ(CallText(unknown, ""), "");
}

TEST(CallText, PointersAreNeverShown) {
  constexpr uint64_t kSecret = 0x5ec2e7;
  for (const std::string_view name : {"read", "write", "sendto", "connect", "poll", "openat2", "wait4"}) {
    SlowCall call = Make(name, {}, 0);
    const std::string all_zero = CallText(call, "");
    call.arguments[name == "poll" ? 0 : 1] = kSecret;
    EXPECT_EQ(CallText(call, ""), all_zero) << name;
  }
}

TEST(DescriptorByCall, Positions) {
  const auto at = [](std::string_view name) { return DescriptorByCall()[static_cast<size_t>(*SyscallNumber(name))]; };
  EXPECT_EQ(at("read"), 1);
  EXPECT_EQ(at("mmap"), 5);
  EXPECT_EQ(at("openat"), PYRO_DESCRIPTOR_RETURNED);
  EXPECT_EQ(at("close"), 0);  // what it was is gone by then
  EXPECT_EQ(at("getppid"), 0);
}

}  // namespace
}  // namespace pyrometer::kernel

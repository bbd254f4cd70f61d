// Ring records: what a probe writes, and what no probe would.
#include "userspace/kernel/decode.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <string_view>
#include <vector>

namespace pyrometer::kernel {
namespace {

std::vector<uint64_t> Words(size_t bytes) { return std::vector<uint64_t>((bytes + 7) / 8); }

TEST(DecodeCpuSample, TakesTheRecordApart) {
  std::vector<uint64_t> words = Words(sizeof(pyro_cpu_sample) + 5 * 8);
  auto* record = reinterpret_cast<pyro_cpu_sample*>(words.data());
  record->time_ns = 1;
  record->start_time_ns = 2;
  record->owner = {.cgroup_id = 3, .cgroup_v1_id = 4};
  record->tgid = 5;
  record->tid = 6;
  record->cpu = 7;
  record->user_frames = 3;
  record->kernel_frames = 2;
  record->user_stop = PYRO_STOP_END;
  record->kernel_stop = PYRO_STOP_TRUNCATED;
  std::memcpy(record->comm, "thread", 7);
  std::memcpy(record->process_comm, "0123456789abcdef", 16);  // no NUL
  auto* frames = reinterpret_cast<uint64_t*>(record + 1);
  for (uint64_t i = 0; i < 5; ++i) frames[i] = 100 + i;

  CpuSample s;
  ASSERT_TRUE(DecodeCpuSample(words.data(), words.size() * 8, 9, s));
  EXPECT_EQ(s.time_ns, 1u);
  EXPECT_EQ(s.process, (ProcessKey{.tgid = 5, .start_time_ns = 2}));
  EXPECT_EQ(s.cgroup_id, 3u);
  EXPECT_EQ(s.cgroup_v1_id, 4u);
  EXPECT_EQ(s.tid, 6u);
  EXPECT_EQ(s.cpu, 7u);
  EXPECT_EQ(s.period_ns, 9u);
  EXPECT_EQ(s.comm, "thread");
  EXPECT_EQ(s.process_comm, "0123456789abcdef");
  EXPECT_EQ(std::vector<uint64_t>(s.user_frames.begin(), s.user_frames.end()), (std::vector<uint64_t>{100, 101, 102}));
  EXPECT_EQ(std::vector<uint64_t>(s.kernel_frames.begin(), s.kernel_frames.end()), (std::vector<uint64_t>{103, 104}));
  EXPECT_EQ(s.user_stop, PYRO_STOP_END);
  EXPECT_EQ(s.kernel_stop, PYRO_STOP_TRUNCATED);

  // One byte less than its frames need, and every shorter length.
  for (size_t size = 0; size < words.size() * 8; ++size) EXPECT_FALSE(DecodeCpuSample(words.data(), size, 9, s));
  record->user_stop = PYRO_STOP_COUNT;
  EXPECT_FALSE(DecodeCpuSample(words.data(), words.size() * 8, 9, s));
  record->user_stop = PYRO_STOP_END;
  record->user_frames = PYRO_MAX_USER_FRAMES + 1;
  EXPECT_FALSE(DecodeCpuSample(words.data(), 1 << 20, 9, s));
}

TEST(DecodeCpuSample, CopyOfTheStack) {
  constexpr uint32_t kStackBytes = 24;
  std::vector<uint64_t> words = Words(sizeof(pyro_cpu_sample) + 8 + sizeof(pyro_raw_registers) + kStackBytes);
  auto* record = reinterpret_cast<pyro_cpu_sample*>(words.data());
  record->user_frames = 1;
  record->user_stop = PYRO_STOP_NO_PROCESS;
  record->means = PYRO_BY_FP_GENERATED;
  record->raw_bytes = kStackBytes;
  auto* registers = reinterpret_cast<pyro_raw_registers*>(reinterpret_cast<char*>(record + 1) + 8);
  registers->ip = 77;
  std::memcpy(registers + 1, "the stack of the thread.", kStackBytes);
  CpuSample s;
  ASSERT_TRUE(DecodeCpuSample(words.data(), words.size() * 8, 9, s));
  ASSERT_NE(s.raw_registers, nullptr);
  EXPECT_EQ(s.raw_registers->ip, 77u);
  EXPECT_EQ(s.raw_stack, "the stack of the thread.");
  EXPECT_EQ(s.means, PYRO_BY_FP_GENERATED);
  for (size_t size = 0; size < words.size() * 8; ++size) EXPECT_FALSE(DecodeCpuSample(words.data(), size, 9, s));
  // One without a copy after one with: nothing is left over.
  record->raw_bytes = 0;
  ASSERT_TRUE(DecodeCpuSample(words.data(), words.size() * 8, 9, s));
  EXPECT_EQ(s.raw_registers, nullptr);
  EXPECT_TRUE(s.raw_stack.empty());
  record->raw_bytes = PYRO_MAX_RAW_STACK_BYTES + 8;
  EXPECT_FALSE(DecodeCpuSample(words.data(), 1 << 20, 9, s));
}

TEST(DecodeSlowCall, TakesTheRecordApart) {
  std::vector<uint64_t> words = Words(sizeof(pyro_syscall_exemplar) + 2 * 8);
  auto* record = reinterpret_cast<pyro_syscall_exemplar*>(words.data());
  record->latency_ns = 5;
  record->result = -11;
  record->call = {.owner = {.cgroup_id = 1, .cgroup_v1_id = 2}, .nr = 0, .flags = PYRO_SYSCALL_COMPAT};
  record->user_frames = 2;
  record->slow = 1;
  record->drawn = 1 + 10;
  for (uint64_t i = 0; i < 6; ++i) record->arguments[i] = 10 + i;
  record->descriptor = {
      .fd = 7, .kind = PYRO_DESCRIPTOR_SOCKET, .family = 2, .port = 5432, .inode = 9, .peer = {10, 0, 0, 3}};
  SlowCall call;
  ASSERT_TRUE(DecodeSlowCall(words.data(), words.size() * 8, call));
  EXPECT_EQ(call.result, -11);
  EXPECT_TRUE(call.slow);
  EXPECT_EQ(call.weight, 1024u);
  EXPECT_TRUE(call.key.compat);
  EXPECT_EQ(call.user_frames.size(), 2u);
  EXPECT_EQ(call.arguments, (std::array<uint64_t, 6>{10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(call.descriptor.fd, 7);
  EXPECT_EQ(call.descriptor.kind, PYRO_DESCRIPTOR_SOCKET);
  EXPECT_EQ(call.descriptor.family, 2);
  EXPECT_EQ(call.descriptor.port, 5432);
  EXPECT_EQ(call.descriptor.inode, 9u);
  EXPECT_EQ(call.descriptor.peer[3], 3);
  record->drawn = PYRO_MAX_DRAW_PERIOD + 2;
  EXPECT_FALSE(DecodeSlowCall(words.data(), words.size() * 8, call));
  record->drawn = record->slow = 0;
  ASSERT_TRUE(DecodeSlowCall(words.data(), words.size() * 8, call));
  EXPECT_FALSE(call.slow);
  EXPECT_EQ(call.weight, 0u);
  record->descriptor.kind = PYRO_DESCRIPTOR_SOCKET + 1;
  EXPECT_FALSE(DecodeSlowCall(words.data(), words.size() * 8, call));
  record->descriptor.kind = PYRO_DESCRIPTOR_FILE;
  EXPECT_FALSE(DecodeSlowCall(words.data(), words.size() * 8 - 1, call));
  record->user_frames = PYRO_MAX_USER_FRAMES + 1;
  EXPECT_FALSE(DecodeSlowCall(words.data(), 1 << 20, call));
}

TEST(DecodeWaitSample, TakesTheRecordApart) {
  std::vector<uint64_t> words = Words(sizeof(pyro_wait_sample) + 10 * 8);
  auto* record = reinterpret_cast<pyro_wait_sample*>(words.data());
  record->time_ns = 1;
  record->wait_ns = 30;
  record->period_ns = 20;
  record->start_time_ns = 2;
  record->waker_start_time_ns = 12;
  record->owner = {.cgroup_id = 3, .cgroup_v1_id = 4};
  record->tgid = 5;
  record->tid = 6;
  record->waker_tgid = 7;
  record->waker_tid = 8;
  record->nr = 202;
  record->user_frames = 1;
  record->kernel_frames = 2;
  record->waker_kernel_frames = 3;
  record->waker_user_frames = 4;
  record->user_stop = record->waker_user_stop = PYRO_STOP_END;
  record->cause = PYRO_WAIT_LOCK;
  record->waker = PYRO_WAKER_TASK;
  std::memcpy(record->comm, "waits", 6);
  std::memcpy(record->waker_comm, "wakes", 6);
  auto* frames = reinterpret_cast<uint64_t*>(record + 1);
  for (uint64_t i = 0; i < 10; ++i) frames[i] = 100 + i;

  WaitSample s;
  ASSERT_TRUE(DecodeWaitSample(words.data(), words.size() * 8, s));
  EXPECT_EQ(s.time_ns, 1u);
  EXPECT_EQ(s.wait_ns, 30u);
  EXPECT_EQ(s.weight_ns, 30u);  // longer than the period: taken for certain
  EXPECT_EQ(s.process, (ProcessKey{.tgid = 5, .start_time_ns = 2}));
  EXPECT_EQ(s.waker_process, (ProcessKey{.tgid = 7, .start_time_ns = 12}));
  EXPECT_EQ(s.nr, 202);
  EXPECT_EQ(s.cause, PYRO_WAIT_LOCK);
  EXPECT_EQ(s.comm, "waits");
  EXPECT_EQ(s.waker_comm, "wakes");
  const auto list = [](std::span<const uint64_t> part) { return std::vector<uint64_t>(part.begin(), part.end()); };
  EXPECT_EQ(list(s.user_frames), (std::vector<uint64_t>{100}));
  EXPECT_EQ(list(s.kernel_frames), (std::vector<uint64_t>{101, 102}));
  EXPECT_EQ(list(s.waker_kernel_frames), (std::vector<uint64_t>{103, 104, 105}));
  EXPECT_EQ(list(s.waker_user_frames), (std::vector<uint64_t>{106, 107, 108, 109}));
  record->period_ns = 50;
  ASSERT_TRUE(DecodeWaitSample(words.data(), words.size() * 8, s));
  EXPECT_EQ(s.weight_ns, 50u);

  for (size_t size = 0; size < words.size() * 8; ++size) EXPECT_FALSE(DecodeWaitSample(words.data(), size, s));
  record->cause = PYRO_WAIT_CAUSES;
  EXPECT_FALSE(DecodeWaitSample(words.data(), words.size() * 8, s));
  record->cause = PYRO_WAIT_LOCK;
  record->waker_user_frames = PYRO_MAX_WAKER_FRAMES + 1;
  EXPECT_FALSE(DecodeWaitSample(words.data(), 1 << 20, s));
}

TEST(WaitCauses, TheTableKnowsTheCallsThatWait) {
  const auto cause = [](std::string_view name) { return CauseByCall()[static_cast<size_t>(*SyscallNumber(name))]; };
  EXPECT_EQ(cause("futex"), PYRO_WAIT_LOCK);
  EXPECT_EQ(cause("fsync"), PYRO_WAIT_BLOCK_IO);
  EXPECT_EQ(cause("clock_nanosleep"), PYRO_WAIT_TIMER);
  EXPECT_EQ(cause("epoll_wait"), PYRO_WAIT_POLL);
  EXPECT_EQ(cause("read"), PYRO_CAUSE_BY_FD);
  EXPECT_EQ(cause("wait4"), PYRO_WAIT_OTHER);
  EXPECT_FALSE(SyscallNumber("no_such_call"));
  std::set<std::string_view> names;
  for (size_t i = 0; i < kWaitCauses; ++i) names.insert(WaitCauseName(static_cast<WaitCause>(i)));
  EXPECT_EQ(names.size(), kWaitCauses);
}

TEST(DecodeProcessEvent, KindsAndBounds) {
  std::vector<uint64_t> words = Words(sizeof(pyro_process_event));
  auto* record = reinterpret_cast<pyro_process_event*>(words.data());
  constexpr size_t kHead = offsetof(pyro_process_event, path);
  ProcessEvent event;
  record->kind = PYRO_PROCESS_EXEC;
  record->tgid = 9;
  record->start_time_ns = 10;
  record->path_bytes = 5;
  std::memcpy(record->path, "/bin\0", 5);
  ASSERT_TRUE(DecodeProcessEvent(words.data(), kHead + 5, event));
  EXPECT_EQ(std::get<process::Exec>(event).filename, "/bin");
  EXPECT_FALSE(DecodeProcessEvent(words.data(), kHead + 4, event));
  record->path_bytes = PYRO_PATH_BYTES + 1;
  EXPECT_FALSE(DecodeProcessEvent(words.data(), 1 << 20, event));
  record->path_bytes = 0;
  record->kind = PYRO_PROCESS_FORK;
  record->parent_tgid = 3;
  record->parent_start_time_ns = 4;
  ASSERT_TRUE(DecodeProcessEvent(words.data(), kHead, event));
  EXPECT_EQ(std::get<process::Fork>(event).parent, (ProcessKey{.tgid = 3, .start_time_ns = 4}));
  EXPECT_EQ(std::get<process::Fork>(event).child, (ProcessKey{.tgid = 9, .start_time_ns = 10}));
  record->kind = PYRO_PROCESS_EXIT;
  ASSERT_TRUE(DecodeProcessEvent(words.data(), kHead, event));
  EXPECT_EQ(std::get<process::Exit>(event).key.tgid, 9u);
  record->kind = 77;
  EXPECT_FALSE(DecodeProcessEvent(words.data(), kHead, event));
  EXPECT_FALSE(DecodeProcessEvent(words.data(), kHead - 1, event));
}

TEST(Decode, NoiseNeverReadsPastTheEnd) {
  // Exactly sized heap blocks: a read past the end is what the address sanitizer of the preset `asan` sees.
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    const size_t size = random() % 512;
    const std::unique_ptr<uint64_t[]> words(new uint64_t[size / 8 + 1]);
    for (size_t w = 0; w <= size / 8; ++w) words[w] = random();
    CpuSample sample;
    SlowCall call;
    ProcessEvent event;
    if (DecodeCpuSample(words.get(), size, 1, sample)) {
      uint64_t sum = 0;
      for (const uint64_t f : sample.user_frames) sum += f;
      for (const uint64_t f : sample.kernel_frames) sum += f;
      ASSERT_LE(sample.user_frames.size() + sample.kernel_frames.size(), size / 8) << sum;
    }
    DecodeSlowCall(words.get(), size, call);
    WaitSample wait;
    DecodeWaitSample(words.get(), size, wait);
    DecodeProcessEvent(words.get(), size, event);
  }
}

TEST(SyscallName, ByNumber) {
  EXPECT_EQ(SyscallName({.nr = 0}), "read");
  EXPECT_EQ(SyscallName({.nr = 35}), "nanosleep");
  EXPECT_EQ(SyscallName({.nr = 257}), "openat");
  EXPECT_EQ(SyscallName({.nr = 462}), "mseal");
  EXPECT_EQ(SyscallName({.nr = 400}), "syscall_400");
  EXPECT_EQ(SyscallName({.nr = 5, .compat = true}), "i386:5");
  EXPECT_EQ(SyscallName({.nr = -1}), "cancelled");
  EXPECT_EQ(SyscallName({.folded = true}), "other");
}

TEST(SyscallKeys, SurviveTheWayThere) {
  const SyscallKey key{.cgroup_id = 1, .cgroup_v1_id = 2, .nr = -1, .compat = true, .folded = false};
  EXPECT_EQ(ToSyscallKey(ToAbi(key)), key);
  EXPECT_EQ(ToSyscallKey(ToAbi(SyscallKey{.folded = true})), SyscallKey{.folded = true});
}

TEST(StopReasons, HaveDistinctNames) {
  std::vector<std::string_view> names;
  for (int i = 0; i < PYRO_STOP_COUNT; ++i) {
    const std::string_view name = StopReasonName(static_cast<StopReason>(i));
    EXPECT_NE(name, "unknown") << i;
    for (const std::string_view other : names) EXPECT_NE(name, other);
    names.push_back(name);
  }
  EXPECT_EQ(StopReasonName(static_cast<StopReason>(200)), "unknown");
}

}  // namespace
}  // namespace pyrometer::kernel

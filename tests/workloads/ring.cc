// So many io_uring requests of a known kind, with known delays, by raw system calls.
//
//   ring MODE COUNT [MICROSECONDS]
//
// First waits until standard input is closed, so that a test can attach before anything is counted. Then makes COUNT
// requests one after the other unless said otherwise, and prints "MODE COUNT NANOSECONDS", the time by its own clock
// from submissions to completions. Modes:
//   nop       completes in the submitting call
//   timeout   of MICROSECONDS; ends with ETIME
//   pipe      read of an empty pipe that a second thread answers MICROSECONDS after the submission
//   worker    the same by a thread of the kernel's own (IOSQE_ASYNC)
//   linked    a timeout of MICROSECONDS and a nop behind it, COUNT times
//   cancel    poll_add on an empty pipe, and the request that cancels it, COUNT times
//   poll      one multishot poll_add of an eventfd, written COUNT times, then cancelled
//   accept    one multishot accept on loopback, COUNT connections, then cancelled
//   ticks     one multishot timeout of MICROSECONDS that ends after COUNT
//   skip      nop that asks for no completion when it succeeds, COUNT times, then one nop
//   refused   an opcode that no kernel knows: EINVAL
//   overflow  COUNT nops at once, more than the ring of completions (16) holds
//   sqpoll    nop, submitted by a thread of the kernel's own
//   hang      COUNT reads of an empty pipe at once; when it has printed, it waits to be ended
// It exits with 77 where io_uring is disabled.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

namespace {

constexpr unsigned kEntries = 8;                  // of submissions; of completions twice as many
constexpr uint32_t kTimeoutMultishot = 1u << 6;   // newer than some headers
constexpr uint64_t kTag = 0x7461670000000000ull;  // user data: this and a number

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

uint64_t Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

void Sleep(long us) {
  const timespec t{us / 1'000'000, us % 1'000'000 * 1000};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &t, nullptr);
}

class Ring {
 public:
  explicit Ring(unsigned flags) {
    io_uring_params params{};
    params.flags = flags;
    params.sq_thread_idle = 2000;
    fd_ = static_cast<int>(syscall(SYS_io_uring_setup, kEntries, &params));
    if (fd_ < 0 && (errno == EPERM || errno == ENOSYS)) {
      std::fprintf(stderr, "io_uring is disabled\n");
      std::exit(77);
    }
    if (fd_ < 0) Die("io_uring_setup");
    const size_t bytes = std::max(params.sq_off.array + params.sq_entries * sizeof(uint32_t),
                                  params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe));
    base_ = static_cast<char*>(Map(bytes, IORING_OFF_SQ_RING));
    sqes_ = static_cast<io_uring_sqe*>(Map(params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    params_ = params;
  }

  io_uring_sqe& Prepare(uint8_t opcode, int fd, uint64_t user_data) {
    const uint32_t index = Load(params_.sq_off.tail) & Load(params_.sq_off.ring_mask);
    io_uring_sqe& sqe = sqes_[index];
    std::memset(&sqe, 0, sizeof(sqe));
    sqe.opcode = opcode;
    sqe.fd = fd;
    sqe.user_data = kTag + user_data;
    reinterpret_cast<uint32_t*>(base_ + params_.sq_off.array)[index] = index;
    return sqe;
  }
  // The request that was prepared last.
  void Queue() {
    std::atomic_ref<uint32_t>(At(params_.sq_off.tail)).fetch_add(1, std::memory_order_release);
    ++queued_;
  }
  void Submit(unsigned wait = 0) {
    if ((params_.flags & IORING_SETUP_SQPOLL) != 0) {
      Enter(0, 0, IORING_ENTER_SQ_WAKEUP);
    } else if (Enter(queued_, wait, wait != 0 ? IORING_ENTER_GETEVENTS : 0) != static_cast<int>(queued_)) {
      Die("io_uring_enter");
    }
    queued_ = 0;
  }
  io_uring_cqe Wait() {
    while (true) {
      const uint32_t head = Load(params_.cq_off.head);
      if (head != std::atomic_ref<uint32_t>(At(params_.cq_off.tail)).load(std::memory_order_acquire)) {
        const io_uring_cqe cqe =
            reinterpret_cast<io_uring_cqe*>(base_ + params_.cq_off.cqes)[head & Load(params_.cq_off.ring_mask)];
        std::atomic_ref<uint32_t>(At(params_.cq_off.head)).store(head + 1, std::memory_order_release);
        return cqe;
      }
      if (Enter(0, 1, IORING_ENTER_GETEVENTS) < 0 && errno != EINTR) Die("io_uring_enter");
    }
  }
  void Expect(uint64_t user_data, int result) {
    const io_uring_cqe cqe = Wait();
    if (cqe.user_data == kTag + user_data && cqe.res == result) return;
    std::fprintf(stderr, "request %llu ended with %d, expected %llu with %d\n",
                 static_cast<unsigned long long>(cqe.user_data - kTag), cqe.res,
                 static_cast<unsigned long long>(user_data), result);
    std::exit(1);
  }

 private:
  void* Map(size_t bytes, uint64_t offset) const {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, static_cast<off_t>(offset));
    if (at == MAP_FAILED) Die("mmap of the ring");
    return at;
  }
  uint32_t& At(uint32_t offset) const { return *reinterpret_cast<uint32_t*>(base_ + offset); }
  uint32_t Load(uint32_t offset) const { return std::atomic_ref<uint32_t>(At(offset)).load(std::memory_order_relaxed); }
  int Enter(unsigned submit, unsigned wait, unsigned flags) const {
    return static_cast<int>(syscall(SYS_io_uring_enter, fd_, submit, wait, flags, nullptr, 0));
  }

  int fd_ = -1;
  char* base_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  io_uring_params params_{};
  unsigned queued_ = 0;
};

int Listen(sockaddr_in& address) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  socklen_t size = sizeof(address);
  address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, 128) != 0 || getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    Die("listen");
  }
  return listener;
}

// Cancels request `target`, whose last completion has this result.
void Cancel(Ring& ring, uint64_t target, uint64_t user_data) {
  ring.Prepare(IORING_OP_ASYNC_CANCEL, -1, user_data).addr = kTag + target;
  ring.Queue();
  ring.Submit();
  for (int i = 0; i < 2; ++i) {
    const io_uring_cqe cqe = ring.Wait();
    if (cqe.user_data == kTag + target ? cqe.res != -ECANCELED : cqe.res != 0) {
      std::fprintf(stderr, "cancelling ended with %d\n", cqe.res);
      std::exit(1);
    }
  }
}

void Run(Ring& ring, const std::string& mode, long count, long us) {
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) Die("pipe");
  char byte = 0;
  __kernel_timespec timeout{us / 1'000'000, us % 1'000'000 * 1000};
  const auto number = [](long i) { return static_cast<uint64_t>(i); };

  if (mode == "nop" || mode == "sqpoll") {
    for (long i = 0; i < count; ++i) {
      ring.Prepare(IORING_OP_NOP, -1, number(i));
      ring.Queue();
      ring.Submit();
      ring.Expect(number(i), 0);
    }
  } else if (mode == "timeout") {
    for (long i = 0; i < count; ++i) {
      io_uring_sqe& sqe = ring.Prepare(IORING_OP_TIMEOUT, -1, number(i));
      sqe.addr = reinterpret_cast<uint64_t>(&timeout);
      sqe.len = 1;
      ring.Queue();
      ring.Submit();
      ring.Expect(number(i), -ETIME);
    }
  } else if (mode == "pipe" || mode == "worker") {
    std::atomic<long> asked = 0;
    std::thread answers([&] {
      for (long i = 0; i < count; ++i) {
        while (asked.load() <= i) Sleep(100);
        Sleep(us);
        if (write(pipe_fds[1], "x", 1) != 1) Die("write");
      }
    });
    for (long i = 0; i < count; ++i) {
      io_uring_sqe& sqe = ring.Prepare(IORING_OP_READ, pipe_fds[0], number(i));
      sqe.addr = reinterpret_cast<uint64_t>(&byte);
      sqe.len = 1;
      sqe.flags = mode == "worker" ? IOSQE_ASYNC : 0;
      ring.Queue();
      ring.Submit();
      asked.fetch_add(1);
      ring.Expect(number(i), 1);
    }
    answers.join();
  } else if (mode == "linked") {
    for (long i = 0; i < count; ++i) {
      io_uring_sqe& sqe = ring.Prepare(IORING_OP_TIMEOUT, -1, number(2 * i));
      sqe.addr = reinterpret_cast<uint64_t>(&timeout);
      sqe.len = 1;
      sqe.flags = IOSQE_IO_HARDLINK;
      ring.Queue();
      ring.Prepare(IORING_OP_NOP, -1, number(2 * i + 1));
      ring.Queue();
      ring.Submit();
      ring.Expect(number(2 * i), -ETIME);
      ring.Expect(number(2 * i + 1), 0);
    }
  } else if (mode == "cancel") {
    for (long i = 0; i < count; ++i) {
      ring.Prepare(IORING_OP_POLL_ADD, pipe_fds[0], number(2 * i)).poll32_events = POLLIN;
      ring.Queue();
      ring.Submit();
      Cancel(ring, number(2 * i), number(2 * i + 1));
    }
  } else if (mode == "poll") {
    const int event = eventfd(0, 0);
    io_uring_sqe& sqe = ring.Prepare(IORING_OP_POLL_ADD, event, 0);
    sqe.poll32_events = POLLIN;
    sqe.len = IORING_POLL_ADD_MULTI;
    ring.Queue();
    ring.Submit();
    for (long i = 0; i < count; ++i) {
      uint64_t value = 1;
      Sleep(us);
      if (write(event, &value, sizeof(value)) != sizeof(value)) Die("write");
      ring.Expect(0, POLLIN);
      if (read(event, &value, sizeof(value)) != sizeof(value)) Die("read");
    }
    Cancel(ring, 0, 1);
  } else if (mode == "accept") {
    sockaddr_in address;
    const int listener = Listen(address);
    io_uring_sqe& sqe = ring.Prepare(IORING_OP_ACCEPT, listener, 0);
    sqe.ioprio = IORING_ACCEPT_MULTISHOT;
    ring.Queue();
    ring.Submit();
    for (long i = 0; i < count; ++i) {
      Sleep(us);
      const int client = socket(AF_INET, SOCK_STREAM, 0);
      if (connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Die("connect");
      const io_uring_cqe cqe = ring.Wait();
      if (cqe.res < 0 || (cqe.flags & IORING_CQE_F_MORE) == 0) Die("accept");
      close(cqe.res);
      close(client);
    }
    Cancel(ring, 0, 1);
  } else if (mode == "ticks") {
    io_uring_sqe& sqe = ring.Prepare(IORING_OP_TIMEOUT, -1, 0);
    sqe.addr = reinterpret_cast<uint64_t>(&timeout);
    sqe.len = 1;
    sqe.off = number(count);
    sqe.timeout_flags = kTimeoutMultishot;
    ring.Queue();
    ring.Submit();
    for (long i = 0; i < count; ++i) ring.Expect(0, -ETIME);
  } else if (mode == "skip") {
    for (long i = 0; i < count; ++i) {
      ring.Prepare(IORING_OP_NOP, -1, number(i)).flags = IOSQE_CQE_SKIP_SUCCESS;
      ring.Queue();
      ring.Submit();
    }
    ring.Prepare(IORING_OP_NOP, -1, number(count));
    ring.Queue();
    ring.Submit();
    ring.Expect(number(count), 0);
  } else if (mode == "refused") {
    for (long i = 0; i < count; ++i) {
      ring.Prepare(250, -1, number(i));
      ring.Queue();
      ring.Submit();
      ring.Expect(number(i), -EINVAL);
    }
  } else if (mode == "overflow") {
    for (long i = 0; i < count; ++i) {
      ring.Prepare(IORING_OP_NOP, -1, number(i));
      ring.Queue();
      ring.Submit();
    }
    for (long i = 0; i < count; ++i) ring.Expect(number(i), 0);
  } else if (mode == "hang") {
    for (long i = 0; i < count; ++i) {
      io_uring_sqe& sqe = ring.Prepare(IORING_OP_READ, pipe_fds[0], number(i));
      sqe.addr = reinterpret_cast<uint64_t>(&byte);
      sqe.len = 1;
      ring.Queue();
      ring.Submit();
    }
  } else {
    std::fprintf(stderr, "no mode %s\n", mode.c_str());
    std::exit(2);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: ring MODE COUNT [MICROSECONDS]\n");
    return 2;
  }
  const std::string mode = argv[1];
  const long count = std::atol(argv[2]), us = argc > 3 ? std::atol(argv[3]) : 0;
  fd_set ready;
  FD_ZERO(&ready);
  FD_SET(0, &ready);
  select(1, &ready, nullptr, nullptr, nullptr);
  Ring ring(mode == "sqpoll" ? static_cast<unsigned>(IORING_SETUP_SQPOLL) : 0u);
  const uint64_t begin = Now();
  Run(ring, mode, count, us);
  std::printf("%s %ld %llu\n", mode.c_str(), count, static_cast<unsigned long long>(Now() - begin));
  std::fflush(stdout);
  if (mode == "hang") pause();
  return 0;
}

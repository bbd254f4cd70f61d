// Two network namespaces joined by a wire of an exact delay, for kernels without netem.
//
//   tun_relay DELAY_US [DROP_EVERY [DROP_SYNS]]
//
// Makes two network namespaces, a and b, each with loopback and a TUN device:
//   a: 10.99.0.1/24, fd99::1/64     b: 10.99.0.2/24, fd99::2/64
// Every packet is handed to the other side DELAY_US after it was sent, in order; with DROP_EVERY = n, every n-th packet
// that carries more than 100 bytes is dropped instead (so that data is lost and not the handshake); bit i of
// DROP_SYNS drops the i-th packet with SYN (a SYN-ACK too), counted from 0. Prints
//   ready A B
// where A and B are paths of the namespaces (/proc/PID/fd/N), good for setns(2), nsenter --net=A and a runc
// config's namespace path. Runs until its standard input is closed; with it the namespaces vanish
// (once nobody else is in them). Needs root. Part of the packets that wait longer than they should are counted and
// reported at the end on standard error.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

namespace {

// Of in-flight packets; at 10 ms and 64 KiB windows a few dozen are in flight.
constexpr size_t kMaxQueued = 65536;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "tun_relay: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

uint64_t NowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

void BringUp(int control, const char* name) {
  ifreq request;
  std::memset(&request, 0, sizeof(request));
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(control, SIOCGIFFLAGS, &request) != 0) Die("SIOCGIFFLAGS");
  request.ifr_flags |= IFF_UP | IFF_RUNNING;
  if (ioctl(control, SIOCSIFFLAGS, &request) != 0) Die("SIOCSIFFLAGS");
}

struct Side {
  int namespace_fd = -1;
  int tun = -1;
};

// Moves the process into a new network namespace and equips it.
Side MakeSide(int number) {
  Side side;
  if (unshare(CLONE_NEWNET) != 0) Die("unshare");
  side.namespace_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  side.tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (side.namespace_fd < 0 || side.tun < 0) Die("/dev/net/tun");
  ifreq request;
  std::memset(&request, 0, sizeof(request));
  std::strncpy(request.ifr_name, "wire0", IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (ioctl(side.tun, TUNSETIFF, &request) != 0) Die("TUNSETIFF");

  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0) Die("socket");
  BringUp(control, "lo");
  auto* address = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
  std::memset(address, 0, sizeof(*address));
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(0x0a630000u + static_cast<uint32_t>(number));
  if (ioctl(control, SIOCSIFADDR, &request) != 0) Die("SIOCSIFADDR");
  address->sin_addr.s_addr = htonl(0xffffff00u);
  if (ioctl(control, SIOCSIFNETMASK, &request) != 0) Die("SIOCSIFNETMASK");
  BringUp(control, "wire0");
  // IPv6 may be switched off; its tests then cannot connect and say so.
  const int control6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control6 >= 0 && ioctl(control6, SIOCGIFINDEX, &request) == 0) {
    in6_ifreq six;
    std::memset(&six, 0, sizeof(six));
    char text[16];
    std::snprintf(text, sizeof(text), "fd99::%d", number);
    inet_pton(AF_INET6, text, &six.ifr6_addr);
    six.ifr6_prefixlen = 64;
    six.ifr6_ifindex = request.ifr_ifindex;
    if (ioctl(control6, SIOCSIFADDR, &six) != 0) std::fprintf(stderr, "tun_relay: no IPv6: %s\n", std::strerror(errno));
  }
  if (control6 >= 0) close(control6);
  close(control);
  return side;
}

// TCP with SYN, in IPv4 or in IPv6 without extension headers.
bool HasSyn(const char* packet, ssize_t bytes) {
  const auto at = [&](ssize_t i) { return i < bytes ? static_cast<unsigned char>(packet[i]) : 0; };
  if (at(0) >> 4 == 4) return at(9) == IPPROTO_TCP && (at((at(0) & 15) * 4 + 13) & 2) != 0;
  return at(0) >> 4 == 6 && at(6) == IPPROTO_TCP && (at(40 + 13) & 2) != 0;
}

struct Packet {
  uint64_t due_ns = 0;
  int to = 0;
  std::vector<char> bytes;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: tun_relay DELAY_US [DROP_EVERY [DROP_SYNS]]\n");
    return 2;
  }
  const uint64_t delay_ns = std::strtoull(argv[1], nullptr, 10) * 1000;
  const uint64_t drop_every = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  uint64_t drop_syns = argc > 3 ? std::strtoull(argv[3], nullptr, 0) : 0;
  const Side sides[2] = {MakeSide(1), MakeSide(2)};
  // A relay that waits for the CPU is a longer wire: real-time priority where we may.
  sched_param priority;
  priority.sched_priority = 1;
  sched_setscheduler(0, SCHED_FIFO, &priority);

  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer < 0) Die("timerfd");
  std::printf("ready /proc/%d/fd/%d /proc/%d/fd/%d\n", getpid(), sides[0].namespace_fd, getpid(),
              sides[1].namespace_fd);
  std::fflush(stdout);

  std::deque<Packet> queue;  // in order of due_ns: one delay for all
  uint64_t large = 0, dropped = 0, late = 0, carried = 0;
  while (true) {
    if (!queue.empty()) {
      itimerspec when{};
      when.it_value.tv_sec = static_cast<time_t>(queue.front().due_ns / 1000000000u);
      when.it_value.tv_nsec = static_cast<long>(queue.front().due_ns % 1000000000u);
      timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, nullptr);
    }
    pollfd fds[4] = {{sides[0].tun, POLLIN, 0}, {sides[1].tun, POLLIN, 0}, {timer, POLLIN, 0}, {0, POLLIN, 0}};
    if (poll(fds, 4, -1) < 0 && errno != EINTR) Die("poll");
    if (fds[3].revents != 0) {
      char byte;
      if (read(0, &byte, 1) <= 0) break;
    }
    for (int from = 0; from < 2; ++from) {
      char buffer[65536];
      ssize_t n;
      while ((n = read(sides[from].tun, buffer, sizeof(buffer))) > 0) {
        if (drop_every > 0 && n > 100 && ++large % drop_every == 0) {
          ++dropped;
          continue;
        }
        if (drop_syns != 0 && HasSyn(buffer, n) && std::exchange(drop_syns, drop_syns >> 1) & 1) {
          ++dropped;
          continue;
        }
        if (queue.size() >= kMaxQueued) {
          ++dropped;
          continue;
        }
        queue.push_back({NowNs() + delay_ns, 1 - from, std::vector<char>(buffer, buffer + n)});
      }
    }
    uint64_t expirations;
    while (read(timer, &expirations, sizeof(expirations)) > 0) {
    }
    const uint64_t now = NowNs();
    while (!queue.empty() && queue.front().due_ns <= now) {
      const Packet& packet = queue.front();
      late += now - packet.due_ns > 1000000;
      ++carried;
      if (write(sides[packet.to].tun, packet.bytes.data(), packet.bytes.size()) < 0) ++dropped;
      queue.pop_front();
    }
  }
  std::fprintf(stderr, "tun_relay: %llu packets, %llu dropped, %llu more than 1 ms late\n",
               static_cast<unsigned long long>(carried), static_cast<unsigned long long>(dropped),
               static_cast<unsigned long long>(late));
  return 0;
}

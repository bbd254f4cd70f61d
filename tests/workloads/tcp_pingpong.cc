// One byte there and back over TCP, N times.
//
//   tcp_pingpong server ADDRESS PORT            one connection, echoes until it ends; prints "ready PORT" first
//   tcp_pingpong client ADDRESS PORT N [PAUSE_US] [BYTES]   prints mean and median round-trip time in microseconds
//
// ADDRESS is IPv4 or IPv6; port 0 lets the kernel choose. BYTES (default 1) is the size of each message, both ways.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

namespace {

socklen_t Parse(const char* address, int port, sockaddr_storage* out) {
  std::memset(out, 0, sizeof(*out));
  auto* v4 = reinterpret_cast<sockaddr_in*>(out);
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    return sizeof(*v4);
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(out);
  if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    return sizeof(*v6);
  }
  return 0;
}

int Fail(const char* what) {
  std::perror(what);
  return 1;
}

double NowUs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

bool ReadFully(int fd, char* to, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = read(fd, to, bytes);
    if (n <= 0) return false;
    to += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

bool WriteFully(int fd, const char* from, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = write(fd, from, bytes);
    if (n <= 0) return false;
    from += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

int Server(const sockaddr_storage& address, socklen_t length) {
  const int listener = socket(address.ss_family, SOCK_STREAM, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), length) != 0) return Fail("bind");
  if (listen(listener, 16) != 0) return Fail("listen");
  sockaddr_storage bound;
  socklen_t bound_length = sizeof(bound);
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &bound_length) != 0) return Fail("getsockname");
  const uint16_t port = bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&bound)->sin_port
                                                   : reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port;
  std::printf("ready %d\n", ntohs(port));
  std::fflush(stdout);
  const int peer = accept(listener, nullptr, nullptr);
  if (peer < 0) return Fail("accept");
  setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  char buffer[65536];
  while (true) {
    const ssize_t n = read(peer, buffer, sizeof(buffer));
    if (n <= 0) return 0;
    if (!WriteFully(peer, buffer, static_cast<size_t>(n))) return 0;
  }
}

int Client(const sockaddr_storage& address, socklen_t length, int rounds, int pause_us, size_t bytes) {
  const int fd = socket(address.ss_family, SOCK_STREAM, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), length) != 0) return Fail("connect");
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  std::vector<char> message(bytes, 'x');
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) {
    const double start = NowUs();
    if (!WriteFully(fd, message.data(), bytes) || !ReadFully(fd, message.data(), bytes)) return Fail("ping");
    times.push_back(NowUs() - start);
    if (pause_us > 0) usleep(static_cast<useconds_t>(pause_us));
  }
  std::sort(times.begin(), times.end());
  const double count = std::max<double>(1, static_cast<double>(times.size()));
  std::printf("%.0f %.0f\n", std::accumulate(times.begin(), times.end(), 0.0) / count,
              times.empty() ? 0.0 : times[times.size() / 2]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  sockaddr_storage address;
  const socklen_t length = argc >= 4 ? Parse(argv[2], std::atoi(argv[3]), &address) : 0;
  if (length > 0 && argc == 4 && std::strcmp(argv[1], "server") == 0) return Server(address, length);
  if (length > 0 && argc >= 5 && argc <= 7 && std::strcmp(argv[1], "client") == 0) {
    return Client(address, length, std::atoi(argv[4]), argc > 5 ? std::atoi(argv[5]) : 0,
                  argc > 6 ? static_cast<size_t>(std::atol(argv[6])) : 1);
  }
  std::fprintf(stderr, "usage: tcp_pingpong server ADDRESS PORT | client ADDRESS PORT N [PAUSE_US] [BYTES]\n");
  return 2;
}

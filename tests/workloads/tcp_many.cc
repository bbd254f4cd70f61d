// Many TCP connections of known size, and connections with known troubles.
//
//   tcp_many echo ADDRESS PORT CONNECTIONS [handoff]   accepts and echoes; with handoff another process does the
//   echoing,
//                                                      to which each accepted socket is passed. Prints "ready PORT"
//   tcp_many ask ADDRESS PORT CONNECTIONS PARALLEL BYTES   each connection sends BYTES, reads them back, closes.
//   PARALLEL
//                                                      are open at a time. Prints the connections that went well
//   tcp_many hold ADDRESS PORT CONNECTIONS             opens them, prints "open", closes when its input ends
//   tcp_many sink ADDRESS PORT PAUSE_MS                accepts one, does not read for PAUSE_MS, then reads to the end.
//                                                      Prints "ready PORT", and the bytes
//   tcp_many push ADDRESS PORT BYTES                   one connection, sends BYTES, waits for the other end to close
//   tcp_many reset ADDRESS PORT                        connects, sends a byte, reads it back, resets the connection
//
// ADDRESS is IPv4 or IPv6; port 0 lets the kernel choose.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

struct Address {
  sockaddr_storage storage;
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address Parse(const char* text, int port) {
  Address out;
  std::memset(&out.storage, 0, sizeof(out.storage));
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    out.length = sizeof(*v4);
  } else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    out.length = sizeof(*v6);
  } else {
    std::fprintf(stderr, "tcp_many: no address: %s\n", text);
    std::exit(2);
  }
  return out;
}

int Listen(const Address& address, int backlog) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (fd < 0 || bind(fd, address.get(), address.length) != 0 || listen(fd, backlog) != 0) Die("listen");
  sockaddr_storage bound;
  socklen_t length = sizeof(bound);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) Die("getsockname");
  std::printf("ready %d\n", ntohs(bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&bound)->sin_port
                                                             : reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port));
  std::fflush(stdout);
  return fd;
}

int Connect(const Address& address) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, address.get(), address.length) != 0) Die("connect");
  return fd;
}

void WriteFully(int fd, const char* from, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = write(fd, from, bytes);
    if (n <= 0) Die("write");
    from += n;
    bytes -= static_cast<size_t>(n);
  }
}

void SendSocket(int channel, int fd) {
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  if (sendmsg(channel, &message, 0) != 1) Die("sendmsg");
}

int ReceiveSocket(int channel) {
  char byte;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (recvmsg(channel, &message, 0) != 1) return -1;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
  return fd;
}

// Echoes on `connections` sockets, which come from `source` (a listener, or a channel that sockets are passed through).
void Echo(int source, bool is_channel, int connections) {
  const int poller = epoll_create1(0);
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = source;
  if (epoll_ctl(poller, EPOLL_CTL_ADD, source, &event) != 0) Die("epoll_ctl");
  int accepted = 0, ended = 0;
  std::vector<char> buffer(1 << 16);
  while (ended < connections) {
    epoll_event events[64];
    const int n = epoll_wait(poller, events, 64, -1);
    if (n < 0 && errno != EINTR) Die("epoll_wait");
    for (int i = 0; i < n; ++i) {
      const int fd = events[i].data.fd;
      if (fd == source) {
        const int fresh = is_channel ? ReceiveSocket(source) : accept(source, nullptr, nullptr);
        if (fresh < 0) Die("accept");
        event.data.fd = fresh;
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fresh, &event) != 0) Die("epoll_ctl");
        if (++accepted == connections) epoll_ctl(poller, EPOLL_CTL_DEL, source, nullptr);
        continue;
      }
      const ssize_t got = read(fd, buffer.data(), buffer.size());
      if (got > 0) {
        WriteFully(fd, buffer.data(), static_cast<size_t>(got));
      } else {
        close(fd);
        ++ended;
      }
    }
  }
}

int EchoServer(const Address& address, int connections, bool handoff) {
  const int listener = Listen(address, 4096);
  if (!handoff) {
    Echo(listener, false, connections);
    return 0;
  }
  int channel[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel) != 0) Die("socketpair");
  const pid_t child = fork();
  if (child < 0) Die("fork");
  if (child == 0) {
    close(listener);
    close(channel[0]);
    Echo(channel[1], true, connections);
    _exit(0);
  }
  for (int i = 0; i < connections; ++i) {
    const int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) Die("accept");
    SendSocket(channel[0], fd);
    close(fd);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}

int Ask(const Address& address, int connections, int parallel, size_t bytes) {
  const std::vector<char> message(bytes, 'x');
  std::vector<char> answer(bytes);
  int good = 0;
  for (int begun = 0; begun < connections;) {
    std::vector<int> open;
    for (; static_cast<int>(open.size()) < parallel && begun < connections; ++begun) open.push_back(Connect(address));
    for (const int fd : open) WriteFully(fd, message.data(), bytes);
    for (const int fd : open) {
      if (recv(fd, answer.data(), bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes)) ++good;
    }
    for (const int fd : open) close(fd);
  }
  std::printf("%d\n", good);
  return good == connections ? 0 : 1;
}

int Hold(const Address& address, int connections) {
  std::vector<int> open;
  for (int i = 0; i < connections; ++i) open.push_back(Connect(address));
  std::printf("open\n");
  std::fflush(stdout);
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  for (const int fd : open) close(fd);
  return 0;
}

int Sink(const Address& address, int pause_ms) {
  const int listener = Listen(address, 1);
  const int fd = accept(listener, nullptr, nullptr);
  if (fd < 0) Die("accept");
  usleep(static_cast<useconds_t>(pause_ms) * 1000);
  std::vector<char> buffer(1 << 16);
  long long total = 0;
  ssize_t n;
  while ((n = read(fd, buffer.data(), buffer.size())) > 0) total += n;
  std::printf("%lld\n", total);
  return 0;
}

int Push(const Address& address, size_t bytes) {
  const int fd = Connect(address);
  const std::vector<char> block(1 << 16, 'x');
  for (size_t sent = 0; sent < bytes;) {
    const size_t n = std::min(block.size(), bytes - sent);
    WriteFully(fd, block.data(), n);
    sent += n;
  }
  shutdown(fd, SHUT_WR);
  char byte;
  return read(fd, &byte, 1) == 0 ? 0 : 1;
}

int Reset(const Address& address) {
  const int fd = Connect(address);
  char byte = 'x';
  WriteFully(fd, &byte, 1);
  if (read(fd, &byte, 1) != 1) Die("read");
  const linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(fd);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: tcp_many echo|ask|hold|sink|push|reset ADDRESS PORT …; see its source\n");
    return 2;
  }
  // A thousand connections at a time are more than the usual soft limit of open files.
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  const Address address = Parse(argv[2], std::atoi(argv[3]));
  const auto number = [&](int i) { return i < argc ? std::atol(argv[i]) : 0; };
  if (!std::strcmp(argv[1], "echo")) {
    return EchoServer(address, static_cast<int>(number(4)), argc > 5 && !std::strcmp(argv[5], "handoff"));
  }
  if (!std::strcmp(argv[1], "ask")) {
    return Ask(address, static_cast<int>(number(4)), static_cast<int>(number(5)), static_cast<size_t>(number(6)));
  }
  if (!std::strcmp(argv[1], "hold")) return Hold(address, static_cast<int>(number(4)));
  if (!std::strcmp(argv[1], "sink")) return Sink(address, static_cast<int>(number(4)));
  if (!std::strcmp(argv[1], "push")) return Push(address, static_cast<size_t>(number(4)));
  if (!std::strcmp(argv[1], "reset")) return Reset(address);
  std::fprintf(stderr, "tcp_many: unknown mode %s\n", argv[1]);
  return 2;
}

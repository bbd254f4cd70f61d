/* Loads that count what they do: tests/bench/latency_rates builds and starts this, in a container.
 *
 *   latency_rates calls SECONDS                 a thread on each CPU makes getppid calls
 *   latency_rates tcp SECONDS PAIRS DEPTH       on each CPU PAIRS clients with a server each, threads all, over
 * loopback: a client sends a byte on each of its DEPTH connections, then reads each answer
 *
 * Waits until standard input is closed, then prints one line of JSON: seconds, and how many of which calls it made.
 * Build: cc -O2 -pthread -static.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kMaxDepth = 64, kMaxThreads = 256 };

struct Side {
  int cpu, depth, client;
  int sockets[kMaxDepth];
  uint64_t sent, received, empty, rounds;
};

static uint64_t end_ns;

static uint64_t Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void Die(const char* what) {
  perror(what);
  exit(1);
}

static void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static void* Calls(void* argument) {
  struct Side* side = argument;
  Pin(side->cpu);
  while (Now() < end_ns) {
    for (int i = 0; i < 20000; ++i) syscall(SYS_getppid);
    side->sent += 20000;
  }
  return NULL;
}

/* Sockets and not pipes, send and recv: calls that nothing else here makes. */
static void* Client(void* argument) {
  struct Side* side = argument;
  char byte = 'x';
  Pin(side->cpu);
  while (Now() < end_ns) {
    for (int i = 0; i < side->depth; ++i, ++side->sent) {
      if (send(side->sockets[i], &byte, 1, 0) != 1) Die("send");
    }
    for (int i = 0; i < side->depth; ++i, ++side->received) {
      if (recv(side->sockets[i], &byte, 1, 0) != 1) Die("recv");
    }
    side->rounds += (uint64_t)side->depth;
  }
  for (int i = 0; i < side->depth; ++i) close(side->sockets[i]);
  return NULL;
}

static void* Server(void* argument) {
  struct Side* side = argument;
  char byte;
  int open = 1;
  Pin(side->cpu);
  while (open) {
    for (int i = 0; i < side->depth; ++i) {
      const ssize_t n = recv(side->sockets[i], &byte, 1, 0);
      if (n < 0) Die("recv");
      if (n == 0) {
        ++side->empty;
        open = 0;
        continue;
      }
      ++side->received;
      if (send(side->sockets[i], &byte, 1, 0) != 1) Die("send");
      ++side->sent;
    }
  }
  for (int i = 0; i < side->depth; ++i) close(side->sockets[i]);
  return NULL;
}

static void Connect(int* client, int* server) {
  static int listener = -1;
  static struct sockaddr_in address;
  socklen_t length = sizeof address;
  const int one = 1;
  if (listener < 0) {
    listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr*)&address, length) != 0 || listen(listener, 16) != 0 ||
        getsockname(listener, (struct sockaddr*)&address, &length) != 0) {
      Die("listen");
    }
  }
  *client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(*client, (struct sockaddr*)&address, sizeof address) != 0) Die("connect");
  *server = accept(listener, NULL, NULL);
  if (*server < 0) Die("accept");
  setsockopt(*client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(*server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int main(int argc, char** argv) {
  static struct Side sides[kMaxThreads];
  pthread_t threads[kMaxThreads];
  const int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
  int count = 0, connections = 0;
  if (argc < 3) return 2;
  const int calls = strcmp(argv[1], "calls") == 0;
  const int pairs = argc > 3 ? atoi(argv[3]) : 1, depth = argc > 4 ? atoi(argv[4]) : 1;
  if (depth < 1 || depth > kMaxDepth || pairs < 1 || cpus * pairs * 2 > kMaxThreads) return 2;
  fd_set ready;
  FD_ZERO(&ready);
  FD_SET(0, &ready);
  select(1, &ready, NULL, NULL, NULL);

  const uint64_t start_ns = Now();
  end_ns = start_ns + (uint64_t)(atof(argv[2]) * 1e9);
  for (int cpu = 0; cpu < cpus; ++cpu) {
    for (int pair = 0; pair < (calls ? 1 : pairs); ++pair) {
      struct Side* client = &sides[count++];
      client->cpu = cpu;
      client->client = 1;
      if (calls) continue;
      struct Side* server = &sides[count++];
      client->depth = server->depth = depth;
      server->cpu = cpu;
      for (int i = 0; i < depth; ++i, ++connections) Connect(&client->sockets[i], &server->sockets[i]);
    }
  }
  for (int i = 0; i < count; ++i) {
    if (pthread_create(&threads[i], NULL, calls ? Calls : sides[i].client ? Client : Server, &sides[i]) != 0)
      Die("pthread_create");
  }
  uint64_t sent = 0, received = 0, empty = 0, rounds = 0;
  for (int i = 0; i < count; ++i) {
    pthread_join(threads[i], NULL);
    sent += sides[i].sent;
    received += sides[i].received;
    empty += sides[i].empty;
    rounds += sides[i].rounds;
  }
  const double seconds = (double)(Now() - start_ns) / 1e9;
  if (calls) {
    printf("{\"seconds\":%.3f,\"rounds\":%llu,\"calls\":{\"getppid\":%llu}}\n", seconds, (unsigned long long)sent,
           (unsigned long long)sent);
  } else {
    printf("{\"seconds\":%.3f,\"rounds\":%llu,\"calls\":{\"sendto\":%llu,\"recvfrom\":%llu},\"connections\":%d}\n",
           seconds, (unsigned long long)rounds, (unsigned long long)sent, (unsigned long long)(received + empty),
           connections);
  }
  return 0;
}

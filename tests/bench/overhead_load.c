/* Loads whose own cost is measured while a profiler runs or not: tests/bench/overhead builds and starts this.
 *
 *   overhead_load getppid SECONDS      one thread of raw getppid calls; prints CPU ns per call
 *   overhead_load pingpong SECONDS     1-byte TCP ping-pong over loopback; prints CPU ns per round trip, both ends
 *   overhead_load spin SECONDS         every CPU computes at a stack depth of 48; prints CPU ns per unit of work
 *   overhead_load http SECONDS PORT PATH   GETs of one file over one connection to loopback; prints how many
 *
 * CPU time and not wall time: other work on the machine moves wall time by half and CPU time by a few per cent.
 * Build: cc -O2 -fno-omit-frame-pointer -pthread.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t Now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
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
  sched_setaffinity(0, sizeof set, &set); /* refused: then it floats, and the figure is noisier */
}

static void Getppid(uint64_t end) {
  uint64_t calls = 0, start = Now(CLOCK_THREAD_CPUTIME_ID);
  Pin(0);
  while (Now(CLOCK_MONOTONIC) < end) {
    for (int i = 0; i < 20000; ++i) syscall(SYS_getppid);
    calls += 20000;
  }
  printf("%.3f\n", (double)(Now(CLOCK_THREAD_CPUTIME_ID) - start) / (double)calls);
}

/* Both ends in this process, on one CPU, so that process CPU time is the cost of both. */
static void* Echo(void* socket_of) {
  int fd = *(int*)socket_of;
  char byte;
  Pin(0);
  while (read(fd, &byte, 1) == 1) {
    if (write(fd, &byte, 1) != 1) break;
  }
  return NULL;
}

static void Pingpong(uint64_t end) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (listener < 0 || bind(listener, (struct sockaddr*)&address, length) || listen(listener, 1) ||
      getsockname(listener, (struct sockaddr*)&address, &length)) {
    Die("listen on loopback");
  }
  int client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(client, (struct sockaddr*)&address, length)) Die("connect");
  int server = accept(listener, NULL, NULL);
  if (server < 0) Die("accept");
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  pthread_t thread;
  pthread_create(&thread, NULL, Echo, &server);
  Pin(0);
  char byte = 'x';
  uint64_t trips = 0, start = Now(CLOCK_PROCESS_CPUTIME_ID);
  while (Now(CLOCK_MONOTONIC) < end) {
    for (int i = 0; i < 200; ++i) {
      if (write(client, &byte, 1) != 1 || read(client, &byte, 1) != 1) Die("ping");
    }
    trips += 200;
  }
  printf("%.3f\n", (double)(Now(CLOCK_PROCESS_CPUTIME_ID) - start) / (double)trips);
  shutdown(client, SHUT_RDWR);
  pthread_join(thread, NULL);
}

/* The server's cost is measured, so the client only has to be right and quick. */
static void Http(uint64_t end, int port, const char* path) {
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int client = socket(AF_INET, SOCK_STREAM, 0);
  if (client < 0 || connect(client, (struct sockaddr*)&address, sizeof address)) Die("connect to the server");
  char request[512], answer[65536];
  int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
  if (length >= (int)sizeof request) length = 0;
  uint64_t requests = 0;
  Pin(1);
  while (Now(CLOCK_MONOTONIC) < end) {
    if (write(client, request, (size_t)length) != length) Die("request");
    size_t got = 0, whole = 0;
    while (!whole || got < whole) {
      ssize_t n = read(client, answer + got, sizeof answer - 1 - got);
      if (n <= 0) Die("answer");
      got += (size_t)n;
      answer[got] = 0;
      char* body = strstr(answer, "\r\n\r\n");
      char* size = strstr(answer, "Content-Length: ");
      if (!whole && body && size && size < body) whole = (size_t)(body + 4 - answer) + strtoul(size + 16, NULL, 10);
    }
    ++requests;
  }
  printf("%llu\n", (unsigned long long)requests);
  close(client);
}

static volatile uint64_t sink;

static __attribute__((noinline)) uint64_t Work(uint64_t end, uint64_t* units) {
  uint64_t x = 88172645463325252u;
  while (Now(CLOCK_MONOTONIC) < end) {
    for (int i = 0; i < 100000; ++i) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
    ++*units;
  }
  return x;
}

static __attribute__((noinline)) uint64_t Deep(int depth, uint64_t end, uint64_t* units) {
  uint64_t value = depth > 0 ? Deep(depth - 1, end, units) : Work(end, units);
  sink = value; /* keeps this from becoming a tail call */
  return value + (uint64_t)depth;
}

struct Spinner {
  pthread_t thread;
  int cpu;
  uint64_t end, units, cpu_ns;
};

static void* Spin(void* argument) {
  struct Spinner* spinner = argument;
  Pin(spinner->cpu);
  uint64_t start = Now(CLOCK_THREAD_CPUTIME_ID);
  Deep(44, spinner->end, &spinner->units);
  spinner->cpu_ns = Now(CLOCK_THREAD_CPUTIME_ID) - start;
  return NULL;
}

static void SpinAll(uint64_t end) {
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  struct Spinner* spinners = calloc((size_t)cpus, sizeof *spinners);
  if (!spinners) Die("memory");
  for (long i = 0; i < cpus; ++i) {
    spinners[i].cpu = (int)i;
    spinners[i].end = end;
    pthread_create(&spinners[i].thread, NULL, Spin, &spinners[i]);
  }
  uint64_t units = 0, cpu_ns = 0;
  for (long i = 0; i < cpus; ++i) {
    pthread_join(spinners[i].thread, NULL);
    units += spinners[i].units;
    cpu_ns += spinners[i].cpu_ns;
  }
  free(spinners);
  printf("%.3f\n", (double)cpu_ns / (double)units);
}

int main(int argc, char** argv) {
  int http = argc == 5 && !strcmp(argv[1], "http");
  double seconds = argc == 3 || http ? atof(argv[2]) : 0;
  if (!(seconds > 0)) {
    fprintf(stderr, "usage: overhead_load getppid|pingpong|spin SECONDS, or http SECONDS PORT PATH\n");
    return 2;
  }
  uint64_t end = Now(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  if (http) {
    Http(end, atoi(argv[3]), argv[4]);
  } else if (!strcmp(argv[1], "getppid")) {
    Getppid(end);
  } else if (!strcmp(argv[1], "pingpong")) {
    Pingpong(end);
  } else if (!strcmp(argv[1], "spin")) {
    SpinAll(end);
  } else {
    fprintf(stderr, "overhead_load: unknown load %s\n", argv[1]);
    return 2;
  }
  return 0;
}

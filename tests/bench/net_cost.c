/* What BPF objects add to a TCP round trip, one beside the other in the same run.
 *
 *   net_cost ROUNDS SECONDS OBJECT.bpf.o[:PROGRAM,PROGRAM…]…
 *
 * A thread sends a byte over loopback and another answers, both on one CPU. Each round: bare, then each object with its
 * programs attached but those named behind the colon, then bare again; the figure is the CPU time of the process per
 * round trip, less the mean of the two bare runs around it. Prints the median and half the distance between quartiles,
 * per round trip of two packets. Objects are loaded with their defaults. sock_ops programs are attached to the root of
 * cgroup2. An iterator over sockets is run every 20 ms by a third thread, whose time is in the figure, and shown apart;
 * other iterators are left out.
 * Build: cc -O2 -pthread net_cost.c -lbpf.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kMaxObjects = 8, kMaxPrograms = 16, kMaxRounds = 1001, kPollMs = 20 };

static void Die(const char* what) {
  perror(what);
  exit(1);
}

static uint64_t Now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void* Echo(void* argument) {
  int fd = *(int*)argument;
  char byte;
  while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1) {
  }
  return NULL;
}

/* CPU nanoseconds per round trip, over a connection of its own. */
static double PingPong(double seconds) {
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(listener, (struct sockaddr*)&address, sizeof address) || listen(listener, 1) ||
      getsockname(listener, (struct sockaddr*)&address, &length)) {
    Die("listen");
  }
  int client = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  if (connect(client, (struct sockaddr*)&address, sizeof address)) Die("connect");
  int server = accept(listener, NULL, NULL);
  if (server < 0) Die("accept");
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  pthread_t thread;
  if (pthread_create(&thread, NULL, Echo, &server)) Die("pthread_create");
  uint64_t trips = 0, cpu = 0, end = 0;
  char byte = 'x';
  for (int warm = 1; warm >= 0; --warm) {
    trips = 0;
    end = Now(CLOCK_MONOTONIC) + (uint64_t)((warm ? 0.01 : seconds) * 1e9);
    cpu = Now(CLOCK_PROCESS_CPUTIME_ID);
    do {
      for (int i = 0; i < 64; ++i, ++trips) {
        if (write(client, &byte, 1) != 1 || read(client, &byte, 1) != 1) Die("ping");
      }
    } while (Now(CLOCK_MONOTONIC) < end);
    cpu = Now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  }
  shutdown(client, SHUT_WR);
  pthread_join(thread, NULL);
  close(client);
  close(server);
  close(listener);
  return (double)cpu / (double)trips;
}

static int Less(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

/* PROGRAM is one of the comma-separated NAMES. */
static int Among(const char* program, const char* names) {
  size_t length = strlen(program);
  for (; names; names = strchr(names, ',') ? strchr(names, ',') + 1 : NULL) {
    if (!strncmp(names, program, length) && (names[length] == 0 || names[length] == ',')) return 1;
  }
  return 0;
}

static int CgroupRoot(void) {
  int fd = open("/sys/fs/cgroup/unified", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fd >= 0 ? fd : open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int IsSocketIterator(const struct bpf_program* program) {
  return !strcmp(bpf_program__section_name(program), "iter/bpf_sk_storage_map");
}

static struct bpf_link* Attach(struct bpf_object* object, const struct bpf_program* program, int root) {
  if (bpf_program__type(program) == BPF_PROG_TYPE_SOCK_OPS) return bpf_program__attach_cgroup(program, root);
  if (!IsSocketIterator(program)) return bpf_program__attach(program);
  union bpf_iter_link_info info = {};
  LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &info, .link_info_len = sizeof info);
  struct bpf_map* map;
  bpf_object__for_each_map(map, object) {
    if (bpf_map__type(map) == BPF_MAP_TYPE_SK_STORAGE) info.map.map_fd = (__u32)bpf_map__fd(map);
  }
  return bpf_program__attach_iter(program, &options);
}

/* Polls one link until told to end. */
struct Poller {
  pthread_t thread;
  int link;
  volatile int end;
  uint64_t cpu, polls; /* over all rounds */
};

static void* Poll(void* argument) {
  struct Poller* poller = argument;
  uint64_t begin = Now(CLOCK_THREAD_CPUTIME_ID);
  for (; !poller->end; ++poller->polls) {
    char nothing[64];
    int run = bpf_iter_create(poller->link);
    if (run < 0 || read(run, nothing, sizeof nothing) != 0) Die("iterate");
    close(run);
    usleep(kPollMs * 1000);
  }
  poller->cpu += Now(CLOCK_THREAD_CPUTIME_ID) - begin;
  return NULL;
}

int main(int argc, char** argv) {
  int rounds = argc > 3 ? atoi(argv[1]) : 0, objects = argc - 3;
  double seconds = argc > 3 ? atof(argv[2]) : 0;
  if (rounds < 1 || rounds > kMaxRounds || seconds <= 0 || objects > kMaxObjects) {
    fprintf(stderr, "usage: net_cost ROUNDS SECONDS OBJECT.bpf.o…\n");
    return 2;
  }
  cpu_set_t cpu;
  CPU_ZERO(&cpu);
  CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &cpu);
  sched_setaffinity(0, sizeof cpu, &cpu); /* refused: then it floats, and the figure is noisier */
  int root = CgroupRoot();
  struct bpf_object* loaded[kMaxObjects];
  for (int i = 0; i < objects; ++i) {
    char file[4096];
    const char* without = strchr(argv[3 + i], ':');
    snprintf(file, sizeof file, "%.*s", without ? (int)(without - argv[3 + i]) : 4095, argv[3 + i]);
    loaded[i] = bpf_object__open(file);
    if (!loaded[i]) Die(file);
    struct bpf_program* program;
    bpf_object__for_each_program(program, loaded[i]) {
      if ((!strncmp(bpf_program__section_name(program), "iter/", 5) && !IsSocketIterator(program)) ||
          Among(bpf_program__name(program), without ? without + 1 : NULL)) {
        bpf_program__set_autoload(program, false);
      }
    }
    if (bpf_object__load(loaded[i])) Die(argv[3 + i]);
  }
  static struct Poller pollers[kMaxObjects];
  static double added[kMaxObjects][kMaxRounds], bare[kMaxRounds];
  for (int round = 0; round < rounds; ++round) {
    double before = PingPong(seconds), on, after;
    bare[round] = before;
    for (int i = 0; i < objects; ++i) {
      struct bpf_link* links[kMaxPrograms];
      int attached = 0, polled = -1;
      struct bpf_program* program;
      bpf_object__for_each_program(program, loaded[i]) {
        if (!bpf_program__autoload(program) || attached == kMaxPrograms) continue;
        links[attached] = Attach(loaded[i], program, root);
        if (!links[attached]) Die(bpf_program__name(program));
        if (IsSocketIterator(program)) polled = bpf_link__fd(links[attached]);
        ++attached;
      }
      if (polled >= 0) {
        pollers[i].link = polled;
        pollers[i].end = 0;
        if (pthread_create(&pollers[i].thread, NULL, Poll, &pollers[i])) Die("pthread_create");
      }
      on = PingPong(seconds);
      if (polled >= 0) {
        pollers[i].end = 1;
        pthread_join(pollers[i].thread, NULL);
      }
      while (attached > 0) bpf_link__destroy(links[--attached]);
      after = PingPong(seconds);
      added[i][round] = on - (before + after) / 2;
      before = after;
    }
  }
  qsort(bare, (size_t)rounds, sizeof *bare, Less);
  printf("bare: %.0f ns per round trip\n", bare[rounds / 2]);
  for (int i = 0; i < objects; ++i) {
    qsort(added[i], (size_t)rounds, sizeof **added, Less);
    printf("%s: +%.0f ± %.0f ns per round trip, %.0f per packet\n", argv[3 + i], added[i][rounds / 2],
           (added[i][rounds * 3 / 4] - added[i][rounds / 4]) / 2, added[i][rounds / 2] / 2);
    if (pollers[i].polls) {
      printf("  of it %.1f µs for each of %lu polls\n", (double)pollers[i].cpu / (double)pollers[i].polls / 1000,
             (unsigned long)pollers[i].polls);
    }
  }
  return 0;
}

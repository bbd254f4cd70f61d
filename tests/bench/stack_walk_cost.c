/* What a stack walk of the kernel costs: a BPF program on perf events of the threads named, and the kernel's own count
 * of its run time.
 *
 *   stack_walk_cost empty|user HZ SECONDS PID…
 *
 * Prints "RUNS NANOSECONDS": of a program that does nothing, or that takes the user stack by frame pointers with
 * bpf_get_stack into a map's value (one value per event; 127 frames at most). No clang is needed: the programs are a
 * handful of instructions. Statistics are on while it runs (BPF_ENABLE_STATS, held by this process).
 * Build: cc -O2 stack_walk_cost.c -lbpf.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FRAMES 127

static void die(const char* what) {
  fprintf(stderr, "stack_walk_cost: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int load(int walk) {
  struct bpf_insn empty[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
                             {.code = BPF_JMP | BPF_EXIT}};
  struct bpf_insn user[] = {
      /* r1 is the context already; r2 = &value[0]; r3 = size; r4 = BPF_F_USER_STACK */
      {.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_2, .src_reg = BPF_PSEUDO_MAP_VALUE},
      {0},
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = FRAMES * 8},
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_4, .imm = BPF_F_USER_STACK},
      {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_get_stack},
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
      {.code = BPF_JMP | BPF_EXIT}};
  if (walk) {
    const int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "walk_cost", 4, FRAMES * 8, 1, NULL);
    if (map < 0) die("map");
    user[0].imm = map;
  }
  const int program =
      bpf_prog_load(BPF_PROG_TYPE_PERF_EVENT, "walk_cost", "GPL", walk ? user : empty,
                    walk ? sizeof user / sizeof user[0] : sizeof empty / sizeof empty[0], NULL);
  if (program < 0) die("program");
  return program;
}

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const int walk = strcmp(argv[1], "user") == 0;
  const int stats = bpf_enable_stats(BPF_STATS_RUN_TIME);
  if (stats < 0) die("statistics");
  int programs[64], events[64], count = 0;
  for (int i = 4; i < argc && count < 64; ++i, ++count) {
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
                                   .size = sizeof attr,
                                   .config = PERF_COUNT_SW_CPU_CLOCK,
                                   .sample_freq = strtoull(argv[2], NULL, 10),
                                   .freq = 1,
                                   .disabled = 1};
    programs[count] = load(walk);
    events[count] = (int)syscall(SYS_perf_event_open, &attr, atoi(argv[i]), -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (events[count] < 0) die("event");
    if (ioctl(events[count], PERF_EVENT_IOC_SET_BPF, programs[count]) != 0 ||
        ioctl(events[count], PERF_EVENT_IOC_ENABLE, 0) != 0) {
      die("attach");
    }
  }
  usleep((useconds_t)(atof(argv[3]) * 1e6));
  unsigned long long runs = 0, ns = 0;
  for (int i = 0; i < count; ++i) {
    struct bpf_prog_info info = {0};
    __u32 bytes = sizeof info;
    ioctl(events[i], PERF_EVENT_IOC_DISABLE, 0);
    if (bpf_obj_get_info_by_fd(programs[i], &info, &bytes) != 0) die("statistics of the program");
    runs += info.run_cnt;
    ns += info.run_time_ns;
  }
  printf("%llu %llu\n", runs, ns);
  return 0;
}

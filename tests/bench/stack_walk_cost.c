/* What a stack walk of the kernel costs: a BPF program on perf events of the threads named, and the kernel's own count
 * of its run time.
 *
 *   stack_walk_cost empty|user|sampler HZ SECONDS PID…
 *
 * Prints a line "RUNS NANOSECONDS" for each tenth of a second: of a program that does nothing (`empty`); that takes the user stack by frame pointers with
 * bpf_get_stack into a map's value, one value per event, 127 frames at most (`user`); or that makes a sample of it as
 * any profiler must: process, thread, time, cgroup, name and stack into a ring buffer (`sampler`; nobody reads, the
 * ring is large enough). No clang is needed: the programs are a handful of instructions. Statistics are on while it
 * runs (BPF_ENABLE_STATS, held by this process). Build: cc -O2 stack_walk_cost.c -lbpf.
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

#define VALUE 40 /* bytes before the frames */
#define MOVE(to, from) \
  { .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (to), .src_reg = (from) }
#define SET(to, value) \
  { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (to), .imm = (value) }
#define ADD(to, value) \
  { .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = (to), .imm = (value) }
#define STORE(at) \
  { .code = BPF_STX | BPF_MEM | BPF_DW, .dst_reg = BPF_REG_7, .src_reg = BPF_REG_0, .off = (at) }
#define CALL(helper) \
  { .code = BPF_JMP | BPF_CALL, .imm = (helper) }
#define EXIT \
  { .code = BPF_JMP | BPF_EXIT }
/* Two instructions: the address of a map's value, or a map. */
#define LOAD_VALUE(to, map) \
  {.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = (to), .src_reg = BPF_PSEUDO_MAP_VALUE, .imm = (map)}, { 0 }
#define LOAD_MAP(to, map) \
  {.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = (to), .src_reg = BPF_PSEUDO_MAP_FD, .imm = (map)}, { 0 }

static int load(const struct bpf_insn* instructions, size_t bytes) {
  const int program =
      bpf_prog_load(BPF_PROG_TYPE_PERF_EVENT, "walk_cost", "GPL", instructions, bytes / sizeof *instructions, NULL);
  if (program < 0) die("program");
  return program;
}

static int load_empty(void) {
  const struct bpf_insn code[] = {SET(BPF_REG_0, 0), EXIT};
  return load(code, sizeof code);
}

static int value_map(void) {
  const int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "walk_cost", 4, VALUE + FRAMES * 8 + 8, 1, NULL);
  if (map < 0) die("map");
  return map;
}

static int load_user(void) {
  const struct bpf_insn code[] = {LOAD_VALUE(BPF_REG_2, value_map()), /* r1 is the context already */
                                  SET(BPF_REG_3, FRAMES * 8),
                                  SET(BPF_REG_4, BPF_F_USER_STACK),
                                  CALL(BPF_FUNC_get_stack),
                                  SET(BPF_REG_0, 0),
                                  EXIT};
  return load(code, sizeof code);
}

static int load_sampler(int ring) {
  const struct bpf_insn code[] = {MOVE(BPF_REG_6, BPF_REG_1),
                                  LOAD_VALUE(BPF_REG_7, value_map()),
                                  CALL(BPF_FUNC_get_current_pid_tgid),
                                  STORE(0),
                                  CALL(BPF_FUNC_ktime_get_ns),
                                  STORE(8),
                                  CALL(BPF_FUNC_get_current_cgroup_id),
                                  STORE(16),
                                  MOVE(BPF_REG_1, BPF_REG_7),
                                  ADD(BPF_REG_1, 24),
                                  SET(BPF_REG_2, 16),
                                  CALL(BPF_FUNC_get_current_comm),
                                  MOVE(BPF_REG_1, BPF_REG_6),
                                  MOVE(BPF_REG_2, BPF_REG_7),
                                  ADD(BPF_REG_2, VALUE),
                                  SET(BPF_REG_3, FRAMES * 8),
                                  SET(BPF_REG_4, BPF_F_USER_STACK),
                                  CALL(BPF_FUNC_get_stack),
                                  /* to the end when there is no stack */
                                  {.code = BPF_JMP | BPF_JSLT | BPF_K, .dst_reg = BPF_REG_0, .off = 8},
                                  {.code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = BPF_REG_0, .imm = 0x3ff},
                                  MOVE(BPF_REG_3, BPF_REG_0),
                                  ADD(BPF_REG_3, VALUE),
                                  LOAD_MAP(BPF_REG_1, ring),
                                  MOVE(BPF_REG_2, BPF_REG_7),
                                  SET(BPF_REG_4, BPF_RB_NO_WAKEUP),
                                  CALL(BPF_FUNC_ringbuf_output),
                                  SET(BPF_REG_0, 0),
                                  EXIT};
  return load(code, sizeof code);
}

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const int user = strcmp(argv[1], "user") == 0, sampler = strcmp(argv[1], "sampler") == 0;
  if (!user && !sampler && strcmp(argv[1], "empty") != 0) return 2;
  const int ring = sampler ? bpf_map_create(BPF_MAP_TYPE_RINGBUF, "walk_cost", 0, 0, 64 << 20, NULL) : 0;
  if (ring < 0) die("ring buffer");
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
    programs[count] = sampler ? load_sampler(ring) : user ? load_user() : load_empty();
    events[count] = (int)syscall(SYS_perf_event_open, &attr, atoi(argv[i]), -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (events[count] < 0) die("event");
    if (ioctl(events[count], PERF_EVENT_IOC_SET_BPF, programs[count]) != 0 ||
        ioctl(events[count], PERF_EVENT_IOC_ENABLE, 0) != 0) {
      die("attach");
    }
  }
  unsigned long long runs_before = 0, ns_before = 0;
  for (int tenths = (int)(atof(argv[3]) * 10); tenths > 0; --tenths) {
    unsigned long long runs = 0, ns = 0;
    usleep(100000);
    for (int i = 0; i < count; ++i) {
      struct bpf_prog_info info = {0};
      __u32 bytes = sizeof info;
      if (bpf_obj_get_info_by_fd(programs[i], &info, &bytes) != 0) die("statistics of the program");
      runs += info.run_cnt;
      ns += info.run_time_ns;
    }
    printf("%llu %llu\n", runs - runs_before, ns - ns_before);
    runs_before = runs;
    ns_before = ns;
  }
  return 0;
}

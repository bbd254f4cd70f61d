// The kernel types that the probes touch, and of those only the members they touch.
//
// Not a vmlinux.h made by bpftool: machines that build Pyrometer need no BTF of their own (containers,
// CI), the object does not depend on the build host's kernel, and a reader sees on one page what the
// probes depend on. preserve_access_index makes clang emit a CO-RE relocation for each access, so
// order and offsets here mean nothing; names do. Members absent from some kernel must be guarded with
// bpf_core_field_exists.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#define PYRO_KERNEL_TYPE __attribute__((preserve_access_index))

typedef int pyro_pid;

struct pyro_atomic {
  int counter;
};

struct pt_regs {
  unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
  unsigned long orig_ax;  // number of the system call; -1 when something else entered the kernel
  unsigned long ip;
  unsigned long sp;
} PYRO_KERNEL_TYPE;

struct kernfs_node {
  __u64 id;
} PYRO_KERNEL_TYPE;

struct cgroup;

// Names only; values are relocated.
enum cgroup_subsys_id {
  cpu_cgrp_id,
  cpuacct_cgrp_id,
  memory_cgrp_id,
  devices_cgrp_id,
  freezer_cgrp_id,
  pids_cgrp_id,
};

struct cgroup_subsys_state {
  struct cgroup* cgroup;
  struct cgroup_subsys_state* parent;
} PYRO_KERNEL_TYPE;

struct cgroup {
  struct cgroup_subsys_state self;
  struct kernfs_node* kn;
} PYRO_KERNEL_TYPE;

struct css_set {
  struct cgroup_subsys_state* subsys[16];  // longer than any kernel's; index: enum cgroup_subsys_id
  struct cgroup* dfl_cgrp;
} PYRO_KERNEL_TYPE;

struct thread_info {
  __u32 status;  // x86: TS_COMPAT
} PYRO_KERNEL_TYPE;

struct signal_struct {
  struct pyro_atomic live;  // threads of the process that have not begun to exit
} PYRO_KERNEL_TYPE;

struct mm_struct {
  unsigned long start_stack;  // where the first thread's stack ended at exec: argc
} PYRO_KERNEL_TYPE;

struct thread_struct {
  unsigned long fsbase;  // x86; as the kernel last set or saved it
} PYRO_KERNEL_TYPE;

struct cfs_rq {
  int throttle_count;  // with CONFIG_CFS_BANDWIDTH
} PYRO_KERNEL_TYPE;

struct sched_entity {
  struct cfs_rq* cfs_rq;  // with CONFIG_FAIR_GROUP_SCHED
} PYRO_KERNEL_TYPE;

struct inode {
  unsigned short i_mode;
  unsigned long i_ino;
} PYRO_KERNEL_TYPE;

struct file {
  struct inode* f_inode;
  void* private_data;
} PYRO_KERNEL_TYPE;

struct fdtable {
  unsigned int max_fds;
  struct file** fd;
} PYRO_KERNEL_TYPE;

struct files_struct {
  struct fdtable* fdt;
} PYRO_KERNEL_TYPE;

struct task_struct {
  struct thread_info thread_info;
  unsigned int __state;
  unsigned int flags;
  struct sched_entity se;
  unsigned in_iowait : 1;
  _Bool throttled;  // from 6.18: taken off its run queue until the quota is refilled
  struct files_struct* files;
  struct mm_struct* mm;  // NULL for kernel threads, and from exit_mm on
  unsigned in_execve : 1;
  int exit_code;
  pyro_pid pid;
  pyro_pid tgid;
  struct task_struct* real_parent;
  struct task_struct* group_leader;
  __u64 start_boottime;
  char comm[16];
  struct signal_struct* signal;
  struct css_set* cgroups;
  struct thread_struct thread;
} PYRO_KERNEL_TYPE;

struct seq_file;

struct bpf_iter_meta {
  struct seq_file* seq;
} PYRO_KERNEL_TYPE;

struct bpf_iter__task {
  struct bpf_iter_meta* meta;
  struct task_struct* task;  // NULL after the last
} PYRO_KERNEL_TYPE;

struct linux_binprm {
  const char* filename;
} PYRO_KERNEL_TYPE;

struct in6_addr {
  union {
    __u8 u6_addr8[16];
    __be32 u6_addr32[4];
  } in6_u;
} PYRO_KERNEL_TYPE;

struct ns_common {
  unsigned int inum;
} PYRO_KERNEL_TYPE;

struct net {
  struct ns_common ns;
} PYRO_KERNEL_TYPE;

typedef struct {
  struct net* net;
} PYRO_KERNEL_TYPE possible_net_t;

// Bit numbers in sock_common::skc_flags. Names only; values are relocated.
enum sock_flags {
  SOCK_DONE = 1,  // a FIN was received
};

struct sock_common {
  __be32 skc_daddr;
  __be16 skc_dport;
  __u16 skc_num;
  unsigned short skc_family;
  unsigned char skc_state;
  possible_net_t skc_net;
  struct in6_addr skc_v6_daddr;
  unsigned long skc_flags;
} PYRO_KERNEL_TYPE;

struct sock_cgroup_data {
  struct cgroup* cgroup;
} PYRO_KERNEL_TYPE;

struct sock {
  struct sock_common __sk_common;
  __u16 sk_protocol;
  struct sock_cgroup_data sk_cgrp_data;
} PYRO_KERNEL_TYPE;

struct socket {
  struct sock* sk;
} PYRO_KERNEL_TYPE;

struct inet_sock {
  struct sock sk;
  __be16 inet_sport;
} PYRO_KERNEL_TYPE;

// Type of congestion state; values are relocated.
enum tcp_ca_state {
  TCP_CA_Recovery = 3,
  TCP_CA_Loss = 4,
};

struct inet_connection_sock {
  struct inet_sock icsk_inet;
  __u8 icsk_ca_state : 5;
  __u8 icsk_pending;  // which timer is armed: ICSK_TIME_*
} PYRO_KERNEL_TYPE;

struct minmax_sample {
  __u32 t;
  __u32 v;
} PYRO_KERNEL_TYPE;

struct minmax {
  struct minmax_sample s[3];
} PYRO_KERNEL_TYPE;

struct tcp_sock {
  struct inet_connection_sock inet_conn;
  __u32 srtt_us;  // eighths of a microsecond
  __u32 mdev_us;  // mean deviation, quarters of a microsecond
  struct minmax rtt_min;
  __u64 tcp_mstamp;
  __u64 bytes_acked;
  __u64 bytes_received;
  __u32 segs_in;
  __be32 pred_flags;
  __u32 snd_wnd;  // the peer's receive window
  __u32 rcv_wnd;  // ours
  __u32 snd_una;
  __u32 write_seq;
  __u32 total_retrans;  // segments
  __u8 chrono_type : 2;
  __u32 chrono_start;    // tick
  __u32 chrono_stat[3];  // ticks: TCP_CHRONO_* less 1
} PYRO_KERNEL_TYPE;

struct request_sock {
  struct sock_common __req_common;
} PYRO_KERNEL_TYPE;

struct bpf_iter__task_file {
  struct task_struct* task;
  struct file* file;
} PYRO_KERNEL_TYPE;

struct bpf_iter__bpf_sk_storage_map {
  struct sock* sk;  // NULL after the last
  void* value;
} PYRO_KERNEL_TYPE;

// A request of io_uring's. The address of a request's own command is that of the request.
struct io_ring_ctx;

struct io_cqe {
  __u64 user_data;
} PYRO_KERNEL_TYPE;

struct io_kiocb {
  __u8 opcode;
  __u64 flags;  // of 32 bits in some kernels
  struct io_cqe cqe;
  struct io_ring_ctx* ctx;
  void* async_data;
} PYRO_KERNEL_TYPE;

struct io_poll {
  __u32 events;
} PYRO_KERNEL_TYPE;

struct io_timeout_data {
  __u32 flags;
} PYRO_KERNEL_TYPE;

struct io_uring_sqe {
  __u8 opcode;
} PYRO_KERNEL_TYPE;

struct io_uring_cqe {
  __u64 user_data;
  __s32 res;
  __u32 flags;
} PYRO_KERNEL_TYPE;

// Context of a perf_event program on x86-64 (uapi, fixed layout: no relocation). All members are u64:
// the verifier refuses the two-byte access that the kernel's own bit-field `cs` would make.
struct pyro_perf_context {
  __u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
  __u64 sample_period;
  __u64 addr;
};

// What is behind a file descriptor of the current task. The table is read without its lock, so another thread may close
// or open the descriptor meanwhile: what comes out is then of another file, or nothing.
#pragma once

#include "bpf/lib/program.h"

#define PYRO_S_IFMT 0170000u
#define PYRO_S_IFSOCK 0140000u
#define PYRO_S_IFREG 0100000u
#define PYRO_S_IFBLK 0060000u
#define PYRO_S_IFDIR 0040000u
#define PYRO_AF_UNIX 1u
#define PYRO_AF_INET 2u
#define PYRO_AF_INET6 10u
#define PYRO_AF_NETLINK 16u

// Its file; 0: none.
PYRO_INLINE struct file* pyro_file_of(struct task_struct* task, __u32 fd) {
  struct fdtable* table = BPF_CORE_READ(task, files, fdt);
  struct file* file = 0;
  if (!table || fd >= BPF_CORE_READ(table, max_fds)) return 0;
  struct file** files = BPF_CORE_READ(table, fd);
  if (bpf_probe_read_kernel(&file, sizeof(file), files + fd)) return 0;
  return file;
}

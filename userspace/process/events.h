// What the kernel says about processes, as plain structs: who started, forked, ended, mapped what.
//
//   table.OnExec({.key = {1234, 77'000'000'000}, .time_ns = now, .comm = "shop"});
//
// The kernel room fills these from its records (the kernel's own layouts stay there); ProcessTable
// takes them. Every `time_ns` is CLOCK_MONOTONIC, as samples are stamped; `key.start_time_ns` is
// CLOCK_BOOTTIME (task_struct::start_boottime of the thread group's leader).
//
// A source that does not know the start time (perf's mmap2 records carry a pid only) leaves
// `key.start_time_ns` 0: the event then belongs to the process that has this tgid now.
//
// Order: events of one process may come late or through two rings out of order. The stamps decide,
// not the order of arrival. Values: all fields plain, text copied and owned. Text may hold any byte.
#pragma once

#include <cstdint>
#include <string>

#include "userspace/base/types.h"

namespace pyrometer::process {

// A process dropped its image: an execve passed the point of no return. The mappings of the new image follow, then its
// Exec. A source that cannot tell leaves it out; then Exec alone starts the new image.
struct ImageStart {
  ProcessKey key;        // start_time_ns 0 = whoever has this tgid now
  uint64_t time_ns = 0;  // when
};

// A process replaced its image (execve succeeded).
struct Exec {
  ProcessKey key;               // who; unchanged by execve
  uint64_t time_ns = 0;         // when the new image was complete (sched_process_exec)
  uint64_t image_start_ns = 0;  // when the old image was dropped, before the new one's mappings; 0 = not known
  std::string comm;             // new thread name, at most 15 bytes
  std::string filename;         // as passed to execve; may be empty
  uint64_t cgroup_id = 0;       // cgroup2 id of the caller; 0 = not known
};

// A new process (not: a new thread).
struct Fork {
  ProcessKey parent;     // who called fork; its mappings are inherited
  ProcessKey child;      // the new process
  uint64_t time_ns = 0;  // when
};

// The last thread of a process ended.
struct Exit {
  ProcessKey key;
  uint64_t time_ns = 0;
};

// A process (its main thread) renamed itself.
struct Comm {
  ProcessKey key;
  uint64_t time_ns = 0;
  std::string comm;  // at most 15 bytes
};

// Protection bits of a mapping; the values are those of mmap(2).
enum ProtectionBits : uint32_t {
  kProtRead = 1,
  kProtWrite = 2,
  kProtExec = 4,
};

// A mapping appeared, or became executable. There is no event for munmap: a later mapping of the
// same addresses replaces this one.
struct Mapping {
  ProcessKey key;             // start_time_ns 0 = whoever has this tgid now
  uint64_t time_ns = 0;       // when
  VirtualAddress start;       // first byte
  VirtualAddress end;         // behind the last byte; must be > start
  FileOffset offset;          // of `start` in the file; 0 for anonymous memory
  uint32_t device_major = 0;  // of the file's super block, as /proc/PID/maps prints it; 0:0 = anonymous
  uint32_t device_minor = 0;  //
  uint64_t inode = 0;         // 0 = anonymous
  uint32_t protection = 0;    // ProtectionBits
  BuildId build_id;           // empty = the kernel did not say
  std::string path;           // as /proc/PID/maps prints it ("/usr/bin/x", "[vdso]", "//anon", "… (deleted)")
};

}  // namespace pyrometer::process

// A process and what it started.
//
//   for (const pid_t pid : ProcessTree(shell)) …     // the shell, its children, theirs
//
// A moment's view: processes come and go meanwhile. Those whose parent has ended belong to somebody else.
// Threads: any. Cost: a file of /proc for every thread of the tree.
#pragma once

#include <sys/types.h>

#include <vector>

namespace pyrometer::agent {

// `root` first, parents before their children. Only `root` where the kernel lists no children (proc(5),
// CONFIG_PROC_CHILDREN).
std::vector<pid_t> ProcessTree(pid_t root);

}  // namespace pyrometer::agent

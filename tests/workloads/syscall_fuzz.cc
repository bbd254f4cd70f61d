// Random system calls with random arguments, and an account of them, for tests of what counts system calls.
//
//   syscall_fuzz CALLS SEED
//
// Needs root, to become less than nobody: the calls are made in namespaces of their own (pid, mount, network, IPC, host
// name), in an empty file system, as user 65534 without capabilities, under tight limits. First waits until standard
// input is closed. A timer interrupts calls that would wait; a process that gets stuck or kills itself is replaced.
// Left out are calls that would end, copy or replace the process, silence the timer, reach beyond the namespaces (sync,
// keys, kernel modules by way of socket families), or change how the process itself makes system calls.
//
// Prints "NUMBER ENTERED RETURNED" for each call made, then "end PROCESSES". The two differ by calls in which a process
// ended.
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>

namespace {

constexpr long kUprobeTrampolines[] = {335, 336};  // end who did not come by way of a uprobe
constexpr long kNumbers = 463;                     // x86-64 calls have numbers below, as of Linux 6.12
constexpr int kNobody = 65534;
constexpr long kStuckMs = 500;
constexpr size_t kBufferBytes = 64 << 10;

constexpr long kLeftOut[] = {
    SYS_exit,
    SYS_exit_group,
    SYS_fork,
    SYS_vfork,
    SYS_clone,
    SYS_clone3,
    SYS_execve,
    SYS_execveat,
    SYS_rt_sigreturn,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait,
    SYS_setitimer,
    SYS_alarm,
    SYS_ptrace,
    SYS_seccomp,
    SYS_prctl,
    SYS_arch_prctl,
    SYS_modify_ldt,
    SYS_sync,
    SYS_syncfs,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_socket,
    SYS_socketpair,
    SYS_reboot,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_vhangup,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_userfaultfd,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_pidfd_send_signal,
    SYS_rseq,
    SYS_timer_create,
};

// Shared with the processes that make the calls.
struct Account {
  volatile long made;  // over all processes
  volatile long entered[kNumbers];
  volatile long returned[kNumbers];
};

uint64_t Random(uint64_t* state) {  // xorshift64
  *state ^= *state << 13;
  *state ^= *state >> 7;
  return *state ^= *state << 17;
}

// Without errno, whose place a call may have taken away.
long Call(long nr, const uint64_t (&a)[6]) {
  long result = nr;
  register uint64_t r10 asm("r10") = a[3];
  register uint64_t r8 asm("r8") = a[4];
  register uint64_t r9 asm("r9") = a[5];
  asm volatile("syscall"
               : "+a"(result)
               : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

void Limit(int resource, rlim_t value) {
  const rlimit limit{value, value};
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

// Of the process that makes the calls, process 1 of its namespace. Does not return.
[[noreturn]] void MakeCalls(Account* account, long calls, uint64_t seed) {
  close_range(0, ~0u, 0);
  int ends[2];  // some descriptors for calls to meet: 0 to 5
  if (pipe(ends) != 0 || eventfd(0, 0) < 0 || open("/file", O_RDWR | O_CREAT, 0666) < 0 || open("/", O_RDONLY) < 0 ||
      pipe2(ends, O_NONBLOCK) != 0) {
    _exit(3);
  }
  void* buffer = mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Limit(RLIMIT_AS, 256 << 20);
  Limit(RLIMIT_FSIZE, 1 << 20);
  Limit(RLIMIT_NOFILE, 64);
  Limit(RLIMIT_MEMLOCK, 64 << 10);
  Limit(RLIMIT_CORE, 0);
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    _exit(3);
  }
  struct sigaction interrupt {};
  interrupt.sa_handler = [](int) {};
  sigaction(SIGALRM, &interrupt, nullptr);
  const itimerval often{{0, 1000}, {0, 1000}};
  setitimer(ITIMER_REAL, &often, nullptr);
  const uint64_t buffer_address = reinterpret_cast<uint64_t>(buffer);
  while (account->made < calls) {
    const long nr = static_cast<long>(Random(&seed) % kNumbers);
    const auto is_in = [nr](const auto& list) {
      return std::find(std::begin(list), std::end(list), nr) != std::end(list);
    };
    if (is_in(kLeftOut) || is_in(kUprobeTrampolines)) continue;
    uint64_t arguments[6];
    for (uint64_t& argument : arguments) {
      const uint64_t random = Random(&seed);
      switch (random % 8) {
        case 0:
        case 1:
        case 2:
          argument = random >> 8 & 7;  // a descriptor, a flag, a small size
          break;
        case 3:
        case 4:
          argument = buffer_address + (random >> 8) % (kBufferBytes / 2);
          break;
        case 5:
          argument = uint64_t{1} << (random >> 8 & 63);
          break;
        case 6:
          argument = ~uint64_t{0} << (random >> 8 & 63);  // kernel addresses, negative numbers
          break;
        default:
          argument = 0;
      }
    }
    account->made = account->made + 1;
    account->entered[nr] = account->entered[nr] + 1;
    Call(nr, arguments);
    account->returned[nr] = account->returned[nr] + 1;
  }
  const uint64_t none[6] = {};
  Call(SYS_exit_group, none);
  __builtin_trap();
}

// In a child of its own: makes the namespaces, and the process inside. Ends with it, or when it is stuck.
[[noreturn]] void Contain(Account* account, long calls, uint64_t seed) {
  if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0 ||
      mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=1777") != 0 || chroot("/tmp") != 0 ||
      chdir("/") != 0) {
    std::perror("syscall_fuzz: namespaces");
    _exit(3);
  }
  const pid_t inside = fork();
  if (inside == 0) MakeCalls(account, calls, seed);
  long before = -1;
  for (long quiet_ms = 0; quiet_ms < kStuckMs; quiet_ms += 10) {
    int status;
    if (waitpid(inside, &status, WNOHANG) == inside) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 0);
    if (account->made != before) quiet_ms = 0;
    before = account->made;
    usleep(10'000);
  }
  kill(inside, SIGKILL);
  waitpid(inside, nullptr, 0);
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const long calls = argc > 1 ? std::atol(argv[1]) : 10'000;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) | 1 : 1;
  auto* account =
      static_cast<Account*>(mmap(nullptr, sizeof(Account), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (account == MAP_FAILED) return 1;
  char byte;
  while (read(0, &byte, 1) > 0) continue;
  long processes = 0;
  while (account->made < calls && processes < 1000) {
    ++processes;
    const uint64_t own_seed = Random(&seed);
    const pid_t child = fork();
    if (child == 0) Contain(account, calls, own_seed);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) == 3) return 1;
  }
  for (long nr = 0; nr < kNumbers; ++nr) {
    if (account->entered[nr] > 0) std::printf("%ld %ld %ld\n", nr, account->entered[nr], account->returned[nr]);
  }
  std::printf("end %ld\n", processes);
}

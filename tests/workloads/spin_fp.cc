// Burns CPU time with a known shape: 60 % in hot_a, 40 % in hot_b, both called from work(), from main().
//
//   spin_fp SECONDS     (0 seconds: until killed)
//
// Prints one line first: "hot_a START END hot_b START END work START END", hexadecimal run-time addresses, so
// that tests can check stacks without symbols. The split is kept by counting CPU time, not by guessing
// loop counts: each round runs hot_a for 4.2 ms and hot_b for 2.8 ms of thread CPU time. Not 6 and 4:
// with the 0.1 ms that a round overshoots that is 10.1 ms, the period of 99 Hz, and samples then hit
// the same place of the round for seconds.
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

uint64_t CpuNs() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

volatile uint64_t sink;

}  // namespace

// The arithmetic itself, long enough that the clock reads between do not show (one per ~100 µs). Asking for the frame
// address makes g++ set up a frame: it leaves that out of leaf functions in spite of -fno-omit-frame-pointer.
#define BURN(multiplier)                                                        \
  asm volatile("" ::"r"(__builtin_frame_address(0)));                           \
  uint64_t x = sink;                                                            \
  for (int i = 0; i < 100000; ++i) x = x * (multiplier) + 1442695040888963407u; \
  sink = x

// Not inlined, not cloned, not tail-called, in sections whose ends the linker names.
__attribute__((noinline, noclone, section("hot_a_text"))) void hot_a() { BURN(6364136223846793005u); }
__attribute__((noinline, noclone, section("hot_b_text"))) void hot_b() { BURN(3935559000370003845u); }
extern "C" {
extern char __start_hot_a_text[], __stop_hot_a_text[], __start_hot_b_text[], __stop_hot_b_text[];
extern char __start_work_text[], __stop_work_text[];
}

__attribute__((noinline, noclone, section("work_text"))) void work(uint64_t a_ns, uint64_t b_ns) {
  const uint64_t start = CpuNs();
  while (CpuNs() - start < a_ns) hot_a();
  const uint64_t middle = CpuNs();
  while (CpuNs() - middle < b_ns) hot_b();
  asm volatile("" ::: "memory");
}

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0;
  std::printf("hot_a %lx %lx hot_b %lx %lx work %lx %lx\n", reinterpret_cast<unsigned long>(__start_hot_a_text),
              reinterpret_cast<unsigned long>(__stop_hot_a_text), reinterpret_cast<unsigned long>(__start_hot_b_text),
              reinterpret_cast<unsigned long>(__stop_hot_b_text), reinterpret_cast<unsigned long>(__start_work_text),
              reinterpret_cast<unsigned long>(__stop_work_text));
  std::fflush(stdout);
  timespec begin;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  while (true) {
    work(4200000, 2800000);
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double passed =
        static_cast<double>(now.tv_sec - begin.tv_sec) + static_cast<double>(now.tv_nsec - begin.tv_nsec) / 1e9;
    if (seconds > 0 && passed >= seconds) return 0;
  }
}

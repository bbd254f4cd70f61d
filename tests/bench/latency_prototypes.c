/* Attaches one prototype of latency_prototypes.bpf.c until it is interrupted.
 *
 *   latency_prototypes OBJECT PROTOTYPE      prints "ready" when it counts
 */
#include <bpf/libbpf.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  sigset_t interrupt;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  sigprocmask(SIG_BLOCK, &interrupt, NULL);
  struct bpf_object* object = bpf_object__open_file(argv[1], NULL);
  if (!object) return perror(argv[1]), 1;
  size_t length = strlen(argv[2]);
  int programs = 0;
  struct bpf_program* program;
  bpf_object__for_each_program(program, object) {
    const char* name = bpf_program__name(program);
    const int ours = strncmp(name, argv[2], length) == 0 && name[length] == '_';
    bpf_program__set_autoload(program, ours);
    programs += ours;
  }
  if (!programs) return fprintf(stderr, "error: no prototype %s\n", argv[2]), 1;
  if (bpf_object__load(object)) return perror("error: load"), 1;
  bpf_object__for_each_program(program, object) {
    if (bpf_program__autoload(program) && !bpf_program__attach(program)) return perror("error: attach"), 1;
  }
  puts("ready");
  fflush(stdout);
  int got;
  return sigwait(&interrupt, &got) != 0;
}

// libbcc's symbol cache on one binary, for symbolizer_compare: maps the binary's code into this process and asks for
// addresses of it. Reads hexadecimal addresses (as linked) from standard input.
//
//   cc -O2 symcache_driver.c -o symcache_driver -lbcc
//   symcache_driver BINARY REPEAT <ADDRESSES
#include <bcc/bcc_syms.h>
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static double CpuSeconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const int repeat = atoi(argv[2]);
  const int fd = open(argv[1], O_RDONLY);
  Elf64_Ehdr header;
  if (fd < 0 || pread(fd, &header, sizeof header, 0) != sizeof header) return 1;
  uint64_t base = 0;
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (pread(fd, &segment, sizeof segment, (off_t)(header.e_phoff + (uint64_t)i * sizeof segment)) < 0) return 1;
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
    const uint64_t offset = segment.p_offset & ~4095ull;
    void* at = mmap(NULL, segment.p_filesz + (segment.p_offset - offset), PROT_READ | PROT_EXEC, MAP_PRIVATE, fd,
                    (off_t)offset);
    if (at == MAP_FAILED) return 1;
    base = (uint64_t)at - offset + segment.p_offset - segment.p_vaddr;
  }
  uint64_t* addresses = NULL;
  size_t count = 0, room = 0;
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (count == room) addresses = realloc(addresses, (room = room ? 2 * room : 1024) * sizeof *addresses);
    addresses[count++] = strtoull(line, NULL, 16) + base;
  }
  struct bcc_symbol_option options = {.use_debug_file = 0,
                                      .check_debug_file_crc = 0,
                                      .lazy_symbolize = 0,
                                      .use_symbol_type = (1 << STT_FUNC) | (1 << STT_GNU_IFUNC)};
  const double start = CpuSeconds();
  void* cache = bcc_symcache_new(getpid(), &options);
  size_t found = 0;
  for (int round = 0; round < repeat; ++round) {
    const double before = CpuSeconds();
    found = 0;
    for (size_t i = 0; i < count; ++i) {
      struct bcc_symbol symbol;
      found += bcc_symcache_resolve_no_demangle(cache, addresses[i], &symbol) == 0;
    }
    const double took = CpuSeconds() - before;
    fprintf(stderr, "%s %.6g\n", round == 0 ? "first_rate" : "rate", (double)count / took);
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  fprintf(stderr, "found %zu\npeak_rss_kib %ld\ntotal_seconds %.6g\n", found, usage.ru_maxrss, CpuSeconds() - start);
  return 0;
}

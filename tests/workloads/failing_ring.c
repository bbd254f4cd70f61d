// For LD_PRELOAD: rings of BPF that are made while the file $PYROMETER_FAILING_RINGS exists can be read a few times and
// then no more, as if the kernel had taken them away. Others work as ever.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

enum { kReads = 20, kRings = 64 };

static _Atomic(void*) failing[kRings];
static atomic_int reads[kRings];

void* ring_buffer__new(int map, void* callback, void* context, const void* options) {
  void* (*next)(int, void*, void*, const void*) =
      (void* (*)(int, void*, void*, const void*))dlsym(RTLD_NEXT, "ring_buffer__new");
  void* ring = next(map, callback, context, options);
  const char* file = getenv("PYROMETER_FAILING_RINGS");
  if (ring == NULL || file == NULL || access(file, F_OK) != 0) return ring;
  for (int i = 0; i < kRings; ++i) {
    void* none = NULL;
    if (atomic_compare_exchange_strong(&failing[i], &none, ring)) break;
  }
  return ring;
}

int ring_buffer__consume(void* ring) {
  for (int i = 0; i < kRings; ++i) {
    if (atomic_load(&failing[i]) == ring && atomic_fetch_add(&reads[i], 1) >= kReads) return -EIO;
  }
  int (*next)(void*) = (int (*)(void*))dlsym(RTLD_NEXT, "ring_buffer__consume");
  return next(ring);
}

void ring_buffer__free(void* ring) {
  for (int i = 0; i < kRings; ++i) {
    void* mine = ring;
    if (ring != NULL && atomic_compare_exchange_strong(&failing[i], &mine, NULL)) atomic_store(&reads[i], 0);
  }
  void (*next)(void*) = (void (*)(void*))dlsym(RTLD_NEXT, "ring_buffer__free");
  next(ring);
}

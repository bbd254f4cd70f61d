// Loads a library, calls into it, unloads it, over and over; every load binds lazily anew.
//
//   dlopen_churn LIBRARY SECONDS
//
// Chain: main > turn > plt_63 > … ; or main > turn > (ld.so).
#include <dlfcn.h>

#include "tests/workloads/shape.h"

static SHAPE_FRAME uint64_t turn(const char* path, uint64_t x) {
  void* library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  uint64_t (*function)(uint64_t) = (uint64_t(*)(uint64_t))dlsym(library, "plt_63");
  for (int i = 0; i < 20000; ++i) x = function(x);
  dlclose(library);
  return x;
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const double seconds = shape_seconds(argc, argv, 2);
  uint64_t x = 1;
  while (shape_time_left(seconds)) x = turn(argv[1], x);
  return x == 0;
}

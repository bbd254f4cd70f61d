// Calls back from libc and libstdc++: qsort's comparison, std::sort's, std::function calling itself, a virtual call
// from a destructor that std::unique_ptr runs.
//
//   callbacks SECONDS
//
// Chains: main > by_qsort > (libc) > compare_for_qsort; main > by_std_sort > (inlined or not) > compare_for_sort;
// main > by_function > …; main > by_destructor > ~Burner.
#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "tests/workloads/shape.h"

namespace {

std::vector<uint64_t> Numbers() {
  std::vector<uint64_t> v(300);
  uint64_t x = 1;
  for (uint64_t& n : v) n = x = shape_burn(x, 3);
  return v;
}

}  // namespace

SHAPE_FRAME int compare_for_qsort(const void* a, const void* b) {
  const uint64_t x = shape_burn(*static_cast<const uint64_t*>(a), 100), y = *static_cast<const uint64_t*>(b);
  return x < y ? -1 : x > y;
}
SHAPE_FRAME bool compare_for_sort(uint64_t a, uint64_t b) { return shape_burn(a, 100) < shape_burn(b, 100); }

SHAPE_FRAME void by_qsort() {
  std::vector<uint64_t> v = Numbers();
  qsort(v.data(), v.size(), sizeof(v[0]), compare_for_qsort);
  SHAPE_KEEP();
}

SHAPE_FRAME void by_std_sort() {
  std::vector<uint64_t> v = Numbers();
  std::stable_sort(v.begin(), v.end(), compare_for_sort);
  SHAPE_KEEP();
}

SHAPE_FRAME uint64_t by_function() {
  std::function<uint64_t(unsigned, uint64_t)> recurse = [&](unsigned left, uint64_t x) -> uint64_t {
    return shape_burn(left == 0 ? x : recurse(left - 1, x + left), 500);
  };
  return recurse(20, 1);
}

struct Base {
  virtual ~Base() = default;
};
struct Burner : Base {
  SHAPE_FRAME ~Burner() override;
  uint64_t x = 1;
};
Burner::~Burner() {
  x = shape_burn(x, 20000);
  SHAPE_KEEP();
}

SHAPE_FRAME void by_destructor() {
  const std::unique_ptr<Base> burner = std::make_unique<Burner>();
  SHAPE_KEEP();
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  uint64_t x = 0;
  while (shape_time_left(seconds)) {
    by_qsort();
    by_std_sort();
    x += by_function();
    by_destructor();
  }
  return x == 0;
}

// A small generator whose numbers are the same on every platform and in every version: results of a check can be
// repeated from its seed. xoshiro256**, seeded by SplitMix64; not for secrets.
//
// The standard's distributions are not specified to the bit, hence Below and Shuffle here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace pyrometer::regression {

class Random {
 public:
  explicit Random(uint64_t seed) {
    for (uint64_t& word : state_) {
      seed += 0x9E3779B97F4A7C15u;
      uint64_t z = seed;
      z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
      z = (z ^ z >> 27) * 0x94D049BB133111EBu;
      word = z ^ z >> 31;
    }
  }

  uint64_t Next() {
    const uint64_t result = Rotate(state_[1] * 5, 7) * 9;
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = Rotate(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound). Precondition: bound > 0.
  uint64_t Below(uint64_t bound) {
    // Rejection keeps it exactly uniform; the loop ends after 2 rounds on average at worst.
    const uint64_t limit = -bound % bound;
    for (;;) {
      const uint64_t value = Next();
      if (value >= limit) return value % bound;
    }
  }

  // Uniform in [0, 1).
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

  template <typename T>
  void Shuffle(std::span<T> items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[Below(i)]);
  }

 private:
  static uint64_t Rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }
  uint64_t state_[4];
};

}  // namespace pyrometer::regression

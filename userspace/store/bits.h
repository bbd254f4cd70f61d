// Bits at rest: numbers with a known or learnt size in just the bits they need.
//
//   std::string out;
//   BitWriter bits(&out);
//   AdaptiveRice gaps;
//   for (uint64_t gap : all) gaps.Put(gap, &bits);
//   bits.Finish();
//
//   BitReader in(out);
//   AdaptiveRice same;
//   uint64_t first = same.Get(&in);          // the numbers in the same order
//   if (!in.done()) return DataLossError("…");
//
// A Rice code with parameter k is the number's upper part in unary (q zeros and a one), then its lower k bits: within 4
// % of the entropy of a geometric distribution of mean 1.4 × 2^k. AdaptiveRice takes k from an exponential average of
// the numbers before, as LOCO-I does, so nothing about the distribution is stored. Upper parts of 24 and more are
// written as a plain number, so that no number takes more than 24 + 1 + 6 + 64 bits.
//
// The reader trusts nothing: it never reads past the end; afterwards ok() is false and numbers are 0.
// Threads: none shared. Cost: 2 to 4 ns per number, either way.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace pyrometer::store {

// std::bit_width as a signed number (the library of g++ 12 has it unsigned).
inline int BitWidth(uint64_t value) { return 64 - std::countl_zero(value); }

// Least significant bit first, so that the unary part is one count of trailing zeros.
class BitWriter {
 public:
  explicit BitWriter(std::string* out) : out_(*out) {}

  // The lowest `count` bits of `value`; count ≤ 56, the other bits are 0.
  void Put(uint64_t value, int count) {
    held_ |= value << held_bits_;
    held_bits_ += count;
    while (held_bits_ >= 8) {
      out_.push_back(static_cast<char>(held_));
      held_ >>= 8;
      held_bits_ -= 8;
    }
  }
  void PutWide(uint64_t value, int count) {
    if (count > 32) {
      Put(value & 0xffffffff, 32);
      value >>= 32;
      count -= 32;
    }
    Put(value, count);
  }
  // Fills the last byte with zeros.
  void Finish() {
    if (held_bits_ > 0) out_.push_back(static_cast<char>(held_));
    held_ = 0;
    held_bits_ = 0;
  }

 private:
  std::string& out_;
  uint64_t held_ = 0;
  int held_bits_ = 0;  // < 8 between calls
};

class BitReader {
 public:
  explicit BitReader(std::string_view bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) { Refill(); }

  // count ≤ 56.
  uint64_t Get(int count) {
    if (held_bits_ < count) Refill();
    if (held_bits_ < count) return Fail();
    const uint64_t value = held_ & ((uint64_t{1} << count) - 1);
    held_ >>= count;
    held_bits_ -= count;
    return value;
  }
  uint64_t GetWide(int count) {
    if (count <= 32) return Get(count);
    const uint64_t low = Get(32);
    return low | Get(count - 32) << 32;
  }
  // Zeros up to and without the next one, which is consumed; fails beyond `limit`.
  int Unary(int limit) {
    if (held_bits_ <= limit) Refill();
    const int zeros = held_ == 0 ? 64 : std::countr_zero(held_);
    if (zeros > limit || zeros >= held_bits_) {
      Fail();
      return 0;
    }
    held_ >>= zeros + 1;
    held_bits_ -= zeros + 1;
    return zeros;
  }

  bool ok() const { return ok_; }
  // All was read and the filling is zeros.
  bool done() const { return ok_ && at_ == end_ && held_bits_ < 8 && held_ == 0; }
  // Bits not read yet: an upper bound for how many numbers may follow.
  uint64_t remaining() const { return static_cast<uint64_t>(end_ - at_) * 8 + static_cast<uint64_t>(held_bits_); }
  uint64_t Fail() {
    ok_ = false;
    at_ = end_;
    held_ = 0;
    held_bits_ = 0;
    return 0;
  }

 private:
  void Refill() {
    if (end_ - at_ >= 8) {
      uint64_t next = 0;
      std::memcpy(&next, at_, 8);   // little endian, as every machine we run on
      held_ |= next << held_bits_;  // here at most 63 are held
      const int bytes = (63 - held_bits_) >> 3;
      at_ += bytes;
      held_bits_ += bytes * 8;
      // What was read beyond those bytes is read again with the next refill.
      held_ &= (uint64_t{1} << held_bits_) - 1;
      return;
    }
    while (held_bits_ <= 56 && at_ < end_) {
      held_ |= static_cast<uint64_t>(static_cast<unsigned char>(*at_++)) << held_bits_;
      held_bits_ += 8;
    }
  }

  const char* at_;
  const char* end_;
  uint64_t held_ = 0;
  int held_bits_ = 0;
  bool ok_ = true;
};

inline constexpr int kRiceEscape = 24;
inline constexpr int kMaxRiceBits = 40;  // largest parameter

inline void PutRice(uint64_t value, int k, BitWriter* out) {
  const uint64_t upper = value >> k;
  if (upper < kRiceEscape) {
    out->Put(uint64_t{1} << upper, static_cast<int>(upper) + 1);
    out->PutWide(value & ((uint64_t{1} << k) - 1), k);
    return;
  }
  const int bits = BitWidth(value);  // ≥ 5
  out->Put(uint64_t{1} << kRiceEscape, kRiceEscape + 1);
  out->Put(static_cast<uint64_t>(bits - 1), 6);
  out->PutWide(value, bits);
}

inline uint64_t GetRice(int k, BitReader* in) {
  const int upper = in->Unary(kRiceEscape);
  if (upper < kRiceEscape) return static_cast<uint64_t>(upper) << k | in->GetWide(k);
  const int bits = static_cast<int>(in->Get(6)) + 1;
  const uint64_t value = in->GetWide(bits);
  // Only what had to be escaped is: every number has exactly one form.
  if (BitWidth(value) != bits || value >> k < kRiceEscape) in->Fail();
  return value;
}

// The best parameter for numbers with this mean: largest k with 1.5 × 2^(k-1) × 1/0.7 ≤ mean, in 64ths.
inline int RiceParameter(uint64_t mean_in_64ths) {
  const int k = BitWidth((mean_in_64ths * 30) >> 12);
  return k < kMaxRiceBits ? k : kMaxRiceBits;
}

class AdaptiveRice {
 public:
  // `shift`: the average forgets with 2^-shift per number. A sequence that starts over small numbers learns in some
  // ten.
  explicit AdaptiveRice(uint64_t mean = 4, int shift = 4) : average_(mean << shift), shift_(shift) {}

  void Put(uint64_t value, BitWriter* out) {
    PutRice(value, k(), out);
    Learn(value);
  }
  uint64_t Get(BitReader* in) {
    const uint64_t value = GetRice(k(), in);
    Learn(value);
    return value;
  }

 private:
  int k() const { return RiceParameter(average_ << 6 >> shift_); }
  void Learn(uint64_t value) {
    constexpr uint64_t kMost = uint64_t{1} << 44;  // keeps average × 64 × 30 within 64 bits
    average_ += (value < kMost ? value : kMost) - (average_ >> shift_);
  }

  uint64_t average_;  // × 2^shift
  int shift_;
};

}  // namespace pyrometer::store

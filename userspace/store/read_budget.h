// How much one question may take: time, memory, and until when somebody still wants the answer.
//
//   ReadBudget budget({.deadline_ns = MonotonicNowNs() + 30 * kNsPerSecond, .memory_bytes = 256u << 20});
//   RETURN_IF_ERROR(budget.Check());               // now and then: cheap
//   RETURN_IF_ERROR(budget.Charge(bytes));         // before a large allocation
//
// Threads: any; a question may run on several.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "userspace/base/status.h"

namespace pyrometer::store {

class ReadBudget {
 public:
  struct Limits {
    uint64_t timeout_ns = 0;    // from now on; 0 = none. Flag --query-timeout
    uint64_t memory_bytes = 0;  // 0 = none
    // What all questions together have charged, and may. Flag --query-memory. May be null; must outlive the budget.
    std::atomic<uint64_t>* pool = nullptr;
    uint64_t pool_bytes = 0;
    std::function<bool()> gone{};  // true: nobody waits any more; may be null
  };
  ReadBudget() = default;
  explicit ReadBudget(Limits limits);
  ~ReadBudget();  // gives back to the pool
  ReadBudget(const ReadBudget&) = delete;
  ReadBudget& operator=(const ReadBudget&) = delete;

  // DEADLINE_EXCEEDED, CANCELLED or OK. About 25 ns.
  Status Check();
  // Memory that stays in use until the end of the question, or until Release. RESOURCE_EXHAUSTED names limit, value and
  // flag.
  Status Charge(uint64_t bytes);
  // Precondition: charged before.
  void Release(uint64_t bytes);
  uint64_t charged() const { return charged_.load(std::memory_order_relaxed); }

 private:
  Limits limits_;
  uint64_t deadline_ns_ = 0;
  std::atomic<uint64_t> charged_{0};
};

inline Status Check(ReadBudget* budget) { return budget == nullptr ? OkStatus() : budget->Check(); }
inline Status Charge(ReadBudget* budget, uint64_t bytes) {
  return budget == nullptr ? OkStatus() : budget->Charge(bytes);
}

// What a part of a question needs while it works: gives back what it charged.
class ScopedCharge {
 public:
  explicit ScopedCharge(ReadBudget* budget) : budget_(budget) {}
  ~ScopedCharge() {
    if (budget_ != nullptr) budget_->Release(bytes_);
  }
  ScopedCharge(const ScopedCharge&) = delete;
  ScopedCharge& operator=(const ScopedCharge&) = delete;
  Status Add(uint64_t bytes) {
    RETURN_IF_ERROR(Charge(budget_, bytes));
    bytes_ += bytes;
    return OkStatus();
  }

 private:
  ReadBudget* const budget_;
  uint64_t bytes_ = 0;
};

}  // namespace pyrometer::store

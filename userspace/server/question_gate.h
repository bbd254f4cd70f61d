// How many questions run at a time, and what each may take: a store is not there to be asked to death.
//
//   ASSIGN_OR_RETURN(const std::unique_ptr<QuestionGate::Pass> pass, gate.Enter());
//   engine.For(tenant, pass->budget()).MergeProfile(…);
//
// Threads: all methods from any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/store/read_budget.h"

namespace pyrometer::server {

class QuestionGate {
 public:
  struct Options {
    uint64_t timeout_ns = 30 * kNsPerSecond;  // flag --query-timeout; waiting for a turn included
    uint64_t memory_bytes = 128u << 20;       // of all questions together; one may take half. Flag --query-memory
    int max_running = 8;
  };
  explicit QuestionGate(Options options) : options_(options) {}

  class Pass {
   public:
    Pass(QuestionGate* gate, uint64_t timeout_ns);
    ~Pass();
    store::ReadBudget* budget() { return &budget_; }

   private:
    QuestionGate& gate_;
    store::ReadBudget budget_;
  };
  // Waits for a turn; RESOURCE_EXHAUSTED when none came in time. The gate must outlive the pass.
  StatusOr<std::unique_ptr<Pass>> Enter();

 private:
  const Options options_;
  std::atomic<uint64_t> used_bytes_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  int running_ = 0;
};

}  // namespace pyrometer::server

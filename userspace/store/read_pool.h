// A few threads that help whoever has independent pieces of reading to do.
//
//   ReadPool pool(2);
//   RETURN_IF_ERROR(pool.Run(pieces.size(), [&](size_t i) -> Status { … }));
//
// The caller works too and returns when all pieces are done, so a pool never makes a question wait for another. After a
// failure pieces that were not begun are left out. Threads: Run from any; pieces of one Run run at the same time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::store {

class ReadPool {
 public:
  explicit ReadPool(unsigned threads) : threads_wanted_(threads) {}
  ~ReadPool();

  Status Run(size_t pieces, const std::function<Status(size_t)>& piece);

 private:
  struct Job {
    size_t pieces;
    const std::function<Status(size_t)>* piece;
    std::atomic<size_t> next{0};
    std::mutex mutex;  // guards the rest
    std::condition_variable changed;
    size_t working = 0;
    Status failed = OkStatus();
  };
  static void Work(Job* job);
  void Loop();

  const unsigned threads_wanted_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::vector<std::thread> threads_;  // made when first needed
  bool stopping_ = false;
};

}  // namespace pyrometer::store

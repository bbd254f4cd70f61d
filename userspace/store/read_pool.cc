#include "userspace/store/read_pool.h"

#include <pthread.h>

#include <algorithm>

namespace pyrometer::store {

ReadPool::~ReadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ReadPool::Work(Job* job) {
  for (;;) {
    const size_t index = job->next.fetch_add(1);
    if (index >= job->pieces) return;
    const Status done = (*job->piece)(index);
    if (done.ok()) continue;
    const std::lock_guard lock(job->mutex);
    if (job->failed.ok()) job->failed = done;
    job->next.store(job->pieces);
  }
}

void ReadPool::Loop() {
  pthread_setname_np(pthread_self(), "pyro-read");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<Job> job = jobs_.front();
    if (job->next.load() >= job->pieces) {
      jobs_.pop_front();
      continue;
    }
    {
      const std::lock_guard job_lock(job->mutex);
      ++job->working;
    }
    lock.unlock();
    Work(job.get());
    {
      const std::lock_guard job_lock(job->mutex);
      --job->working;
    }
    job->changed.notify_all();
    lock.lock();
  }
}

Status ReadPool::Run(size_t pieces, const std::function<Status(size_t)>& piece) {
  const auto job = std::make_shared<Job>();
  job->pieces = pieces;
  job->piece = &piece;
  if (pieces > 1 && threads_wanted_ > 0) {
    const std::lock_guard lock(mutex_);
    while (threads_.size() < threads_wanted_) threads_.emplace_back([this] { Loop(); });
    jobs_.push_back(job);
  }
  changed_.notify_all();
  Work(job.get());
  // Helpers may still be in their last piece; none begins after this, `next` has passed the end.
  std::unique_lock lock(job->mutex);
  job->changed.wait(lock, [&] { return job->working == 0; });
  const Status failed = job->failed;
  lock.unlock();
  const std::lock_guard pool_lock(mutex_);
  std::erase(jobs_, job);
  return failed;
}

}  // namespace pyrometer::store

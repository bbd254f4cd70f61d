#include "userspace/agent/waker_join.h"

#include <algorithm>
#include <iterator>

namespace pyrometer::agent {

void WakerJoin::AddCall(const kernel::SlowCall& call, const RawWindow::CallKey& key) {
  calls_[call.tid].push_back({.process = call.process,
                              .begin_ns = call.time_ns - std::min(call.latency_ns, call.time_ns),
                              .end_ns = call.time_ns,
                              .key = key});
}

void WakerJoin::AddWait(const kernel::WaitSample& wait) {
  if (wait.waker == PYRO_WAKER_NONE) return;
  waits_.push_back({.process = wait.process,
                    .tid = wait.tid,
                    .begin_ns = wait.time_ns - std::min(wait.wait_ns, wait.time_ns),
                    .end_ns = wait.time_ns,
                    .cause = wait.cause,
                    .interrupt = wait.waker == PYRO_WAKER_INTERRUPT,
                    .waker_process = wait.waker_process,
                    .waker_tid = wait.waker_tid,
                    .waker_comm = std::string(wait.waker_comm),
                    .kernel_frames = {wait.waker_kernel_frames.begin(), wait.waker_kernel_frames.end()},
                    .user_frames = {wait.waker_user_frames.begin(), wait.waker_user_frames.end()},
                    .user_stop = wait.waker_user_stop});
}

void WakerJoin::Join(const std::function<RawWindow&(uint64_t)>& window_of, SampleResolver* resolver) {
  for (const Wait& wait : waits_) {
    const auto of_thread = calls_.find(wait.tid);
    if (of_thread == calls_.end()) continue;
    for (const Call& call : of_thread->second) {
      if (call.process != wait.process || wait.begin_ns < call.begin_ns || wait.end_ns > call.end_ns) continue;
      RawWindow& window = window_of(call.end_ns);
      RawExemplar* exemplar = window.FindExemplar(call.key, wait.tid, call.end_ns);
      const uint64_t wait_ns = wait.end_ns - wait.begin_ns;
      if (exemplar == nullptr || wait_ns <= exemplar->waker.wait_ns) continue;
      const profile::StackId stack = resolver->Intern({.process = wait.waker_process,
                                                       .tid = wait.waker_tid,
                                                       .time_ns = wait.end_ns,
                                                       .kernel_frames = wait.kernel_frames,
                                                       .user_frames = wait.user_frames,
                                                       .user_stop = wait.user_stop},
                                                      window);
      exemplar->waker = {.stack = stack,
                         .comm = wait.interrupt ? "" : wait.waker_comm,
                         .tid = wait.waker_tid,
                         .cause = std::string(kernel::WaitCauseName(wait.cause)),
                         .wait_ns = wait_ns};
    }
  }
  std::erase_if(waits_, [](Wait& wait) { return ++wait.rounds >= kRounds; });
  for (auto of_thread = calls_.begin(); of_thread != calls_.end();) {
    std::erase_if(of_thread->second, [](Call& call) { return ++call.rounds >= kRounds; });
    of_thread = of_thread->second.empty() ? calls_.erase(of_thread) : std::next(of_thread);
  }
}

}  // namespace pyrometer::agent

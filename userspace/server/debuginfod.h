// Debug files from debuginfod servers, fetched when a question met frames without names or lines.
//
//   Debuginfod fetch({.urls = {"https://debuginfod.debian.net"}, .into = symbols});
//   symbols->set_want([&](const std::string& build_id) { fetch.Want(build_id); });
//
// Off unless somebody names a server: asking one tells it which binaries run here. Asked is
// URL/buildid/BUILDID/debuginfo, the servers in order; what arrives is an upload like any other (late_symbols.h), so
// the next question shows the names. What no server has is not asked again for an hour.
//
// Threads: Want from any, never waits; one thread fetches. Source: the protocol of elfutils' debuginfod(8).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/server/late_symbols.h"

namespace pyrometer::server {

// "https://HOST[:PORT][/PREFIX]" or http. INVALID_ARGUMENT says what is wrong with it.
Status CheckDebuginfodUrl(const std::string& url);

class Debuginfod {
 public:
  struct Options {
    std::vector<std::string> urls;  // CheckDebuginfodUrl is true of each
    LateSymbols* into = nullptr;    // outlives this
    uint64_t retry_ns = 3600 * kNsPerSecond;
    size_t max_waiting = 4096;                    // build IDs; more are not remembered
    std::function<void(const std::string&)> log;  // one line per file that came, and per server that failed
  };
  struct Counters {
    uint64_t fetched = 0;
    uint64_t absent = 0;  // no server has it
    uint64_t failed = 0;  // no server answered, or what came was no debug file
  };

  explicit Debuginfod(Options options);
  ~Debuginfod();

  void Want(const std::string& build_id);
  Counters counters() const;

 private:
  enum class Outcome { kFetched, kAbsent, kFailed };
  void Loop();
  Outcome Fetch(const std::string& build_id);
  Outcome FetchFrom(const std::string& url, const std::string& build_id);

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  std::set<std::string> queued_;                // in the queue, or being fetched
  std::map<std::string, uint64_t> not_before_;  // build ID -> CLOCK_MONOTONIC
  std::atomic<bool> stop_{false};
  Counters counters_;
  std::thread thread_;
};

}  // namespace pyrometer::server

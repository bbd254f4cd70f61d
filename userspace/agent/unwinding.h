// Keeps the stack walk supplied: unwind tables of the binaries that run, mappings of the processes that run them; and
// walks what came too early.
//
//   ASSIGN_OR_RETURN(auto unwinding, Unwinding::Start({.processes = &table, .maps = maps}));
//   loop: unwinding->Sync(known_until_ns);                       // after each look at the process events
//         Unwinding::Stack s = unwinding->Walk(process, time_ns, registers, copied_stack);
//         if (s.waiting) keep the sample and ask again, else use s.frames
//   window closes: unwinding->Used(window.binaries());
//
// A table is made when a stack leads into its binary for the first time, not when the binary is mapped: most of what is
// mapped never runs. (One that lies in the cache folder is loaded when its binary is mapped.) Until it is there (a load
// from the cache folder: a few ms; else the file's call frame information is read: libc 2 ms, libLLVM 50 ms) samples
// carry a copy of their stack, which Walk unwinds with the same code and tables as the kernel. So the first sample of a
// program is as whole as its last.
//
// Memory: tables live in the kernel's maps, at most Options::max_bytes of them (UnwindMaps). When they fill up, those
// of binaries that no sample hit for kTableIdleNs make room; if that does not help, the newcomers' frames are walked by
// frame pointers and say so (PYRO_BY_FP_OVER_LIMIT), and get another chance after kTableRetryNs.
//
// Without maps (no BPF) the tables are kept in this process, within the same limit.
//
// Threads: Sync, Walk and Want from the collecting thread; the rest from any. The thread "pyro-unwind" makes tables, at
// low priority: what is waited for is never on the way of a sample. Cost: Sync 2 µs per changed process and 0.1 per
// mapping.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/kernel/unwind_maps.h"
#include "userspace/process/process_table.h"
#include "userspace/unwind/stack_walker.h"
#include "userspace/unwind/table_file.h"

namespace pyrometer::agent {

inline constexpr uint64_t kTableIdleNs = 60 * kNsPerSecond;   // unused for so long: may make room
inline constexpr uint64_t kTableRetryNs = 30 * kNsPerSecond;  // before one that had no room or no file is tried again
inline constexpr uint64_t kTableWaitNs = 2 * kNsPerSecond;    // the longest that a sample waits for a table

class Unwinding {
 public:
  struct Options {
    process::ProcessTable* processes = nullptr;  // must watch changes; outlives this
    std::shared_ptr<kernel::UnwindMaps> maps;    // null: no BPF
    std::string cache_folder;                    // "" = no tables on disk
    uint64_t cache_bytes = 256u << 20;           // of that folder
    uint64_t max_bytes = 128u << 20;             // of tables here; only without maps
  };
  struct Counters {
    uint64_t tables_made = 0;     // from files
    uint64_t tables_loaded = 0;   // from the cache folder
    uint64_t tables_evicted = 0;  // to make room
    uint64_t tables_failed = 0;   // unreadable files and such
    uint64_t tables_refused = 0;  // no room
    uint64_t stacks_walked = 0;   // copies
    uint64_t build_ns = 0;        // CPU time that making and loading tables took
  };
  // How a binary is unwound, for doctor and tests.
  struct BinaryState {
    pyro_mapping_kind kind = PYRO_MAPPING_PENDING;
    std::string detail;  // why there is no table
    unwind::UnwindTable::Stats stats;
    uint64_t bytes = 0;
  };
  struct Stack {
    std::span<const uint64_t> frames;  // as CpuSample::user_frames; valid until the next call
    pyro_stop_reason stop = PYRO_STOP_NOT_TAKEN;
    uint8_t means = 0;
    bool waiting = false;  // a table is being made that would lead further
  };

  static std::unique_ptr<Unwinding> Start(const Options& options);
  ~Unwinding();

  // Publishes what changed in the process table, and tables that became ready. `known_until_ns` (CLOCK_MONOTONIC): the
  // process table has taken all events up to then.
  void Sync(uint64_t known_until_ns);
  // Walks a copy of a stack with what is known of the process at `time_ns`; asks for the tables that it misses.
  Stack Walk(const ProcessKey& process, uint64_t time_ns, const unwind::Registers& registers, std::string_view stack,
             uint32_t max_frames);
  // A walk in the kernel stopped at `address` for want of a table.
  void Want(const ProcessKey& process, uint64_t time_ns, VirtualAddress address);
  // Makes the tables of all that a process runs, and publishes them; takes `timeout_ns` at most. Before sampling
  // starts: the first samples then need no copies of stacks, which cannot follow a signal handler's stack to the one
  // below it.
  void Prepare(const ProcessKey& process, uint64_t timeout_ns);
  // These binaries had samples.
  void Used(std::span<const std::shared_ptr<const process::Binary>> binaries);
  // Waits until no table is being made, at most `timeout_ns`.
  void Finish(uint64_t timeout_ns);

  // Makes the table now, if there is none.
  BinaryState Describe(const std::shared_ptr<const process::Binary>& binary);

  Counters counters() const;
  // Null without BPF.
  const std::shared_ptr<kernel::UnwindMaps>& maps() const { return options_.maps; }

 private:
  // What one binary, by build ID, stands at. The vdso is one too.
  struct Entry {
    std::string key;
    std::shared_ptr<const process::Binary> binary;  // null: the vdso
    pyro_mapping_kind kind = PYRO_MAPPING_PENDING;
    bool wanted = false;  // in the queue, or being made
    kernel::UnwindMaps::TableId table = 0;
    std::shared_ptr<const unwind::UnwindTable> own_table;  // without maps
    uint64_t bytes = 0;
    uint64_t used_ns = 0;
    uint64_t retry_ns = 0;  // no new attempt before; 0: none was needed
    std::string detail;
    unwind::UnwindTable::Stats stats;
    std::set<ProcessKey> users;  // processes whose published mappings hold it
  };

  explicit Unwinding(const Options& options);

  // With mutex_ held.
  Entry& EntryOf(const std::string& key, const std::shared_ptr<const process::Binary>& binary);
  void WantEntry(Entry& entry);
  kernel::UnwindMaps::Mapping MappingOf(const process::ExecutableRegion& region, Entry** entry);
  void Publish(const ProcessKey& process, uint64_t known_until_ns);
  void Forget(const ProcessKey& process);
  void Evict(uint64_t bytes);

  void BuildLoop();
  // Without mutex_: makes or loads the table.
  StatusOr<unwind::UnwindTable> MakeTable(const std::string& key, const std::shared_ptr<const process::Binary>& binary);
  void Take(const std::string& key, StatusOr<unwind::UnwindTable> table);

  const Options options_;
  unwind::TableCache cache_;
  unwind::StackWalker walker_;  // the collecting thread's

  mutable std::mutex mutex_;
  std::unordered_map<std::string, Entry> entries_;
  std::unordered_map<ProcessKey, std::vector<std::string>> published_;  // process -> keys of entries it uses
  std::set<std::string> ready_;                                         // entries whose users must be published again
  std::deque<std::string> queue_;                                       // wanted tables
  std::condition_variable queue_changed_, queue_empty_;
  bool building_ = false;
  bool stopping_ = false;
  uint64_t own_bytes_ = 0;
  uint64_t next_sweep_ns_ = 0;
  Counters counters_;
  std::thread thread_;
};

}  // namespace pyrometer::agent

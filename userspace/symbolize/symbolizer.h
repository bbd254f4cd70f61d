// The one door for everybody who needs names: caches, counters, threads.
//
//   Symbolizer symbolizer(Symbolizer::Options{});
//   symbolizer.Prepare(build_id, source);                          // e.g. on a low-priority thread
//   Symbol s = symbolizer.Symbolize(build_id, source, ElfAddress(0x1139));
//   s = symbolizer.SymbolizeKernel(VirtualAddress(0xffffffff81000123));
//   s = symbolizer.SymbolizeJit({tgid, start_time_ns}, VirtualAddress(0x7f0012345678));
//
// Give the address that is to be named: for a caller's frame that is the return address minus one
// (a call may be a function's last instruction), for the leaf and for frames below a signal the
// address itself.
//
// Binaries are known by build ID: the first question about one builds its table (Prepare does it
// earlier), every process that maps it shares the table. Tables and demangled names live in caches
// bounded in bytes, least recently used out first; tables are kept in a folder, too, so that a restart or a second
// process maps them instead of building (index_cache.h). A binary that could not be read is asked again
// after `retry_ns`, or at once when the next question brings another way to reach it.
//
// Every answer is counted: hits under kNone, misses by reason.
//
// Threads: all methods from any thread; building one binary blocks only those who ask for the same.
// Cost: ~0.3 µs per answer for names seen before and ~0.15 µs per inlined function, 1-2 µs more for demangling a
// new name; building see binary_symbols.h. For millions of addresses of one binary use Get() and the index itself
// (symbol_index.h), which gives numbers instead of names and is 5-10 times faster.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "userspace/base/types.h"
#include "userspace/symbolize/binary_source.h"
#include "userspace/symbolize/binary_symbols.h"
#include "userspace/symbolize/demangle.h"
#include "userspace/symbolize/index_cache.h"
#include "userspace/symbolize/jit_dump.h"
#include "userspace/symbolize/kernel_symbols.h"
#include "userspace/symbolize/perf_map.h"
#include "userspace/symbolize/symbol.h"

namespace pyrometer::symbolize {

class Symbolizer {
 public:
  struct Options {
    size_t table_cache_bytes = 256u << 20;       // tables of all binaries, mapped or in memory
    size_t name_cache_bytes = 32u << 20;         // demangled names
    size_t perf_map_cache_bytes = 128u << 20;    // perf maps and jitdumps of all processes
    uint64_t retry_ns = 30'000'000'000;          // before a binary that could not be read is tried again
    uint64_t perf_map_retry_ns = 5'000'000'000;  // before a process without perf map or jitdump is looked at again
    std::vector<std::string> debug_folders = {"/usr/lib/debug"};
    IndexCache::Options index_cache;    // without folder: tables are in memory only, at most table_cache_bytes each
    size_t max_index_bytes = 1u << 30;  // of one table in the folder; larger ones lose their lines
    // Debug information larger than this is read on a thread of its own, at low priority: until that is done, answers
    // have the functions of symbol tables without lines and inlined calls. UINT64_MAX: whoever asks first, waits.
    uint64_t defer_debug_bytes = UINT64_MAX;
    DemangleStyle demangle_style = DemangleStyle::kFull;
    KernelSymbols::Options kernel;
    PerfMap::Options perf_map;
    JitDump::Options jit_dump;
  };
  struct Stats {
    SymbolCounters::Snapshot answers = {};  // by MissReason; [kNone] = hits
    uint64_t tables_built = 0;              // binaries read, failed ones included
    uint64_t tables_loaded = 0;             // mapped from the folder instead
    IndexCache::Counters index_cache;       // the folder's
    uint64_t tables_deferred = 0;           // that wait for their debug information now
    uint64_t tables_evicted = 0;            // for table_cache_bytes
    size_t tables = 0;                      // cached now
    size_t table_bytes = 0;                 // of them
    size_t names = 0;                       // demangled names cached now
    size_t name_bytes = 0;                  // of them
    size_t perf_maps = 0;                   // processes with an open perf map
    size_t jit_dumps = 0;                   // processes with an open jitdump
    size_t perf_map_bytes = 0;              // of both
  };

  explicit Symbolizer(Options options);
  ~Symbolizer();

  // Builds the table now, unless there is one.
  void Prepare(const BuildId& build_id, const BinarySource& source) { (void)Get(build_id, source); }
  // Opens the process's perf map and jitdump, if any, so that they stay readable after the process's end.
  void PrepareJit(const ProcessKey& process);
  // Where names of the process's generated code come from.
  struct JitSource {
    bool jit_dump = false;
    bool perf_map = false;
    MissReason why = MissReason::kNone;  // kNone: from one of them
  };
  JitSource DescribeJit(const ProcessKey& process);
  // The process ended and all its samples are named: drops its perf map and jitdump.
  void Forget(const ProcessKey& process);

  Symbol Symbolize(const BuildId& build_id, const BinarySource& source, ElfAddress address);
  // By position in the file; kNoMapping when the binary's program headers do not load it.
  Symbol SymbolizeOffset(const BuildId& build_id, const BinarySource& source, FileOffset offset);
  Symbol SymbolizeKernel(VirtualAddress address);
  // Code in anonymous memory of a process: from its jitdump, which has lines, else from its perf map.
  Symbol SymbolizeJit(const ProcessKey& process, VirtualAddress address);
  // Counts a miss that the caller found itself (no mapping) and gives it back.
  Symbol CountMiss(MissReason reason);

  // The table of a binary, built when absent. Never null; it survives eviction while held.
  std::shared_ptr<const BinarySymbols> Get(const BuildId& build_id, const BinarySource& source);
  Symbol SymbolizeIn(const BinarySymbols& symbols, ElfAddress address);
  // Many of one binary, in any order; the same as one after the other, about twice as fast.
  std::vector<Symbol> SymbolizeIn(const BinarySymbols& symbols, std::span<const ElfAddress> addresses);

  // Waits until no debug information is waited for, at most `timeout_ns`; false when time ran out.
  bool FinishDeferred(uint64_t timeout_ns);

  // OK when tables are kept in a folder; otherwise why not.
  const Status& index_cache_status() const { return index_cache_.status(); }
  KernelSymbols& kernel() { return kernel_; }
  Stats stats() const;

 private:
  struct Table {
    std::mutex build_mutex;  // held while building
    // The rest is guarded by tables_mutex_.
    std::shared_ptr<const BinarySymbols> symbols;  // null = not built yet
    std::string source_key;                        // what it was (or was not) built from
    uint64_t built_ns = 0;
    size_t bytes = 0;
    std::list<std::string>::iterator recent;  // position in recent_tables_
  };
  struct NameKey {
    uint64_t table = 0;  // serial number of the BinarySymbols
    uint32_t name = 0;   // number of the function, or of the file with the high bit
    bool operator==(const NameKey&) const = default;
  };
  struct NameKeyHash {
    size_t operator()(const NameKey& key) const {
      return static_cast<size_t>((key.table * 0x9E3779B97F4A7C15u) ^ (uint64_t{key.name} * 0xC2B2AE3D27D4EB4Fu));
    }
  };
  struct Name {
    std::shared_ptr<const FunctionName> function;
    std::list<NameKey>::iterator recent;
  };
  struct Jit {
    std::unique_ptr<JitDump> dump;  // null = none
    std::unique_ptr<PerfMap> map;   // null = none, then `why`
    MissReason why = MissReason::kPerfMapAbsent;
    uint64_t opened_ns = 0;
    uint64_t used = 0;  // larger = more recently
    size_t bytes = 0;
  };

  bool Usable(const Table& table, const std::string& source_key, uint64_t now_ns) const;
  void EvictTablesLocked(const std::string& keep);
  BuildOptions MakeBuildOptions();
  void PutTable(const std::string& key, const std::shared_ptr<Table>& table, const std::string& source_key,
                const std::shared_ptr<const BinarySymbols>& symbols);
  void Defer(const std::string& key, const BuildId& build_id, const BinarySource& source);
  void DeferredLoop();
  std::shared_ptr<const FunctionName> NameOf(const BinarySymbols& symbols, uint32_t function);
  std::shared_ptr<const std::string> FileOf(const BinarySymbols& symbols, uint32_t file);
  template <typename Maker>
  std::shared_ptr<const FunctionName> Cached(const NameKey& key, const Maker& make);
  Symbol ToSymbol(const BinarySymbols& symbols, std::span<const SymbolIndex::Frame> frames, uint64_t offset);
  Jit& JitLocked(const ProcessKey& process);
  void MeasureJitLocked(Jit* jit);
  void EvictJitsLocked(const ProcessKey& keep);

  const Options options_;
  IndexCache index_cache_;
  KernelSymbols kernel_;
  SymbolCounters counters_;

  mutable std::mutex tables_mutex_;
  std::unordered_map<std::string, std::shared_ptr<Table>> tables_;  // by build ID
  std::list<std::string> recent_tables_;                            // most recently used first
  size_t table_bytes_ = 0;
  uint64_t tables_built_ = 0;
  uint64_t tables_loaded_ = 0;
  uint64_t tables_evicted_ = 0;

  struct Deferred {
    std::string key;
    BuildId build_id;
    BinarySource source;
  };
  mutable std::mutex deferred_mutex_;
  std::condition_variable deferred_changed_;
  std::deque<Deferred> deferred_;  // the first is being read
  std::atomic<bool> stop_{false};
  std::thread deferred_thread_;  // started by the first

  mutable std::mutex names_mutex_;
  std::unordered_map<NameKey, Name, NameKeyHash> names_;
  std::list<NameKey> recent_names_;  // most recently used first
  size_t name_bytes_ = 0;

  mutable std::mutex jit_mutex_;
  std::map<ProcessKey, Jit> jits_;
  uint64_t jit_clock_ = 0;
  size_t jit_bytes_ = 0;
};

}  // namespace pyrometer::symbolize

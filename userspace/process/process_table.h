// Which process had what mapped where, and when: turns (process, virtual address, time) into (binary, ELF address).
//
//   ProcessTable table({});
//   table.ScanAll();                                       // what runs already
//   table.OnExec(exec); table.OnMapping(mapping); …        // what the kernel room reports from now on, in order of
//   time ResolvedAddress where = table.Resolve(sample.process, VirtualAddress(ip), sample.time_ns); if (where.binary &&
//   where.elf_address) symbolize(*where.binary, *where.elf_address);
//
// Only executable mappings are kept (and heap and stack, to name nonsense as such). A fork shares its parent's
// mappings until either changes; an exec starts anew, the images before it stay for samples taken before. Ended
// processes stay for `ended_grace_ns`. A process is tgid + start time; /proc knows the start time only to a clock
// tick (10 ms), so an entry that came from /proc matches a key within one tick until an event makes it exact. An
// address in no known mapping causes a rescan of /proc/PID/maps, at most once a second for a process, ever rarer
// while that brings nothing.
//
// Threads: all methods from any thread; one mutex, not held while files are read. Cost: Resolve 0.3 µs when known;
// a rescan 0.2 ms (reading maps); a process with 20 executable mappings takes ~4 KiB.
// Bounds: options; what does not fit is counted, never silently lost.
// Does not promise: mappings that came and went between two scans when no mapping events are fed.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/process/binary.h"
#include "userspace/process/events.h"
#include "userspace/process/proc_text.h"

namespace pyrometer::process {

enum class MappingKind : uint8_t {
  kUnknown,    // see UnknownReason
  kFile,       // a file (memfd included); binary is set
  kVdso,       // the kernel's user-space code; elf_address is relative to its start
  kAnonymous,  // executable memory without a file: code of a just-in-time compiler
  kHeap,       // not executable: a wrong address
  kStack,      // not executable: a wrong address
};
std::string_view MappingKindName(MappingKind kind);

enum class UnknownReason : uint8_t {
  kNone,              // kind is known
  kProcessGone,       // never seen while it ran, or ended longer ago than the grace time
  kTooManyProcesses,  // max_processes reached when it appeared
  kKernelThread,      // has no user mappings
  kNotMapped,         // the process has no executable mapping there, as far as we saw
  kTooManyMappings,   // max_mappings reached in this process
};
std::string_view UnknownReasonName(UnknownReason reason);

struct ResolvedAddress {
  MappingKind kind = MappingKind::kUnknown;
  UnknownReason reason = UnknownReason::kNone;  // set when kind is kUnknown
  std::shared_ptr<const Binary> binary;         // kFile only, then never null
  FileOffset offset;                            // kFile, kVdso: of the address
  std::optional<ElfAddress> elf_address;        // kFile: unless the binary's program headers are not known; kVdso
  VirtualAddress mapping_start;                 // of the mapping; 0 when unknown
};

// A piece of a process's executable memory.
struct ExecutableRegion {
  VirtualAddress start;  // end is exclusive
  VirtualAddress end;
  FileOffset offset;                         // of `start` in the file
  MappingKind kind = MappingKind::kUnknown;  // kFile, kVdso or kAnonymous
  std::shared_ptr<const Binary> binary;      // kFile only, then never null
};

// What changed about a process since somebody last asked.
struct ProcessChange {
  enum class Kind : uint8_t {
    kMappings,  // new, or its executable mappings changed
    kForked,    // new, with the mappings of `parent`
    kEnded,
  };
  Kind kind = Kind::kMappings;
  ProcessKey process;
  ProcessKey parent;     // kForked
  uint64_t time_ns = 0;  // kForked: when
};

// What is known about one process.
struct ProcessInfo {
  ProcessKey key;
  uint32_t parent_tgid = 0;
  uint32_t namespace_tgid = 0;  // its id in its own pid namespace (the name of its perf map); 0 = not known
  uint32_t uid = 0;             // real uid when first read
  std::string comm;             // of the main thread; any bytes
  bool kernel_thread = false;
  bool alive = false;
  std::string root_prefix;  // "/proc/PID/root"
};

class ProcessTable {
 public:
  struct Options {
    std::string proc_root = "/proc";
    uint64_t ended_grace_ns = 30 * kNsPerSecond;        // late samples of ended processes resolve for so long
    size_t max_ended = 8'192;                           // ended processes kept at most, oldest forgotten first
    size_t max_processes = 65'536;                      // running ones; above it new ones are refused and counted
    size_t max_mappings = 65'530;                       // executable mappings of one process (vm.max_map_count)
    uint64_t rescan_interval_ns = kNsPerSecond;         // shortest time between two rescans of one process; doubles to
                                                        // 64 times that while they bring nothing
    bool watch_changes = false;                         // keep what TakeChanges returns
    BinaryTable::Options binaries;                      // proc_root is taken from here above
    std::function<uint64_t()> now_ns = MonotonicNowNs;  // CLOCK_MONOTONIC
  };
  struct Counters {
    size_t running = 0;              // processes now
    size_t ended = 0;                // kept for late samples
    uint64_t scans = 0;              // readings of /proc/PID/maps
    uint64_t refused_processes = 0;  // for max_processes
    uint64_t refused_mappings = 0;   // for max_mappings
    uint64_t malformed_events = 0;   // e.g. an empty range
    uint64_t malformed_lines = 0;    // of /proc/PID/maps
    uint64_t orphan_events = 0;      // of processes that are not known and do not run
    uint64_t reused_pids = 0;        // an event or scan showed that a tgid now belongs to another process
    uint64_t forgotten_early = 0;    // ended processes dropped before their grace time, for max_ended
  };

  explicit ProcessTable(const Options& options);

  // Reads every process of /proc: at start, and after events were lost. Processes that are gone are marked ended.
  Status ScanAll();

  void OnImageStart(const ImageStart& event);
  void OnExec(const Exec& event);
  void OnFork(const Fork& event);
  void OnExit(const Exit& event);
  void OnComm(const Comm& event);
  void OnMapping(const Mapping& event);

  // `time_ns` 0 = now. `key.start_time_ns` 0 = the process that had that tgid then.
  ResolvedAddress Resolve(const ProcessKey& key, VirtualAddress address, uint64_t time_ns);
  // A number that stands for all that Resolve knows of a process's image at a time: while it is the same, found
  // addresses resolve to the same. No two images have the same one. 0: not known, or an image before an exec. Cost: 0.1
  // µs.
  uint64_t ImageVersion(const ProcessKey& key, uint64_t time_ns);
  // nullopt when it was never seen and does not run.
  std::optional<ProcessInfo> Describe(const ProcessKey& key);
  // The executable regions of a process at a time (0 = now), ascending; nullopt when it is not known.
  std::optional<std::vector<ExecutableRegion>> Executable(const ProcessKey& key, uint64_t time_ns);
  // Every process that changed since the last call, once, with the last that happened to it. Processes that were known
  // when they ended come as kEnded, others not at all. Nothing is kept for the caller before `watch_changes` is set.
  std::vector<ProcessChange> TakeChanges();

  // Keys of running processes (not kernel threads) known now.
  std::vector<ProcessKey> Running() const;

  Counters counters() const;
  BinaryTable& binaries() { return *binaries_; }

 private:
  struct Region {
    uint64_t end = 0;
    uint64_t offset = 0;
    uint64_t since_ns = 0;  // newer ones win where two overlap
    MappingKind kind = MappingKind::kUnknown;
    bool from_scan = false;  // since_ns is when we looked, not when it was mapped
    std::shared_ptr<const Binary> binary;
  };
  using Image = std::map<uint64_t, Region>;  // by start; never overlapping
  struct OldImage {
    uint64_t until_ns = 0;
    std::shared_ptr<Image> image;
  };
  // A chain of execs between two looks at the rings: shells that exec wrappers that exec programs.
  static constexpr size_t kMaxOldImages = 8;

  struct Process {
    ProcessInfo info;
    bool exact = false;                // start time from the kernel, not from /proc
    uint64_t born_ns = 0;              // CLOCK_MONOTONIC; 0 = before we looked
    uint64_t ended_ns = 0;             // 0 = runs
    bool scanned = false;              // /proc/PID/maps of this image was read, or tried
    bool status_read = false;          // namespace_tgid and uid are filled
    bool mappings_refused = false;     // max_mappings was reached
    uint64_t next_scan_ns = 0;         // no rescan before
    uint64_t scan_backoff_ns = 0;      // 0 = none yet
    uint64_t image_since_ns = 0;       // time of the last exec; 0 = none seen
    std::shared_ptr<Image> image;      // shared after fork: copy before changing
    uint64_t image_version = 0;        // see ImageVersion
    std::vector<OldImage> old_images;  // before the last execs, oldest first; at most kMaxOldImages
  };
  struct Scan {
    ProcStat stat;
    std::optional<ProcStatus> status;
    std::vector<Mapping> mappings;  // executable ones, heap and stack
    size_t bad_lines = 0;
    bool maps_read = false;  // false: not allowed, or the process is ending
  };

  using OpenedMappings = std::vector<std::pair<Mapping, std::shared_ptr<const Binary>>>;

  // Without mutex_: these read files.
  std::optional<ProcStat> ReadStat(uint32_t tgid) const;
  std::optional<ProcStatus> ReadStatus(uint32_t tgid) const;
  std::optional<Scan> ReadProc(uint32_t tgid, uint64_t time_ns) const;
  OpenedMappings OpenBinaries(std::vector<Mapping> mappings, uint32_t parent_tgid);
  // Reads /proc for `key` and takes it in; false when no such process runs.
  bool Rescan(const ProcessKey& key);

  // With mutex_ held.
  Process* Find(const ProcessKey& key, uint64_t time_ns);
  Process* FindRunning(const ProcessKey& key);
  Process* FindOrCreate(const ProcessKey& key, uint64_t time_ns);
  Process* Create(const ProcessKey& key, uint64_t born_ns);
  void End(Process& process, uint64_t time_ns);
  void Forget(uint64_t now_ns);
  void NoteChange(const ProcessChange& change);
  void Insert(Process& process, Image& image, const Mapping& mapping, const std::shared_ptr<const Binary>& binary,
              bool from_scan);
  void InsertRegion(Process& process, Image& image, uint64_t start, const Region& region);
  void Apply(uint32_t tgid, const Scan& scan, const OpenedMappings& mappings, uint64_t time_ns);
  static Image& Writable(Process& process);
  void ImageChanged(Process& process) { process.image_version = ++image_versions_; }
  static bool SameStart(const Process& process, uint64_t start_time_ns);
  // Keeps the image for samples before `time_ns` and starts an empty one.
  static void StartImage(Process& process, uint64_t time_ns);
  // The image that a process had at a time (0 = now).
  static const Image& ImageAt(const Process& process, uint64_t time_ns);
  static bool Lookup(const Process& process, VirtualAddress address, uint64_t time_ns, ResolvedAddress& result);

  const Options options_;
  const std::shared_ptr<BinaryTable> binaries_;
  mutable std::mutex mutex_;
  // All processes with this tgid, oldest first; at most the last one runs.
  std::unordered_map<uint32_t, std::vector<std::unique_ptr<Process>>> processes_;
  std::deque<std::pair<uint64_t, ProcessKey>> ended_;  // (when, who), oldest first
  size_t running_ = 0;
  uint64_t image_versions_ = 0;
  std::unordered_map<uint32_t, std::vector<ProcessChange>> changes_;  // by tgid
  Counters counters_;
};

}  // namespace pyrometer::process

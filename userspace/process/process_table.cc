#include "userspace/process/process_table.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::process {
namespace {

// The kernel reports exec (sched_process_exec) after it has mapped the new program, so the new image's first
// mappings are older than the exec event. Mappings reported within this time before it are taken for the new
// image's. 2 s: an interpreter and program on a cold network file system.
constexpr uint64_t kExecMappingWindowNs = 2 * kNsPerSecond;
// Rescans that bring nothing become rarer up to this factor.
constexpr uint64_t kMaxBackoffFactor = 64;
constexpr size_t kMaxStatusBytes = 64 << 10;  // largest seen 1.6 KiB; groups may add 64 Ki numbers, cut is fine

bool IsTicks(uint64_t start_time_ns) { return start_time_ns % NsPerTick() == 0; }

// Executable memory whose "file" is none: shared anonymous memory and its relatives carry made-up paths.
bool IsPseudoFile(std::string_view path) {
  for (std::string_view prefix : {"/dev/zero", "/anon_hugepage", "/SYSV", "/[", "//anon", "/memfd:doublemapper"}) {
    if (path.starts_with(prefix)) return true;
  }
  return false;
}

MappingKind KindOf(std::string_view path) {
  if (path == "[vdso]" || path == "[vsyscall]") return MappingKind::kVdso;
  if (path == "[heap]") return MappingKind::kHeap;
  if (path.starts_with("[stack")) return MappingKind::kStack;
  if (path.starts_with('/') && !IsPseudoFile(path)) return MappingKind::kFile;
  return MappingKind::kAnonymous;
}

}  // namespace

std::string_view MappingKindName(MappingKind kind) {
  switch (kind) {
    case MappingKind::kUnknown:
      return "unknown";
    case MappingKind::kFile:
      return "file";
    case MappingKind::kVdso:
      return "vdso";
    case MappingKind::kAnonymous:
      return "anonymous";
    case MappingKind::kHeap:
      return "heap";
    case MappingKind::kStack:
      return "stack";
  }
  return "unknown";
}

std::string_view UnknownReasonName(UnknownReason reason) {
  switch (reason) {
    case UnknownReason::kNone:
      return "none";
    case UnknownReason::kProcessGone:
      return "process gone";
    case UnknownReason::kTooManyProcesses:
      return "too many processes";
    case UnknownReason::kKernelThread:
      return "kernel thread";
    case UnknownReason::kNotMapped:
      return "no mapping";
    case UnknownReason::kTooManyMappings:
      return "too many mappings";
  }
  return "none";
}

ProcessTable::ProcessTable(const Options& options)
    : options_(options), binaries_(BinaryTable::Create([&options] {
        BinaryTable::Options binaries = options.binaries;
        binaries.proc_root = options.proc_root;
        return binaries;
      }())) {}

// ---- /proc, without the lock --------------------------------------------------------------------------------

std::optional<ProcStat> ProcessTable::ReadStat(uint32_t tgid) const {
  StatusOr<std::string> text = ReadFile(StrFormat("%s/%d/stat", options_.proc_root, tgid), kMaxStatusBytes);
  if (!text.ok()) return std::nullopt;
  StatusOr<ProcStat> stat = ParseStat(*text);
  if (!stat.ok()) return std::nullopt;
  return *std::move(stat);
}

std::optional<ProcStatus> ProcessTable::ReadStatus(uint32_t tgid) const {
  StatusOr<std::string> text = ReadFile(StrFormat("%s/%d/status", options_.proc_root, tgid), 16 * kMaxStatusBytes);
  if (!text.ok()) return std::nullopt;
  StatusOr<ProcStatus> status = ParseStatus(*text);
  if (!status.ok()) return std::nullopt;
  return *std::move(status);
}

std::optional<ProcessTable::Scan> ProcessTable::ReadProc(uint32_t tgid, uint64_t time_ns) const {
  std::optional<ProcStat> before = ReadStat(tgid);
  if (!before) return std::nullopt;
  Scan scan;
  scan.stat = *std::move(before);
  scan.status = ReadStatus(tgid);
  if (!scan.stat.kernel_thread) {
    StatusOr<std::string> maps = ReadFile(StrFormat("%s/%d/maps", options_.proc_root, tgid));
    scan.maps_read = maps.ok() && !maps->empty();
    if (maps.ok()) {
      scan.bad_lines = ForEachMap(*maps, [&](const MapsEntry& entry) {
        const MappingKind kind = KindOf(entry.path);
        const bool kept = (entry.protection & kProtExec) != 0 || kind == MappingKind::kHeap ||
                          kind == MappingKind::kStack || kind == MappingKind::kVdso;
        if (!kept) return true;
        Mapping& mapping = scan.mappings.emplace_back();
        mapping.key.tgid = tgid;
        mapping.time_ns = time_ns;
        mapping.start = entry.start;
        mapping.end = entry.end;
        mapping.offset = entry.offset;
        mapping.device_major = entry.device_major;
        mapping.device_minor = entry.device_minor;
        mapping.inode = entry.inode;
        mapping.protection = entry.protection;
        mapping.path = UnescapeMapsPath(entry.path);
        return scan.mappings.size() < options_.max_mappings;
      });
    }
  }
  // The pid may have been given to another process between the reads.
  const std::optional<ProcStat> after = ReadStat(tgid);
  if (!after || after->start_ticks != scan.stat.start_ticks) return std::nullopt;
  return scan;
}

ProcessTable::OpenedMappings ProcessTable::OpenBinaries(std::vector<Mapping> mappings, uint32_t parent_tgid) {
  std::vector<uint32_t> others;
  if (parent_tgid != 0) others.push_back(parent_tgid);
  OpenedMappings opened;
  opened.reserve(mappings.size());
  for (Mapping& mapping : mappings) {
    std::shared_ptr<const Binary> binary;
    if (KindOf(mapping.path) == MappingKind::kFile && (mapping.protection & kProtExec) != 0) {
      binary = binaries_->ForMapping(mapping, others);
    }
    opened.emplace_back(std::move(mapping), std::move(binary));
  }
  return opened;
}

bool ProcessTable::Rescan(const ProcessKey& key) {
  const uint64_t time_ns = options_.now_ns();
  std::optional<Scan> scan = ReadProc(key.tgid, time_ns);
  if (!scan) return false;
  const uint64_t start_ns = TicksToNs(scan->stat.start_ticks);
  if (key.start_time_ns != 0) {
    const uint64_t difference =
        key.start_time_ns > start_ns ? key.start_time_ns - start_ns : start_ns - key.start_time_ns;
    if (difference > NsPerTick()) return false;
  }
  OpenedMappings mappings = OpenBinaries(std::move(scan->mappings), scan->stat.parent_pid);
  std::lock_guard lock(mutex_);
  Apply(key.tgid, *scan, mappings, time_ns);
  return true;
}

Status ProcessTable::ScanAll() {
  UniqueDir proc(::opendir(options_.proc_root.c_str()));
  if (!proc) return ErrnoError(errno, StrFormat("cannot list the processes in %s", options_.proc_root));
  std::vector<uint32_t> tgids;
  while (const dirent* entry = ::readdir(proc.get())) {
    const std::optional<uint64_t> tgid = ParseUint64(entry->d_name);
    if (tgid && *tgid != 0 && *tgid <= UINT32_MAX) tgids.push_back(static_cast<uint32_t>(*tgid));
  }
  for (uint32_t tgid : tgids) Rescan({.tgid = tgid});

  // Those we believe to run but did not see: their exit was lost.
  const std::set<uint32_t> seen(tgids.begin(), tgids.end());
  for (const ProcessKey& key : Running()) {
    if (seen.contains(key.tgid) || ReadStat(key.tgid)) continue;
    OnExit({.key = key, .time_ns = options_.now_ns()});
  }
  return OkStatus();
}

// ---- identities, with the lock ------------------------------------------------------------------------------

bool ProcessTable::SameStart(const Process& process, uint64_t start_time_ns) {
  if (start_time_ns == 0 || process.info.key.start_time_ns == start_time_ns) return true;
  // A time of whole ticks comes from /proc (the kernel's own is one with a chance of 1e-7).
  if (process.exact && !IsTicks(start_time_ns)) return false;
  const uint64_t ours = process.info.key.start_time_ns;
  return (ours > start_time_ns ? ours - start_time_ns : start_time_ns - ours) <= NsPerTick();
}

ProcessTable::Process* ProcessTable::Find(const ProcessKey& key, uint64_t time_ns) {
  const auto it = processes_.find(key.tgid);
  if (it == processes_.end()) return nullptr;
  for (auto generation = it->second.rbegin(); generation != it->second.rend(); ++generation) {
    Process& process = **generation;
    if (!SameStart(process, key.start_time_ns)) continue;
    if (key.start_time_ns == 0 && time_ns != 0) {
      if (process.born_ns > time_ns) continue;
      if (process.ended_ns != 0 && process.ended_ns < time_ns) return nullptr;  // a later one that we do not know
    }
    if (!process.exact && key.start_time_ns != 0 && !IsTicks(key.start_time_ns)) {
      process.info.key.start_time_ns = key.start_time_ns;
      process.exact = true;
    }
    return &process;
  }
  return nullptr;
}

ProcessTable::Process* ProcessTable::FindRunning(const ProcessKey& key) {
  Process* process = Find(key, 0);
  return process != nullptr && process->ended_ns == 0 ? process : nullptr;
}

ProcessTable::Process* ProcessTable::Create(const ProcessKey& key, uint64_t born_ns) {
  auto& generations = processes_[key.tgid];
  if (!generations.empty() && generations.back()->ended_ns == 0) {
    // We missed an exit: two processes never have one tgid at a time.
    ++counters_.reused_pids;
    End(*generations.back(), born_ns != 0 ? born_ns : options_.now_ns());
  }
  if (running_ >= options_.max_processes) {
    ++counters_.refused_processes;
    if (generations.empty()) processes_.erase(key.tgid);
    return nullptr;
  }
  auto process = std::make_unique<Process>();
  process->info.key = key;
  process->info.alive = true;
  process->exact = key.start_time_ns != 0 && !IsTicks(key.start_time_ns);
  process->born_ns = born_ns;
  process->image = std::make_shared<Image>();
  ++running_;
  return generations.emplace_back(std::move(process)).get();
}

ProcessTable::Process* ProcessTable::FindOrCreate(const ProcessKey& key, uint64_t time_ns) {
  if (Process* process = Find(key, 0)) {
    // An event of a process that ended before is late, not a sign of life.
    return process->ended_ns == 0 ? process : nullptr;
  }
  if (key.start_time_ns == 0) return nullptr;
  return Create(key, time_ns);
}

void ProcessTable::End(Process& process, uint64_t time_ns) {
  if (process.ended_ns != 0) return;
  process.ended_ns = std::max<uint64_t>(time_ns, 1);
  process.info.alive = false;
  NoteChange({.kind = ProcessChange::Kind::kEnded, .process = process.info.key});
  --running_;
  ended_.emplace_back(process.ended_ns, process.info.key);
}

void ProcessTable::Forget(uint64_t now_ns) {
  while (!ended_.empty()) {
    const auto& [ended_ns, key] = ended_.front();
    const bool old = now_ns > ended_ns && now_ns - ended_ns > options_.ended_grace_ns;
    if (!old && ended_.size() <= options_.max_ended) return;
    if (!old) ++counters_.forgotten_early;
    const auto it = processes_.find(key.tgid);
    if (it != processes_.end()) {
      // The oldest ended one of this tgid is the one that was queued first.
      auto& generations = it->second;
      if (!generations.empty() && generations.front()->ended_ns != 0) generations.erase(generations.begin());
      if (generations.empty()) processes_.erase(it);
    }
    ended_.pop_front();
  }
}

void ProcessTable::NoteChange(const ProcessChange& change) {
  if (!options_.watch_changes) return;
  std::vector<ProcessChange>& of_tgid = changes_[change.process.tgid];
  for (ProcessChange& earlier : of_tgid) {
    if (earlier.process.start_time_ns != change.process.start_time_ns) continue;
    // A fork's news is its mappings; whatever comes after says more.
    earlier = change;
    return;
  }
  of_tgid.push_back(change);
}

// ---- mappings, with the lock --------------------------------------------------------------------------------

ProcessTable::Image& ProcessTable::Writable(Process& process) {
  if (process.image.use_count() > 1) process.image = std::make_shared<Image>(*process.image);
  return *process.image;
}

void ProcessTable::InsertRegion(Process& process, Image& image, uint64_t start, const Region& region) {
  const auto piece_of = [](const Region& whole, uint64_t whole_start, uint64_t piece_start, uint64_t piece_end) {
    Region piece = whole;
    piece.offset += piece_start - whole_start;
    piece.end = piece_end;
    return piece;
  };
  // What lies in our range: newer regions stay and cut ours, older ones are cut by ours.
  auto it = image.upper_bound(start);
  if (it != image.begin() && std::prev(it)->second.end > start) --it;
  std::vector<std::pair<uint64_t, Region>> pieces;  // to be added
  uint64_t cursor = start;
  while (it != image.end() && it->first < region.end) {
    const uint64_t old_start = it->first;
    if (it->second.since_ns > region.since_ns) {
      if (old_start > cursor) pieces.emplace_back(cursor, piece_of(region, start, cursor, old_start));
      cursor = std::max(cursor, it->second.end);
      ++it;
      continue;
    }
    const Region old = std::move(it->second);
    it = image.erase(it);
    if (old_start < start) pieces.emplace_back(old_start, piece_of(old, old_start, old_start, start));
    if (old.end > region.end) pieces.emplace_back(region.end, piece_of(old, old_start, region.end, old.end));
  }
  if (cursor < region.end) pieces.emplace_back(cursor, piece_of(region, start, cursor, region.end));
  for (auto& [piece_start, piece] : pieces) {
    if (piece.kind == MappingKind::kUnknown) continue;  // only made room
    if (image.size() >= options_.max_mappings) {
      ++counters_.refused_mappings;
      process.mappings_refused = true;
      continue;
    }
    image.emplace(piece_start, std::move(piece));
  }
}

void ProcessTable::Insert(Process& process, Image& image, const Mapping& mapping,
                          const std::shared_ptr<const Binary>& binary, bool from_scan) {
  Region region;
  region.end = mapping.end.value;
  region.offset = mapping.offset.value;
  region.since_ns = mapping.time_ns;
  region.from_scan = from_scan;
  region.kind = KindOf(mapping.path);
  if (region.kind == MappingKind::kFile) {
    // A memfd or deleted scratch file that is no ELF is how compilers map their output twice.
    const bool generated = binary && binary->deleted() && binary->identity() && binary->segments().empty();
    if (generated) {
      region.kind = MappingKind::kAnonymous;
    } else {
      region.binary = binary;
    }
    if (!binary) region.kind = MappingKind::kUnknown;
  } else if (region.kind == MappingKind::kAnonymous && (mapping.protection & kProtExec) == 0) {
    region.kind = MappingKind::kUnknown;
  }
  InsertRegion(process, image, mapping.start.value, region);
}

void ProcessTable::Apply(uint32_t tgid, const Scan& scan, const OpenedMappings& mappings, uint64_t time_ns) {
  ++counters_.scans;
  counters_.malformed_lines += scan.bad_lines;
  const ProcessKey key{tgid, TicksToNs(scan.stat.start_ticks)};
  Process* process = Find(key, 0);
  if (process != nullptr && process->ended_ns != 0) return;  // its exit overtook us
  if (process == nullptr) process = Create(key, 0);
  if (process == nullptr) return;

  process->scanned = true;
  process->next_scan_ns = time_ns + options_.rescan_interval_ns;
  process->info.parent_tgid = scan.stat.parent_pid;
  process->info.comm = scan.stat.comm;
  process->info.kernel_thread = scan.stat.kernel_thread;
  if (scan.status) {
    process->status_read = true;
    process->info.uid = scan.status->real_uid;
    if (!scan.status->namespace_tgids.empty()) process->info.namespace_tgid = scan.status->namespace_tgids.back();
  }
  if (!scan.maps_read) return;                    // an ending process has no maps any more: keep what we know
  if (process->image_since_ns > time_ns) return;  // it ran another program while we read

  auto image = std::make_shared<Image>();
  process->mappings_refused = mappings.size() >= options_.max_mappings;
  for (const auto& [mapping, binary] : mappings) Insert(*process, *image, mapping, binary, true);
  for (const auto& [start, region] : *process->image) {
    if (region.since_ns > time_ns) InsertRegion(*process, *image, start, region);
  }
  process->image = std::move(image);
  ImageChanged(*process);
  if (!process->info.kernel_thread) NoteChange({.process = process->info.key});
}

// ---- events -------------------------------------------------------------------------------------------------

void ProcessTable::OnFork(const Fork& event) {
  std::lock_guard lock(mutex_);
  Forget(options_.now_ns());
  const Process* parent = Find(event.parent, event.time_ns);
  const std::shared_ptr<Image> inherited = parent != nullptr ? parent->image : nullptr;
  const ProcessInfo parent_info = parent != nullptr ? parent->info : ProcessInfo{};
  const bool parent_scanned = parent != nullptr && parent->scanned;
  Process* child = Find(event.child, 0);
  if (child == nullptr) child = Create(event.child, event.time_ns);
  if (child == nullptr || child->ended_ns != 0) return;
  child->born_ns = event.time_ns;
  child->info.parent_tgid = event.parent.tgid;
  if (child->info.comm.empty()) child->info.comm = parent_info.comm;
  if (!child->status_read) child->info.uid = parent_info.uid;
  if (inherited && child->image->empty()) {
    child->image = inherited;
    ImageChanged(*child);
    child->scanned = parent_scanned;
    NoteChange({.kind = ProcessChange::Kind::kForked,
                .process = child->info.key,
                .parent = event.parent,
                .time_ns = event.time_ns});
  }
}

void ProcessTable::StartImage(Process& process, uint64_t time_ns) {
  if (process.old_images.size() >= kMaxOldImages) process.old_images.erase(process.old_images.begin());
  process.old_images.push_back({time_ns, std::move(process.image)});
  process.image = std::make_shared<Image>();
  process.image_since_ns = time_ns;
}

void ProcessTable::OnImageStart(const ImageStart& event) {
  std::lock_guard lock(mutex_);
  Process* process = Find(event.key, 0);
  // A scan may have seen the new image already.
  if (process == nullptr || process->ended_ns != 0 || process->image_since_ns >= event.time_ns) return;
  auto newer = std::make_shared<Image>();
  for (const auto& [start, region] : *process->image) {
    if (region.since_ns > event.time_ns) newer->emplace(start, region);
  }
  StartImage(*process, event.time_ns);
  process->image = std::move(newer);
  ImageChanged(*process);
  NoteChange({.process = process->info.key});
}

void ProcessTable::OnExec(const Exec& event) {
  std::lock_guard lock(mutex_);
  Forget(options_.now_ns());
  Process* process = FindOrCreate(event.key, event.time_ns);
  if (process == nullptr) {
    ++counters_.orphan_events;
    return;
  }
  process->info.comm = event.comm;
  if (event.image_start_ns == 0 || process->image_since_ns != event.image_start_ns) {
    // Nobody told where the new image begins: its mappings are those that came just before.
    const uint64_t window_start = event.time_ns > kExecMappingWindowNs ? event.time_ns - kExecMappingWindowNs : 0;
    const uint64_t first_mapping_ns = event.image_start_ns != 0
                                          ? event.image_start_ns
                                          : std::max({process->born_ns, process->image_since_ns, window_start});
    auto image = std::make_shared<Image>();
    for (const auto& [start, region] : *process->image) {
      const bool of_new_image =
          region.since_ns > event.time_ns || (!region.from_scan && region.since_ns > first_mapping_ns);
      if (of_new_image) image->emplace(start, region);
    }
    StartImage(*process, event.image_start_ns != 0 ? event.image_start_ns : event.time_ns);
    process->image = std::move(image);
    ImageChanged(*process);
  }
  process->mappings_refused = false;
  process->scanned = false;  // the first miss may look at once
  process->next_scan_ns = 0;
  process->scan_backoff_ns = 0;
  NoteChange({.process = process->info.key});
}

void ProcessTable::OnExit(const Exit& event) {
  std::lock_guard lock(mutex_);
  const uint64_t now_ns = options_.now_ns();
  if (Process* process = FindRunning(event.key)) {
    End(*process, event.time_ns != 0 ? event.time_ns : now_ns);
  }
  Forget(now_ns);
}

void ProcessTable::OnComm(const Comm& event) {
  std::lock_guard lock(mutex_);
  if (Process* process = FindRunning(event.key)) process->info.comm = event.comm;
}

void ProcessTable::OnMapping(const Mapping& event) {
  if (event.end <= event.start) {
    std::lock_guard lock(mutex_);
    ++counters_.malformed_events;
    return;
  }
  uint32_t parent_tgid = 0;
  {
    std::lock_guard lock(mutex_);
    if (const Process* process = Find(event.key, 0)) parent_tgid = process->info.parent_tgid;
  }
  OpenedMappings opened = OpenBinaries({event}, parent_tgid);
  {
    std::lock_guard lock(mutex_);
    if (Process* process = FindOrCreate(event.key, event.time_ns)) {
      Insert(*process, Writable(*process), opened[0].first, opened[0].second, false);
      ImageChanged(*process);
      NoteChange({.process = process->info.key});
      return;
    }
  }
  // A record with a pid only, of a process not known yet: /proc tells who it is, and its maps hold this one.
  if (event.key.start_time_ns == 0 && Rescan(event.key)) return;
  std::lock_guard lock(mutex_);
  ++counters_.orphan_events;
}

// ---- questions ----------------------------------------------------------------------------------------------

const ProcessTable::Image& ProcessTable::ImageAt(const Process& process, uint64_t time_ns) {
  if (time_ns != 0) {
    for (const OldImage& old : process.old_images) {
      if (time_ns < old.until_ns) return *old.image;
    }
  }
  return *process.image;
}

bool ProcessTable::Lookup(const Process& process, VirtualAddress address, uint64_t time_ns, ResolvedAddress& result) {
  const Image& image = ImageAt(process, time_ns);
  auto it = image.upper_bound(address.value);
  if (it == image.begin() || (--it)->second.end <= address.value) {
    result.reason = process.info.kernel_thread               ? UnknownReason::kKernelThread
                    : process.ended_ns != 0 && image.empty() ? UnknownReason::kProcessGone
                    : process.mappings_refused               ? UnknownReason::kTooManyMappings
                                                             : UnknownReason::kNotMapped;
    return false;
  }
  const Region& region = it->second;
  result.reason = UnknownReason::kNone;
  result.kind = region.kind;
  result.mapping_start = VirtualAddress(it->first);
  result.offset = FileOffset(region.offset + (address.value - it->first));
  result.binary = region.binary;
  if (region.binary) result.elf_address = region.binary->ToElfAddress(result.offset);
  if (region.kind == MappingKind::kVdso) result.elf_address = ElfAddress(result.offset.value);
  return true;
}

ResolvedAddress ProcessTable::Resolve(const ProcessKey& key, VirtualAddress address, uint64_t time_ns) {
  ResolvedAddress result;
  uint64_t now_ns;
  {
    std::lock_guard lock(mutex_);
    Process* process = Find(key, time_ns);
    if (process != nullptr && Lookup(*process, address, time_ns, result)) return result;
    now_ns = options_.now_ns();  // a third of the cost of what is known
    if (process != nullptr) {
      const bool may_scan = process->ended_ns == 0 && !process->info.kernel_thread &&
                            (!process->scanned || now_ns >= process->next_scan_ns);
      if (!may_scan) return result;
      // Reserved before the lock is given up, so that one thread scans, not all.
      process->scan_backoff_ns = std::clamp<uint64_t>(2 * process->scan_backoff_ns, options_.rescan_interval_ns,
                                                      kMaxBackoffFactor * options_.rescan_interval_ns);
      process->next_scan_ns = now_ns + process->scan_backoff_ns;
      process->scanned = true;
    }
  }
  const bool runs = Rescan(key);
  std::lock_guard lock(mutex_);
  Process* process = Find(key, time_ns);
  if (process == nullptr) {
    result.reason = running_ >= options_.max_processes ? UnknownReason::kTooManyProcesses : UnknownReason::kProcessGone;
    if (!runs && key.start_time_ns != 0 && running_ < options_.max_processes &&
        (!processes_.contains(key.tgid) || processes_[key.tgid].back()->ended_ns != 0)) {
      // Remembered as ended, so that its other samples do not make us look again.
      if (Process* ghost = Create(key, 0)) End(*ghost, now_ns);
      Forget(now_ns);
    }
    return result;
  }
  if (Lookup(*process, address, time_ns, result)) {
    process->scan_backoff_ns = 0;
  } else if (process->scan_backoff_ns != 0) {
    process->next_scan_ns = std::max(process->next_scan_ns, now_ns + process->scan_backoff_ns);
  }
  return result;
}

uint64_t ProcessTable::ImageVersion(const ProcessKey& key, uint64_t time_ns) {
  std::lock_guard lock(mutex_);
  const Process* process = Find(key, time_ns);
  if (process == nullptr || &ImageAt(*process, time_ns) != process->image.get()) return 0;
  return process->image_version;
}

std::optional<std::vector<ExecutableRegion>> ProcessTable::Executable(const ProcessKey& key, uint64_t time_ns) {
  std::lock_guard lock(mutex_);
  const Process* process = Find(key, time_ns);
  if (process == nullptr) return std::nullopt;
  const Image& image = ImageAt(*process, time_ns);
  std::vector<ExecutableRegion> regions;
  regions.reserve(image.size());
  for (const auto& [start, region] : image) {
    if (region.kind != MappingKind::kFile && region.kind != MappingKind::kVdso &&
        region.kind != MappingKind::kAnonymous) {
      continue;
    }
    regions.push_back({.start = VirtualAddress(start),
                       .end = VirtualAddress(region.end),
                       .offset = FileOffset(region.offset),
                       .kind = region.kind,
                       .binary = region.binary});
  }
  return regions;
}

std::vector<ProcessChange> ProcessTable::TakeChanges() {
  std::vector<ProcessChange> changes;
  std::lock_guard lock(mutex_);
  for (auto& [tgid, of_tgid] : changes_) changes.insert(changes.end(), of_tgid.begin(), of_tgid.end());
  changes_.clear();
  return changes;
}

std::optional<ProcessInfo> ProcessTable::Describe(const ProcessKey& key) {
  bool read_status = false;
  {
    std::lock_guard lock(mutex_);
    const Process* process = Find(key, 0);
    read_status = process != nullptr && process->ended_ns == 0 && !process->status_read;
    if (process == nullptr && key.start_time_ns != 0 && processes_.contains(key.tgid) &&
        processes_[key.tgid].back()->ended_ns == 0) {
      return std::nullopt;  // the pid belongs to another one
    }
  }
  const std::optional<ProcStatus> status = read_status ? ReadStatus(key.tgid) : std::nullopt;
  {
    std::lock_guard lock(mutex_);
    if (Process* process = Find(key, 0)) {
      if (status && process->ended_ns == 0) {
        process->status_read = true;
        process->info.uid = status->real_uid;
        if (!status->namespace_tgids.empty()) process->info.namespace_tgid = status->namespace_tgids.back();
      }
      ProcessInfo info = process->info;
      info.root_prefix = StrFormat("%s/%d/root", options_.proc_root, key.tgid);
      return info;
    }
  }
  if (!Rescan(key)) return std::nullopt;
  std::lock_guard lock(mutex_);
  const Process* process = Find(key, 0);
  if (process == nullptr) return std::nullopt;
  ProcessInfo info = process->info;
  info.root_prefix = StrFormat("%s/%d/root", options_.proc_root, key.tgid);
  return info;
}

std::vector<ProcessKey> ProcessTable::Running() const {
  std::lock_guard lock(mutex_);
  std::vector<ProcessKey> keys;
  for (const auto& [tgid, generations] : processes_) {
    if (generations.empty()) continue;
    const Process& newest = *generations.back();
    if (newest.ended_ns == 0 && !newest.info.kernel_thread) keys.push_back(newest.info.key);
  }
  return keys;
}

ProcessTable::Counters ProcessTable::counters() const {
  std::lock_guard lock(mutex_);
  Counters counters = counters_;
  counters.running = running_;
  counters.ended = ended_.size();
  return counters;
}

}  // namespace pyrometer::process

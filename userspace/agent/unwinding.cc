#include "userspace/agent/unwinding.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/base/thread.h"
#include "userspace/symbolize/vdso.h"
#include "userspace/unwind/table_builder.h"

namespace pyrometer::agent {
namespace {

using process::ExecutableRegion;
using process::MappingKind;
using process::ProcessChange;

// Behind what it measures, but not starved by it: at 19 a busy machine gives a thread 1.5 % of a CPU, and samples wait.
constexpr int kBuildNice = 5;
constexpr char kVdsoKey[] = "[vdso]";
// Entries of binaries that nobody runs any more are dropped above this: 4 MB at most.
constexpr size_t kMaxIdleEntries = 8192;

uint64_t ThreadCpuNs() {
  timespec now;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

std::string KeyOf(const std::shared_ptr<const process::Binary>& binary) {
  if (!binary) return kVdsoKey;
  // Without a build ID (a file that could not be opened) it is itself alone; its entry keeps it, so the address stays
  // its.
  return binary->build_id().empty() ? StrFormat("@%p", binary.get()) : binary->build_id().hex;
}

}  // namespace

Unwinding::Unwinding(const Options& options) : options_(options), cache_(options.cache_folder, options.cache_bytes) {}

std::unique_ptr<Unwinding> Unwinding::Start(const Options& options) {
  std::unique_ptr<Unwinding> unwinding(new Unwinding(options));
  unwinding->thread_ = std::thread([u = unwinding.get()] {
    NameThisThread("pyro-unwind", kBuildNice);
    u->BuildLoop();
  });
  return unwinding;
}

Unwinding::~Unwinding() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_changed_.notify_all();
  }
  thread_.join();
}

// ---- entries, with the lock --------------------------------------------------------------------------------------

Unwinding::Entry& Unwinding::EntryOf(const std::string& key, const std::shared_ptr<const process::Binary>& binary) {
  const auto [found, added] = entries_.try_emplace(key);
  Entry& entry = found->second;
  if (added) {
    entry.key = key;
    entry.binary = binary;
    entry.used_ns = MonotonicNowNs();
  } else if (entry.kind == PYRO_MAPPING_UNREADABLE && entry.binary != binary && MonotonicNowNs() >= entry.retry_ns) {
    // Perhaps this process shows the file.
    entry.binary = binary;
    entry.kind = PYRO_MAPPING_PENDING;
  }
  return entry;
}

void Unwinding::WantEntry(Entry& entry) {
  if (entry.kind != PYRO_MAPPING_PENDING || entry.wanted || stopping_) return;
  entry.wanted = true;
  queue_.push_back(entry.key);
  queue_changed_.notify_one();
}

kernel::UnwindMaps::Mapping Unwinding::MappingOf(const ExecutableRegion& region, Entry** entry) {
  kernel::UnwindMaps::Mapping mapping;
  mapping.start = region.start;
  mapping.end = region.end;
  *entry = nullptr;
  if (region.kind == MappingKind::kAnonymous) {
    mapping.kind = PYRO_MAPPING_GENERATED;
    return mapping;
  }
  ElfAddress address(region.offset.value);  // of the vdso
  if (region.kind == MappingKind::kFile) {
    const auto in_file = region.binary->ToElfAddress(region.offset);
    if (!in_file) {
      // Not an ELF file, or nobody could open it.
      mapping.kind = PYRO_MAPPING_UNREADABLE;
      return mapping;
    }
    address = *in_file;
  }
  *entry = &EntryOf(KeyOf(region.binary), region.binary);
  mapping.kind = (*entry)->kind;
  mapping.table = (*entry)->table;
  mapping.bias = region.start.value - address.value;
  return mapping;
}

void Unwinding::Forget(const ProcessKey& process) {
  const auto found = published_.find(process);
  if (found == published_.end()) return;
  for (const std::string& key : found->second) {
    if (const auto entry = entries_.find(key); entry != entries_.end()) entry->second.users.erase(process);
  }
  published_.erase(found);
}

void Unwinding::Publish(const ProcessKey& process, uint64_t known_until_ns) {
  Forget(process);
  if (options_.maps == nullptr) return;
  const auto regions = options_.processes->Executable(process, 0);
  std::vector<kernel::UnwindMaps::Mapping> mappings;
  if (regions) {
    mappings.reserve(regions->size());
    std::vector<std::string>& keys = published_[process];
    for (const ExecutableRegion& region : *regions) {
      Entry* entry;
      mappings.push_back(MappingOf(region, &entry));
      if (entry == nullptr) continue;
      if (entry->users.insert(process).second) keys.push_back(entry->key);
      // It ran on this machine before, and costs next to nothing now.
      if (entry->kind == PYRO_MAPPING_PENDING && region.binary && cache_.Has(region.binary->build_id()))
        WantEntry(*entry);
    }
  }
  // What finds no room is walked by frame pointers, and its samples say that the process is not known.
  (void)options_.maps->Publish(process, mappings, known_until_ns);
}

void Unwinding::Sync(uint64_t known_until_ns) {
  const std::vector<ProcessChange> changes = options_.processes->TakeChanges();
  const std::lock_guard lock(mutex_);
  std::set<ProcessKey> again;
  for (const std::string& key : ready_) {
    const auto entry = entries_.find(key);
    if (entry != entries_.end()) again.insert(entry->second.users.begin(), entry->second.users.end());
  }
  ready_.clear();
  for (const ProcessChange& change : changes) {
    switch (change.kind) {
      case ProcessChange::Kind::kEnded:
        Forget(change.process);
        again.erase(change.process);
        if (options_.maps != nullptr) options_.maps->Withdraw(change.process);
        break;
      case ProcessChange::Kind::kForked: {
        // The kernel has given the child its parent's; what users it has is all that is left to note.
        const auto parent = published_.find(change.parent);
        if (options_.maps != nullptr && parent != published_.end() && !again.contains(change.parent) &&
            options_.maps->Share(change.parent, change.process, change.time_ns)) {
          const std::vector<std::string> keys = parent->second;
          for (const std::string& key : keys) entries_[key].users.insert(change.process);
          published_[change.process] = keys;
          break;
        }
        again.insert(change.process);
        break;
      }
      case ProcessChange::Kind::kMappings:
        again.insert(change.process);
        break;
    }
  }
  for (const ProcessKey& process : again) Publish(process, known_until_ns);

  const uint64_t now_ns = MonotonicNowNs();
  if (now_ns < next_sweep_ns_) return;
  next_sweep_ns_ = now_ns + kNsPerSecond;
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    if (entry.kind == PYRO_MAPPING_OVER_LIMIT && now_ns >= entry.retry_ns) {
      entry.kind = PYRO_MAPPING_PENDING;
      ready_.insert(entry.key);
    }
    const bool idle = entry.users.empty() && !entry.wanted && entry.table == 0 && entry.own_table == nullptr;
    it = idle && entries_.size() > kMaxIdleEntries ? entries_.erase(it) : std::next(it);
  }
}

void Unwinding::Used(std::span<const std::shared_ptr<const process::Binary>> binaries) {
  const uint64_t now_ns = MonotonicNowNs();
  const std::lock_guard lock(mutex_);
  for (const auto& binary : binaries) {
    if (!binary) continue;
    if (const auto found = entries_.find(KeyOf(binary)); found != entries_.end()) found->second.used_ns = now_ns;
  }
  if (const auto vdso = entries_.find(kVdsoKey); vdso != entries_.end()) vdso->second.used_ns = now_ns;
}

// ---- walks -------------------------------------------------------------------------------------------------------

Unwinding::Stack Unwinding::Walk(const ProcessKey& process, uint64_t time_ns, const unwind::Registers& registers,
                                 std::string_view stack, uint32_t max_frames) {
  const unwind::StackCopy memory(registers.stack_start, stack);
  Stack result;
  // A second time when a look at /proc brought a mapping that was not known.
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto regions = options_.processes->Executable(process, time_ns);
    if (!regions || regions->empty()) {
      if (attempt > 0) break;
      (void)options_.processes->Resolve(process, VirtualAddress(registers.ip), time_ns);
      continue;
    }
    std::unique_lock lock(mutex_);
    std::vector<kernel::UnwindMaps::Mapping> mappings;
    std::vector<std::shared_ptr<const unwind::UnwindTable>> held;  // for as long as the walk lasts
    walker_.Clear();
    for (const ExecutableRegion& region : *regions) {
      Entry* entry;
      mappings.push_back(MappingOf(region, &entry));
      if (options_.maps != nullptr) continue;
      const kernel::UnwindMaps::Mapping& mapping = mappings.back();
      unwind::WalkMapping own{.start = mapping.start, .end = mapping.end, .kind = mapping.kind, .bias = mapping.bias};
      if (mapping.kind == PYRO_MAPPING_TABLE) {
        held.push_back(entry->own_table);
        own.table = entry->own_table.get();
      }
      walker_.Map(own);
    }
    const unwind::StackWalker::Result walked =
        options_.maps != nullptr
            ? walker_.Walk(registers, memory, max_frames, options_.maps->Entries(mappings), *options_.maps)
            : walker_.Walk(registers, memory, max_frames);
    result.frames = walked.frames;
    result.stop = walked.stop;
    result.means = walked.means | PYRO_BY_STACK_COPY;
    ++counters_.stacks_walked;
    if (walked.stop == PYRO_STOP_NO_TABLE) {
      for (const ExecutableRegion& region : *regions) {
        if (walked.stopped_at < region.start || walked.stopped_at.value > region.end.value) continue;
        Entry* entry;
        (void)MappingOf(region, &entry);
        if (entry == nullptr) continue;
        WantEntry(*entry);
        result.waiting = result.waiting || entry->wanted;
      }
    }
    if (walked.stop != PYRO_STOP_NO_MAPPING || attempt > 0) return result;
    lock.unlock();
    (void)options_.processes->Resolve(process, VirtualAddress(walked.stopped_at.value - 1), time_ns);
  }
  if (result.frames.empty()) result.stop = PYRO_STOP_NO_PROCESS;
  return result;
}

void Unwinding::Want(const ProcessKey& process, uint64_t time_ns, VirtualAddress address) {
  const process::ResolvedAddress where = options_.processes->Resolve(process, address, time_ns);
  if (where.kind != MappingKind::kFile && where.kind != MappingKind::kVdso) return;
  const std::lock_guard lock(mutex_);
  WantEntry(EntryOf(KeyOf(where.binary), where.binary));
}

void Unwinding::Prepare(const ProcessKey& process, uint64_t timeout_ns) {
  const auto regions = options_.processes->Executable(process, 0);
  if (!regions) return;
  {
    const std::lock_guard lock(mutex_);
    for (const ExecutableRegion& region : *regions) {
      if (region.kind == MappingKind::kAnonymous) continue;
      WantEntry(EntryOf(KeyOf(region.binary), region.binary));
    }
  }
  Finish(timeout_ns);
  Sync(MonotonicNowNs());
}

// ---- making tables -----------------------------------------------------------------------------------------------

StatusOr<unwind::UnwindTable> Unwinding::MakeTable(const std::string& key,
                                                   const std::shared_ptr<const process::Binary>& binary) {
  if (key == kVdsoKey) {
    ASSIGN_OR_RETURN(const symbolize::VdsoImage vdso, symbolize::OwnVdso());
    ASSIGN_OR_RETURN(const elf::ElfFile image, elf::ElfFile::FromBytes(vdso.source.image, kVdsoKey));
    return unwind::BuildUnwindTable(image, {});
  }
  const BuildId& build_id = binary->build_id();
  if (std::optional<unwind::UnwindTable> cached = cache_.Load(build_id)) {
    const std::lock_guard lock(mutex_);
    ++counters_.tables_loaded;
    return *std::move(cached);
  }
  ASSIGN_OR_RETURN(elf::SharedFd fd, binary->Open());
  ASSIGN_OR_RETURN(const elf::ElfFile file, elf::ElfFile::FromFd(std::move(fd), binary->path()));
  ASSIGN_OR_RETURN(unwind::UnwindTable table, unwind::BuildUnwindTable(file, {}));
  // Kept under this build ID only if the file has it: the kernel's word for another file's content would poison it.
  const StatusOr<BuildId> found = file.ReadBuildId();
  if (found.ok() && *found == build_id) (void)cache_.Store(build_id, table);
  const std::lock_guard lock(mutex_);
  ++counters_.tables_made;
  return table;
}

void Unwinding::Evict(uint64_t bytes) {
  const uint64_t now_ns = MonotonicNowNs();
  std::vector<Entry*> idle;
  for (auto& [key, entry] : entries_) {
    if (entry.kind == PYRO_MAPPING_TABLE && now_ns - entry.used_ns > kTableIdleNs) idle.push_back(&entry);
  }
  std::sort(idle.begin(), idle.end(), [](const Entry* a, const Entry* b) { return a->used_ns < b->used_ns; });
  uint64_t freed = 0;
  for (Entry* entry : idle) {
    if (freed >= bytes) break;
    freed += entry->bytes;
    // Its users are published anew within a poll; the memory is not given to others before that (kUnwindGraceNs).
    if (options_.maps != nullptr) options_.maps->RemoveTable(entry->table);
    own_bytes_ -= entry->own_table != nullptr ? entry->bytes : 0;
    entry->own_table = nullptr;
    entry->table = 0;
    entry->bytes = 0;
    entry->kind = PYRO_MAPPING_PENDING;
    ready_.insert(entry->key);
    ++counters_.tables_evicted;
  }
}

void Unwinding::Take(const std::string& key, StatusOr<unwind::UnwindTable> table) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  const uint64_t now_ns = MonotonicNowNs();
  entry.wanted = false;
  entry.used_ns = now_ns;
  entry.detail.clear();
  ready_.insert(key);
  if (!table.ok()) {
    entry.kind = PYRO_MAPPING_UNREADABLE;
    entry.retry_ns = now_ns + kTableRetryNs;
    entry.detail = std::string(Message(table.status()));
    ++counters_.tables_failed;
    return;
  }
  entry.stats = table->stats;
  if (table->parts.empty()) {
    entry.kind = PYRO_MAPPING_NO_INFO;
    entry.detail = "the file has no call frame information";
    return;
  }
  const uint64_t bytes = 4ull * table->word_count();
  Status room;
  if (options_.maps != nullptr) {
    StatusOr<kernel::UnwindMaps::TableId> id = options_.maps->AddTable(*table);
    if (id.ok()) {
      entry.table = *id;
      entry.bytes = options_.maps->TableBytes(*id);
    } else {
      room = id.status();
    }
  } else if (own_bytes_ + bytes > options_.max_bytes) {
    room = ResourceExhaustedError(StrFormat("unwind tables fill their %s", FormatBytes(options_.max_bytes)));
  } else {
    entry.own_table = std::make_shared<const unwind::UnwindTable>(*std::move(table));
    entry.bytes = bytes;
    own_bytes_ += bytes;
  }
  if (room.ok()) {
    entry.kind = PYRO_MAPPING_TABLE;
    return;
  }
  entry.kind = PYRO_MAPPING_OVER_LIMIT;
  entry.retry_ns = now_ns + kTableRetryNs;
  entry.detail = std::string(Message(room));
  ++counters_.tables_refused;
  Evict(bytes);
}

void Unwinding::BuildLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    building_ = false;
    if (queue_.empty()) queue_empty_.notify_all();
    queue_changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const std::string key = std::move(queue_.front());
    queue_.pop_front();
    const auto found = entries_.find(key);
    if (found == entries_.end()) continue;
    const std::shared_ptr<const process::Binary> binary = found->second.binary;
    building_ = true;
    lock.unlock();
    const uint64_t before_ns = ThreadCpuNs();
    StatusOr<unwind::UnwindTable> table = MakeTable(key, binary);
    const uint64_t spent_ns = ThreadCpuNs() - before_ns;
    lock.lock();
    counters_.build_ns += spent_ns;
    Take(key, std::move(table));
  }
}

void Unwinding::Finish(uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  queue_empty_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return queue_.empty() && !building_; });
}

Unwinding::BinaryState Unwinding::Describe(const std::shared_ptr<const process::Binary>& binary) {
  const std::string key = KeyOf(binary);
  {
    const std::lock_guard lock(mutex_);
    WantEntry(EntryOf(key, binary));
  }
  Finish(kTableRetryNs);
  const std::lock_guard lock(mutex_);
  const Entry& entry = entries_[key];
  return {.kind = entry.kind, .detail = entry.detail, .stats = entry.stats, .bytes = entry.bytes};
}

Unwinding::Counters Unwinding::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace pyrometer::agent

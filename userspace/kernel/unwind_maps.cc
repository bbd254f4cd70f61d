#include "userspace/kernel/unwind_maps.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "userspace/base/check.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/process/proc_text.h"

namespace pyrometer::kernel {
namespace {

using process::NsPerTick;
using unwind::UnwindRule;

constexpr std::string_view kWhat = "unwind tables";

// Every block is a multiple of this, so that the heap does not break into crumbs; 64 bytes, a cache line.
constexpr uint32_t kBlockWords = 16;
// Mappings may go this much over the budget: without them not even frame pointers can be checked.
constexpr uint32_t kExtraSegments = 2;

constexpr uint32_t RoundUp(uint32_t words) { return (words + kBlockWords - 1) / kBlockWords * kBlockWords; }

uint32_t Position(size_t segment, uint32_t word) { return static_cast<uint32_t>(segment) << PYRO_SEGMENT_SHIFT | word; }

UniqueFd CreateMap(bpf_map_type type, const char* name, uint32_t key_bytes, uint32_t value_bytes, uint32_t entries,
                   uint32_t flags, int inner = -1) {
  bpf_map_create_opts options;
  std::memset(&options, 0, sizeof(options));
  options.sz = sizeof(options);
  options.map_flags = flags;
  if (inner >= 0) options.inner_map_fd = static_cast<uint32_t>(inner);
  return UniqueFd(bpf_map_create(type, name, key_bytes, value_bytes, entries, &options));
}

// Kernels before 6.1 let perf_event programs use preallocated hash maps only. Found out by loading a program that uses
// one that is not.
bool TakesUnpreallocatedMaps() {
  const UniqueFd map =
      CreateMap(BPF_MAP_TYPE_HASH, "pyro_probe", sizeof(uint32_t), sizeof(uint32_t), 1, BPF_F_NO_PREALLOC);
  if (!map) return false;
  const auto insn = [](uint8_t code, uint8_t dst, uint8_t src, int16_t off, int32_t imm) {
    return bpf_insn{.code = code,
                    .dst_reg = static_cast<uint8_t>(dst & 15),
                    .src_reg = static_cast<uint8_t>(src & 15),
                    .off = off,
                    .imm = imm};
  };
  const bpf_insn program[] = {
      insn(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
      insn(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
      insn(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
      insn(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map.get()),
      insn(0, 0, 0, 0, 0),
      insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
      insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0),
      insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
  };
  const UniqueFd loaded(
      bpf_prog_load(BPF_PROG_TYPE_PERF_EVENT, "pyro_probe", "GPL", program, std::size(program), nullptr));
  return loaded.get() >= 0;
}

// Start times of one process may differ by a clock tick: /proc knows no better. 0 = not known.
bool OfDifferentProcesses(uint64_t a, uint64_t b) {
  return a != 0 && b != 0 && std::max(a, b) - std::min(a, b) > NsPerTick();
}

// What the kernel accounts for a map, from its fdinfo.
uint64_t MemoryOf(int fd) {
  const StatusOr<std::string> info = ReadFile(StrFormat("/proc/self/fdinfo/%d", fd), 4096);
  if (!info.ok()) return 0;
  constexpr std::string_view kLabel = "memlock:";
  const size_t at = info->find(kLabel);
  if (at == std::string::npos) return 0;
  std::string_view rest = std::string_view(*info).substr(at + kLabel.size());
  return ParseUint64(StripWhitespace(rest.substr(0, rest.find('\n')))).value_or(0);
}

}  // namespace

// A mmapable array of one value or of many.
class UnwindMaps::Memory {
 public:
  static StatusOr<std::unique_ptr<Memory>> Map(int fd, size_t bytes) {
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) return ErrnoError(errno, "cannot map the memory of unwind tables");
    return std::unique_ptr<Memory>(new Memory(address, bytes));
  }
  ~Memory() { munmap(address_, bytes_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  uint32_t* words() const { return static_cast<uint32_t*>(address_); }
  UnwindRule* rules() const { return static_cast<UnwindRule*>(address_); }

 private:
  Memory(void* address, size_t bytes) : address_(address), bytes_(bytes) {}
  void* address_;
  size_t bytes_;
};

UnwindMaps::Array::~Array() {
  if (owner != nullptr) owner->Free(position, words);
}

size_t UnwindMaps::RuleHash::operator()(const UnwindRule& rule) const {
  uint64_t words[2];
  std::memcpy(words, &rule, sizeof(words));
  return static_cast<size_t>((words[0] * 0x9E3779B97F4A7C15u) ^ (words[1] * 0xC2B2AE3D27D4EB4Fu));
}
bool UnwindMaps::RuleEqual::operator()(const UnwindRule& a, const UnwindRule& b) const {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

StatusOr<std::shared_ptr<UnwindMaps>> UnwindMaps::Create(const Options& options) {
  std::shared_ptr<UnwindMaps> maps(new UnwindMaps(options));
  maps->max_segments_ = static_cast<uint32_t>(
      std::clamp<uint64_t>(options.max_bytes / PYRO_SEGMENT_BYTES, 1, (1u << (32 - PYRO_SEGMENT_SHIFT)) - 8));
  BpfLog log;
  const UniqueFd shape =
      CreateMap(BPF_MAP_TYPE_ARRAY, "pyro_segment", sizeof(uint32_t), PYRO_SEGMENT_BYTES, 1, BPF_F_MMAPABLE);
  if (!shape) return BpfError(errno, kWhat, "create the maps of", log);
  maps->segments_fd_ = CreateMap(BPF_MAP_TYPE_ARRAY_OF_MAPS, "pyro_segments", sizeof(uint32_t), sizeof(uint32_t),
                                 maps->max_segments_ + kExtraSegments, 0, shape.get());
  if (!maps->segments_fd_) return BpfError(errno, kWhat, "create the maps of", log);
  maps->rules_fd_ = CreateMap(BPF_MAP_TYPE_ARRAY, "pyro_rules", sizeof(uint32_t), sizeof(UnwindRule),
                              PYRO_MAX_UNWIND_RULES, BPF_F_MMAPABLE);
  if (!maps->rules_fd_) return BpfError(errno, kWhat, "create the maps of", log);
  // Kernels before 6.1 refuse maps without preallocation to perf_event programs; then a smaller one, paid in advance.
  constexpr uint32_t kPreallocated = 16'384;
  const bool preallocate = !TakesUnpreallocatedMaps();
  maps->processes_fd_ = CreateMap(BPF_MAP_TYPE_HASH, "pyro_processes", sizeof(uint32_t), sizeof(pyro_unwind_process),
                                  preallocate ? std::min(kPreallocated, options.max_processes) : options.max_processes,
                                  preallocate ? 0 : BPF_F_NO_PREALLOC);
  if (!maps->processes_fd_) return BpfError(errno, kWhat, "create the maps of", log);
  ASSIGN_OR_RETURN(maps->rules_memory_, Memory::Map(maps->rules_fd_.get(), PYRO_MAX_UNWIND_RULES * sizeof(UnwindRule)));
  // A stamp of 0 is never given out. Not guessable from an array of other words either.
  maps->next_stamp_ = (options.now_ns() * 0x9E3779B97F4A7C15u) | 1;
  const std::lock_guard lock(maps->mutex_);
  if (!maps->MakeSegment()) return BpfError(errno, kWhat, "create the memory of", log);
  maps->free_[0].erase(0);
  maps->free_[0].emplace(kBlockWords, PYRO_SEGMENT_WORDS - kBlockWords);  // position 0 means "none"
  return maps;
}

UnwindMaps::UnwindMaps(const Options& options) : options_(options) {}

UnwindMaps::~UnwindMaps() {
  for (auto& [tgid, process] : processes_) {
    if (process.array) process.array->owner = nullptr;
  }
}

// ---- memory, with the lock --------------------------------------------------------------------------------------

uint32_t* UnwindMaps::WordsAt(uint32_t position) {
  return segments_[position >> PYRO_SEGMENT_SHIFT]->words() + (position & (PYRO_SEGMENT_WORDS - 1));
}

bool UnwindMaps::MakeSegment() {
  const UniqueFd fd =
      CreateMap(BPF_MAP_TYPE_ARRAY, "pyro_segment", sizeof(uint32_t), PYRO_SEGMENT_BYTES, 1, BPF_F_MMAPABLE);
  if (!fd) return false;
  StatusOr<std::unique_ptr<Memory>> memory = Memory::Map(fd.get(), PYRO_SEGMENT_BYTES);
  if (!memory.ok()) return false;
  const auto number = static_cast<uint32_t>(segments_.size());
  const int inner = fd.get();
  if (bpf_map_update_elem(segments_fd_.get(), &number, &inner, BPF_ANY) != 0) return false;
  segments_.push_back(*std::move(memory));
  free_.push_back({{0, PYRO_SEGMENT_WORDS}});
  return true;
}

uint32_t UnwindMaps::Allocate(uint32_t words, bool for_mappings) {
  words = RoundUp(words);
  if (words > PYRO_SEGMENT_WORDS) return 0;
  Reap();
  while (true) {
    for (size_t segment = 0; segment < free_.size(); ++segment) {
      for (auto block = free_[segment].begin(); block != free_[segment].end(); ++block) {
        if (block->second < words) continue;
        const auto [start, size] = *block;
        free_[segment].erase(block);
        if (size > words) free_[segment].emplace(start + words, size - words);
        used_words_ += words;
        return Position(segment, start);
      }
    }
    if (segments_.size() >= max_segments_ + (for_mappings ? kExtraSegments : 0) || !MakeSegment()) return 0;
  }
}

void UnwindMaps::Free(uint32_t position, uint32_t words) {
  words = RoundUp(words);
  used_words_ -= words;
  waiting_words_ += words;
  freed_.push_back({options_.now_ns(), position, words});
}

void UnwindMaps::FreeNow(uint32_t position, uint32_t words) {
  auto& blocks = free_[position >> PYRO_SEGMENT_SHIFT];
  uint32_t start = position & (PYRO_SEGMENT_WORDS - 1);
  auto next = blocks.lower_bound(start);
  if (next != blocks.end() && next->first == start + words) {
    words += next->second;
    next = blocks.erase(next);
  }
  if (next != blocks.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == start) {
      start = before->first;
      words += before->second;
      blocks.erase(before);
    }
  }
  blocks[start] = words;
}

void UnwindMaps::Reap() {
  const uint64_t now_ns = options_.now_ns();
  while (!freed_.empty() && now_ns - freed_.front().since_ns >= kUnwindGraceNs) {
    const Freed& freed = freed_.front();
    if (freed.words == 0) {
      free_rules_.push_back(freed.position);
    } else {
      // Whoever still has an entry that leads here finds no stamp.
      std::memset(WordsAt(freed.position), 0, PYRO_STAMP_WORDS * sizeof(uint32_t));
      waiting_words_ -= freed.words;
      FreeNow(freed.position, freed.words);
    }
    freed_.pop_front();
  }
}

// ---- tables ----------------------------------------------------------------------------------------------------

StatusOr<uint32_t> UnwindMaps::ReferRule(const UnwindRule& rule) {
  if (const auto found = rule_numbers_.find(rule); found != rule_numbers_.end()) {
    ++rule_references_[found->second];
    return found->second;
  }
  Reap();
  uint32_t number;
  if (!free_rules_.empty()) {
    number = free_rules_.back();
    free_rules_.pop_back();
  } else if (rule_references_.size() < PYRO_MAX_UNWIND_RULES) {
    number = static_cast<uint32_t>(rule_references_.size());
    rule_references_.push_back(0);
  } else {
    return ResourceExhaustedError(StrFormat("more than %d distinct unwind rules", PYRO_MAX_UNWIND_RULES));
  }
  rules_memory_->rules()[number] = rule;
  rule_references_[number] = 1;
  rule_numbers_.emplace(rule, number);
  return number;
}

void UnwindMaps::DropRule(uint32_t number) {
  if (--rule_references_[number] != 0) return;
  rule_numbers_.erase(rules_memory_->rules()[number]);
  freed_.push_back({options_.now_ns(), number, 0});
}

void UnwindMaps::DropTable(const Table& table) {
  for (size_t i = 0; i < table.positions.size(); ++i) Free(table.positions[i], table.word_counts[i]);
  for (const uint32_t number : table.rules) DropRule(number);
}

StatusOr<UnwindMaps::TableId> UnwindMaps::AddTable(const unwind::UnwindTable& table) {
  if (table.parts.empty()) return InvalidArgumentError("an unwind table without parts");
  const std::lock_guard lock(mutex_);
  Table added;
  added.shape.rules.push_back(table.rules.front());
  added.rules.reserve(table.rules.size());
  Status failure;
  for (const UnwindRule& rule : table.rules) {
    StatusOr<uint32_t> number = ReferRule(rule);
    if (!number.ok()) {
      failure = number.status();
      break;
    }
    added.rules.push_back(*number);
  }
  for (const unwind::UnwindPart& part : table.parts) {
    if (!failure.ok()) break;
    const auto words = static_cast<uint32_t>(part.words.size());
    const uint32_t position = Allocate(words, false);
    if (position == 0) {
      failure = ResourceExhaustedError(StrFormat("unwind tables fill their %s (--unwind-memory)",
                                                 FormatBytes(uint64_t{max_segments_} * PYRO_SEGMENT_BYTES)));
      break;
    }
    added.positions.push_back(position);
    added.word_counts.push_back(words);
    uint32_t* to = WordsAt(position);
    const uint32_t index_words = part.pages + 1;
    for (uint32_t i = 0; i < index_words; ++i) to[i] = position + part.words[i];
    for (uint32_t i = index_words; i < words; ++i) {
      to[i] = (part.words[i] & 0xffff0000u) | added.rules[part.words[i] & 0xffffu];
    }
    unwind::UnwindPart shape;
    shape.base = part.base;
    shape.pages = part.pages;
    added.shape.parts.push_back(std::move(shape));
  }
  if (!failure.ok()) {
    ++counted_.refused_tables;
    DropTable(added);
    return failure;
  }
  const TableId id = next_table_++;
  tables_.emplace(id, std::move(added));
  return id;
}

void UnwindMaps::RemoveTable(TableId id) {
  const std::lock_guard lock(mutex_);
  const auto found = tables_.find(id);
  if (found == tables_.end()) return;
  DropTable(found->second);
  tables_.erase(found);
}

uint64_t UnwindMaps::TableBytes(TableId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = tables_.find(id);
  if (found == tables_.end()) return 0;
  uint64_t bytes = 0;
  for (const uint32_t words : found->second.word_counts) bytes += 4ull * RoundUp(words);
  return bytes;
}

// ---- processes ---------------------------------------------------------------------------------------------------

void UnwindMaps::Cut(std::span<const Mapping> mappings, std::vector<pyro_unwind_mapping>* entries) const {
  entries->reserve(mappings.size() + 2);
  for (const Mapping& mapping : mappings) {
    unwind::WalkMapping walk{.start = mapping.start, .end = mapping.end, .kind = mapping.kind, .bias = mapping.bias};
    const Table* table = nullptr;
    if (mapping.kind == PYRO_MAPPING_TABLE) {
      const auto found = tables_.find(mapping.table);
      // Removed meanwhile: as before it was loaded.
      if (found == tables_.end()) {
        walk.kind = PYRO_MAPPING_PENDING;
      } else {
        table = &found->second;
        walk.table = &table->shape;
      }
    }
    unwind::ForEachPiece(walk, [&](pyro_unwind_mapping piece, size_t part) {
      if (piece.kind == PYRO_MAPPING_TABLE) piece.table = table->positions[part];
      entries->push_back(piece);
    });
  }
}

std::vector<pyro_unwind_mapping> UnwindMaps::Entries(std::span<const Mapping> mappings) const {
  std::vector<pyro_unwind_mapping> entries;
  const std::lock_guard lock(mutex_);
  Cut(mappings, &entries);
  return entries;
}

Status UnwindMaps::Publish(const ProcessKey& process, std::span<const Mapping> mappings, uint64_t known_until_ns) {
  const std::lock_guard lock(mutex_);
  std::vector<pyro_unwind_mapping> entries;
  Cut(mappings, &entries);
  if (entries.size() > PYRO_MAX_UNWIND_MAPPINGS) entries.resize(PYRO_MAX_UNWIND_MAPPINGS);

  pyro_unwind_process now{};
  if (bpf_map_lookup_elem(processes_fd_.get(), &process.tgid, &now) == 0) {
    if (OfDifferentProcesses(now.start_time_ns, process.start_time_ns) || now.exec_ns > known_until_ns) {
      ++counted_.outdated;
      return OkStatus();
    }
  }
  Process& known = processes_[process.tgid];
  const auto words = static_cast<uint32_t>(PYRO_STAMP_WORDS + entries.size() * PYRO_MAPPING_WORDS);
  const uint32_t position = entries.empty() ? 0 : Allocate(words, true);
  if (position == 0) {
    bpf_map_delete_elem(processes_fd_.get(), &process.tgid);
    processes_.erase(process.tgid);
    if (entries.empty()) return OkStatus();
    ++counted_.refused_arrays;
    return ResourceExhaustedError(StrFormat("no room for the %d mappings of process %d", entries.size(), process.tgid));
  }
  auto array = std::make_shared<Array>();
  array->position = position;
  array->words = words;
  array->owner = this;

  next_stamp_ += 0x9E3779B97F4A7C16u;  // even: stays odd
  uint32_t* to = WordsAt(position);
  std::memcpy(to + PYRO_STAMP_WORDS, entries.data(), entries.size() * sizeof(entries[0]));
  std::memcpy(to, &next_stamp_, sizeof(next_stamp_));
  std::atomic_thread_fence(std::memory_order_seq_cst);
  pyro_unwind_process entry{};
  entry.stamp = next_stamp_;
  entry.start_time_ns = process.start_time_ns;
  entry.exec_ns = now.exec_ns;
  entry.mappings = position + PYRO_STAMP_WORDS;
  entry.count = static_cast<uint32_t>(entries.size());
  // Known to a clock tick only: the kernel would find it different.
  if (process.start_time_ns % NsPerTick() == 0) entry.start_time_ns = now.start_time_ns;
  if (bpf_map_update_elem(processes_fd_.get(), &process.tgid, &entry, BPF_ANY) != 0) {
    const int error = errno;
    processes_.erase(process.tgid);
    ++counted_.refused_arrays;
    return ErrnoError(error, StrFormat("cannot publish the mappings of process %d", process.tgid));
  }
  known.start_time_ns = process.start_time_ns;
  known.since_ns = options_.now_ns();
  known.array = std::move(array);
  ++counted_.publications;
  return OkStatus();
}

bool UnwindMaps::Share(const ProcessKey& parent, const ProcessKey& child, uint64_t fork_ns) {
  const std::lock_guard lock(mutex_);
  const auto found = processes_.find(parent.tgid);
  if (found == processes_.end() || found->second.since_ns >= fork_ns || !found->second.array) return false;
  pyro_unwind_process entry{};
  if (bpf_map_lookup_elem(processes_fd_.get(), &child.tgid, &entry) != 0) return false;
  if (entry.mappings != found->second.array->position + PYRO_STAMP_WORDS) return false;
  Process copy = found->second;
  copy.start_time_ns = child.start_time_ns;
  processes_[child.tgid] = std::move(copy);
  return true;
}

void UnwindMaps::Withdraw(const ProcessKey& process) {
  const std::lock_guard lock(mutex_);
  const auto found = processes_.find(process.tgid);
  if (found == processes_.end()) return;
  if (OfDifferentProcesses(found->second.start_time_ns, process.start_time_ns)) return;
  // The kernel has removed the entry at exit, unless we wrote it again after; a new process's is left alone.
  pyro_unwind_process entry{};
  if (bpf_map_lookup_elem(processes_fd_.get(), &process.tgid, &entry) == 0 &&
      entry.mappings == found->second.array->position + PYRO_STAMP_WORDS) {
    bpf_map_delete_elem(processes_fd_.get(), &process.tgid);
  }
  processes_.erase(found);
}

// ---- others ------------------------------------------------------------------------------------------------------

const uint32_t* UnwindMaps::Segment(uint32_t segment) const {
  const std::lock_guard lock(mutex_);
  return segment < segments_.size() ? segments_[segment]->words() : nullptr;
}

const UnwindRule* UnwindMaps::Rule(uint32_t id) const {
  return id < PYRO_MAX_UNWIND_RULES ? &rules_memory_->rules()[id] : nullptr;
}

UnwindMaps::Stats UnwindMaps::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = counted_;
  stats.segment_bytes = uint64_t{segments_.size()} * PYRO_SEGMENT_BYTES;
  stats.used_bytes = 4 * used_words_;
  stats.waiting_bytes = 4 * waiting_words_;
  stats.fixed_bytes = MemoryOf(rules_fd_.get()) + MemoryOf(segments_fd_.get()) + MemoryOf(processes_fd_.get());
  stats.tables = tables_.size();
  stats.rules = rule_numbers_.size();
  stats.processes = processes_.size();
  return stats;
}

Status UnwindMaps::Install(bpf_map* processes, bpf_map* segments, bpf_map* rules) const {
  for (const auto& [map, fd] :
       {std::pair(processes, &processes_fd_), std::pair(segments, &segments_fd_), std::pair(rules, &rules_fd_)}) {
    if (map == nullptr) continue;
    if (const int error = bpf_map__reuse_fd(map, fd->get()); error != 0) {
      return ErrnoError(-error, StrFormat("cannot share the map %s", bpf_map__name(map)));
    }
  }
  return OkStatus();
}

Status UnwindMaps::SizeForCpus(bpf_map* records) {
  ASSIGN_OR_RETURN(const size_t cpus, PossibleCpus());
  const int error = bpf_map__set_max_entries(records, static_cast<uint32_t>(cpus));
  return error == 0 ? OkStatus() : ErrnoError(-error, "cannot size the map of stack records");
}

Status UnwindMaps::Shrink(bpf_map* rules) {
  const int error = bpf_map__set_max_entries(rules, 1);
  return error == 0 ? OkStatus() : ErrnoError(-error, "cannot size the map of unwind rules");
}

}  // namespace pyrometer::kernel

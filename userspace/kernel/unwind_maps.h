// The memory that the stack walk in the kernel reads (bpf/abi/unwind.h): unwind tables of binaries, mappings of
// processes. Shared by all probes that walk stacks.
//
//   ASSIGN_OR_RETURN(auto maps, UnwindMaps::Create({.max_bytes = 128 << 20}));
//   ASSIGN_OR_RETURN(UnwindMaps::TableId libc, maps->AddTable(table));
//   maps->Publish(process, {{.start = …, .end = …, .kind = PYRO_MAPPING_TABLE, .table = libc, .bias = …}},
//   known_until); auto sampler = CpuSampler::Start({.unwind = maps});
//
// Who calls: userspace/agent/unwinding.h decides what is loaded and what makes room. Here is only the memory: segments
// of 4 MiB, made when they are needed and kept, inside them first fit. Nothing that the kernel may still read is
// reused: freed words and rules wait for kUnwindGraceNs.
//
// A process's mappings are one array, replaced as a whole. The entry that leads to it carries the array's stamp and the
// process's start time, so that a walk which reads an old entry, or the entry of a process number that was given
// again, stops instead of believing it. Fork and exec change entries inside the kernel, at once (process_events.bpf.c):
// Publish does not overwrite what an exec did after `known_until_ns`.
//
// Threads: all methods from any; one mutex. Cost: a table costs a copy of its words (libLLVM-14: 4 MiB, 3 ms), a
// process's mappings two system calls and 32 bytes each; memory as above, 1 MiB for rules, ~100 bytes a process.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/owned.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/unwind/stack_walker.h"
#include "userspace/unwind/unwind_table.h"

struct bpf_map;

namespace pyrometer::kernel {

// A walk takes microseconds, a fork that copied an entry is told within a second. Far above both.
inline constexpr uint64_t kUnwindGraceNs = 10 * kNsPerSecond;

class UnwindMaps final : public unwind::TableMemory {
 public:
  struct Options {
    uint64_t max_bytes = 128u << 20;  // of segments; at least one. Tables that do not fit are refused, never cut
    uint32_t max_processes = 65'536;
    std::function<uint64_t()> now_ns = MonotonicNowNs;
  };
  using TableId = uint32_t;  // 0 = none
  struct Mapping {
    VirtualAddress start;  // end is exclusive
    VirtualAddress end;
    pyro_mapping_kind kind = PYRO_MAPPING_UNREADABLE;
    TableId table = 0;  // for PYRO_MAPPING_TABLE
    uint64_t bias = 0;  // virtual address - ELF address
  };
  struct Stats {
    uint64_t segment_bytes = 0;  // made so far; kernel memory
    uint64_t used_bytes = 0;     // of them, by tables and mappings
    uint64_t waiting_bytes = 0;  // freed, in their grace time
    uint64_t fixed_bytes = 0;    // rules, and the map of processes as the kernel accounts for it
    size_t tables = 0;
    size_t rules = 0;             // distinct
    size_t processes = 0;         // with mappings published
    uint64_t publications = 0;    // arrays written since the start
    uint64_t outdated = 0;        // publications that an exec had overtaken
    uint64_t refused_tables = 0;  // for max_bytes
    uint64_t refused_arrays = 0;  // for max_bytes
  };

  // PERMISSION_DENIED as for any probe; FAILED_PRECONDITION when the kernel has no such maps.
  static StatusOr<std::shared_ptr<UnwindMaps>> Create(const Options& options);
  ~UnwindMaps() override;

  // RESOURCE_EXHAUSTED when there is no room; INVALID_ARGUMENT for a table without parts.
  StatusOr<TableId> AddTable(const unwind::UnwindTable& table);
  // Nobody may publish it any more; mappings published with it must be replaced before.
  void RemoveTable(TableId table);
  // Bytes of its words.
  uint64_t TableBytes(TableId table) const;

  // Replaces a process's mappings: ascending, disjoint. `known_until_ns` (CLOCK_MONOTONIC): what happened in the
  // process up to then is in them. RESOURCE_EXHAUSTED: there is no room, and the process has none now.
  Status Publish(const ProcessKey& process, std::span<const Mapping> mappings, uint64_t known_until_ns);
  // The child has its parent's mappings: its entry was copied by the kernel at `fork_ns`. False when the parent's were
  // replaced since, or are not known: the child needs a Publish of its own.
  bool Share(const ProcessKey& parent, const ProcessKey& child, uint64_t fork_ns);
  // The process ended.
  void Withdraw(const ProcessKey& process);
  // The entries of a list of mappings as the walk reads them, for a walk in user space.
  std::vector<pyro_unwind_mapping> Entries(std::span<const Mapping> mappings) const;

  Stats stats() const;

  // unwind::TableMemory: the same memory, for walks in user space. Threads: any, while no table in use is removed.
  const uint32_t* Segment(uint32_t segment) const override;
  const unwind::UnwindRule* Rule(uint32_t id) const override;

  // For loaders: makes the maps of an object that is open but not loaded these here.
  Status Install(bpf_map* processes, bpf_map* segments, bpf_map* rules) const;
  // For objects that do without: their own map of rules gets one entry.
  static Status Shrink(bpf_map* rules);
  // An entry for each CPU there can be.
  static Status SizeForCpus(bpf_map* records);

 private:
  class Memory;  // a map's mmap
  struct Table {
    unwind::UnwindTable shape;        // parts without words, to cut mappings with
    std::vector<uint32_t> positions;  // of the parts
    std::vector<uint32_t> word_counts;
    std::vector<uint32_t> rules;  // global numbers, one reference each
  };
  struct Array {
    uint32_t position = 0;
    uint32_t words = 0;
    ~Array();
    UnwindMaps* owner = nullptr;
  };
  struct Process {
    uint64_t start_time_ns = 0;
    uint64_t since_ns = 0;  // when its array was published
    std::shared_ptr<Array> array;
  };
  struct Freed {
    uint64_t since_ns;
    uint32_t position;  // words == 0: a rule's number
    uint32_t words;
  };
  struct RuleHash {
    size_t operator()(const unwind::UnwindRule& rule) const;
  };
  struct RuleEqual {
    bool operator()(const unwind::UnwindRule& a, const unwind::UnwindRule& b) const;
  };

  explicit UnwindMaps(const Options& options);

  // With mutex_ held. Position 0 = no room.
  uint32_t Allocate(uint32_t words, bool for_mappings);
  void Free(uint32_t position, uint32_t words);
  void FreeNow(uint32_t position, uint32_t words);
  void Reap();
  bool MakeSegment();
  StatusOr<uint32_t> ReferRule(const unwind::UnwindRule& rule);
  void DropRule(uint32_t number);
  void DropTable(const Table& table);
  void Cut(std::span<const Mapping> mappings, std::vector<pyro_unwind_mapping>* entries) const;
  uint32_t* WordsAt(uint32_t position);

  const Options options_;
  UniqueFd processes_fd_, segments_fd_, rules_fd_;
  uint32_t max_segments_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Memory>> segments_;
  std::unique_ptr<Memory> rules_memory_;
  std::vector<std::map<uint32_t, uint32_t>> free_;  // per segment: word -> words, coalesced
  std::deque<Freed> freed_;                         // oldest first
  std::unordered_map<TableId, Table> tables_;
  TableId next_table_ = 1;
  std::unordered_map<unwind::UnwindRule, uint32_t, RuleHash, RuleEqual> rule_numbers_;
  std::vector<uint32_t> rule_references_;
  std::vector<uint32_t> free_rules_;
  std::unordered_map<uint32_t, Process> processes_;  // by tgid
  uint64_t next_stamp_ = 0;
  uint64_t used_words_ = 0, waiting_words_ = 0;
  Stats counted_;
};

// Gives a skeleton of a probe that walks stacks these maps, or (null) a walk by frame pointers alone.
template <typename Skeleton>
Status ShareUnwindMaps(const UnwindMaps* maps, uint32_t raw_stack_bytes, Skeleton& skeleton) {
  RETURN_IF_ERROR(UnwindMaps::SizeForCpus(skeleton.maps.pyro_stack_records));
  if (maps == nullptr) return UnwindMaps::Shrink(skeleton.maps.pyro_unwind_rules);
  skeleton.rodata->pyro_unwind_tables = 1;
  skeleton.rodata->pyro_raw_stack_bytes = raw_stack_bytes;
  return maps->Install(skeleton.maps.pyro_unwind_processes, skeleton.maps.pyro_unwind_segments,
                       skeleton.maps.pyro_unwind_rules);
}

}  // namespace pyrometer::kernel

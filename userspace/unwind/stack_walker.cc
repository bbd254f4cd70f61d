#include "userspace/unwind/stack_walker.h"

#include <algorithm>
#include <cstring>

#include "bpf/lib/stack_walk.h"

namespace pyrometer::unwind {
namespace {

// What the functions that bpf/lib/stack_walk.h calls answer from, during a walk on this thread.
struct Environment {
  const UserMemory* memory = nullptr;
  const uint32_t* mappings = nullptr;
  const TableMemory* shared = nullptr;  // else `segments`
  const std::vector<std::pair<const UnwindTable*, size_t>>* segments = nullptr;
  const UnwindTable* table = nullptr;  // of the segment asked for last: a rule's number is local to its table
};
thread_local Environment* environment = nullptr;

// No memory of tables has so many segments: the position of the mappings of a walk in user space.
constexpr uint32_t kMappingSegment = (1u << (32 - PYRO_SEGMENT_SHIFT)) - 1;
constexpr uint32_t kMappingPosition = (kMappingSegment << PYRO_SEGMENT_SHIFT) + PYRO_STAMP_WORDS;

}  // namespace

bool StackCopy::Read(uint64_t address, std::span<char> out) const {
  if (address < start_ || out.size() > bytes_.size() || address - start_ > bytes_.size() - out.size()) return false;
  std::memcpy(out.data(), bytes_.data() + (address - start_), out.size());
  return true;
}

StackWalker::StackWalker() : walk_(std::make_unique<pyro_walk>()) { Clear(); }
StackWalker::~StackWalker() = default;

void StackWalker::Clear() {
  mapping_words_.assign(PYRO_STAMP_WORDS, 0);
  segments_.clear();
}

void StackWalker::Map(const WalkMapping& mapping) {
  ForEachPiece(mapping, [&](const pyro_unwind_mapping& piece, size_t part) {
    pyro_unwind_mapping entry = piece;
    if (entry.kind == PYRO_MAPPING_TABLE) {
      segments_.emplace_back(mapping.table, part);
      entry.table = static_cast<uint32_t>(segments_.size()) << PYRO_SEGMENT_SHIFT;
    }
    const size_t at = mapping_words_.size();
    mapping_words_.resize(at + PYRO_MAPPING_WORDS);
    std::memcpy(mapping_words_.data() + at, &entry, sizeof(entry));
  });
}

StackWalker::Result StackWalker::Run(const Registers& registers, uint32_t max_frames, uint32_t mapping_count) {
  pyro_user_regs regs{};
  regs.raw = registers;
  pyro_walk* walk = walk_.get();
  if (pyro_walk_begin(walk, &regs, max_frames, kMappingPosition, mapping_count) == 0) pyro_walk_on(walk);
  pyro_end_at_stack_end(walk, &regs);
  environment = nullptr;
  static_assert(sizeof(__u64) == sizeof(uint64_t));
  Result result;
  result.frames = {reinterpret_cast<const uint64_t*>(walk->frames), walk->count};
  result.stop = static_cast<pyro_stop_reason>(walk->stop);
  result.means = walk->means;
  result.stopped_at = VirtualAddress(walk->ip);
  return result;
}

StackWalker::Result StackWalker::Walk(const Registers& registers, const UserMemory& memory, uint32_t max_frames) {
  Environment here{.memory = &memory, .mappings = mapping_words_.data(), .segments = &segments_};
  environment = &here;
  return Run(registers, max_frames,
             static_cast<uint32_t>((mapping_words_.size() - PYRO_STAMP_WORDS) / PYRO_MAPPING_WORDS));
}

StackWalker::Result StackWalker::Walk(const Registers& registers, const UserMemory& memory, uint32_t max_frames,
                                      std::span<const pyro_unwind_mapping> mappings, const TableMemory& tables) {
  shared_words_.resize(PYRO_STAMP_WORDS + mappings.size() * PYRO_MAPPING_WORDS);
  std::memcpy(shared_words_.data() + PYRO_STAMP_WORDS, mappings.data(), mappings.size_bytes());
  Environment here{.memory = &memory, .mappings = shared_words_.data(), .shared = &tables};
  environment = &here;
  return Run(registers, max_frames, static_cast<uint32_t>(mappings.size()));
}

}  // namespace pyrometer::unwind

// ---- what bpf/lib/stack_walk.h asks for -------------------------------------------------------------------------

long pyro_native_read_user(void* to, __u32 bytes, __u64 from) {
  return pyrometer::unwind::environment->memory->Read(from, {static_cast<char*>(to), bytes}) ? 0 : -14;
}

const __u32* pyro_native_segment(__u32 segment) {
  auto* here = pyrometer::unwind::environment;
  if (segment == pyrometer::unwind::kMappingSegment) return here->mappings;
  if (here->shared != nullptr) return here->shared->Segment(segment);
  if (segment == 0 || segment > here->segments->size()) return nullptr;
  const auto& [table, part] = (*here->segments)[segment - 1];
  here->table = table;
  return table->parts[part].words.data();
}

const struct pyro_unwind_rule* pyro_native_rule(__u32 id) {
  const auto* here = pyrometer::unwind::environment;
  if (here->shared != nullptr) return here->shared->Rule(id);
  return here->table != nullptr && id < here->table->rules.size() ? &here->table->rules[id] : nullptr;
}

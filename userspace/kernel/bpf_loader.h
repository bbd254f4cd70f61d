// What the probes' loaders share: errors in plain words, owners of libbpf handles, map sizes. Internal to kernel/.
//
// libbpf's own messages never reach stderr: while a BpfLog lives on a thread, they are collected there, and the
// verifier's last lines end up in the Status.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bpf/abi/types.h"
#include "userspace/base/owned.h"
#include "userspace/base/status.h"

namespace pyrometer::kernel {

// Collects what libbpf prints on this thread during its lifetime. The innermost one gets it.
class BpfLog {
 public:
  BpfLog();
  ~BpfLog();
  BpfLog(const BpfLog&) = delete;
  BpfLog& operator=(const BpfLog&) = delete;

  // The last lines that say something about a failure, joined by " | ".
  std::string Tail() const;

 private:
  std::string text_;
  std::string* const outer_;
};

// Why loading or attaching `probe` failed. `error` is an errno, positive.
Status BpfError(int error, std::string_view probe, std::string_view action, const BpfLog& log);

struct BpfLinkTraits {
  using Handle = bpf_link*;
  static bpf_link* Invalid() { return nullptr; }
  static void Close(bpf_link* link) { bpf_link__destroy(link); }
};
using UniqueBpfLink = Owned<BpfLinkTraits>;

struct RingBufferTraits {
  using Handle = ring_buffer*;
  static ring_buffer* Invalid() { return nullptr; }
  static void Close(ring_buffer* ring) { ring_buffer__free(ring); }
};
using UniqueRingBuffer = Owned<RingBufferTraits>;

// Owner of a skeleton; `Destroy` is NAME_bpf__destroy.
template <typename Skeleton, void (*Destroy)(Skeleton*)>
struct SkeletonDeleter {
  void operator()(Skeleton* skeleton) const { Destroy(skeleton); }
};
template <typename Skeleton, void (*Destroy)(Skeleton*)>
using UniqueSkeleton = std::unique_ptr<Skeleton, SkeletonDeleter<Skeleton, Destroy>>;

// Smallest power of two ≥ `bytes`, and ≥ the page size, as ring buffer maps need; at most 1 GiB.
uint32_t RingBytes(uint32_t bytes);

// Number of values that a read of a per-CPU map returns.
StatusOr<size_t> PossibleCpus();

// Sums key 0 of a per-CPU array whose value is a struct of u64 members only.
template <typename Counters>
Counters SumPerCpu(const bpf_map* map) {
  static_assert(sizeof(Counters) % sizeof(uint64_t) == 0);
  constexpr size_t kWords = sizeof(Counters) / sizeof(uint64_t);
  Counters sum{};
  const StatusOr<size_t> cpus = PossibleCpus();
  if (!cpus.ok()) return sum;
  std::vector<uint64_t> values(kWords * *cpus);
  const uint32_t zero = 0;
  if (bpf_map_lookup_elem(bpf_map__fd(map), &zero, values.data()) != 0) return sum;
  auto* words = reinterpret_cast<uint64_t*>(&sum);
  for (size_t i = 0; i < values.size(); ++i) words[i % kWords] += values[i];
  return sum;
}

// Opens, lets `configure` (which returns a Status) set constants and sizes, loads. The result is loaded, nothing is
// attached.
template <typename Owner, typename Open, typename Load, typename Configure>
StatusOr<Owner> LoadSkeleton(std::string_view probe, Open open, Load load, Configure configure) {
  BpfLog log;
  Owner skeleton(open());
  if (!skeleton) return BpfError(errno, probe, "open", log);
  if (skeleton->rodata->pyro_abi_version != PYRO_ABI_VERSION) {
    return InternalError(std::string(probe) +
                         ": the BPF object was built from other headers; build again from scratch");
  }
  RETURN_IF_ERROR(configure(*skeleton));
  if (const int error = load(skeleton.get()); error != 0) return BpfError(-error, probe, "load", log);
  return skeleton;
}

// Number of arguments of each of these BTF tracepoints; 0 when the kernel has none of this name. Reads the kernel's
// types: some 10 ms, whatever the number of names.
std::vector<int> TracepointArguments(const std::vector<std::string>& names);

// Attaches a tracing program to the tracepoint that its section names.
StatusOr<UniqueBpfLink> AttachProgram(const bpf_program* program, std::string_view probe);

}  // namespace pyrometer::kernel

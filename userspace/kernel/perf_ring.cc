#include "userspace/kernel/perf_ring.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::kernel {
namespace {

// Reads fixed-size values off the front of a record.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <typename T>
  bool Read(T& out) {
    if (bytes_.size() < sizeof(T)) return false;
    std::memcpy(&out, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return true;
  }
  bool Skip(size_t count) {
    if (bytes_.size() < count) return false;
    bytes_ = bytes_.subspan(count);
    return true;
  }
  bool ReadBytes(char* out, size_t count) {
    if (bytes_.size() < count) return false;
    std::memcpy(out, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return true;
  }
  // Text up to its NUL; false when there is no NUL.
  bool ReadText(std::string& out) {
    const void* end = bytes_.empty() ? nullptr : std::memchr(bytes_.data(), 0, bytes_.size());
    if (end == nullptr) return false;
    const auto* first = reinterpret_cast<const char*>(bytes_.data());
    out.assign(first, static_cast<const char*>(end));
    return true;
  }
  size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
};

constexpr size_t kTrailerBytes = 24;

// The record's own part, without the trailer.
std::optional<Cursor> Body(const PerfRecord& record) {
  if (record.body.size() < kTrailerBytes) return std::nullopt;
  return Cursor(record.body.first(record.body.size() - kTrailerBytes));
}

}  // namespace

perf_event_attr SideBandAttr(bool build_ids) {
  perf_event_attr attr;
  std::memset(&attr, 0, sizeof(attr));
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_DUMMY;
  attr.sample_type = kPerfTrailerSampleType;
  attr.sample_id_all = 1;
  attr.mmap = 1;
  attr.mmap2 = 1;
  attr.comm = 1;
  attr.comm_exec = 1;
  attr.task = 1;  // implied by mmap and comm anyway
  attr.build_id = build_ids ? 1 : 0;
  attr.exclude_kernel = 1;
  attr.use_clockid = 1;
  attr.clockid = CLOCK_MONOTONIC;
  attr.watermark = 1;  // with wakeup_events = 1 these records do not wake the reader at all (unwinder.md §4)
  return attr;
}

StatusOr<PerfRing> PerfRing::Open(const perf_event_attr& attr, pid_t pid, int cpu, uint32_t pages, int* open_error) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  PerfRing ring;
  ring.data_bytes_ = page * std::bit_ceil(std::max(pages, 1u));
  perf_event_attr copy = attr;
  if (copy.watermark) copy.wakeup_watermark = static_cast<uint32_t>(ring.data_bytes_ / 2);
  *open_error = 0;
  ring.fd_.Reset(static_cast<int>(syscall(SYS_perf_event_open, &copy, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!ring.fd_) {
    *open_error = errno;
    return ErrnoError(errno, StrFormat("cannot open a perf event on CPU %d", cpu));
  }
  ring.map_bytes_ = page + ring.data_bytes_;
  void* base = mmap(nullptr, ring.map_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd_.get(), 0);
  if (base == MAP_FAILED) {
    if (errno == EPERM || errno == ENOMEM) {
      return ResourceExhaustedError(
          StrFormat("cannot lock %s for a perf ring: raise kernel.perf_event_mlock_kb with sysctl, or RLIMIT_MEMLOCK",
                    FormatBytes(ring.map_bytes_)));
    }
    return ErrnoError(errno, "cannot map a perf ring");
  }
  ring.base_ = base;
  return ring;
}

PerfRing::PerfRing(PerfRing&& other) noexcept { *this = std::move(other); }

PerfRing& PerfRing::operator=(PerfRing&& other) noexcept {
  if (this == &other) return *this;
  if (base_ != nullptr) munmap(base_, map_bytes_);
  fd_ = std::move(other.fd_);
  base_ = std::exchange(other.base_, nullptr);
  map_bytes_ = std::exchange(other.map_bytes_, 0);
  data_bytes_ = std::exchange(other.data_bytes_, 0);
  wrapped_ = std::move(other.wrapped_);
  return *this;
}

PerfRing::~PerfRing() {
  if (base_ != nullptr) munmap(base_, map_bytes_);
}

Status PerfRing::Enable() {
  if (ioctl(fd_.get(), PERF_EVENT_IOC_ENABLE, 0) != 0) return ErrnoError(errno, "cannot enable a perf event");
  return OkStatus();
}

Status PerfRing::Disable() {
  if (ioctl(fd_.get(), PERF_EVENT_IOC_DISABLE, 0) != 0) return ErrnoError(errno, "cannot disable a perf event");
  return OkStatus();
}

size_t PerfRing::Read(const std::function<void(const PerfRecord&)>& visit) {
  if (base_ == nullptr) return 0;
  auto* page = static_cast<perf_event_mmap_page*>(base_);
  const auto* data = static_cast<const std::byte*>(base_) + (map_bytes_ - data_bytes_);
  const uint64_t head = std::atomic_ref<__u64>(page->data_head).load(std::memory_order_acquire);
  uint64_t tail = page->data_tail;
  size_t malformed = 0;
  while (tail < head) {
    const size_t at = tail & (data_bytes_ - 1);
    perf_event_header header;
    // Records are 8-byte aligned and the ring is a multiple of 8: a header never wraps.
    std::memcpy(&header, data + at, sizeof(header));
    if (header.size < sizeof(header) || header.size > head - tail) {
      malformed += head - tail;
      tail = head;
      break;
    }
    const std::byte* whole = data + at;
    if (at + header.size > data_bytes_) {
      wrapped_.resize(header.size);
      const size_t before_end = data_bytes_ - at;
      std::memcpy(wrapped_.data(), data + at, before_end);
      std::memcpy(wrapped_.data() + before_end, data, header.size - before_end);
      whole = wrapped_.data();
    }
    visit({.type = header.type,
           .misc = header.misc,
           .body = std::span(whole + sizeof(header), header.size - sizeof(header))});
    tail += header.size;
    // Given back record by record: a slow callback does not hold up the writer longer than needed.
    std::atomic_ref<__u64>(page->data_tail).store(tail, std::memory_order_release);
  }
  std::atomic_ref<__u64>(page->data_tail).store(tail, std::memory_order_release);
  return malformed;
}

std::optional<PerfTrailer> ParseTrailer(const PerfRecord& record) {
  if (record.body.size() < kTrailerBytes) return std::nullopt;
  Cursor cursor(record.body.last(kTrailerBytes));
  PerfTrailer out;
  if (!cursor.Read(out.pid) || !cursor.Read(out.tid) || !cursor.Read(out.time_ns) || !cursor.Read(out.cpu)) {
    return std::nullopt;
  }
  return out;
}

std::optional<process::Mapping> ParseMmap2(const PerfRecord& record) {
  const std::optional<PerfTrailer> trailer = ParseTrailer(record);
  std::optional<Cursor> cursor = Body(record);
  uint32_t pid = 0, tid = 0, protection = 0, flags = 0;
  uint64_t start = 0, length = 0, offset = 0;
  if (!trailer || !cursor->Read(pid) || !cursor->Read(tid) || !cursor->Read(start) || !cursor->Read(length) ||
      !cursor->Read(offset)) {
    return std::nullopt;
  }
  process::Mapping out;
  if (record.misc & PERF_RECORD_MISC_MMAP_BUILD_ID) {
    uint8_t size = 0;
    std::array<char, 20> id{};
    if (!cursor->Read(size) || !cursor->Skip(3) || !cursor->Read(id) || size > id.size()) return std::nullopt;
    out.build_id.hex = HexEncode({id.data(), size});
  } else {
    uint64_t generation = 0;
    if (!cursor->Read(out.device_major) || !cursor->Read(out.device_minor) || !cursor->Read(out.inode) ||
        !cursor->Read(generation)) {
      return std::nullopt;
    }
  }
  if (!cursor->Read(protection) || !cursor->Read(flags) || !cursor->ReadText(out.path)) return std::nullopt;
  if (length == 0 || start + length < start) return std::nullopt;
  out.key.tgid = pid;
  out.time_ns = trailer->time_ns;
  out.start = VirtualAddress(start);
  out.end = VirtualAddress(start + length);
  out.offset = FileOffset(offset);
  out.protection = protection & (process::kProtRead | process::kProtWrite | process::kProtExec);
  return out;
}

std::optional<PerfComm> ParseComm(const PerfRecord& record) {
  const std::optional<PerfTrailer> trailer = ParseTrailer(record);
  std::optional<Cursor> cursor = Body(record);
  PerfComm out;
  if (!trailer || !cursor->Read(out.tgid) || !cursor->Read(out.tid) || !cursor->ReadText(out.comm)) return std::nullopt;
  out.time_ns = trailer->time_ns;
  out.exec = (record.misc & PERF_RECORD_MISC_COMM_EXEC) != 0;
  return out;
}

std::optional<PerfTask> ParseTask(const PerfRecord& record) {
  std::optional<Cursor> cursor = Body(record);
  PerfTask out;
  if (!cursor || !cursor->Read(out.tgid) || !cursor->Read(out.parent_tgid) || !cursor->Read(out.tid) ||
      !cursor->Read(out.parent_tid) || !cursor->Read(out.time_ns)) {
    return std::nullopt;
  }
  return out;
}

std::optional<uint64_t> ParseLost(const PerfRecord& record) {
  Cursor cursor(record.body);
  uint64_t lost = 0;
  if (record.type == PERF_RECORD_LOST && !cursor.Skip(sizeof(uint64_t))) return std::nullopt;  // event id
  if (!cursor.Read(lost)) return std::nullopt;
  return lost;
}

namespace {

// What follows the chain: registers by ascending number of the mask, then a piece of the stack.
bool ParseStack(Cursor& cursor, PerfSample* out) {
  // ax, bx, cx, dx, si, di, bp, sp, ip, r8 … r15 to DWARF's order; -1: the instruction pointer.
  constexpr int kDwarf[] = {0, 3, 2, 1, 4, 5, 6, 7, -1, 8, 9, 10, 11, 12, 13, 14, 15};
  uint64_t abi = 0;
  if (!cursor.Read(abi)) return false;
  if (abi != PERF_SAMPLE_REGS_ABI_NONE) {
    pyro_raw_registers registers{};
    for (const int number : kDwarf) {
      if (!cursor.Read(number < 0 ? registers.ip : registers.reg[number])) return false;
    }
    registers.stack_start = registers.reg[PYRO_REG_RSP];
    // Of 32-bit code the leaf is all that is reported.
    if (abi == PERF_SAMPLE_REGS_ABI_64) out->registers = registers;
  }
  uint64_t room = 0;
  if (!cursor.Read(room)) return false;
  if (room == 0) return true;
  if (room > cursor.left()) return false;
  out->stack.resize(room);
  uint64_t filled = 0;
  if (!cursor.ReadBytes(out->stack.data(), room) || !cursor.Read(filled) || filled > room) return false;
  out->stack.resize(filled);
  return true;
}

}  // namespace

std::optional<PerfSample> ParseSample(const PerfRecord& record, bool with_stack) {
  Cursor cursor(record.body);
  PerfSample out;
  uint32_t reserved = 0;
  uint64_t frames = 0;
  if (!cursor.Read(out.ip) || !cursor.Read(out.tgid) || !cursor.Read(out.tid) || !cursor.Read(out.time_ns) ||
      !cursor.Read(out.cpu) || !cursor.Read(reserved) || !cursor.Read(out.period) || !cursor.Read(frames) ||
      frames > cursor.left() / sizeof(uint64_t)) {
    return std::nullopt;
  }
  // The chain is cut into sections by markers: addresses in the last page are PERF_CONTEXT_*.
  std::vector<uint64_t>* section = nullptr;
  for (uint64_t i = 0; i < frames; ++i) {
    uint64_t address = 0;
    if (!cursor.Read(address)) return std::nullopt;
    if (address >= static_cast<uint64_t>(PERF_CONTEXT_MAX)) {
      section = address == static_cast<uint64_t>(PERF_CONTEXT_KERNEL) ? &out.kernel_frames
                : address == static_cast<uint64_t>(PERF_CONTEXT_USER) ? &out.user_frames
                                                                      : nullptr;
    } else if (section != nullptr) {
      section->push_back(address);
    }
  }
  if (with_stack && !ParseStack(cursor, &out)) return std::nullopt;
  return out;
}

std::optional<ProcessEvent> ToProcessEvent(const PerfRecord& record) {
  switch (record.type) {
    case PERF_RECORD_MMAP2: {
      std::optional<process::Mapping> mapping = ParseMmap2(record);
      if (!mapping) return std::nullopt;
      return *std::move(mapping);
    }
    case PERF_RECORD_COMM: {
      std::optional<PerfComm> comm = ParseComm(record);
      if (!comm) return std::nullopt;
      if (!comm->exec) {
        process::Comm out;
        out.key.tgid = comm->tgid;
        out.time_ns = comm->time_ns;
        out.comm = std::move(comm->comm);
        return out;
      }
      process::Exec out;
      out.key.tgid = comm->tgid;
      out.time_ns = comm->time_ns;
      out.image_start_ns = comm->time_ns;
      out.comm = std::move(comm->comm);
      return out;
    }
    case PERF_RECORD_FORK: {
      const std::optional<PerfTask> task = ParseTask(record);
      if (!task) return std::nullopt;
      process::Fork out;
      out.parent.tgid = task->parent_tgid;
      out.child.tgid = task->tgid;
      out.time_ns = task->time_ns;
      return out;
    }
    case PERF_RECORD_EXIT: {
      const std::optional<PerfTask> task = ParseTask(record);
      if (!task) return std::nullopt;
      process::Exit out;
      out.key.tgid = task->tgid;
      out.time_ns = task->time_ns;
      return out;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace pyrometer::kernel

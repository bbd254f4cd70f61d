#include "userspace/symbolize/jit_dump.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_source.h"
#include "userspace/symbolize/dwarf/cursor.h"
#include "userspace/symbolize/jit_process.h"

namespace pyrometer::symbolize {
namespace {

using dwarf::Cursor;

constexpr uint32_t kMagic = 0x4A695444;
constexpr uint64_t kHeaderBytes = 40;
constexpr uint64_t kRecordHeadBytes = 16;
constexpr uint32_t kLoad = 0, kMove = 1, kLines = 2, kClose = 3;
// What is needed of a load: its numbers and the name; the code behind may be megabytes.
constexpr uint64_t kLoadBytes = 48 + JitCode::kMaxNameBytes + 1;
constexpr uint64_t kMoveBytes = 48;
// Larger tables of lines are not read [largest seen: a 1 MiB WebAssembly function, 400 KiB].
constexpr uint64_t kMaxLinesBytes = 16u << 20;
constexpr uint64_t kPieceBytes = 256u << 10;
// Headers of later versions may be longer.
constexpr uint32_t kMaxHeaderBytes = 4096;

// The mark's mapping in the text of /proc/PID/maps.
struct Mark {
  std::string path;
  std::string range;  // "7f00-7f01"
};

std::optional<Mark> FindMark(const JitProcess& process) {
  const StatusOr<std::string> maps = ReadFile(process.folder + "/maps");
  if (!maps.ok()) return std::nullopt;
  const std::string tail = StrFormat("/jit-%d.dump", process.inner_pid);
  for (const std::string_view line : Split(*maps, '\n')) {
    if (!line.ends_with(tail)) continue;
    const size_t slash = line.find('/');
    return Mark{std::string(line.substr(slash)), std::string(line.substr(0, line.find(' ')))};
  }
  return std::nullopt;
}

}  // namespace

std::unique_ptr<JitDump> JitDump::Open(const ProcessKey& process, const Options& options, MissReason* why) {
  *why = MissReason::kPerfMapAbsent;
  const std::optional<JitProcess> facts = JitProcess::Find(process, options.proc_root);
  if (!facts.has_value()) return nullptr;
  const std::optional<Mark> mark = FindMark(*facts);
  if (!mark.has_value()) return nullptr;
  // The file that is mapped, whatever lies at its path by now.
  struct stat info;
  UniqueFd fd(::open((facts->folder + "/map_files/" + mark->range).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd) {
    if (::fstat(fd.get(), &info) != 0 || !facts->MayOwn(info)) {
      *why = MissReason::kPerfMapRefused;
      return nullptr;
    }
  } else {
    fd = OpenOwnedFile(*facts, mark->path, &info, why);
    if (!fd) return nullptr;
  }
  std::unique_ptr<JitDump> dump(new JitDump(options));
  dump->fd_ = std::make_shared<const UniqueFd>(std::move(fd));
  dump->path_ = mark->path;
  dump->Refresh();
  *why = MissReason::kNone;
  return dump;
}

std::unique_ptr<JitDump> JitDump::Empty(const Options& options) {
  return std::unique_ptr<JitDump>(new JitDump(options));
}

void JitDump::Refresh() {
  last_refresh_ns_ = MonotonicNowNs();
  if (fd_ == nullptr) return;
  // An error here shows as missing names; the next look tries again.
  if (const auto source = elf::MakeFdSource(fd_, path_); source.ok()) Read(**source);
}

bool JitDump::ReadHeader(std::string_view bytes) {
  Cursor cursor(bytes);
  const uint32_t magic = cursor.U32();
  cursor.Skip(4);  // version: 1, the only one there is
  const uint32_t header_bytes = cursor.U32();
  if (!cursor.ok() || magic != kMagic || header_bytes < kHeaderBytes || header_bytes > kMaxHeaderBytes) return false;
  consumed_ = header_bytes;
  return true;
}

void JitDump::Read(const elf::ByteSource& source) {
  const uint64_t size = std::min(source.size(), options_.max_bytes);
  std::string piece;
  uint64_t piece_start = 0;
  // At least `wanted` bytes from `offset`; empty when they cannot be read.
  const auto view = [&](uint64_t offset, uint64_t wanted) -> std::string_view {
    if (offset < piece_start || offset - piece_start > piece.size() || piece.size() - (offset - piece_start) < wanted) {
      piece.resize(std::min(std::max(wanted, kPieceBytes), size - offset));
      piece_start = offset;
      if (!source.ReadAt(offset, piece).ok()) piece.clear();
      if (piece.size() < wanted) return {};
    }
    return std::string_view(piece).substr(offset - piece_start);
  };
  if (counters_.broken || size < kHeaderBytes) return;
  if (consumed_ == 0 && !ReadHeader(view(0, kHeaderBytes))) {
    counters_.broken = true;
    return;
  }
  while (consumed_ <= size && size - consumed_ >= kRecordHeadBytes) {
    const std::string_view head = view(consumed_, kRecordHeadBytes);
    Cursor cursor(head);
    const uint32_t id = cursor.U32(), bytes = cursor.U32();
    if (!cursor.ok()) return;
    if (bytes < kRecordHeadBytes) {
      // A file that is being written may have room that is not filled yet.
      counters_.broken = id != 0 || bytes != 0;
      return;
    }
    if (bytes > size - consumed_) return;  // not whole yet
    uint64_t wanted = bytes - kRecordHeadBytes;
    if (id == kLoad) wanted = std::min(wanted, kLoadBytes);
    if (id == kMove) wanted = std::min(wanted, kMoveBytes);
    if (id == kLines && wanted > kMaxLinesBytes) {
      ++counters_.over_limit;
      wanted = 0;
    } else if (id <= kLines) {
      const std::string_view body = view(consumed_ + kRecordHeadBytes, wanted);
      if (body.size() < wanted) return;
      Take(id, body.substr(0, wanted));
    }
    counters_.closed = counters_.closed || id == kClose;
    consumed_ += bytes;
  }
}

void JitDump::Take(uint32_t id, std::string_view body) {
  switch (id) {
    case kLoad:
      return TakeLoad(body);
    case kMove:
      return TakeMove(body);
    default:
      return TakeLines(body);
  }
}

void JitDump::TakeLoad(std::string_view body) {
  Cursor cursor(body);
  cursor.Skip(8 + 8);  // pid, tid, vma
  const uint64_t address = cursor.U64(), size = cursor.U64();
  cursor.Skip(8);  // index
  const std::string_view rest = cursor.Bytes(cursor.left());
  const std::string_view name = rest.substr(0, std::min(rest.find('\0'), JitCode::kMaxNameBytes));
  std::vector<JitCode::Line> lines = std::exchange(lines_, {});
  if (lines_address_ != address) lines.clear();
  if (!cursor.ok() || size == 0 || name.empty()) {
    ++counters_.bad_records;
    return;
  }
  if (code_.Add(address, size, name, lines)) {
    ++counters_.loads;
    counters_.lines += lines.size();
  } else {
    ++counters_.over_limit;
  }
}

void JitDump::TakeMove(std::string_view body) {
  Cursor cursor(body);
  cursor.Skip(8 + 8);
  const uint64_t from = cursor.U64(), to = cursor.U64(), size = cursor.U64();
  if (!cursor.ok()) {
    ++counters_.bad_records;
    return;
  }
  code_.Move(from, to, size);
  ++counters_.moves;
}

void JitDump::TakeLines(std::string_view body) {
  Cursor cursor(body);
  lines_.clear();
  lines_address_ = cursor.U64();
  const uint64_t count = cursor.U64();
  uint32_t file = 0;
  for (uint64_t i = 0; i < count; ++i) {
    JitCode::Line line;
    line.address = cursor.U64();
    line.line = cursor.U32();
    cursor.Skip(4);  // discriminator
    const std::string_view name = cursor.String();
    if (!cursor.ok()) {
      ++counters_.bad_records;
      return;
    }
    if (name != "\xff") file = code_.File(name);
    line.file = file;
    lines_.push_back(line);
  }
}

Symbol JitDump::Symbolize(VirtualAddress address) {
  if (fd_ != nullptr && !counters_.closed && MonotonicNowNs() - last_refresh_ns_ >= options_.refresh_ns) Refresh();
  return code_.Symbolize(address);
}

}  // namespace pyrometer::symbolize

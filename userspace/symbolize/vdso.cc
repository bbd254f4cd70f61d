#include "userspace/symbolize/vdso.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::symbolize {
namespace {

// x86-64's has 2 pages, arm64's and s390's up to 4.
constexpr uint64_t kMaxVdsoBytes = 1u << 20;

}  // namespace

StatusOr<VdsoImage> OwnVdso() { return ReadVdso(static_cast<uint32_t>(::getpid())); }

StatusOr<VdsoImage> ReadVdso(uint32_t tgid, const std::string& proc_root) {
  const std::string folder = StrFormat("%s/%d", proc_root, tgid);
  ASSIGN_OR_RETURN(const std::string maps, ReadFile(folder + "/maps"));
  uint64_t start = 0, end = 0;
  for (const std::string_view line : Split(maps, '\n')) {
    if (!line.ends_with(" [vdso]")) continue;
    const std::string_view range = line.substr(0, line.find(' '));
    const size_t dash = range.find('-');
    if (dash == std::string_view::npos) continue;
    start = ParseUint64(range.substr(0, dash), 16).value_or(0);
    end = ParseUint64(range.substr(dash + 1), 16).value_or(0);
  }
  if (end <= start) return NotFoundError(StrFormat("process %d has no vdso", tgid));
  if (end - start > kMaxVdsoBytes) return DataLossError(StrFormat("the vdso of process %d has no sane size", tgid));
  ASSIGN_OR_RETURN(const UniqueFd memory, OpenForReading(folder + "/mem"));
  std::string image(end - start, '\0');
  const ssize_t n = ::pread(memory.get(), image.data(), image.size(), static_cast<off_t>(start));
  if (n < 0) return ErrnoError(errno, StrFormat("cannot read the memory of process %d", tgid));
  if (static_cast<size_t>(n) != image.size()) {
    return DataLossError(StrFormat("cannot read the whole vdso of process %d", tgid));
  }
  VdsoImage vdso;
  vdso.start = VirtualAddress(start);
  vdso.source.path = "[vdso]";
  vdso.source.image = std::make_shared<const std::string>(std::move(image));
  ASSIGN_OR_RETURN(const elf::ElfFile file, elf::ElfFile::FromBytes(vdso.source.image, "[vdso]"));
  ASSIGN_OR_RETURN(vdso.build_id, file.ReadBuildId());
  return vdso;
}

}  // namespace pyrometer::symbolize

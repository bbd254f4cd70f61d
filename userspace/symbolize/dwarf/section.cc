#include "userspace/symbolize/dwarf/section.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::dwarf {
namespace {

// A file without name that goes with its descriptor.
StatusOr<UniqueFd> ScratchFile(const std::string& folder) {
  if (folder.empty()) {
    UniqueFd fd(::memfd_create("pyrometer-debug-section", MFD_CLOEXEC));
    if (!fd) return ErrnoError(errno, "cannot get memory for a debug section");
    return fd;
  }
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd) return fd;
  // Some file systems (overlay of old kernels, NFS) have no O_TMPFILE.
  std::string pattern = folder + "/.section.XXXXXX";
  fd.Reset(::mkostemp(pattern.data(), O_CLOEXEC));
  if (!fd) return ErrnoError(errno, StrFormat("cannot create a scratch file in %s", folder));
  ::unlink(pattern.c_str());
  return fd;
}

}  // namespace

StatusOr<std::string_view> Section::View(uint64_t offset, uint64_t size, std::string* buffer) const {
  if (size > size_ || offset > size_ - size) {
    return DataLossError(StrFormat("%s: %d bytes at %d lie past the end of a debug section",
                                   source_ == nullptr ? std::string("debug information") : source_->name(), size,
                                   offset));
  }
  // Nothing of interest is megabytes of zeros.
  constexpr uint64_t kHoleCheckBytes = 1u << 20;
  if (size > kHoleCheckBytes && source_->NextData(offset_ + offset) >= offset_ + offset + size) {
    return DataLossError(
        StrFormat("%s: %s at offset %d are a hole", source_->name(), FormatBytes(size), offset_ + offset));
  }
  // What the largest unit needed should not stay for all the small ones; nor should memory be given back and taken
  // again for each of middle size.
  constexpr uint64_t kKeptBytes = 32u << 20;
  if (buffer->capacity() > kKeptBytes && buffer->capacity() / 4 > size) std::string().swap(*buffer);
  buffer->resize(size);
  if (size > 0) RETURN_IF_ERROR(source_->ReadAt(offset_ + offset, *buffer));
  return std::string_view(*buffer);
}

Section Section::Part(uint64_t offset, uint64_t size) const {
  if (size > size_ || offset > size_ - size) return {};
  return Section(source_, offset_ + offset, size);
}

std::string_view Window::At(uint64_t offset, uint64_t wanted) {
  if (offset >= section_.size()) return {};
  wanted = std::min(wanted, section_.size() - offset);
  if (offset < start_ || offset - start_ > piece_.size() || wanted > piece_.size() - (offset - start_)) {
    const uint64_t bytes = std::min(std::max(wanted, piece_bytes_), section_.size() - offset);
    const StatusOr<std::string_view> view = section_.View(offset, bytes, &piece_);
    start_ = offset;
    if (!view.ok()) {
      status_ = view.status();
      piece_.clear();
      return {};
    }
  }
  return std::string_view(piece_).substr(offset - start_);
}

bool Window::Number(uint64_t offset, unsigned bytes, uint64_t* value) {
  const std::string_view view = At(offset, bytes);
  if (view.size() < bytes) return false;
  *value = 0;
  std::memcpy(value, view.data(), bytes);
  return true;
}

std::string_view Window::String(uint64_t offset) {
  // Most names are short: ask for little, so that a window's tail serves many.
  for (const uint64_t wanted : {uint64_t{256}, kMaxStringBytes}) {
    const std::string_view view = At(offset, wanted);
    const size_t end = view.substr(0, kMaxStringBytes).find('\0');
    if (end != std::string_view::npos) return view.substr(0, end);
    if (wanted == kMaxStringBytes) return view.substr(0, kMaxStringBytes);
  }
  return {};
}

StatusOr<std::unique_ptr<DebugFile>> DebugFile::Open(std::shared_ptr<const elf::ElfFile> file,
                                                     const OpenOptions& options, SectionNames names) {
  std::unique_ptr<DebugFile> debug(new DebugFile());
  debug->elf_ = std::move(file);
  DebugSections& all = debug->sections_;
  const std::pair<const char*, Section*> wanted[] = {{"info", &all.info},
                                                     {"types", &all.types},
                                                     {"abbrev", &all.abbrev},
                                                     {"line", &all.line},
                                                     {"str", &all.str},
                                                     {"line_str", &all.line_str},
                                                     {"addr", &all.addr},
                                                     {"ranges", &all.ranges},
                                                     {"rnglists", &all.rnglists},
                                                     {"cu_index", &all.cu_index},
                                                     {"str_offsets", &all.str_offsets}};
  for (const auto& [name, section] : wanted) {
    RETURN_IF_ERROR(debug->Add(name, options, names, section));
    if (section == &all.info && section->empty()) {
      return NotFoundError(StrFormat("%s has no debug information", debug->name()));
    }
  }
  return debug;
}

uint64_t DebugFile::total_bytes() const {
  uint64_t total = 0;
  const DebugSections& all = sections_;
  for (const Section* section : {&all.info, &all.types, &all.abbrev, &all.line, &all.str, &all.line_str,
                                 &all.str_offsets, &all.addr, &all.ranges, &all.rnglists, &all.cu_index}) {
    total += section->size();
  }
  return total;
}

Status DebugFile::Add(const char* name, const OpenOptions& options, SectionNames names, Section* result) {
  const bool split = names == SectionNames::kSplit;
  const bool index = std::string_view(name).ends_with("_index");
  const char* tail = split && !index ? ".dwo" : "";
  const elf::Section* section = elf_->FindSection(StrFormat(".debug_%s%s", name, tail));
  if (section == nullptr) section = elf_->FindSection(StrFormat(".zdebug_%s%s", name, tail));
  if (section == nullptr || !section->has_bytes() || section->size == 0) return OkStatus();
  if (elf_->type() == ET_REL && !split) return AddRelocated(*section, options, result);
  if (!elf_->IsCompressed(*section)) {
    if (section->size > elf_->source().size() || section->offset.value > elf_->source().size() - section->size) {
      return DataLossError(StrFormat("%s: %s lies past the file's end", elf_->name(), section->name));
    }
    *result = Section(&elf_->source(), section->offset.value, section->size);
    return OkStatus();
  }
  ASSIGN_OR_RETURN(UniqueFd fd, ScratchFile(options.scratch_folder));
  const uint64_t limit =
      options.scratch_folder.empty() ? options.max_unpacked_memory_bytes : options.max_unpacked_bytes;
  RETURN_IF_ERROR(elf_->UnpackSection(*section, limit, [&](std::string_view piece) {
    return WriteAll(fd.get(), piece, "a scratch file for debug sections");
  }));
  ASSIGN_OR_RETURN(std::unique_ptr<elf::ByteSource> source,
                   elf::MakeFdSource(std::make_shared<const UniqueFd>(std::move(fd)), elf_->name()));
  *result = Section(source.get(), 0, source->size());
  unpacked_.push_back(std::move(source));
  return OkStatus();
}

std::vector<uint64_t> LayOutRelocatable(const elf::ElfFile& file) {
  std::vector<uint64_t> addresses(file.sections().size(), 0);
  // Not 0: there, addresses of discarded code lie.
  uint64_t next = 0x1000;
  for (const elf::Section& section : file.sections()) {
    if ((section.flags & SHF_ALLOC) == 0) continue;
    addresses[section.index] = next;
    constexpr uint64_t kSpaceBetween = 4096;
    if (section.size > (uint64_t{1} << 40) - next) break;  // no such object exists; the rest stays at 0
    next = (next + section.size + 2 * kSpaceBetween - 1) / kSpaceBetween * kSpaceBetween;
  }
  return addresses;
}

Status DebugFile::AddRelocated(const elf::Section& section, const OpenOptions& options, Section* result) {
  ASSIGN_OR_RETURN(std::string bytes, elf_->ReadSection(section, options.max_relocated_bytes));
  const std::vector<uint64_t> addresses = LayOutRelocatable(*elf_);
  for (const elf::Section& table : elf_->sections()) {
    if (table.type != SHT_RELA || table.info != section.index) continue;
    constexpr uint64_t kMaxRelocations = 16u << 20;
    ASSIGN_OR_RETURN(const auto relocations, elf_->ReadRelocations(table, kMaxRelocations));
    if (table.link >= elf_->sections().size()) continue;
    // Values of the symbols that are named, by index.
    std::vector<uint64_t> values;
    RETURN_IF_ERROR(elf_->ForEachSymbol(
        elf_->sections()[table.link], [&](uint64_t first, const std::vector<elf::RawSymbol>& symbols) {
          if (values.size() < first + symbols.size()) values.resize(first + symbols.size());
          for (size_t i = 0; i < symbols.size(); ++i) {
            const uint16_t in = symbols[i].section;
            values[first + i] = symbols[i].address.value + (in < addresses.size() ? addresses[in] : 0);
          }
        }));
    for (const elf::RawRelocation& relocation : relocations) {
      const uint64_t value = (relocation.symbol < values.size() ? values[relocation.symbol] : 0) +
                             static_cast<uint64_t>(relocation.addend);
      size_t width = 0;
      if (elf_->machine() == EM_X86_64) {
        if (relocation.type == R_X86_64_64) width = 8;
        if (relocation.type == R_X86_64_32 || relocation.type == R_X86_64_32S) width = 4;
      } else if (elf_->machine() == EM_AARCH64) {
        if (relocation.type == R_AARCH64_ABS64) width = 8;
        if (relocation.type == R_AARCH64_ABS32) width = 4;
      }
      if (width == 0 || bytes.size() < width || relocation.target.value > bytes.size() - width) continue;
      std::memcpy(bytes.data() + relocation.target.value, &value, width);
    }
  }
  const uint64_t size = bytes.size();
  unpacked_.push_back(elf::MakeMemorySource(std::make_shared<const std::string>(std::move(bytes)), elf_->name()));
  *result = Section(unpacked_.back().get(), 0, size);
  return OkStatus();
}

}  // namespace pyrometer::dwarf

#include "userspace/symbolize/dwarf/package.h"

#include <string>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/symbolize/dwarf/constants.h"
#include "userspace/symbolize/dwarf/cursor.h"

namespace pyrometer::dwarf {

StatusOr<Package> Package::Open(std::shared_ptr<const DebugFile> file) {
  Package package(std::move(file));
  const Section& index = package.file_->sections().cu_index;
  if (index.empty()) return NotFoundError(StrFormat("%s is no DWARF package", package.file_->name()));
  if (index.size() > kMaxIndexBytes) {
    return ResourceExhaustedError(StrFormat("%s: its index has %s; the limit is %s", package.file_->name(),
                                            FormatBytes(index.size()), FormatBytes(kMaxIndexBytes)));
  }
  const auto corrupt = [&] { return DataLossError(StrFormat("%s: its index is corrupt", package.file_->name())); };
  std::string buffer;
  ASSIGN_OR_RETURN(const std::string_view bytes, index.View(0, index.size(), &buffer));
  // Version 2 has 32 bits for the version, 5 has 16 and padding: little-endian both read the same.
  Cursor cursor(bytes);
  package.version_ = cursor.U16();
  cursor.Skip(2);
  if (package.version_ != 2 && package.version_ != 5) {
    return UnimplementedError(StrFormat("%s: a package index of version %d", package.file_->name(), package.version_));
  }
  const uint64_t columns = cursor.U32(), units = cursor.U32(), slots = cursor.U32();
  if (!cursor.ok()) return corrupt();
  // Hash table of ids, then of rows (from 1; 0 = free); then the columns' names; then offsets; then sizes.
  const uint64_t rows_at = cursor.at() + slots * 8;
  const uint64_t columns_at = rows_at + slots * 4;
  const uint64_t offsets_at = columns_at + columns * 4;
  if (slots > bytes.size() || columns > 16 || units > bytes.size() || columns * units > bytes.size() ||
      offsets_at + 2 * columns * units * 4 > bytes.size()) {
    return corrupt();
  }
  Cursor ids(bytes, cursor.at()), rows(bytes, rows_at), numbers(bytes, columns_at);
  for (uint64_t i = 0; i < slots; ++i) {
    const uint64_t id = ids.U64();
    const uint32_t row = rows.U32();
    if (row != 0 && row <= units) package.rows_.emplace(id, row - 1);
  }
  for (uint64_t i = 0; i < columns; ++i) package.columns_.push_back(numbers.U32());
  for (uint64_t i = 0; i < columns * units; ++i) package.offsets_.push_back(numbers.U32());
  for (uint64_t i = 0; i < columns * units; ++i) package.sizes_.push_back(numbers.U32());
  return package;
}

std::optional<DebugSections> Package::Find(uint64_t id) const {
  const auto found = rows_.find(id);
  if (found == rows_.end()) return std::nullopt;
  const DebugSections& whole = file_->sections();
  DebugSections sections;
  sections.str = whole.str;  // shared by all units
  for (size_t i = 0; i < columns_.size(); ++i) {
    const size_t cell = found->second * columns_.size() + i;
    const uint32_t offset = offsets_[cell], size = sizes_[cell];
    switch (columns_[i]) {
      case kPackageInfo:
        sections.info = whole.info.Part(offset, size);
        break;
      case kPackageAbbrev:
        sections.abbrev = whole.abbrev.Part(offset, size);
        break;
      case kPackageLine:
        sections.line = whole.line.Part(offset, size);
        break;
      case kPackageStrOffsets:
        sections.str_offsets = whole.str_offsets.Part(offset, size);
        break;
      case kPackageRangeLists:
        if (version_ == 5) sections.rnglists = whole.rnglists.Part(offset, size);
        break;
      default:
        break;
    }
  }
  return sections;
}

}  // namespace pyrometer::dwarf

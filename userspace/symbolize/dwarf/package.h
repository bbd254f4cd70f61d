// DWARF packages (.dwp): many split units in one file, found by an index of their ids.
//
//   ASSIGN_OR_RETURN(Package package, Package::Open(file));
//   if (auto sections = package.Find(id)) read(*sections);
//
// Reads version 2 (GNU, DWARF 4) and version 5 of the index.
//
// Threads: const methods from any thread. Cost: opening reads the index (16 bytes per unit and section).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/symbolize/dwarf/section.h"

namespace pyrometer::dwarf {

class Package {
 public:
  // NOT_FOUND when the file has no index of units.
  static StatusOr<Package> Open(std::shared_ptr<const DebugFile> file);

  // The parts of the file that belong to unit `id`; nullopt when it does not hold it.
  std::optional<DebugSections> Find(uint64_t id) const;
  const std::shared_ptr<const DebugFile>& file() const { return file_; }
  size_t unit_count() const { return rows_.size(); }

  static constexpr uint64_t kMaxIndexBytes = 64u << 20;  // [chromium: 2 MiB]

 private:
  explicit Package(std::shared_ptr<const DebugFile> file) : file_(std::move(file)) {}

  std::shared_ptr<const DebugFile> file_;
  uint16_t version_ = 0;
  std::vector<uint32_t> columns_;                // PackageSection of each
  std::vector<uint32_t> offsets_, sizes_;        // row by row
  std::unordered_map<uint64_t, uint32_t> rows_;  // id -> row, from 0
};

}  // namespace pyrometer::dwarf

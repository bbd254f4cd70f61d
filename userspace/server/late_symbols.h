// Debug files that were uploaded to the store, and the names that they give to samples already stored.
//
//   ASSIGN_OR_RETURN(auto symbols, LateSymbols::Open({.folder = data + "/symbols"}));
//   ASSIGN_OR_RETURN(auto upload, symbols->Begin("shop.debug"));
//   RETURN_IF_ERROR(upload->Write(bytes)); …
//   ASSIGN_OR_RETURN(LateSymbols::File file, upload->Finish());      // its build ID
//   symbols->Name(&profile);                                        // frames without name or line get theirs
//   engine.set_late_names(symbols.get());                           // the same for flame graphs and tables
//
// A file is known by the build ID that is written in it; it may be a debug file or a whole binary. Kept as
// FOLDER/.build-id/ab/cdef….debug, so that other tools find them too; indexes of what was asked for lie beside. When
// the files exceed `max_bytes`, those not used for longest go.
//
// Threads: any; an Upload from one. Cost: Name asks nothing of frames that have a name and a line, and nothing at all
// while no file is there; the first question about a file builds its index (seconds for a large one, once).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/profile/flame_graph.h"
#include "userspace/profile/profile.h"
#include "userspace/store/reader.h"
#include "userspace/symbolize/symbolizer.h"

namespace pyrometer::server {

class LateSymbols : public store::LateNames {
 public:
  struct Options {
    std::string folder;
    uint64_t max_file_bytes = 8ull << 30;  // of one file
    uint64_t max_bytes = 32ull << 30;      // of all
  };
  struct File {
    BuildId build_id;
    std::string name;  // as the uploader called it; only of an upload
    uint64_t bytes = 0;
    bool replaced = false;  // there was one already
    uint64_t functions = 0;
    bool has_lines = false;
  };
  class Upload;

  // Makes the folder; removes what an interrupted upload left.
  static StatusOr<std::unique_ptr<LateSymbols>> Open(const Options& options);
  ~LateSymbols() override;

  StatusOr<std::unique_ptr<Upload>> Begin(std::string_view name);
  std::vector<File> List() const;

  // Called by Name with each build ID for which a file would be of use. Set before the first Name.
  void set_want(std::function<void(const std::string& build_id)> want) { want_ = std::move(want); }
  // Names native frames that have no name, or no line, from the files that are there; tells `want` of those that are
  // not.
  void Name(profile::Profile* profile);
  // Tells `want` of those that are not there.
  void Want(std::span<const std::string> build_ids) const;
  void Want(const profile::FlameGraph& flame) const;

  uint64_t generation() const override;
  std::vector<Line> Find(std::string_view build_id, ElfAddress address, bool has_name) override;

 private:
  explicit LateSymbols(const Options& options);
  bool Has(const std::string& build_id) const;
  std::string PathOf(const std::string& build_id) const;
  void MakeRoomLocked(uint64_t bytes, const std::string& keep);

  const Options options_;
  std::unique_ptr<symbolize::Symbolizer> symbolizer_;
  std::function<void(const std::string&)> want_;
  mutable std::mutex mutex_;
  struct Entry {
    uint64_t bytes = 0;
    uint64_t used = 0;  // larger = more recently
  };
  std::map<std::string, Entry> files_;  // by build ID
  uint64_t clock_ = 0;
  uint64_t uploads_ = 0;
  uint64_t generation_ = 1;  // grows when files come or go
};

// What was not finished leaves nothing.
class LateSymbols::Upload {
 public:
  ~Upload();
  // RESOURCE_EXHAUSTED beyond the limit of one file or when the disk is full.
  Status Write(std::string_view bytes);
  // The file is durable and in use. INVALID_ARGUMENT: no ELF file, without build ID, without any symbols, or not of the
  // build ID that was expected ("" = any).
  StatusOr<File> Finish(std::string_view expected_build_id = "");

 private:
  friend class LateSymbols;
  Upload(LateSymbols* owner, std::string name, std::string path, UniqueFd fd)
      : owner_(*owner), name_(std::move(name)), path_(std::move(path)), fd_(std::move(fd)) {}

  LateSymbols& owner_;
  const std::string name_;
  const std::string path_;  // of the unfinished file
  UniqueFd fd_;
  uint64_t bytes_ = 0;
};

}  // namespace pyrometer::server

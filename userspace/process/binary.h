// Binaries that processes have mapped, and a way to read each one even after its process, its
// container or its directory entry is gone.
//
//   std::shared_ptr<const Binary> binary = binaries.ForMapping(mapping, {parent_tgid});
//   binary->build_id();  binary->ToElfAddress(FileOffset(0x1234));
//   ASSIGN_OR_RETURN(elf::SharedFd fd, binary->Open());
//
// A Binary is one file's content: device, inode, modification time and size as fstat() of the opened
// file says. (/proc/PID/maps prints other device numbers for overlayfs and btrfs, and the kernel's
// mapping records with a build ID carry no device at all; so the opened file decides, not the record.)
// It is opened at first sight through /proc/PID/map_files, else /proc/PID/root/<path>, its parent's
// root, then our own root; all but the first are checked against inode or build ID, so a file that
// was replaced meanwhile is never taken for the one that was mapped. The program headers and the
// build ID are read at once; the descriptor stays open (least recently used closed first, at most
// `max_held_files`), because a deleted file, or one in a container that ended, cannot be opened again.
//
// Threads: all methods from any thread. Cost: first sight of a file 30–50 µs, later ones 0.3 µs (one
// fstat) or nothing when the kernel gave the build ID. Memory: ~0.5 KiB a binary.
// Does not promise: that Open() works for a file that was evicted and then deleted.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/elf/elf_file.h"
#include "userspace/process/events.h"

namespace pyrometer::process {

// Which content a descriptor gave us. Change time is left out on purpose: unlink changes it.
struct FileIdentity {
  uint64_t device = 0;  // st_dev
  uint64_t inode = 0;   // st_ino
  int64_t modified_ns = 0;
  uint64_t size = 0;
  auto operator<=>(const FileIdentity&) const = default;
};

class BinaryTable;

class Binary : public std::enable_shared_from_this<Binary> {
 public:
  // Path as its process sees it, without " (deleted)"; may hold any byte.
  const std::string& path() const { return path_; }
  // The directory entry was gone, or the file never had one (memfd).
  bool deleted() const { return deleted_; }
  // From the file, else from the kernel's record; empty when neither was to be had.
  const BuildId& build_id() const { return build_id_; }
  // nullopt when the file was never opened.
  const std::optional<FileIdentity>& identity() const { return identity_; }
  // OK, or why segments() is empty: not an ELF file, not readable, gone.
  const Status& problem() const { return problem_; }
  // PT_LOAD program headers in file order.
  const std::vector<elf::Segment>& segments() const { return segments_; }
  // Address by the program headers; executable segments first. nullopt outside of all of them.
  std::optional<ElfAddress> ToElfAddress(FileOffset offset) const;

  // The held descriptor, or the file opened again and found to be the same. UNAVAILABLE or NOT_FOUND otherwise.
  StatusOr<elf::SharedFd> Open() const;
  // "/proc/PID/root" of the process that mapped it last: prefix for debug files beside it. The process may have
  // ended. Empty when no process is known.
  std::string RootPrefix() const;

 private:
  friend class BinaryTable;
  // One way to reach the file.
  struct Place {
    uint32_t tgid = 0;
    VirtualAddress start, end;  // of the mapping, for map_files
    std::string path;           // in that process's view
  };
  static constexpr size_t kMaxPlaces = 4;  // enough to survive the end of three of four processes

  // The table must outlive every call of Open(), not the Binary: it is held weakly.
  std::weak_ptr<BinaryTable> table_;
  std::string path_;
  bool deleted_ = false;
  BuildId build_id_;
  std::optional<FileIdentity> identity_;
  Status problem_;
  std::vector<elf::Segment> segments_;

  mutable std::mutex mutex_;   // guards the two below
  mutable elf::SharedFd fd_;   // null = closed, evicted
  std::vector<Place> places_;  // newest last, at most kMaxPlaces
};

class BinaryTable : public std::enable_shared_from_this<BinaryTable> {
 public:
  struct Options {
    std::string proc_root = "/proc";
    size_t max_held_files = 1024;  // open descriptors kept; also at most a quarter of RLIMIT_NOFILE
    size_t max_binaries = 65'536;  // known at a time; above it new ones are not remembered (each sight opens anew)
  };
  struct Counters {
    uint64_t opened = 0;       // files opened
    uint64_t unreachable = 0;  // first sights where no way led to the file
    uint64_t evicted = 0;      // descriptors closed for the limit
    uint64_t over_limit = 0;   // binaries not remembered
    size_t held_files = 0;     // descriptors now
    size_t binaries = 0;       // known now (including ones nobody uses any more, until the next sweep)
  };

  static std::shared_ptr<BinaryTable> Create(const Options& options);

  // The binary behind a file mapping. Never null: without a way to the file it has path, kernel's build ID and
  // problem(). `other_tgids`: processes whose root may show the same file (the parent).
  std::shared_ptr<const Binary> ForMapping(const Mapping& mapping, const std::vector<uint32_t>& other_tgids);

  Counters counters() const;

 private:
  friend class Binary;
  struct MapsKey {  // as /proc/PID/maps names a file
    uint32_t device_major, device_minor;
    uint64_t inode;
    auto operator<=>(const MapsKey&) const = default;
  };
  struct BuildKey {  // as the kernel's mapping records name it
    std::string build_id;
    std::string path;
    auto operator<=>(const BuildKey&) const = default;
  };
  struct Opened {
    elf::SharedFd fd;
    FileIdentity identity;
  };

  explicit BinaryTable(const Options& options) : options_(options) {}

  std::shared_ptr<Binary> FindKnown(const Mapping& mapping);
  StatusOr<Opened> OpenMapping(const Mapping& mapping, std::string_view path,
                               const std::vector<uint32_t>& other_tgids) const;
  StatusOr<Opened> OpenPath(const std::string& path) const;
  void Remember(const Mapping& mapping, const std::shared_ptr<Binary>& binary);
  void Hold(const std::shared_ptr<const Binary>& binary);
  void Sweep();

  const Options options_;
  mutable std::mutex mutex_;  // guards all below; taken before a Binary's
  std::map<FileIdentity, std::weak_ptr<Binary>> by_identity_;
  std::map<MapsKey, std::weak_ptr<Binary>> by_maps_;
  std::map<BuildKey, std::weak_ptr<Binary>> by_build_;
  // Those with a descriptor, most recently used first. The pointer is only a key: the object may be gone.
  struct Held {
    const Binary* key;
    std::weak_ptr<const Binary> binary;
  };
  std::list<Held> held_;
  std::unordered_map<const Binary*, std::list<Held>::iterator> held_position_;
  size_t next_sweep_ = 1024;
  Counters counters_;
};

// "/usr/bin/x (deleted)" -> "/usr/bin/x" and true.
std::string_view StripDeleted(std::string_view path, bool* deleted);

}  // namespace pyrometer::process

#include "userspace/process/binary.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "userspace/base/strings.h"

namespace pyrometer::process {
namespace {

FileIdentity IdentityOf(const struct stat& info) {
  return {.device = info.st_dev,
          .inode = info.st_ino,
          .modified_ns = info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec,
          .size = static_cast<uint64_t>(info.st_size)};
}

// Device numbers with major 0 belong to no disk (overlayfs, btrfs subvolumes, tmpfs): what maps prints and what
// stat says need not agree there, and on btrfs one printed number stands for several subvolumes.
bool IsUnreliableDevice(uint32_t device_major) { return device_major == 0; }

// Whether the opened file can be the one that `mapping` names, as far as the record tells.
bool Matches(const Mapping& mapping, const FileIdentity& opened, const elf::SharedFd& fd) {
  if (mapping.inode != 0) {
    if (opened.inode != mapping.inode) return false;
    if (IsUnreliableDevice(mapping.device_major) || IsUnreliableDevice(major(opened.device))) return true;
    return opened.device == makedev(mapping.device_major, mapping.device_minor);
  }
  if (!mapping.build_id.empty()) {
    StatusOr<elf::ElfFile> file = elf::ElfFile::FromFd(fd, mapping.path);
    if (!file.ok()) return false;
    StatusOr<BuildId> build_id = file->ReadBuildId();
    return build_id.ok() && *build_id == mapping.build_id;
  }
  return false;  // nothing to compare with: a guess
}

}  // namespace

std::string_view StripDeleted(std::string_view path, bool* deleted) {
  constexpr std::string_view kSuffix = " (deleted)";
  *deleted = path.ends_with(kSuffix) && path.size() > kSuffix.size();
  if (*deleted) path.remove_suffix(kSuffix.size());
  return path;
}

std::optional<ElfAddress> Binary::ToElfAddress(FileOffset offset) const {
  for (const bool executable : {true, false}) {
    for (const elf::Segment& segment : segments_) {
      if (((segment.flags & PF_X) != 0) != executable) continue;
      // The kernel maps whole pages: bytes between the page's start and the segment's belong to it too.
      const uint64_t slack = std::min<uint64_t>(segment.offset.value & 0xFFF, segment.address.value);
      const uint64_t first = segment.offset.value - slack;
      if (offset.value < first || offset.value - first >= segment.file_size + slack) continue;
      return ElfAddress(segment.address.value - slack + (offset.value - first));
    }
  }
  return std::nullopt;
}

StatusOr<elf::SharedFd> Binary::Open() const {
  std::vector<Place> places;
  {
    std::lock_guard lock(mutex_);
    if (fd_) return fd_;
    places = places_;
  }
  const std::shared_ptr<BinaryTable> table = table_.lock();
  if (!table || !identity_) {
    return problem_.ok() ? UnavailableError(StrFormat("%s is not open any more", path_)) : problem_;
  }
  const std::string& proc = table->options_.proc_root;
  std::vector<std::string> candidates;
  for (auto place = places.rbegin(); place != places.rend(); ++place) {
    candidates.push_back(StrFormat("%s/%d/map_files/%x-%x", proc, place->tgid, place->start.value, place->end.value));
    candidates.push_back(StrFormat("%s/%d/root%s", proc, place->tgid, place->path));
  }
  candidates.push_back(path_);
  for (const std::string& candidate : candidates) {
    StatusOr<BinaryTable::Opened> opened = table->OpenPath(candidate);
    if (!opened.ok() || opened->identity != *identity_) continue;
    {
      std::lock_guard lock(mutex_);
      fd_ = opened->fd;
    }
    std::lock_guard lock(table->mutex_);
    table->Hold(shared_from_this());
    return opened->fd;
  }
  return NotFoundError(StrFormat("%s was closed for lack of descriptors and cannot be found again", path_));
}

std::string Binary::RootPrefix() const {
  const std::shared_ptr<BinaryTable> table = table_.lock();
  std::lock_guard lock(mutex_);
  if (!table || places_.empty()) return "";
  return StrFormat("%s/%d/root", table->options_.proc_root, places_.back().tgid);
}

std::shared_ptr<BinaryTable> BinaryTable::Create(const Options& options) {
  Options bounded = options;
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    bounded.max_held_files = std::min<size_t>(bounded.max_held_files, limit.rlim_cur / 4);
  }
  return std::shared_ptr<BinaryTable>(new BinaryTable(bounded));
}

BinaryTable::Counters BinaryTable::counters() const {
  std::lock_guard lock(mutex_);
  Counters counters = counters_;
  counters.held_files = held_.size();
  counters.binaries = by_identity_.size();
  return counters;
}

StatusOr<BinaryTable::Opened> BinaryTable::OpenPath(const std::string& path) const {
  // O_NONBLOCK: a FIFO put in place of a library must not stop us.
  auto fd = std::make_shared<UniqueFd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!*fd) return ErrnoError(errno, StrFormat("cannot open %s", path));
  struct stat info;
  if (::fstat(fd->get(), &info) != 0) return ErrnoError(errno, StrFormat("cannot stat %s", path));
  if (!S_ISREG(info.st_mode)) return InvalidArgumentError(StrFormat("%s is not a regular file", path));
  return Opened{std::move(fd), IdentityOf(info)};
}

StatusOr<BinaryTable::Opened> BinaryTable::OpenMapping(const Mapping& mapping, std::string_view path,
                                                       const std::vector<uint32_t>& other_tgids) const {
  // map_files leads to the mapped file itself whatever happened to its name, but the range must be that of the
  // kernel's VMA now: if another file was mapped there meanwhile, the comparison below notices.
  StatusOr<Opened> opened = OpenPath(
      StrFormat("%s/%d/map_files/%x-%x", options_.proc_root, mapping.key.tgid, mapping.start.value, mapping.end.value));
  const bool record_says_which = mapping.inode != 0 || !mapping.build_id.empty();
  if (opened.ok() && (!record_says_which || Matches(mapping, opened->identity, opened->fd))) return opened;
  const Status first_error = opened.ok() ? NotFoundError("another file is mapped there now") : opened.status();
  if (!path.starts_with('/')) return first_error;

  std::vector<std::string> roots = {StrFormat("%s/%d/root", options_.proc_root, mapping.key.tgid)};
  for (uint32_t tgid : other_tgids) roots.push_back(StrFormat("%s/%d/root", options_.proc_root, tgid));
  roots.push_back("");
  for (const std::string& root : roots) {
    opened = OpenPath(root + std::string(path));
    if (opened.ok() && Matches(mapping, opened->identity, opened->fd)) return opened;
  }
  return first_error;
}

std::shared_ptr<Binary> BinaryTable::FindKnown(const Mapping& mapping) {
  std::shared_ptr<Binary> binary;
  if (mapping.inode == 0 && !mapping.build_id.empty()) {
    const auto it = by_build_.find(BuildKey{mapping.build_id.hex, mapping.path});
    if (it != by_build_.end()) binary = it->second.lock();
    if (binary && !binary->identity_) return nullptr;  // could not be reached the last time: try again
    return binary;
  }
  if (mapping.inode == 0 || IsUnreliableDevice(mapping.device_major)) return nullptr;
  const auto it = by_maps_.find(MapsKey{mapping.device_major, mapping.device_minor, mapping.inode});
  if (it == by_maps_.end() || !(binary = it->second.lock())) return nullptr;
  // While we hold the file open its inode number cannot be used again; only a rewrite in place changes it.
  elf::SharedFd fd;
  {
    std::lock_guard lock(binary->mutex_);
    fd = binary->fd_;
  }
  struct stat info;
  if (!fd || ::fstat(fd->get(), &info) != 0 || IdentityOf(info) != binary->identity_) return nullptr;
  return binary;
}

std::shared_ptr<const Binary> BinaryTable::ForMapping(const Mapping& mapping,
                                                      const std::vector<uint32_t>& other_tgids) {
  bool deleted = false;
  const std::string path(StripDeleted(mapping.path, &deleted));
  Binary::Place place{mapping.key.tgid, mapping.start, mapping.end, path};
  const auto add_place = [&place](Binary& binary) {
    std::lock_guard lock(binary.mutex_);
    std::erase_if(binary.places_, [&](const Binary::Place& old) { return old.tgid == place.tgid; });
    if (binary.places_.size() >= Binary::kMaxPlaces) binary.places_.erase(binary.places_.begin());
    binary.places_.push_back(std::move(place));
  };
  {
    std::lock_guard lock(mutex_);
    if (std::shared_ptr<Binary> known = FindKnown(mapping)) {
      add_place(*known);
      Hold(known);
      return known;
    }
  }

  // Files are opened and read without the lock.
  StatusOr<Opened> opened = OpenMapping(mapping, path, other_tgids);
  if (opened.ok()) {
    std::lock_guard lock(mutex_);
    ++counters_.opened;
    const auto it = by_identity_.find(opened->identity);
    if (it != by_identity_.end()) {
      if (std::shared_ptr<Binary> known = it->second.lock()) {
        add_place(*known);
        {
          std::lock_guard binary_lock(known->mutex_);
          if (!known->fd_) known->fd_ = opened->fd;
        }
        Remember(mapping, known);
        Hold(known);
        return known;
      }
    }
  }

  auto binary = std::make_shared<Binary>();
  binary->table_ = weak_from_this();
  binary->path_ = path;
  binary->deleted_ = deleted;
  binary->build_id_ = mapping.build_id;
  if (!opened.ok()) {
    binary->problem_ = WithContext(opened.status(), path);
    std::lock_guard lock(mutex_);
    ++counters_.unreachable;
    // The same build in another place is as good: take its program headers.
    if (!mapping.build_id.empty()) {
      const auto it = by_build_.lower_bound(BuildKey{mapping.build_id.hex, ""});
      if (it != by_build_.end() && it->first.build_id == mapping.build_id.hex) {
        if (std::shared_ptr<Binary> same_build = it->second.lock(); same_build && same_build->identity_) {
          return same_build;
        }
      }
      // One object for all processes too short-lived to be looked at.
      const BuildKey key{mapping.build_id.hex, mapping.path};
      if (const auto known = by_build_.find(key); known != by_build_.end()) {
        if (std::shared_ptr<Binary> same = known->second.lock()) return same;
      }
      Sweep();
      if (by_build_.size() < 2 * options_.max_binaries) by_build_[key] = binary;
    }
    return binary;
  }

  binary->identity_ = opened->identity;
  binary->fd_ = opened->fd;
  binary->places_.push_back(place);
  StatusOr<elf::ElfFile> file = elf::ElfFile::FromFd(opened->fd, path);
  if (file.ok()) {
    for (const elf::Segment& segment : file->segments()) {
      if (segment.type == PT_LOAD) binary->segments_.push_back(segment);
    }
    if (StatusOr<BuildId> build_id = file->ReadBuildId(); build_id.ok()) binary->build_id_ = *std::move(build_id);
  } else {
    binary->problem_ = file.status();
  }
  std::lock_guard lock(mutex_);
  Remember(mapping, binary);
  Hold(binary);
  return binary;
}

void BinaryTable::Remember(const Mapping& mapping, const std::shared_ptr<Binary>& binary) {
  Sweep();
  if (by_identity_.size() >= options_.max_binaries && !by_identity_.contains(*binary->identity_)) {
    ++counters_.over_limit;
    return;
  }
  by_identity_[*binary->identity_] = binary;
  if (mapping.inode != 0 && !IsUnreliableDevice(mapping.device_major)) {
    by_maps_[MapsKey{mapping.device_major, mapping.device_minor, mapping.inode}] = binary;
  }
  // One file under many names must not grow this without end.
  if (!binary->build_id_.empty() && by_build_.size() < 2 * options_.max_binaries)
    by_build_[BuildKey{binary->build_id_.hex, mapping.path}] = binary;
}

void BinaryTable::Hold(const std::shared_ptr<const Binary>& binary) {
  const auto known = held_position_.find(binary.get());
  if (known != held_position_.end() && known->second->binary.lock() == binary) {
    held_.splice(held_.begin(), held_, known->second);
    return;
  }
  if (known != held_position_.end()) held_.erase(known->second);  // another object lived at this address
  held_.push_front({binary.get(), binary});
  held_position_[binary.get()] = held_.begin();
  while (held_.size() > options_.max_held_files) {
    const std::shared_ptr<const Binary> oldest = held_.back().binary.lock();
    held_position_.erase(held_.back().key);
    held_.pop_back();
    if (!oldest) continue;
    std::lock_guard lock(oldest->mutex_);
    oldest->fd_.reset();
    ++counters_.evicted;
  }
}

// Forgets binaries that nobody uses; runs when the tables have doubled since the last time.
void BinaryTable::Sweep() {
  const size_t total = by_identity_.size() + by_maps_.size() + by_build_.size();
  if (total < next_sweep_) return;
  const auto gone = [](const auto& entry) { return entry.second.expired(); };
  std::erase_if(by_identity_, gone);
  std::erase_if(by_maps_, gone);
  std::erase_if(by_build_, gone);
  for (auto it = held_position_.begin(); it != held_position_.end();) {
    if (it->second->binary.expired()) {
      held_.erase(it->second);
      it = held_position_.erase(it);
    } else {
      ++it;
    }
  }
  next_sweep_ = std::max<size_t>(1024, 2 * (by_identity_.size() + by_maps_.size() + by_build_.size()));
}

}  // namespace pyrometer::process

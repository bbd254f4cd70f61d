#include "userspace/agent/spool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

constexpr char kMagic[8] = {'P', 'Y', 'R', 'S', 'P', 'O', 'O', 'L'};
constexpr uint32_t kVersion = 1;
// Above any batch: a window of 10,000 samples/s with all-distinct stacks is about 30 MiB.
constexpr uint64_t kMaxBatchBytes = 256u << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t reserved;
  uint64_t payload_bytes;
  uint64_t payload_hash;
  uint64_t samples;
};
static_assert(sizeof(Header) == 40);
static_assert(std::endian::native == std::endian::little, "the header is little endian");

StatusOr<std::string> MakeAgentId() {
  unsigned char random[16];
  if (::getrandom(random, sizeof random, 0) != sizeof random) return ErrnoError(errno, "cannot read random bytes");
  return HexEncode({reinterpret_cast<const char*>(random), sizeof random});
}

// Reads and checks one file; the header alone when `payload` is null.
Status ReadBatchFile(const std::string& path, Header* header, std::string* payload) {
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxBatchBytes + sizeof(Header)));
  if (content.size() < sizeof(Header)) return DataLossError(StrFormat("%s is cut short", path));
  std::memcpy(header, content.data(), sizeof(Header));
  const std::string_view body = std::string_view(content).substr(sizeof(Header));
  if (std::memcmp(header->magic, kMagic, sizeof kMagic) != 0)
    return DataLossError(StrFormat("%s is not a batch", path));
  if (header->version != kVersion) {
    return FailedPreconditionError(
        StrFormat("%s has format %d, this pyrometer reads %d", path, header->version, kVersion));
  }
  if (header->payload_bytes != body.size() || header->payload_hash != XXH3_64bits(body.data(), body.size())) {
    return DataLossError(StrFormat("%s is damaged: its checksum does not fit", path));
  }
  if (payload != nullptr) payload->assign(body);
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& folder, const Options& options) {
  RETURN_IF_ERROR(CreateDirectories(folder));
  std::unique_ptr<Spool> spool(new Spool(folder, options));
  RETURN_IF_ERROR(spool->Load());
  return spool;
}

Status Spool::Load() {
  folder_fd_.Reset(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder_fd_) return ErrnoError(errno, StrFormat("cannot open the spool folder %s", folder_));
  const std::string lock_path = folder_ + "/lock";
  lock_.Reset(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_) {
    return ErrnoError(errno, StrFormat("cannot write in the spool folder %s; pass --spool with another one", folder_));
  }
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return FailedPreconditionError(StrFormat(
        "the spool folder %s is in use by another pyrometer agent; stop that one or pass --spool with another folder",
        folder_));
  }

  const std::string id_path = folder_ + "/agent-id";
  auto id = ReadFile(id_path, 256);
  if (id.ok()) {
    agent_id_ = StripWhitespace(*id);
  } else if (id.status().code() != StatusCode::kNotFound) {
    return id.status();
  }
  if (agent_id_.empty()) {
    ASSIGN_OR_RETURN(agent_id_, MakeAgentId());
    RETURN_IF_ERROR(WriteFileAtomically(id_path, agent_id_ + "\n"));
  }

  std::error_code error;
  for (const auto& item : std::filesystem::directory_iterator(folder_, error)) {
    const std::string name = item.path().filename().string();
    if (name.find(".tmp.") != std::string::npos) {  // of a write that a crash cut off
      ::unlink(item.path().c_str());
      continue;
    }
    if (!name.ends_with(".batch")) continue;
    const auto sequence = ParseUint64(std::string_view(name).substr(0, name.size() - 6));
    if (!sequence || *sequence == 0) continue;
    last_sequence_ = std::max(last_sequence_, *sequence);
    Header header;
    const Status status = ReadBatchFile(item.path().string(), &header, nullptr);
    if (status.code() == StatusCode::kDataLoss) {
      ::rename(item.path().c_str(), (item.path().string() + ".corrupt").c_str());
      ++counters_.corrupt_batches;
      continue;
    }
    RETURN_IF_ERROR(status);
    const uint64_t bytes = header.payload_bytes + sizeof(Header);
    entries_[*sequence] = {bytes, header.samples};
    total_bytes_ += bytes;
  }
  if (error) return ErrnoError(error.value(), StrFormat("cannot list the spool folder %s", folder_));
  // A damaged newest batch must not give its number to another.
  for (const auto& item : std::filesystem::directory_iterator(folder_, error)) {
    const std::string name = item.path().filename().string();
    if (!name.ends_with(".batch.corrupt")) continue;
    if (const auto sequence = ParseUint64(std::string_view(name).substr(0, name.size() - 14))) {
      last_sequence_ = std::max(last_sequence_, *sequence);
    }
  }
  return OkStatus();
}

std::string Spool::PathOf(uint64_t sequence) const { return StrFormat("%s/%020d.batch", folder_, sequence); }

uint64_t Spool::next_sequence() const {
  const std::lock_guard lock(mutex_);
  return last_sequence_ + 1;
}

Status Spool::Append(uint64_t sequence, std::string_view bytes, uint64_t samples) {
  const std::lock_guard lock(mutex_);
  if (sequence != last_sequence_ + 1) {
    return InternalError(StrFormat("batch %d appended after %d", sequence, last_sequence_));
  }
  if (bytes.size() > kMaxBatchBytes) {
    return ResourceExhaustedError(
        StrFormat("a window of %s is over the limit of %s", FormatBytes(bytes.size()), FormatBytes(kMaxBatchBytes)));
  }
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.payload_bytes = bytes.size();
  header.payload_hash = XXH3_64bits(bytes.data(), bytes.size());
  header.samples = samples;
  std::string content(reinterpret_cast<const char*>(&header), sizeof header);
  content += bytes;
  RETURN_IF_ERROR(WriteFileAtomically(PathOf(sequence), content));
  if (::fsync(folder_fd_.get()) != 0) {
    const Status status = ErrnoError(errno, StrFormat("cannot sync the spool folder %s", folder_));
    ::unlink(PathOf(sequence).c_str());
    return status;
  }
  last_sequence_ = sequence;
  entries_[sequence] = {content.size(), samples};
  total_bytes_ += content.size();
  // The marker of the last acknowledgement has done its duty.
  while (!entries_.empty() && entries_.begin()->first <= acknowledged_ && entries_.size() > 1) Remove(entries_.begin());
  while (total_bytes_ > options_.max_bytes && entries_.size() > 1) {
    ++counters_.dropped_batches;
    counters_.dropped_samples += entries_.begin()->second.samples;
    Remove(entries_.begin());
  }
  return OkStatus();
}

void Spool::Remove(std::map<uint64_t, Entry>::iterator entry) {
  ::unlink(PathOf(entry->first).c_str());
  total_bytes_ -= entry->second.bytes;
  entries_.erase(entry);
}

StatusOr<std::string> Spool::Read(uint64_t sequence) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(sequence);
  if (entry == entries_.end()) return NotFoundError(StrFormat("batch %d is not in the spool", sequence));
  Header header;
  std::string payload;
  const Status status = ReadBatchFile(PathOf(sequence), &header, &payload);
  if (status.code() == StatusCode::kDataLoss || status.code() == StatusCode::kNotFound) {
    ::rename(PathOf(sequence).c_str(), (PathOf(sequence) + ".corrupt").c_str());
    ++counters_.corrupt_batches;
    total_bytes_ -= entry->second.bytes;
    entries_.erase(entry);
  }
  RETURN_IF_ERROR(status);
  return payload;
}

std::optional<uint64_t> Spool::NextPending(uint64_t after) const {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.upper_bound(std::max(after, acknowledged_));
  if (entry == entries_.end()) return std::nullopt;
  return entry->first;
}

uint64_t Spool::SamplesOf(uint64_t sequence) const {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(sequence);
  return entry == entries_.end() ? 0 : entry->second.samples;
}

Status Spool::Acknowledge(uint64_t sequence) {
  const std::lock_guard lock(mutex_);
  if (sequence > last_sequence_) {
    return FailedPreconditionError(StrFormat(
        "the store knows batch %d of this agent, but the spool %s ends at %d: it was restored from an old copy. "
        "Remove the folder; the agent then starts as a new one",
        sequence, folder_, last_sequence_));
  }
  acknowledged_ = std::max(acknowledged_, sequence);
  while (!entries_.empty() && entries_.begin()->first <= acknowledged_ && entries_.begin()->first < last_sequence_) {
    Remove(entries_.begin());
  }
  return OkStatus();
}

Spool::Counters Spool::counters() const {
  const std::lock_guard lock(mutex_);
  Counters counters = counters_;
  for (auto entry = entries_.upper_bound(acknowledged_); entry != entries_.end(); ++entry) {
    ++counters.pending_batches;
    counters.pending_bytes += entry->second.bytes;
  }
  return counters;
}

}  // namespace pyrometer::agent

// Batches on disk until the store has made them durable.
//
//   ASSIGN_OR_RETURN(auto spool, Spool::Open("/var/lib/pyrometer/spool", {}));
//   const uint64_t sequence = spool->next_sequence();
//   RETURN_IF_ERROR(spool->Append(sequence, bytes));   // on disk, synced
//   …  spool->Read(sequence) → send → the store's Ack → spool->Acknowledge(sequence)
//
// One file per batch, `<sequence, 20 digits>.batch`: magic "PYRSPOOL", u32 version, u32 reserved, u64 payload
// bytes, u64 XXH3 of the payload, u64 samples (little endian), payload. It is written under another name, synced,
// renamed, and the folder synced: after a crash a batch is there whole or not at all. A file that does not
// check out is set aside as `.corrupt`, counted, and never sent.
//
// The newest acknowledged file stays until a newer batch exists, so that sequence numbers go on
// after a restart with everything acknowledged. `agent-id` beside the batches names this agent for
// ever; the folder is locked against a second agent.
//
// Bounded: above max_bytes the oldest batches are dropped and counted (samples too, by the caller's
// `samples` figure kept in the header). Threads: any; one mutex, held over disk writes by Append.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"

namespace pyrometer::agent {

class Spool {
 public:
  struct Options {
    // Disk the spool may use. At 99 Hz a busy 2-CPU host writes about 100 KiB per window: 1 GiB is more than a day.
    uint64_t max_bytes = 1ull << 30;
  };
  struct Counters {
    uint64_t pending_batches = 0;  // not acknowledged yet
    uint64_t pending_bytes = 0;
    uint64_t dropped_batches = 0;  // over max_bytes, since Open
    uint64_t dropped_samples = 0;
    uint64_t corrupt_batches = 0;
  };

  // Creates the folder if needed. FAILED_PRECONDITION when another process uses it.
  static StatusOr<std::unique_ptr<Spool>> Open(const std::string& folder, const Options& options);

  const std::string& agent_id() const { return agent_id_; }
  // One above the highest sequence ever appended here.
  uint64_t next_sequence() const;

  // Durable when it returns OK. Precondition: sequence == next_sequence(). On failure (disk full)
  // nothing is left behind and the sequence stays free.
  Status Append(uint64_t sequence, std::string_view bytes, uint64_t samples);

  // The payload; DATA_LOSS when the file is damaged (it is then set aside), NOT_FOUND when dropped meanwhile.
  StatusOr<std::string> Read(uint64_t sequence);
  // Lowest pending sequence above `after`.
  std::optional<uint64_t> NextPending(uint64_t after) const;
  // As given to Append; 0 when it is not here.
  uint64_t SamplesOf(uint64_t sequence) const;
  // Everything up to `sequence` is durable elsewhere.
  Status Acknowledge(uint64_t sequence);

  Counters counters() const;

 private:
  struct Entry {
    uint64_t bytes = 0;
    uint64_t samples = 0;
  };

  Spool(std::string folder, const Options& options) : folder_(std::move(folder)), options_(options) {}
  Status Load();
  std::string PathOf(uint64_t sequence) const;
  void Remove(std::map<uint64_t, Entry>::iterator entry);

  const std::string folder_;
  const Options options_;
  std::string agent_id_;
  UniqueFd lock_;
  UniqueFd folder_fd_;

  mutable std::mutex mutex_;
  std::map<uint64_t, Entry> entries_;  // files on disk, acknowledged marker included
  uint64_t acknowledged_ = 0;
  uint64_t last_sequence_ = 0;
  uint64_t total_bytes_ = 0;
  Counters counters_;
};

}  // namespace pyrometer::agent

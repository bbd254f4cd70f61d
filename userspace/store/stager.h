// The first half of an append: a batch's definitions become ids of the store, its points the bytes that will be
// written. Inside this room only.
//
// Ids are given out under one lock, and nothing that a batch refers to may reach the disk later than the batch. So new
// definitions gather in one place (DefinitionLog::pending) in the order in which their ids were given out, and whoever
// writes the next group of batches writes all of them before the group's points, in the same atomic write. When that
// write fails, everything given out since the last good one is forgotten: the epoch rises, memos of the old epoch are
// void, and batches that were staged in it are staged again.
//
// What is known already needs no lock of that kind: a stream's memo maps the stream's ids to the store's. New names are
// looked up on the disk with the lock held, a batch of 100,000 for a second: between two of them it is left to others
// that wait, so that a tenant who sends such batches delays nobody else.
#pragma once

#include <rocksdb/write_batch.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "userspace/base/yielding_mutex.h"
#include "userspace/profile/batch.h"
#include "userspace/store/chunk.h"
#include "userspace/store/database.h"
#include "userspace/store/names.h"
#include "userspace/store/series.h"
#include "userspace/store/tenants.h"
#include "userspace/store/trie.h"
#include "userspace/store/validate.h"

namespace pyrometer::store {

// Definitions in memory and on their way to the disk. Everything is guarded by `mutex`.
struct DefinitionLog {
  DefinitionLog(const Database* database, uint64_t budget_bytes)
      : names(database, budget_bytes / 2), series(database, &names, budget_bytes / 4) {}

  YieldingMutex mutex;
  NameWriter names;
  SeriesWriter series;
  std::atomic<uint64_t> epoch{1};  // read without the lock; then checked again when the batch is written

  rocksdb::WriteBatch pending;
  std::unordered_map<TrieId, std::shared_ptr<StackTrie>> pending_tries;  // held: they must not be loaded afresh
  std::map<TenantId, TenantUsage> pending_usage;
  uint64_t pending_nodes = 0;
  uint64_t pending_leaves = 0;
  std::map<TrieId, TenantId> pending_services;  // tries that are new
  // Of tries that were added to since the start.
  struct TrieStart {
    FrameKeyId first_frame = 0;  // the next one when it was first added to
    uint64_t most_nodes = 0;     // after which it gets a successor
  };
  std::unordered_map<TrieId, TrieStart> trie_starts;
  // Tries that another one took the place of, since the start: streams that knew them look their series up again.
  std::vector<TrieId> turned_over;
  std::atomic<size_t> turnovers{0};         // its size; read without the lock
  std::atomic<FrameKeyId> folded_frame{0};  // of kFoldedStacksName, once it was needed; read without the lock too
};

// Ids of the store by ids of a stream; pages of 1,024 so that the stacks of one of many services take little.
class IdPages {
 public:
  static constexpr size_t kPage = 1024;
  uint32_t Get(uint32_t id) const {
    const size_t page = id / kPage;
    return page < pages_.size() && pages_[page] != nullptr ? pages_[page][id % kPage] : 0;
  }
  void Set(uint32_t id, uint32_t value) {
    const size_t page = id / kPage;
    if (page >= pages_.size()) pages_.resize(page + 1);
    if (pages_[page] == nullptr) {
      pages_[page] = std::make_unique<uint32_t[]>(kPage);
      ++used_;
    }
    pages_[page][id % kPage] = value;
  }
  uint64_t bytes() const { return used_ * kPage * sizeof(uint32_t) + pages_.capacity() * sizeof(void*); }

 private:
  std::vector<std::unique_ptr<uint32_t[]>> pages_;
  size_t used_ = 0;
};

class Memo : public StreamMemo {
 public:
  uint64_t bytes() const override;
  void Reset(uint64_t new_epoch);

  uint64_t epoch = 0;
  size_t turnovers = 0;  // of DefinitionLog::turned_over that it knows of
  TenantId tenant = 0;
  NameId agent = 0;
  CheckedDefinitions checked;
  // By id of the stream; 0 = not known yet.
  std::vector<SeriesWriter::Found> series;
  IdPages names, functions, frames;
  std::unordered_map<TrieId, IdPages> nodes;  // by trie, then stack
  int64_t folded_day = 0;                     // on which a stack was folded last; 0 = none
  std::vector<bool> folded_series;            // points of these go to the series of the folded
};

// One point in ids of the store.
struct StagedPoint {
  PointKind kind = PointKind::kProfile;
  SeriesWriter::Found place;
  uint32_t hour = 0;
  TotalRecord total;
  WindowChunk window;        // of a profile
  OffsetsChunk offsets;      // of a profile; without rows: none
  HistogramChunk histogram;  // of a histogram
};

struct StagedBatch {
  struct Op {
    Family family;
    std::string key;
    std::string value;
  };
  uint64_t epoch = 0;
  TenantId tenant = 0;
  NameId agent = 0;  // if the encoder wants it
  uint64_t sequence = 0;
  std::vector<Op> ops;                                      // for the local database
  std::map<std::pair<TrieId, uint32_t>, std::string> rows;  // for a cluster, by service and day
  uint64_t samples = 0;
  uint64_t bytes = 0;  // of the values of ops, of rows
  TenantUsage usage;   // samples and what was folded; definitions are counted by the log
  struct Fresh {
    uint64_t points = 0;
    uint64_t bytes = 0;
  };
  std::map<std::pair<uint32_t, TrieId>, Fresh> hours;
  std::string notice;
};

// What a staged point looks like where it will lie. Called by many threads at a time.
class PointEncoder {
 public:
  virtual ~PointEncoder() = default;
  // Points need the agent's id as a name.
  virtual bool NamesAgents() const = 0;
  // Adds the point to what `*staged` is to write, and its bytes to StagedBatch::bytes and ::hours.
  virtual void Encode(StagedPoint point, StagedBatch* staged) = 0;
};

class Stager {
 public:
  // All must outlive this.
  Stager(const StoreOptions* options, const Database* database, TenantTable* tenants, TrieCache* tries,
         DefinitionLog* definitions, PointEncoder* encoder)
      : options_(*options),
        database_(*database),
        tenants_(*tenants),
        tries_(*tries),
        definitions_(*definitions),
        encoder_(*encoder) {}

  // Precondition: the batch was validated. The memo is of the current epoch or empty.
  StatusOr<StagedBatch> Stage(const profile::BatchView& batch, Memo* memo);

 private:
  friend class BatchStager;
  uint64_t MostTrieNodes() const;
  // What max_nodes bounds: nodes of this day, since those of other deploys are in tries that nobody writes to; all that
  // a tenant has where each service has one trie, which has to fit into memory.
  bool NodesCountByDay() const { return options_.max_trie_nodes != UINT64_MAX; }
  uint64_t BoundedNodes(TenantId tenant) const {
    return NodesCountByDay() ? tenants_.NodesOfDay(tenant) : tenants_.Usage(tenant).nodes;
  }

  const StoreOptions& options_;
  const Database& database_;
  TenantTable& tenants_;
  TrieCache& tries_;
  DefinitionLog& definitions_;
  PointEncoder& encoder_;
};

}  // namespace pyrometer::store

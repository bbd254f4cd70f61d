// Series and groups: tenant, profile type and labels -> dense id, and the postings that find them by label. Inside this
// room only.
//
// A group is what its series have in common: the same tenant, type and labels but for instance labels (reader.h).
// Groups have records, an index and postings of the same form under other letters, and numbers of their own.
//
// Keys of the `series` column family (docs/formats/store.md), of series and of groups: 'r' 'g' record by id, 'k' 'j' id
// by content, 'p' 'q' postings: (tenant, type, name, value) -> ids; name = value = 0 lists every series of a type.
//
// SeriesWriter: callers hold the lock under which ids are given out. SeriesReader: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/store/database.h"
#include "userspace/store/names.h"
#include "userspace/store/reader.h"
#include "userspace/store/two_generation_cache.h"

namespace pyrometer::store {

using TenantId = uint32_t;  // dense, from 1; 1 is the default tenant

enum class SeriesKind : uint8_t {
  kSeries = 0,
  kGroup = 1,
};

// A series or group as stored: names by id.
struct SeriesRecord {
  struct Label {
    NameId name = 0;
    NameId value = 0;
    bool operator==(const Label&) const = default;
  };
  TrieId trie = 0;
  GroupId group = 0;  // of a series; 0 for a group itself
  TenantId tenant = 0;
  NameId type = 0;
  std::vector<Label> labels;  // in the order of their names' text
  bool operator==(const SeriesRecord&) const = default;
};
// Tenant, type and labels only: what makes two series the same one.
std::string SeriesIdentity(const SeriesRecord& record);
std::string EncodeSeries(const SeriesRecord& record);
StatusOr<SeriesRecord> DecodeSeries(std::string_view bytes);

struct Posting {
  TenantId tenant = 0;
  NameId type = 0;
  NameId name = 0;
  NameId value = 0;
  uint32_t id = 0;
  bool operator==(const Posting&) const = default;
};
std::string EncodePosting(SeriesKind kind, const Posting& posting);  // a letter and five big-endian numbers
StatusOr<Posting> DecodePosting(SeriesKind kind, std::string_view bytes);
std::string SeriesRecordKey(SeriesKind kind, uint32_t id);
std::string SeriesIndexKey(SeriesKind kind, std::string_view identity);

// Which tries hold the stacks of a series: those of its service, else of its container's name; "" is the machine's
// rest. One takes new stacks; when it has grown large the next one takes its place, with series and groups of the same
// labels but numbers of their own.
std::string_view TrieName(const profile::LabelSet& labels);
// Key and value of the record that names a trie; the index from name to the newest's id stands beside it.
std::string TrieRecordKey(TrieId trie);
std::string TrieIndexKey(TenantId tenant, std::string_view name);
struct TrieRecord {
  TenantId tenant = 0;
  std::string name;  // of the service
};
std::string EncodeTrieRecord(const TrieRecord& record);
StatusOr<TrieRecord> DecodeTrieRecord(std::string_view bytes);

class SeriesWriter {
 public:
  struct Found {
    SeriesId id = 0;
    TrieId trie = 0;
    GroupId group = 0;
  };

  SeriesWriter(const Database* database, NameWriter* names, uint64_t budget_bytes)
      : database_(*database),
        names_(*names),
        ids_(budget_bytes / 2),
        groups_(budget_bytes / 4),
        tries_(budget_bytes / 4) {}

  // id 0 when the series is not there. Adds nothing.
  StatusOr<Found> Find(TenantId tenant, const profile::SeriesKey& key);
  // Adds the series, its postings, its group and its trie as needed; `*added` tells whether there was none with these
  // labels.
  StatusOr<Found> FindOrAdd(TenantId tenant, const profile::SeriesKey& key, rocksdb::WriteBatch* batch, bool* added);
  // The trie's service gets a new trie for what comes from now on. `*successor`: the new one; 0 when it is not the
  // newest of its service or was not written yet.
  Status TurnOver(TrieId trie, rocksdb::WriteBatch* batch, TrieId* successor);
  // Takes a series or group out of record, index and postings. `*tenant`: whose it was; 0 = it was not there, or
  // another with the same labels has taken its place.
  Status Remove(SeriesKind kind, uint32_t id, rocksdb::WriteBatch* batch, TenantId* tenant);

  SeriesId next_series = 1;
  GroupId next_group = 1;
  TrieId next_trie = 1;

  void Forget();
  void Trim();
  uint64_t bytes() const { return ids_.bytes() + groups_.bytes() + tries_.bytes(); }

 private:
  using Ids = TwoGenerationCache<std::string, Found, TransparentStringHash, std::equal_to<>>;
  StatusOr<TrieId> TrieOf(TenantId tenant, std::string_view name, rocksdb::WriteBatch* batch);
  StatusOr<TrieId> AddTrie(TenantId tenant, std::string_view name, rocksdb::WriteBatch* batch);
  StatusOr<Found> Lookup(SeriesKind kind, const std::string& identity);
  Status PutAll(SeriesKind kind, const std::string& identity, const SeriesRecord& record, const Found& found,
                rocksdb::WriteBatch* batch);
  Ids& IdsOf(SeriesKind kind) { return kind == SeriesKind::kSeries ? ids_ : groups_; }

  const Database& database_;
  NameWriter& names_;
  Ids ids_;
  Ids groups_;
  TwoGenerationCache<std::string, TrieId, TransparentStringHash, std::equal_to<>> tries_;
};

class SeriesReader {
 public:
  SeriesReader(const Database* database, NameReader* names, uint64_t budget_bytes)
      : database_(*database), names_(*names), cache_(budget_bytes) {}

  // `tenant` 0: nothing matches. Sorted by id.
  StatusOr<std::vector<Series>> Find(SeriesKind kind, TenantId tenant, const SeriesFilter& filter);
  StatusOr<std::vector<std::string>> Types(TenantId tenant);
  StatusOr<std::vector<std::string>> LabelNames(TenantId tenant, const SeriesFilter& filter);
  StatusOr<std::vector<std::string>> LabelValues(TenantId tenant, std::string_view name, const SeriesFilter& filter);
  // Every id, ascending.
  StatusOr<std::vector<uint32_t>> AllIds(SeriesKind kind);
  // Same order; nullptr for those that are not there (any more).
  StatusOr<std::vector<std::shared_ptr<const Series>>> Load(SeriesKind kind, const std::vector<uint32_t>& ids);

  void Erase(SeriesKind kind, uint32_t id);
  uint64_t bytes() const;

 private:
  // Distinct values of the next part of a posting after `prefix`.
  StatusOr<std::vector<NameId>> Distinct(const std::string& prefix);
  StatusOr<std::vector<uint32_t>> Postings(SeriesKind kind, TenantId tenant, NameId type, NameId name, NameId value);
  StatusOr<std::vector<uint32_t>> Candidates(SeriesKind kind, TenantId tenant, NameId type,
                                             const std::vector<LabelMatcher>& matchers);
  StatusOr<std::vector<NameId>> TypesOf(SeriesKind kind, TenantId tenant, const SeriesFilter& filter);

  const Database& database_;
  NameReader& names_;
  mutable std::mutex mutex_;
  TwoGenerationCache<uint64_t, std::shared_ptr<const Series>> cache_;  // kind << 32 | id
};

}  // namespace pyrometer::store

// Series: profile type + labels -> dense id, and the postings that find them by label. Inside this
// room only.
//
// Keys of the `series` column family (docs/formats/store.md): 'r' record by id, 'k' id by content,
// 'p' postings: (type, name, value) -> ids; name = value = 0 lists every series of a type.
//
// SeriesWriter: the one thread that applies batches. SeriesReader: any thread.
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

// A series as stored: names by id.
struct SeriesRecord {
  struct Label {
    NameId name = 0;
    NameId value = 0;
    bool operator==(const Label&) const = default;
  };
  TrieId trie = 0;
  NameId type = 0;
  std::vector<Label> labels;  // in the order of their names' text
  bool operator==(const SeriesRecord&) const = default;
};
// Type and labels only: what makes two series the same one.
std::string SeriesIdentity(const SeriesRecord& record);
std::string EncodeSeries(const SeriesRecord& record);
StatusOr<SeriesRecord> DecodeSeries(std::string_view bytes);

struct Posting {
  NameId type = 0;
  NameId name = 0;
  NameId value = 0;
  SeriesId series = 0;
  bool operator==(const Posting&) const = default;
};
std::string EncodePosting(const Posting& posting);  // 17 bytes: 'p' and four big-endian numbers
StatusOr<Posting> DecodePosting(std::string_view bytes);
std::string SeriesRecordKey(SeriesId id);
std::string SeriesIndexKey(std::string_view identity);

// Which trie holds the stacks of a series: that of its service, else of its container's name; "" is the machine's rest.
std::string_view TrieName(const profile::LabelSet& labels);

class SeriesWriter {
 public:
  struct Found {
    SeriesId id = 0;
    TrieId trie = 0;
  };

  SeriesWriter(const Database* database, NameWriter* names, uint64_t budget_bytes)
      : database_(*database), names_(*names), ids_(budget_bytes / 2), tries_(budget_bytes / 2) {}

  // id 0 when the series is not there. Adds nothing.
  StatusOr<Found> Find(const profile::SeriesKey& key);
  // Adds the series, its postings and its trie as needed.
  StatusOr<Found> FindOrAdd(const profile::SeriesKey& key, rocksdb::WriteBatch* batch);
  // Takes a series out of record, index and postings.
  Status Remove(SeriesId id, rocksdb::WriteBatch* batch);

  SeriesId next_series = 1;
  TrieId next_trie = 1;
  uint64_t live = 0;

  void Forget();
  void Trim();
  uint64_t bytes() const { return ids_.bytes() + tries_.bytes(); }

 private:
  StatusOr<TrieId> TrieOf(std::string_view name, rocksdb::WriteBatch* batch);
  StatusOr<Found> Lookup(const std::string& identity);

  const Database& database_;
  NameWriter& names_;
  TwoGenerationCache<std::string, Found, TransparentStringHash, std::equal_to<>> ids_;
  TwoGenerationCache<std::string, TrieId, TransparentStringHash, std::equal_to<>> tries_;
};

class SeriesReader {
 public:
  SeriesReader(const Database* database, NameReader* names, uint64_t budget_bytes)
      : database_(*database), names_(*names), cache_(budget_bytes) {}

  StatusOr<std::vector<Series>> Find(const SeriesFilter& filter);
  StatusOr<std::vector<std::string>> Types();
  StatusOr<std::vector<std::string>> LabelNames(const SeriesFilter& filter);
  StatusOr<std::vector<std::string>> LabelValues(std::string_view name, const SeriesFilter& filter);
  // Every series id, ascending.
  StatusOr<std::vector<SeriesId>> AllIds();

  void Erase(SeriesId id);
  uint64_t bytes() const;

 private:
  // Distinct values of the next part of a posting after `prefix` ('p' and 0 to 2 ids).
  StatusOr<std::vector<NameId>> Distinct(const std::string& prefix);
  StatusOr<std::vector<SeriesId>> Postings(NameId type, NameId name, NameId value);
  StatusOr<std::vector<SeriesId>> Candidates(NameId type, const std::vector<LabelMatcher>& matchers);
  StatusOr<NameId> NameOf(std::string_view text);
  StatusOr<std::vector<NameId>> TypesOf(const SeriesFilter& filter);
  // Same order; nullptr where a series was removed meanwhile.
  StatusOr<std::vector<std::shared_ptr<const Series>>> Load(const std::vector<SeriesId>& ids);

  const Database& database_;
  NameReader& names_;
  mutable std::mutex mutex_;
  TwoGenerationCache<SeriesId, std::shared_ptr<const Series>> cache_;
};

}  // namespace pyrometer::store

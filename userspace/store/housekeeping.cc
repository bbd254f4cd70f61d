#include "userspace/store/housekeeping.h"

#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {
namespace {

// A trie is packed when it has this many fresh records, or this share of its nodes is in fresh ones.
constexpr size_t kFreshRecords = 32;
constexpr uint64_t kFreshShare = 8;
// A dense record takes in the one before it when that is at most this much larger: so each node is rewritten a
// logarithmic number of times.
constexpr uint64_t kAbsorbFactor = 4;
constexpr uint64_t kMaxDenseNodes = 4u << 20;

}  // namespace

Housekeeper::Housekeeper(EmbeddedStore* store, int64_t now_ns, uint64_t budget_ns)
    : store_(*store),
      database_(*store->database_),
      now_ns_(now_ns),
      end_ns_(MonotonicNowNs() + budget_ns),
      hours_end_ns_(end_ns_ - budget_ns / 4) {}

bool Housekeeper::TimeIsUp() const { return MonotonicNowNs() >= end_ns_; }

Status Housekeeper::Put(rocksdb::WriteBatch* batch, Family family, const std::string& key, std::string_view value) {
  return database_.FromRocks(batch->Put(database_.family(family), key, ToSlice(value)), "writing");
}
Status Housekeeper::Delete(rocksdb::WriteBatch* batch, Family family, const std::string& key) {
  return database_.FromRocks(batch->Delete(database_.family(family), key), "writing");
}

StatusOr<HousekeepingResult> Housekeeper::Run() {
  RETURN_IF_ERROR(UpdateCutoffs());
  RETURN_IF_ERROR(TakeUpHours());
  RETURN_IF_ERROR(PackTries());
  RETURN_IF_ERROR(SumDays());
  RETURN_IF_ERROR(RedoFunctions());
  RETURN_IF_ERROR(DropOld());
  store_.NoteHousekept(now_ns_);
  return result_;
}

// ---- tries ------------------------------------------------------------------------------------------------

Status Housekeeper::PackTries() {
  for (;;) {
    if (TimeIsUp()) {
      const std::lock_guard lock(store_.commit_mutex_);
      result_.more = result_.more || !store_.grown_tries_.empty();
      return OkStatus();
    }
    TrieId trie = 0;
    {
      const std::lock_guard lock(store_.commit_mutex_);
      if (store_.grown_tries_.empty()) return OkStatus();
      trie = *store_.grown_tries_.begin();
      store_.grown_tries_.erase(store_.grown_tries_.begin());
    }
    ASSIGN_OR_RETURN(const bool packed, PackTrie(trie));
    if (packed) ++result_.tries_packed;
  }
}

StatusOr<bool> Housekeeper::PackTrie(TrieId trie_id) {
  struct Record {
    std::string key;
    TrieSpan begin;
    bool fresh;
  };
  const std::shared_ptr<ReadView> view = database_.NewView();
  std::vector<Record> records;
  StackTrie trie;
  std::vector<TrieSpan> ends;
  const std::string prefix = LetterKey('n', {trie_id});
  const Status scanned = database_.Scan(
      Family::kTries, prefix, PrefixEnd(prefix),
      [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        Record record{.key = std::string(key), .fresh = !value.empty() && value.front() == 0};
        ASSIGN_OR_RETURN(record.begin, DecodeTrieSpan(key.substr(prefix.size())));
        RETURN_IF_ERROR(trie.Load(record.begin, value));
        records.push_back(std::move(record));
        ends.push_back(trie.end());
        return true;
      },
      view.get());
  RETURN_IF_ERROR(scanned);
  uint64_t fresh_nodes = 0;
  size_t fresh_records = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    if (!records[i].fresh) continue;
    ++fresh_records;
    fresh_nodes += ends[i].first_node - records[i].begin.first_node;
  }
  if (fresh_records == 0 || (fresh_records < kFreshRecords && fresh_nodes * kFreshShare < trie.size())) return false;

  // From the end: all fresh records, and dense ones before them that are not much larger.
  size_t first = records.size() - 1;
  const auto nodes_of = [&](size_t i) { return uint64_t{ends[i].first_node} - records[i].begin.first_node; };
  uint64_t nodes = nodes_of(first);
  while (first > 0) {
    const size_t before = first - 1;
    // Ids of a write that failed lie between: a record cannot span them.
    if (ends[before] != records[first].begin) break;
    if (!records[before].fresh && nodes_of(before) > nodes * kAbsorbFactor) break;
    if (nodes + nodes_of(before) > kMaxDenseNodes && !records[before].fresh) break;
    nodes += nodes_of(before);
    first = before;
  }
  rocksdb::WriteBatch batch;
  for (size_t i = first; i < records.size(); ++i) RETURN_IF_ERROR(Delete(&batch, Family::kTries, records[i].key));
  RETURN_IF_ERROR(Put(&batch, Family::kTries, records[first].key, trie.EncodeDense(records[first].begin, ends.back())));
  RETURN_IF_ERROR(database_.Write(&batch, false));
  return true;
}

StatusOr<HousekeepingResult> EmbeddedStore::Housekeep(int64_t now_ns, uint64_t budget_ns) {
  const std::lock_guard lock(housekeeping_mutex_);
  return Housekeeper(this, now_ns, budget_ns).Run();
}

Status EmbeddedStore::Settle() {
  RETURN_IF_ERROR(database_->Flush());
  for (size_t family = 0; family < kFamilies; ++family) {
    RETURN_IF_ERROR(database_->Compact(static_cast<Family>(family), "", ""));
  }
  return OkStatus();
}

}  // namespace pyrometer::store

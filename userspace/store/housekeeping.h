// Housekeeping of a store: hours become dense, sums are made, old data goes. Inside this room only.
//
// One run does pieces of work until its time is up: tries that grew are packed; (hour, service) pairs that have been
// quiet long enough, or have much, get their dense form; days that are over get their sums; histories of functions are
// made anew where names came late; what is older than it is to be kept is hidden, dropped and, when a series has
// nothing left, taken out of the index. Each piece is one atomic write, so a kill between two pieces leaves a store
// that only has more to do.
//
// Threads: one run at a time; appends and questions go on meanwhile.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "userspace/store/embedded_store.h"
#include "userspace/store/group_totals.h"
#include "userspace/store/hour_builder.h"
#include "userspace/store/rollup.h"

namespace pyrometer::store {

class Housekeeper {
 public:
  Housekeeper(EmbeddedStore* store, int64_t now_ns, uint64_t budget_ns);

  StatusOr<HousekeepingResult> Run();
  // Only decides what is too old; at the start, so that no question sees it.
  Status UpdateCutoffs();

 private:
  bool TimeIsUp() const;
  Status PackTries();
  StatusOr<bool> PackTrie(TrieId trie);
  Status TakeUpHours();
  Status TakeUp(uint32_t hour, TrieId trie, const FreshRecord& before);
  // What one atomic piece of TakeUp gathers; `write` writes and empties it.
  struct Hour;
  Status ReadWindows(Hour* hour, const std::function<Status()>& write);
  Status ReadPoints(Family family, Hour* hour, const std::function<Status()>& write);
  // `fresh`: keys and values of one series' records.
  Status TakeUpTotals(Hour* hour, SeriesId series, const std::vector<std::pair<std::string, std::string>>& fresh);
  Status TakeUpHistograms(Hour* hour, SeriesId series, const std::vector<std::pair<std::string, std::string>>& fresh);
  Status PutRollups(Hour* hour);
  Status PutGroups(Hour* hour);
  Status PutFunctions(Hour* hour);
  Status SumDays();
  Status SumDay(uint32_t day, TrieId trie);
  Status RedoFunctions();
  Status RedoFunctionsOf(TrieId trie);
  Status DropOld();
  Status RemoveSeries();

  Status Put(rocksdb::WriteBatch* batch, Family family, const std::string& key, std::string_view value);
  Status Delete(rocksdb::WriteBatch* batch, Family family, const std::string& key);
  // Type of a group, and whether it is of a session.
  struct GroupKind {
    NameId type = 0;
    bool session = false;
  };
  StatusOr<std::map<GroupId, GroupKind>> KindsOf(const std::vector<GroupId>& groups);
  // 0 for a series that was let go.
  StatusOr<GroupId> GroupOf(SeriesId series);

  EmbeddedStore& store_;
  Database& database_;
  const int64_t now_ns_;
  const uint64_t end_ns_;  // monotonic
  // Hours are the most work when much comes in; the rest keeps a part of the time.
  const uint64_t hours_end_ns_;
  HousekeepingResult result_;
  std::unique_ptr<HourBuilder> builder_;  // from the first hour that is taken up on
};

}  // namespace pyrometer::store

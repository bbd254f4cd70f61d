// The dictionary of names: strings, functions and frames with dense u32 ids, on disk in both directions, with
// bounded caches in front. Inside this room only.
//
// A frame's identity is (build ID, ELF address) where that says everything: machine code of a user space
// file. Its names are attached to it and may come later (a batch of another agent that had the
// symbols): the better description wins, stored samples do not change. Everything else (kernel, whose addresses
// move at each boot; generated code; interpreters) is identified by its whole content.
//
// From content to id leads an index by 30 bits of a hash: the content itself would be stored twice. 14 bits name a
// bucket, one key; its value is a list of (16 bits more, table, id), to which new entries are only appended (RocksDB's
// merge), so adding reads nothing. What two entries have in common there, their content tells apart. 5.5 bytes per
// entry at rest, where a key of its own would take 11.
//
// NameWriter: callers hold the lock under which ids are given out. NameReader: any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/base/strings.h"
#include "userspace/profile/dictionary.h"
#include "userspace/store/database.h"
#include "userspace/store/two_generation_cache.h"

namespace pyrometer::store {

using NameId = uint32_t;  // of a string; 0 = ""
// Ids from here on are never given out: readers use them for texts of their own.
inline constexpr NameId kFirstLateText = 0xF000'0000;
using FunctionId = uint32_t;  // 0 = none
using FrameKeyId = uint32_t;  // of a frame; 0 = none

struct FunctionRecord {
  NameId name = 0;
  NameId system_name = 0;
  NameId file = 0;
  int64_t start_line = 0;
  bool operator==(const FunctionRecord&) const = default;
};
std::string EncodeFunction(const FunctionRecord& function);
StatusOr<FunctionRecord> DecodeFunction(std::string_view bytes);

struct FrameRecord {
  struct Line {
    FunctionId function = 0;
    int64_t line = 0;
    int64_t column = 0;
    bool operator==(const Line&) const = default;
  };
  profile::FrameKind kind = profile::FrameKind::kUnknown;
  NameId build_id = 0;
  NameId file = 0;  // of the mapping
  uint64_t address = 0;
  NameId miss = 0;
  std::vector<Line> lines;
  bool operator==(const FrameRecord&) const = default;
};
std::string EncodeFrame(const FrameRecord& frame);
StatusOr<FrameRecord> DecodeFrame(std::string_view bytes);
// The bytes that make two frames the same one.
std::string FrameIdentity(const FrameRecord& frame);
// 0 no names, 1 functions, 2 functions and lines. Of two descriptions of one frame the higher stays.
template <typename Lines>
uint8_t DescriptionRank(const Lines& lines) {
  if (lines.empty()) return 0;
  return std::any_of(lines.begin(), lines.end(), [](const auto& line) { return line.line != 0; }) ? 2 : 1;
}

// First bytes of keys in Family::kNames, id -> content.
enum class NameTable : char {
  kStrings = 's',
  kFunctions = 'u',
  kFrames = 'f',
};
std::string NameKey(NameTable table, uint32_t id);
// The bucket of the index that an entry is in, and the entry; 'X' stands before buckets.
std::string NameBucketKey(std::string_view identity);
std::string NameBucketEntry(NameTable table, std::string_view identity, uint32_t id);
// Ids of a bucket that may have this content.
StatusOr<std::vector<uint32_t>> NameCandidates(NameTable table, std::string_view identity, std::string_view bucket);

class NameWriter {
 public:
  NameWriter(const Database* database, uint64_t budget_bytes);

  // The id of `text`; a new one is added to `batch` when there is none.
  StatusOr<NameId> Intern(std::string_view text, rocksdb::WriteBatch* batch);
  StatusOr<FunctionId> InternFunction(const FunctionRecord& function, rocksdb::WriteBatch* batch);
  struct FrameEntry {
    FrameKeyId id = 0;  // 0: there is none
    uint8_t rank = 0;
  };
  // What there is of a frame whose place is its identity, by its kind, build ID and address: its names need not be
  // looked up when they would say nothing new. Nothing for frames that are identified by all of their content.
  StatusOr<std::optional<FrameEntry>> FindPlace(const FrameRecord& frame);
  // `place`: what FindPlace said of it.
  StatusOr<FrameKeyId> InternFrame(const FrameRecord& frame, std::optional<FrameEntry> place,
                                   rocksdb::WriteBatch* batch);
  // 0 when there is none. Adds nothing.
  StatusOr<NameId> Find(std::string_view text);
  StatusOr<FunctionId> FindFunction(const FunctionRecord& function);
  StatusOr<FrameKeyId> FindFrame(const FrameRecord& frame);

  // Ids that the next new entry gets; set after opening from the stored counters.
  NameId next_name = 1;
  FunctionId next_function = 1;
  FrameKeyId next_frame = 1;
  // Bytes of strings added so far; only differences mean something.
  uint64_t added_text_bytes = 0;
  // Frames whose description changed since the owner last emptied it.
  std::vector<FrameKeyId> redescribed;

  // After a write that failed: entries in the caches may not be on disk.
  void Forget();
  // Forgets what has not been used for long; entries since the last call but one stay.
  void Trim();
  uint64_t bytes() const { return names_.bytes() + functions_.bytes() + frames_.bytes(); }

 private:
  // Ids on disk that may have this content. Those that are not on disk yet are in the caches.
  StatusOr<std::vector<uint32_t>> Candidates(NameTable table, std::string_view identity) const;
  // A new entry, both directions.
  Status PutNew(NameTable table, std::string_view identity, std::string_view content, uint32_t id,
                rocksdb::WriteBatch* batch);
  StatusOr<FunctionId> LookUpFunction(const std::string& identity);
  StatusOr<FrameEntry> LookUpFrame(const std::string& identity);
  Status Put(const std::string& key, std::string_view value, rocksdb::WriteBatch* batch);

  const Database& database_;
  TwoGenerationCache<std::string, NameId, TransparentStringHash, std::equal_to<>> names_;
  TwoGenerationCache<std::string, FunctionId, TransparentStringHash, std::equal_to<>> functions_;
  TwoGenerationCache<std::string, FrameEntry, TransparentStringHash, std::equal_to<>> frames_;
};

class NameReader {
 public:
  NameReader(const Database* database, uint64_t budget_bytes);

  // Same order as the ids. DATA_LOSS for an id that is not on disk.
  StatusOr<std::vector<std::string>> Names(const std::vector<NameId>& ids);
  StatusOr<std::vector<FunctionRecord>> Functions(const std::vector<FunctionId>& ids);
  StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> Frames(const std::vector<FrameKeyId>& ids);
  // The same, but null for what is not on disk: ids that were given out and are still to be written.
  StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> WrittenFrames(const std::vector<FrameKeyId>& ids);
  // 0 when there is none.
  StatusOr<NameId> Find(std::string_view text);

  // The frames were described anew: forget what is cached, and what is being read right now.
  void Invalidate(const std::vector<FrameKeyId>& ids);
  uint64_t bytes() const;

 private:
  // Looks `ids` up in `cache`, and what is absent on disk: decode(bytes) -> value, size(value) -> bytes it takes. With
  // `what` "" what is not there either is left as it is made.
  template <typename Value, typename Decode, typename Size>
  StatusOr<std::vector<Value>> Read(NameTable table, std::string_view what, const std::vector<uint32_t>& ids,
                                    TwoGenerationCache<uint32_t, Value>* cache, Decode decode, Size size);
  StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> ReadFrames(std::string_view what,
                                                                       const std::vector<FrameKeyId>& ids);

  const Database& database_;
  mutable std::mutex mutex_;
  TwoGenerationCache<NameId, std::string> names_;
  TwoGenerationCache<FunctionId, FunctionRecord> functions_;
  TwoGenerationCache<FrameKeyId, std::shared_ptr<const FrameRecord>> frames_;
  uint64_t invalidations_ = 0;
};

}  // namespace pyrometer::store

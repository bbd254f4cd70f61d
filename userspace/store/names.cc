#include "userspace/store/names.h"

#include <xxhash.h>

#include <algorithm>

#include "userspace/base/check.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

constexpr uint64_t kReadChunk = 4096;  // keys per MultiGet
// Of the hash of an identity: 16,384 buckets of 600 entries when there are ten million, 6 when there are 100,000. Of
// the entries that share all 30 bits, one in a hundred then is another's and costs a look.
constexpr int kBucketBits = 14;
constexpr int kTailBits = 16;

// Identified by build ID and address alone.
bool HasPlaceIdentity(const FrameRecord& frame) {
  return frame.kind == profile::FrameKind::kNative && frame.build_id != 0;
}

Status Missing(std::string_view what, uint32_t id) {
  return DataLossError(StrFormat("damaged dictionary: %s %d is referred to but not there", what, id));
}

void PutLine(const FrameRecord::Line& line, std::string* out) {
  PutVarint(line.function, out);
  PutZigzag(line.line, out);
  PutZigzag(line.column, out);
}

uint64_t HashOf(std::string_view identity) { return XXH3_64bits(identity.data(), identity.size()); }

uint32_t TableNumber(NameTable table) {
  return table == NameTable::kStrings ? 0 : table == NameTable::kFunctions ? 1 : 2;
}

}  // namespace

std::string NameKey(NameTable table, uint32_t id) {
  std::string key(1, static_cast<char>(table));
  PutBigEndian32(id, &key);
  return key;
}

std::string NameBucketKey(std::string_view identity) {
  const uint64_t bucket = HashOf(identity) >> (64 - kBucketBits);
  std::string key = "X";
  key.push_back(static_cast<char>(bucket >> 8));
  key.push_back(static_cast<char>(bucket));
  return key;
}

std::string NameBucketEntry(NameTable table, std::string_view identity, uint32_t id) {
  const auto tail = static_cast<uint16_t>(HashOf(identity) & ((1u << kTailBits) - 1));
  std::string entry;
  entry.push_back(static_cast<char>(tail >> 8));
  entry.push_back(static_cast<char>(tail));
  PutVarint(uint64_t{id} << 2 | TableNumber(table), &entry);
  return entry;
}

StatusOr<std::vector<uint32_t>> NameCandidates(NameTable table, std::string_view identity, std::string_view bucket) {
  const auto wanted = static_cast<uint16_t>(HashOf(identity) & ((1u << kTailBits) - 1));
  Decoder in(bucket);
  std::vector<uint32_t> ids;
  while (in.ok() && !in.done()) {
    const auto tail = static_cast<uint16_t>(in.Byte() << 8 | in.Byte());
    const uint64_t entry = in.Varint();
    if (entry >> 2 > UINT32_MAX || (entry & 3) == 3) in.Fail();
    if (tail == wanted && (entry & 3) == TableNumber(table)) ids.push_back(static_cast<uint32_t>(entry >> 2));
  }
  if (!in.ok()) return DataLossError("damaged dictionary: index");
  return ids;
}

std::string EncodeFunction(const FunctionRecord& function) {
  std::string out;
  PutVarint(function.name, &out);
  PutVarint(function.system_name, &out);
  PutVarint(function.file, &out);
  PutZigzag(function.start_line, &out);
  return out;
}

StatusOr<FunctionRecord> DecodeFunction(std::string_view bytes) {
  Decoder in(bytes);
  FunctionRecord function;
  function.name = in.Varint32();
  function.system_name = in.Varint32();
  function.file = in.Varint32();
  function.start_line = in.Zigzag();
  if (!in.ok() || !in.done()) return DataLossError("damaged function");
  return function;
}

std::string EncodeFrame(const FrameRecord& frame) {
  std::string out;
  out.push_back(static_cast<char>(frame.kind));
  PutVarint(frame.build_id, &out);
  PutVarint(frame.file, &out);
  PutVarint(frame.address, &out);
  PutVarint(frame.miss, &out);
  PutVarint(frame.lines.size(), &out);
  for (const FrameRecord::Line& line : frame.lines) PutLine(line, &out);
  return out;
}

StatusOr<FrameRecord> DecodeFrame(std::string_view bytes) {
  Decoder in(bytes);
  FrameRecord frame;
  const uint8_t kind = in.Byte();
  if (kind > static_cast<uint8_t>(profile::FrameKind::kSynthetic)) return DataLossError("damaged frame: unknown kind");
  frame.kind = static_cast<profile::FrameKind>(kind);
  frame.build_id = in.Varint32();
  frame.file = in.Varint32();
  frame.address = in.Varint();
  frame.miss = in.Varint32();
  frame.lines.resize(in.Count(3));
  for (FrameRecord::Line& line : frame.lines) {
    line.function = in.Varint32();
    line.line = in.Zigzag();
    line.column = in.Zigzag();
  }
  if (!in.ok() || !in.done()) return DataLossError("damaged frame");
  return frame;
}

std::string FrameIdentity(const FrameRecord& frame) {
  std::string out;
  if (HasPlaceIdentity(frame)) {
    out.push_back(1);
    PutVarint(frame.build_id, &out);
    PutVarint(frame.address, &out);
    return out;
  }
  out.push_back(0);
  out.push_back(static_cast<char>(frame.kind));
  PutVarint(frame.build_id, &out);
  PutVarint(frame.file, &out);
  PutVarint(frame.address, &out);
  for (const FrameRecord::Line& line : frame.lines) PutLine(line, &out);
  return out;
}

NameWriter::NameWriter(const Database* database, uint64_t budget_bytes)
    : database_(*database), names_(budget_bytes / 5), functions_(budget_bytes / 5), frames_(budget_bytes / 5 * 3) {}

Status NameWriter::Put(const std::string& key, std::string_view value, rocksdb::WriteBatch* batch) {
  return database_.FromRocks(batch->Put(database_.family(Family::kNames), key, ToSlice(value)), "writing");
}

StatusOr<std::vector<uint32_t>> NameWriter::Candidates(NameTable table, std::string_view identity) const {
  std::string bucket;
  ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameBucketKey(identity), &bucket));
  if (!found) return std::vector<uint32_t>();
  return NameCandidates(table, identity, bucket);
}

Status NameWriter::PutNew(NameTable table, std::string_view identity, std::string_view content, uint32_t id,
                          rocksdb::WriteBatch* batch) {
  RETURN_IF_ERROR(Put(NameKey(table, id), content, batch));
  return database_.FromRocks(
      batch->Merge(database_.family(Family::kNames), NameBucketKey(identity), NameBucketEntry(table, identity, id)),
      "writing");
}

StatusOr<NameId> NameWriter::Find(std::string_view text) {
  if (text.empty()) return NameId{0};
  if (const NameId* id = names_.Find(text)) return *id;
  ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, Candidates(NameTable::kStrings, text));
  std::string value;
  for (const NameId id : ids) {
    ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameKey(NameTable::kStrings, id), &value));
    if (!found || value != text) continue;
    names_.Insert(std::string(text), id, text.size() + sizeof(std::string));
    return id;
  }
  return NameId{0};
}

StatusOr<NameId> NameWriter::Intern(std::string_view text, rocksdb::WriteBatch* batch) {
  if (text.empty()) return NameId{0};
  ASSIGN_OR_RETURN(NameId id, Find(text));
  if (id != 0) return id;
  if (next_name >= kFirstLateText) return ResourceExhaustedError("the store's dictionary is full (4 billion strings)");
  id = next_name++;
  added_text_bytes += text.size();
  RETURN_IF_ERROR(PutNew(NameTable::kStrings, text, text, id, batch));
  names_.Insert(std::string(text), id, text.size() + sizeof(std::string));
  return id;
}

StatusOr<FunctionId> NameWriter::FindFunction(const FunctionRecord& function) {
  return LookUpFunction(EncodeFunction(function));
}

StatusOr<FunctionId> NameWriter::LookUpFunction(const std::string& identity) {
  if (const FunctionId* id = functions_.Find(identity)) return *id;
  ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, Candidates(NameTable::kFunctions, identity));
  std::string value;
  for (const FunctionId id : ids) {
    ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameKey(NameTable::kFunctions, id), &value));
    if (!found || value != identity) continue;
    functions_.Insert(identity, id, identity.size() + sizeof(std::string));
    return id;
  }
  return 0;
}

StatusOr<FunctionId> NameWriter::InternFunction(const FunctionRecord& function, rocksdb::WriteBatch* batch) {
  const std::string identity = EncodeFunction(function);
  ASSIGN_OR_RETURN(const FunctionId known, LookUpFunction(identity));
  if (known != 0) return known;
  if (next_function == UINT32_MAX)
    return ResourceExhaustedError("the store's dictionary is full (4 billion functions)");
  const FunctionId id = next_function++;
  RETURN_IF_ERROR(PutNew(NameTable::kFunctions, identity, identity, id, batch));
  functions_.Insert(identity, id, identity.size() + sizeof(std::string));
  return id;
}

StatusOr<NameWriter::FrameEntry> NameWriter::LookUpFrame(const std::string& identity) {
  if (const FrameEntry* cached = frames_.Find(identity)) return *cached;
  ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, Candidates(NameTable::kFrames, identity));
  std::string value;
  for (const FrameKeyId id : ids) {
    ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameKey(NameTable::kFrames, id), &value));
    if (!found) continue;
    ASSIGN_OR_RETURN(const FrameRecord record, DecodeFrame(value));
    if (FrameIdentity(record) != identity) continue;
    const FrameEntry entry{id, DescriptionRank(record.lines)};
    frames_.Insert(identity, entry, identity.size() + sizeof(std::string));
    return entry;
  }
  return FrameEntry{};
}

StatusOr<FrameKeyId> NameWriter::FindFrame(const FrameRecord& frame) {
  ASSIGN_OR_RETURN(const FrameEntry entry, LookUpFrame(FrameIdentity(frame)));
  return entry.id;
}

StatusOr<std::optional<NameWriter::FrameEntry>> NameWriter::FindPlace(const FrameRecord& frame) {
  if (!HasPlaceIdentity(frame)) return std::optional<FrameEntry>();
  ASSIGN_OR_RETURN(const FrameEntry entry, LookUpFrame(FrameIdentity(frame)));
  return std::optional(entry);
}

StatusOr<FrameKeyId> NameWriter::InternFrame(const FrameRecord& frame, std::optional<FrameEntry> place,
                                             rocksdb::WriteBatch* batch) {
  const std::string identity = FrameIdentity(frame);
  if (!place) {
    ASSIGN_OR_RETURN(place, LookUpFrame(identity));
  }
  FrameEntry entry = *place;
  const uint8_t rank = DescriptionRank(frame.lines);
  const bool is_new = entry.id == 0;
  if (!is_new && entry.rank >= rank) return entry.id;
  if (is_new) {
    if (next_frame == UINT32_MAX) return ResourceExhaustedError("the store's dictionary is full (4 billion frames)");
    entry.id = next_frame++;
    RETURN_IF_ERROR(PutNew(NameTable::kFrames, identity, EncodeFrame(frame), entry.id, batch));
  } else {
    redescribed.push_back(entry.id);
    RETURN_IF_ERROR(Put(NameKey(NameTable::kFrames, entry.id), EncodeFrame(frame), batch));
  }
  entry.rank = rank;
  frames_.Insert(identity, entry, identity.size() + sizeof(std::string));
  return entry.id;
}

void NameWriter::Forget() {
  names_.Clear();
  functions_.Clear();
  frames_.Clear();
}

void NameWriter::Trim() {
  names_.Trim();
  functions_.Trim();
  frames_.Trim();
}

NameReader::NameReader(const Database* database, uint64_t budget_bytes)
    : database_(*database), names_(budget_bytes / 2), functions_(budget_bytes / 6), frames_(budget_bytes / 3) {}

template <typename Value, typename Decode, typename Size>
StatusOr<std::vector<Value>> NameReader::Read(NameTable table, std::string_view what, const std::vector<uint32_t>& ids,
                                              TwoGenerationCache<uint32_t, Value>* cache, Decode decode, Size size) {
  std::vector<Value> result(ids.size());
  std::vector<size_t> absent;
  uint64_t invalidations = 0;
  {
    const std::lock_guard lock(mutex_);
    invalidations = invalidations_;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == 0) continue;
      if (const Value* value = cache->Find(ids[i])) {
        result[i] = *value;
      } else {
        absent.push_back(i);
      }
    }
  }
  std::vector<std::string> keys, values;
  std::vector<bool> found;
  for (size_t begin = 0; begin < absent.size(); begin += kReadChunk) {
    const size_t end = std::min<size_t>(absent.size(), begin + kReadChunk);
    keys.clear();
    for (size_t i = begin; i < end; ++i) keys.push_back(NameKey(table, ids[absent[i]]));
    RETURN_IF_ERROR(database_.MultiGet(Family::kNames, keys, &values, &found));
    const std::lock_guard lock(mutex_);
    for (size_t i = begin; i < end; ++i) {
      if (!found[i - begin]) {
        if (what.empty()) continue;
        return Missing(what, ids[absent[i]]);
      }
      ASSIGN_OR_RETURN(Value value, decode(std::move(values[i - begin])));
      if (invalidations == invalidations_) cache->Insert(ids[absent[i]], value, size(value));
      result[absent[i]] = std::move(value);
    }
    cache->Trim();
  }
  return result;
}

StatusOr<std::vector<std::string>> NameReader::Names(const std::vector<NameId>& ids) {
  return Read(
      NameTable::kStrings, "string", ids, &names_, [](std::string text) -> StatusOr<std::string> { return text; },
      [](const std::string& text) { return text.size() + sizeof(std::string); });
}

StatusOr<std::vector<FunctionRecord>> NameReader::Functions(const std::vector<FunctionId>& ids) {
  return Read(
      NameTable::kFunctions, "function", ids, &functions_,
      [](const std::string& bytes) { return DecodeFunction(bytes); },
      [](const FunctionRecord&) { return sizeof(FunctionRecord); });
}

StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> NameReader::Frames(const std::vector<FrameKeyId>& ids) {
  return ReadFrames("frame", ids);
}

StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> NameReader::WrittenFrames(
    const std::vector<FrameKeyId>& ids) {
  return ReadFrames("", ids);
}

StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> NameReader::ReadFrames(std::string_view what,
                                                                                 const std::vector<FrameKeyId>& ids) {
  return Read(
      NameTable::kFrames, what, ids, &frames_,
      [](const std::string& bytes) -> StatusOr<std::shared_ptr<const FrameRecord>> {
        ASSIGN_OR_RETURN(FrameRecord decoded, DecodeFrame(bytes));
        return std::make_shared<const FrameRecord>(std::move(decoded));
      },
      [](const std::shared_ptr<const FrameRecord>& frame) {
        return sizeof(FrameRecord) + 32 + frame->lines.size() * sizeof(FrameRecord::Line);
      });
}

StatusOr<NameId> NameReader::Find(std::string_view text) {
  if (text.empty()) return NameId{0};
  std::string value;
  ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameBucketKey(text), &value));
  if (!found) return NameId{0};
  ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, NameCandidates(NameTable::kStrings, text, value));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, Names(ids));
  const auto at = std::find(texts.begin(), texts.end(), text);
  return at == texts.end() ? NameId{0} : ids[static_cast<size_t>(at - texts.begin())];
}

void NameReader::Invalidate(const std::vector<FrameKeyId>& ids) {
  if (ids.empty()) return;
  const std::lock_guard lock(mutex_);
  ++invalidations_;
  for (const FrameKeyId id : ids) frames_.Erase(id);
}

uint64_t NameReader::bytes() const {
  const std::lock_guard lock(mutex_);
  return names_.bytes() + functions_.bytes() + frames_.bytes();
}

}  // namespace pyrometer::store

#include "userspace/store/names.h"

#include <xxhash.h>

#include <algorithm>

#include "userspace/base/check.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

constexpr uint64_t kReadChunk = 4096;  // keys per MultiGet
// Of the hash of an identity in its index key. Two of a million entries share one with probability 0.002; then their ids
// stand side by side.
constexpr size_t kHashBytes = 6;

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

StatusOr<std::vector<uint32_t>> DecodeIds(std::string_view bytes) {
  Decoder in(bytes);
  std::vector<uint32_t> ids;
  while (in.ok() && !in.done()) ids.push_back(in.Varint32());
  if (!in.ok() || ids.empty()) return DataLossError("damaged dictionary: index");
  return ids;
}

}  // namespace

std::string NameKey(NameTable table, uint32_t id) {
  std::string key(1, static_cast<char>(table));
  PutBigEndian32(id, &key);
  return key;
}

std::string NameIndexKey(NameTable table, std::string_view identity) {
  // The index of a table stands under the upper-case letter.
  std::string key(1, static_cast<char>(static_cast<char>(table) - 'a' + 'A'));
  const uint64_t hash = XXH3_64bits(identity.data(), identity.size());
  for (size_t i = 0; i < kHashBytes; ++i) key.push_back(static_cast<char>(hash >> (56 - 8 * i)));
  return key;
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

uint8_t DescriptionRank(const FrameRecord& frame) {
  if (frame.lines.empty()) return 0;
  for (const FrameRecord::Line& line : frame.lines) {
    if (line.line != 0) return 2;
  }
  return 1;
}

NameWriter::NameWriter(const Database* database, uint64_t budget_bytes)
    : database_(*database),
      names_(budget_bytes / 3),
      functions_(budget_bytes / 6),
      frames_(budget_bytes / 3),
      written_(budget_bytes / 6) {}

Status NameWriter::Put(const std::string& key, std::string_view value, rocksdb::WriteBatch* batch) {
  return database_.FromRocks(batch->Put(database_.family(Family::kNames), key, ToSlice(value)), "writing");
}

StatusOr<std::vector<uint32_t>> NameWriter::Candidates(NameTable table, std::string_view identity) {
  std::string key = NameIndexKey(table, identity);
  if (const std::vector<uint32_t>* ids = written_.Find(key)) return *ids;
  std::string value;
  ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, key, &value));
  if (!found) return std::vector<uint32_t>();
  return DecodeIds(value);
}

Status NameWriter::PutIndex(NameTable table, std::string_view identity, std::vector<uint32_t> ids,
                            rocksdb::WriteBatch* batch) {
  std::string value;
  for (const uint32_t id : ids) PutVarint(id, &value);
  std::string key = NameIndexKey(table, identity);
  RETURN_IF_ERROR(Put(key, value, batch));
  const size_t bytes = sizeof(std::string) + sizeof(ids) + 16;
  written_.Insert(std::move(key), std::move(ids), bytes);
  return OkStatus();
}

StatusOr<NameId> NameWriter::Find(std::string_view text) {
  if (text.empty()) return NameId{0};
  if (const NameId* id = names_.Find(text)) return *id;
  ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, Candidates(NameTable::kStrings, text));
  std::string value;
  for (const NameId id : ids) {
    ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameKey(NameTable::kStrings, id), &value));
    // Not found: of a batch that is not on disk yet, and then its text is in the cache.
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
  if (next_name == UINT32_MAX) return ResourceExhaustedError("the store's dictionary is full (4 billion strings)");
  ASSIGN_OR_RETURN(std::vector<uint32_t> ids, Candidates(NameTable::kStrings, text));
  id = next_name++;
  added_text_bytes += text.size();
  ids.push_back(id);
  RETURN_IF_ERROR(Put(NameKey(NameTable::kStrings, id), text, batch));
  RETURN_IF_ERROR(PutIndex(NameTable::kStrings, text, std::move(ids), batch));
  names_.Insert(std::string(text), id, text.size() + sizeof(std::string));
  return id;
}

StatusOr<FunctionId> NameWriter::InternFunction(const FunctionRecord& function, rocksdb::WriteBatch* batch) {
  const std::string identity = EncodeFunction(function);
  if (const FunctionId* id = functions_.Find(identity)) return *id;
  ASSIGN_OR_RETURN(std::vector<uint32_t> ids, Candidates(NameTable::kFunctions, identity));
  std::string value;
  for (const FunctionId id : ids) {
    ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameKey(NameTable::kFunctions, id), &value));
    if (!found || value != identity) continue;
    functions_.Insert(identity, id, identity.size() + sizeof(std::string));
    return id;
  }
  if (next_function == UINT32_MAX) return ResourceExhaustedError("the store's dictionary is full (4 billion functions)");
  const FunctionId id = next_function++;
  ids.push_back(id);
  RETURN_IF_ERROR(Put(NameKey(NameTable::kFunctions, id), identity, batch));
  RETURN_IF_ERROR(PutIndex(NameTable::kFunctions, identity, std::move(ids), batch));
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
    const FrameEntry entry{id, DescriptionRank(record)};
    frames_.Insert(identity, entry, identity.size() + sizeof(std::string));
    return entry;
  }
  return FrameEntry{};
}

StatusOr<FrameKeyId> NameWriter::FindFrame(const FrameRecord& frame) {
  ASSIGN_OR_RETURN(const FrameEntry entry, LookUpFrame(FrameIdentity(frame)));
  return entry.id;
}

StatusOr<FrameKeyId> NameWriter::InternFrame(const FrameRecord& frame, rocksdb::WriteBatch* batch) {
  const std::string identity = FrameIdentity(frame);
  const uint8_t rank = DescriptionRank(frame);
  ASSIGN_OR_RETURN(FrameEntry entry, LookUpFrame(identity));
  const bool is_new = entry.id == 0;
  if (!is_new && entry.rank >= rank) return entry.id;
  if (is_new) {
    if (next_frame == UINT32_MAX) return ResourceExhaustedError("the store's dictionary is full (4 billion frames)");
    ASSIGN_OR_RETURN(std::vector<uint32_t> ids, Candidates(NameTable::kFrames, identity));
    entry.id = next_frame++;
    ids.push_back(entry.id);
    RETURN_IF_ERROR(PutIndex(NameTable::kFrames, identity, std::move(ids), batch));
  } else {
    redescribed.push_back(entry.id);
  }
  entry.rank = rank;
  RETURN_IF_ERROR(Put(NameKey(NameTable::kFrames, entry.id), EncodeFrame(frame), batch));
  frames_.Insert(identity, entry, identity.size() + sizeof(std::string));
  return entry.id;
}

void NameWriter::Forget() {
  names_.Clear();
  functions_.Clear();
  frames_.Clear();
  written_.Clear();
}

void NameWriter::Trim() {
  names_.Trim();
  functions_.Trim();
  frames_.Trim();
  written_.Trim();
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
      if (!found[i - begin]) return Missing(what, ids[absent[i]]);
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
      NameTable::kStrings, "string", ids, &names_,
      [](std::string text) -> StatusOr<std::string> { return text; },
      [](const std::string& text) { return text.size() + sizeof(std::string); });
}

StatusOr<std::vector<FunctionRecord>> NameReader::Functions(const std::vector<FunctionId>& ids) {
  return Read(
      NameTable::kFunctions, "function", ids, &functions_,
      [](const std::string& bytes) { return DecodeFunction(bytes); },
      [](const FunctionRecord&) { return sizeof(FunctionRecord); });
}

StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> NameReader::Frames(const std::vector<FrameKeyId>& ids) {
  return Read(
      NameTable::kFrames, "frame", ids, &frames_,
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
  ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameIndexKey(NameTable::kStrings, text), &value));
  if (!found) return NameId{0};
  ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, DecodeIds(value));
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

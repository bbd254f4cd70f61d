#include "userspace/store/names.h"

#include "userspace/base/check.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

constexpr uint64_t kReadChunk = 4096;  // keys per MultiGet

// Identified by build ID and address alone.
bool HasPlaceIdentity(const FrameRecord& frame) {
  return frame.kind == profile::FrameKind::kNative && frame.build_id != 0;
}

Status Missing(std::string_view what, uint32_t id) {
  return DataLossError(StrFormat("damaged dictionary: %s %d is referred to but not there", what, id));
}

void PutLine(const FrameRecord::Line& line, std::string* out) {
  PutVarint(line.name, out);
  PutVarint(line.system_name, out);
  PutVarint(line.file, out);
  PutZigzag(line.start_line, out);
  PutZigzag(line.line, out);
  PutZigzag(line.column, out);
}

}  // namespace

std::string NameKey(NameId id) {
  std::string key = "s";
  PutBigEndian32(id, &key);
  return key;
}
std::string NameIndexKey(std::string_view text) { return "S" + std::string(text); }
std::string FrameKey(FrameKeyId id) {
  std::string key = "f";
  PutBigEndian32(id, &key);
  return key;
}
std::string FrameIndexKey(std::string_view identity) { return "F" + std::string(identity); }

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
  frame.lines.resize(in.Count(6));
  for (FrameRecord::Line& line : frame.lines) {
    line.name = in.Varint32();
    line.system_name = in.Varint32();
    line.file = in.Varint32();
    line.start_line = in.Zigzag();
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
    : database_(*database), names_(budget_bytes / 2), frames_(budget_bytes / 2) {}

StatusOr<NameId> NameWriter::Find(std::string_view text) {
  if (text.empty()) return NameId{0};
  if (const NameId* id = names_.Find(text)) return *id;
  std::string value;
  ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameIndexKey(text), &value));
  if (!found) return NameId{0};
  Decoder in(value);
  const NameId id = in.Varint32();
  if (!in.ok() || !in.done() || id == 0) return DataLossError("damaged dictionary: string index");
  names_.Insert(std::string(text), id, text.size() + sizeof(std::string));
  return id;
}

StatusOr<NameId> NameWriter::Intern(std::string_view text, rocksdb::WriteBatch* batch) {
  if (text.empty()) return NameId{0};
  ASSIGN_OR_RETURN(NameId id, Find(text));
  if (id != 0) return id;
  if (next_name == UINT32_MAX) return ResourceExhaustedError("the store's dictionary is full (4 billion strings)");
  id = next_name++;
  std::string value;
  PutVarint(id, &value);
  RETURN_IF_ERROR(
      database_.FromRocks(batch->Put(database_.family(Family::kNames), NameKey(id), ToSlice(text)), "writing"));
  RETURN_IF_ERROR(
      database_.FromRocks(batch->Put(database_.family(Family::kNames), NameIndexKey(text), value), "writing"));
  names_.Insert(std::string(text), id, text.size() + sizeof(std::string));
  return id;
}

StatusOr<FrameKeyId> NameWriter::InternFrame(const FrameRecord& frame, rocksdb::WriteBatch* batch) {
  const std::string identity = FrameIdentity(frame);
  const uint8_t rank = DescriptionRank(frame);
  FrameEntry entry;
  if (const FrameEntry* cached = frames_.Find(identity)) {
    entry = *cached;
  } else {
    std::string value;
    ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, FrameIndexKey(identity), &value));
    if (found) {
      Decoder in(value);
      entry.id = in.Varint32();
      entry.rank = in.Byte();
      if (!in.ok() || !in.done() || entry.id == 0) return DataLossError("damaged dictionary: frame index");
    }
  }
  const bool is_new = entry.id == 0;
  if (!is_new && entry.rank >= rank) {
    frames_.Insert(identity, entry, identity.size() + sizeof(std::string));
    return entry.id;
  }
  if (is_new) {
    if (next_frame == UINT32_MAX) return ResourceExhaustedError("the store's dictionary is full (4 billion frames)");
    entry.id = next_frame++;
  } else {
    redescribed.push_back(entry.id);
  }
  entry.rank = rank;
  std::string value;
  PutVarint(entry.id, &value);
  value.push_back(static_cast<char>(rank));
  RETURN_IF_ERROR(
      database_.FromRocks(batch->Put(database_.family(Family::kNames), FrameIndexKey(identity), value), "writing"));
  RETURN_IF_ERROR(database_.FromRocks(
      batch->Put(database_.family(Family::kNames), FrameKey(entry.id), EncodeFrame(frame)), "writing"));
  frames_.Insert(identity, entry, identity.size() + sizeof(std::string));
  return entry.id;
}

void NameWriter::Forget() {
  names_.Clear();
  frames_.Clear();
}

void NameWriter::Trim() {
  names_.Trim();
  frames_.Trim();
}

NameReader::NameReader(const Database* database, uint64_t budget_bytes)
    : database_(*database), names_(budget_bytes / 2), frames_(budget_bytes / 2) {}

StatusOr<std::vector<std::string>> NameReader::Names(const std::vector<NameId>& ids) {
  std::vector<std::string> result(ids.size());
  std::vector<size_t> absent;
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == 0) continue;
      if (const std::string* text = names_.Find(ids[i])) {
        result[i] = *text;
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
    for (size_t i = begin; i < end; ++i) keys.push_back(NameKey(ids[absent[i]]));
    RETURN_IF_ERROR(database_.MultiGet(Family::kNames, keys, &values, &found));
    const std::lock_guard lock(mutex_);
    for (size_t i = begin; i < end; ++i) {
      if (!found[i - begin]) return Missing("string", ids[absent[i]]);
      const std::string& text = values[i - begin];
      names_.Insert(ids[absent[i]], text, text.size() + sizeof(std::string));
      result[absent[i]] = text;
    }
    names_.Trim();
  }
  return result;
}

StatusOr<std::vector<std::shared_ptr<const FrameRecord>>> NameReader::Frames(const std::vector<FrameKeyId>& ids) {
  std::vector<std::shared_ptr<const FrameRecord>> result(ids.size());
  std::vector<size_t> absent;
  uint64_t invalidations = 0;
  {
    const std::lock_guard lock(mutex_);
    invalidations = invalidations_;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (const auto* frame = frames_.Find(ids[i])) {
        result[i] = *frame;
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
    for (size_t i = begin; i < end; ++i) keys.push_back(FrameKey(ids[absent[i]]));
    RETURN_IF_ERROR(database_.MultiGet(Family::kNames, keys, &values, &found));
    const std::lock_guard lock(mutex_);
    for (size_t i = begin; i < end; ++i) {
      if (!found[i - begin]) return Missing("frame", ids[absent[i]]);
      ASSIGN_OR_RETURN(FrameRecord decoded, DecodeFrame(values[i - begin]));
      const size_t bytes = sizeof(FrameRecord) + 32 + decoded.lines.size() * sizeof(FrameRecord::Line);
      auto frame = std::make_shared<const FrameRecord>(std::move(decoded));
      if (invalidations == invalidations_) frames_.Insert(ids[absent[i]], frame, bytes);
      result[absent[i]] = std::move(frame);
    }
    frames_.Trim();
  }
  return result;
}

void NameReader::Invalidate(const std::vector<FrameKeyId>& ids) {
  if (ids.empty()) return;
  const std::lock_guard lock(mutex_);
  ++invalidations_;
  for (const FrameKeyId id : ids) frames_.Erase(id);
}

uint64_t NameReader::bytes() const {
  const std::lock_guard lock(mutex_);
  return names_.bytes() + frames_.bytes();
}

}  // namespace pyrometer::store

#include "userspace/store/clickhouse/records.h"

#include <algorithm>
#include <filesystem>
#include <random>

#include "userspace/base/strings.h"
#include "userspace/store/clickhouse/row_binary.h"
#include "userspace/store/codec.h"
#include "userspace/store/names.h"

namespace pyrometer::store::clickhouse {
namespace {

constexpr std::string_view kColumnNames = "family, key, version, deleted, value";
// In Family::kMeta: of the tables; in the local copy only, which write it is of.
constexpr std::string_view kTablesKey = "tables";
constexpr std::string_view kCopyKey = "copy";
constexpr std::string_view kFormatKey = "format";  // of the local database; its own affair
constexpr std::string_view kFolder = "/clickhouse";
// Bytes of records that one statement reads or writes.
constexpr uint64_t kPieceBytes = 32u << 20;
constexpr char kNameBucketLetter = 'X';

// Families that have records; the others have points.
constexpr Family kRecordFamilies[] = {Family::kMeta, Family::kNames, Family::kTries, Family::kSeries, Family::kAgents};

bool IsLocal(Family family, std::string_view key) {
  if (family == Family::kNames) return key.starts_with(kNameBucketLetter);
  return family == Family::kMeta && (key == kCopyKey || key == kFormatKey);
}

class Collector : public rocksdb::WriteBatch::Handler {
 public:
  Collector(const Database& database, Records* records) : records_(*records) {
    for (size_t i = 0; i < kFamilies; ++i) {
      families_[database.family(static_cast<Family>(i))->GetID()] = static_cast<Family>(i);
    }
  }
  rocksdb::Status PutCF(uint32_t family, const rocksdb::Slice& key, const rocksdb::Slice& value) override {
    records_[{families_.at(family), key.ToString()}] = value.ToString();
    return rocksdb::Status::OK();
  }
  rocksdb::Status DeleteCF(uint32_t family, const rocksdb::Slice& key) override {
    records_[{families_.at(family), key.ToString()}] = std::nullopt;
    return rocksdb::Status::OK();
  }
  // The index of names.
  rocksdb::Status MergeCF(uint32_t, const rocksdb::Slice&, const rocksdb::Slice&) override {
    return rocksdb::Status::OK();
  }

 private:
  std::map<uint32_t, Family> families_;
  Records& records_;
};

// What a name is found by.
StatusOr<std::optional<std::pair<NameTable, std::string>>> IdentityOf(std::string_view key, std::string_view value) {
  switch (static_cast<NameTable>(key.empty() ? 0 : key.front())) {
    case NameTable::kStrings:
      return std::pair(NameTable::kStrings, std::string(value));
    case NameTable::kFunctions:
      return std::pair(NameTable::kFunctions, std::string(value));
    case NameTable::kFrames: {
      ASSIGN_OR_RETURN(const FrameRecord frame, DecodeFrame(value));
      return std::pair(NameTable::kFrames, FrameIdentity(frame));
    }
  }
  return std::optional<std::pair<NameTable, std::string>>();
}

void PutRow(Family family, std::string_view key, uint64_t number, const std::optional<std::string>& value,
            std::string* rows) {
  RowWriter out(rows);
  out.U8(static_cast<uint8_t>(family));
  out.String(key);
  out.U64(number);
  out.U8(value ? 0 : 1);
  out.String(value ? *value : "");
}

std::string RandomIdentity() {
  std::random_device random;
  std::string bytes;
  for (int i = 0; i < 4; ++i) PutBigEndian32(random(), &bytes);
  return HexEncode(bytes);
}

}  // namespace

Status AddRecords(const Database& database, const rocksdb::WriteBatch& batch, Records* records) {
  Collector collector(database, records);
  return database.FromRocks(batch.Iterate(&collector), "reading a write");
}

Status ToWriteBatch(const Database& database, const Records& records, rocksdb::WriteBatch* batch) {
  std::string stored;
  for (const auto& [place, value] : records) {
    const auto& [family, key] = place;
    rocksdb::ColumnFamilyHandle* handle = database.family(family);
    if (!value) {
      RETURN_IF_ERROR(database.FromRocks(batch->Delete(handle, key), "writing"));
      continue;
    }
    if (family == Family::kNames) {
      ASSIGN_OR_RETURN(const bool known, database.Get(family, key, &stored));
      if (!known) {
        ASSIGN_OR_RETURN(const auto identity, IdentityOf(key, *value));
        Decoder in(std::string_view(key).substr(1));
        const uint32_t id = in.BigEndian32();
        if (!identity || !in.ok() || !in.done()) return DataLossError("damaged key of a name");
        RETURN_IF_ERROR(database.FromRocks(batch->Merge(handle, NameBucketKey(identity->second),
                                                        NameBucketEntry(identity->first, identity->second, id)),
                                           "writing"));
      }
    }
    RETURN_IF_ERROR(database.FromRocks(batch->Put(handle, key, *value), "writing"));
  }
  return OkStatus();
}

std::string EncodeRecords(const Records& records) {
  std::string out;
  for (const auto& [place, value] : records) {
    out.push_back(static_cast<char>(place.first));
    PutString(place.second, &out);
    out.push_back(value ? 1 : 0);
    if (value) PutString(*value, &out);
  }
  return out;
}

StatusOr<Records> DecodeRecords(std::string_view bytes) {
  Decoder in(bytes);
  Records records;
  while (in.ok() && !in.done()) {
    const uint8_t family = in.Byte();
    if (family >= kFamilies) return DataLossError("damaged record: unknown family");
    std::string key(in.String());
    std::optional<std::string>& value = records[{static_cast<Family>(family), std::move(key)}];
    if (in.Byte() != 0) value = std::string(in.String());
  }
  if (!in.ok()) return DataLossError("damaged list of records");
  return records;
}

Status RecordTable::Write(uint64_t number, const Records& records) const {
  std::string rows;
  size_t piece = 0;
  const auto send = [&]() -> Status {
    if (rows.empty()) return OkStatus();
    const Status sent = cluster_.Insert(
        1, Table::kRecords, kColumnNames, rows,
        cluster_.InsertId(Table::kRecords, StrFormat("%s-%d-%d", owner_->name().substr(0, 16), number, piece++)),
        nullptr);
    rows.clear();
    return sent;
  };
  // Counters first, so that no id is given out again; then each name before what refers to it: of a write that breaks
  // off half-way nothing refers to what is missing.
  const auto order = [](const std::pair<Family, std::string>& place) {
    if (place.first != Family::kNames || place.second.empty()) return 0;
    const auto table = static_cast<NameTable>(place.second.front());
    return table == NameTable::kStrings ? 1 : table == NameTable::kFunctions ? 2 : 3;
  };
  for (const Family family : kRecordFamilies) {
    for (int turn = family == Family::kNames ? 1 : 0; turn <= (family == Family::kNames ? 3 : 0); ++turn) {
      for (auto at = records.lower_bound({family, ""}); at != records.end() && at->first.first == family; ++at) {
        if (order(at->first) != turn || IsLocal(family, at->first.second)) continue;
        PutRow(family, at->first.second, number, at->second, &rows);
        if (rows.size() >= kPieceBytes) RETURN_IF_ERROR(send());
      }
    }
  }
  return send();
}

Status RecordTable::WriteLocally(Database* database, uint64_t number, rocksdb::WriteBatch* batch) const {
  std::string copy;
  PutString(identity_, &copy);
  PutVarint(number, &copy);
  RETURN_IF_ERROR(database->FromRocks(batch->Put(database->family(Family::kMeta), ToSlice(kCopyKey), copy), "writing"));
  return database->Write(batch, false);
}

Status RecordTable::Disown(Database* database) const {
  std::string copy;
  PutString("", &copy);
  PutVarint(0, &copy);
  rocksdb::WriteBatch batch;
  RETURN_IF_ERROR(database->FromRocks(batch.Put(database->family(Family::kMeta), ToSlice(kCopyKey), copy), "writing"));
  return database->Write(&batch, true);
}

void RecordTable::PutTables(Records* records) const {
  std::string value;
  PutVarint(kTablesVersion, &value);
  PutString(identity_, &value);
  (*records)[{Family::kMeta, std::string(kTablesKey)}] = std::move(value);
}

Status RecordTable::ReadIdentity(bool* created) {
  ASSIGN_OR_RETURN(
      const Rows rows,
      cluster_.SelectSettled(1, Table::kRecords,
                             StrFormat("SELECT value FROM %s WHERE family = %d AND key = '%s' ORDER BY "
                                       "version DESC LIMIT 1 FORMAT RowBinary",
                                       cluster_.Local(Table::kRecords), static_cast<int>(Family::kMeta), kTablesKey)));
  *created = rows.bytes().empty();
  if (*created) {
    identity_ = RandomIdentity();
    Records records;
    PutTables(&records);
    return Write(1, records);
  }
  RowReader in(rows.bytes());
  Decoder value(in.String());
  tables_version_ = value.Varint();
  identity_ = std::string(value.String());
  if (!in.ok() || !value.ok()) {
    return DataLossError(
        StrFormat("the tables in the database %s of ClickHouse are damaged: no version", cluster_.url().database));
  }
  if (tables_version_ >= kOldestTablesVersion && tables_version_ <= kTablesVersion) return OkStatus();
  return FailedPreconditionError(StrFormat(
      "the tables in the database %s of ClickHouse are of version %d; this program reads versions %d to %d: run the "
      "pyrometer that made them, or name another database in --backend",
      cluster_.url().database, tables_version_, kOldestTablesVersion, kTablesVersion));
}

StatusOr<std::unique_ptr<Database>> RecordTable::Open(const std::string& folder, const StoreOptions& options,
                                                      uint64_t* newest) {
  bool created = false;
  RETURN_IF_ERROR(ReadIdentity(&created));
  const std::string path = folder + std::string(kFolder);
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path, options));
  std::string copy, counters;
  uint64_t have = 0;
  ASSIGN_OR_RETURN(const bool is_copy, database->Get(Family::kMeta, kCopyKey, &copy));
  if (is_copy) {
    Decoder in(copy);
    const std::string_view identity = in.String();
    have = in.Varint();
    if (!in.ok() || !in.done()) return DataLossError(StrFormat("data folder %s is damaged; empty it", path));
    if (identity != identity_) {
      // Of another database, of tables that are gone, or disowned. Nothing in it is not in its own cluster.
      database.reset();
      std::error_code error;
      std::filesystem::remove_all(path, error);
      if (error) return PermissionDeniedError(StrFormat("cannot empty %s: %s", path, error.message()));
      ASSIGN_OR_RETURN(database, Database::Open(path, options));
      have = 0;
    }
  }
  ASSIGN_OR_RETURN(const Rows rows, cluster_.SelectSettled(1, Table::kRecords,
                                                           StrFormat("SELECT max(version) FROM %s FORMAT RowBinary",
                                                                     cluster_.Local(Table::kRecords))));
  RowReader in(rows.bytes());
  const uint64_t there = in.U64();
  if (!in.ok()) return InternalError("ClickHouse: malformed answer");

  // First the database is taken over, then read: so that nothing is missed that the former owner still acknowledges.
  ASSIGN_OR_RETURN(const std::string former, owner_->Current());
  *newest = std::max(have, there) + kTakeOverGap + std::random_device{}() % (kTakeOverGap / 2);
  RETURN_IF_ERROR(Write(*newest, {{{Family::kMeta, std::string(kOwnerKey)}, owner_->name()}}));
  RETURN_IF_ERROR(owner_->TakeOver(!former.empty()));
  // When the server has lost its newest writes (a power cut), what names mean must not be lost with them.
  if (have > there) RETURN_IF_ERROR(SendAll(*database, *newest - 1));
  RETURN_IF_ERROR(Fill(database.get(), std::min(have, there), *newest - 1));
  rocksdb::WriteBatch batch;
  RETURN_IF_ERROR(WriteLocally(database.get(), *newest, &batch));
  return database;
}

Status RecordTable::Fill(Database* database, uint64_t after, uint64_t before) const {
  // Pieces that end between two writes.
  std::vector<std::pair<uint64_t, uint64_t>> sizes;
  {
    ASSIGN_OR_RETURN(
        const Rows rows,
        cluster_.SelectSettled(
            1, Table::kRecords,
            StrFormat("SELECT version, toUInt64(sum(length(key) + length(value) + 16)) FROM %s WHERE version > "
                      "%d AND version < %d GROUP BY version ORDER BY version FORMAT RowBinary",
                      cluster_.Local(Table::kRecords), after, before)));
    RowReader in(rows.bytes());
    while (!in.done()) {
      const uint64_t version = in.U64();
      sizes.emplace_back(version, in.U64());
    }
    if (!in.ok()) return InternalError("ClickHouse: malformed answer");
  }
  for (size_t begin = 0; begin < sizes.size();) {
    size_t end = begin;
    for (uint64_t bytes = 0; end < sizes.size() && (end == begin || bytes + sizes[end].second <= kPieceBytes); ++end) {
      bytes += sizes[end].second;
    }
    ASSIGN_OR_RETURN(
        const Rows rows,
        cluster_.SelectSettled(
            1, Table::kRecords,
            StrFormat("SELECT %s FROM %s WHERE version >= %d AND version <= %d ORDER BY version FORMAT "
                      "RowBinary",
                      kColumnNames, cluster_.Local(Table::kRecords), sizes[begin].first, sizes[end - 1].first)));
    Records records;
    RowReader in(rows.bytes());
    while (!in.done()) {
      const uint8_t family = in.U8();
      std::string key(in.String());
      in.U64();
      const bool deleted = in.U8() != 0;
      std::string value(in.String());
      if (!in.ok() || family >= kFamilies) return DataLossError("the table of records in ClickHouse is damaged");
      records[{static_cast<Family>(family), std::move(key)}] =
          deleted ? std::nullopt : std::optional<std::string>(std::move(value));
    }
    rocksdb::WriteBatch batch;
    RETURN_IF_ERROR(ToWriteBatch(*database, records, &batch));
    RETURN_IF_ERROR(WriteLocally(database, sizes[end - 1].first, &batch));
    begin = end;
  }
  return OkStatus();
}

Status RecordTable::SendAll(const Database& database, uint64_t number) const {
  for (const Family family : kRecordFamilies) {
    Records piece;
    uint64_t bytes = 0;
    const Status sent =
        database.Scan(family, "", "", [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
          if (IsLocal(family, key)) return true;
          piece[{family, std::string(key)}] = std::string(value);
          bytes += key.size() + value.size();
          if (bytes >= kPieceBytes) {
            RETURN_IF_ERROR(Write(number, piece));
            piece.clear();
            bytes = 0;
          }
          return true;
        });
    RETURN_IF_ERROR(sent);
    RETURN_IF_ERROR(Write(number, piece));
  }
  return OkStatus();
}

}  // namespace pyrometer::store::clickhouse

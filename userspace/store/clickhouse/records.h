// Everything of a store that is no point, as ClickHouse keeps it: the keys and values of the local database
// (docs/formats/store.md), each with the number of the write that it came with. Inside this room only.
//
// The local database is a copy: it has all writes up to the number that it notes. Opening reads what is newer from the
// cluster; a folder that is empty, or of another database, is filled anew. The index of names is not in the cluster: it
// follows from the names.
#pragma once

#include <rocksdb/write_batch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "userspace/base/status.h"
#include "userspace/store/clickhouse/cluster.h"
#include "userspace/store/clickhouse/owner.h"
#include "userspace/store/database.h"

namespace pyrometer::store::clickhouse {

// By family and key; nullopt = deleted. One write has each key once.
using Records = std::map<std::pair<Family, std::string>, std::optional<std::string>>;

// What a write to the local database says, but for the index of names. Later changes replace earlier ones.
Status AddRecords(const Database& database, const rocksdb::WriteBatch& batch, Records* records);
// All of them, as a write to the local database.
Status ToWriteBatch(const Database& database, const Records& records, rocksdb::WriteBatch* batch);

std::string EncodeRecords(const Records& records);
StatusOr<Records> DecodeRecords(std::string_view bytes);

class RecordTable {
 public:
  explicit RecordTable(Cluster* cluster) : cluster_(*cluster), owner_(std::make_unique<Owner>(cluster)) {}

  // Takes the database over; opens its copy in `folder` and brings that up to date. `*newest`: number of the newest
  // write.
  StatusOr<std::unique_ptr<Database>> Open(const std::string& folder, const StoreOptions& options, uint64_t* newest);

  // One write; numbers rise. Idempotent. After an error it may be there or not.
  Status Write(uint64_t number, const Records& records) const;
  // The same for the local copy, synced or not.
  Status WriteLocally(Database* database, uint64_t number, rocksdb::WriteBatch* batch) const;
  Owner& owner() const { return *owner_; }
  // The copy of a store that lost its database may have what nobody else has: the next one to open it fills it anew.
  Status Disown(Database* database) const;

  // That the tables were of when they were opened: kOldestTablesVersion to kTablesVersion.
  uint64_t tables_version() const { return tables_version_; }
  // Makes them of kTablesVersion.
  void PutTables(Records* records) const;

 private:
  Status ReadIdentity(bool* created);
  // What was written with numbers between these two.
  Status Fill(Database* database, uint64_t after, uint64_t before) const;
  Status SendAll(const Database& database, uint64_t number) const;

  Cluster& cluster_;
  std::unique_ptr<Owner> owner_;
  std::string identity_;
  uint64_t tables_version_ = kTablesVersion;
};

}  // namespace pyrometer::store::clickhouse

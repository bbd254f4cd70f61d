// The store in a ClickHouse cluster: points in its tables, where questions are answered; names, stacks and series in
// its records, and in a local copy of them, which is what ids are given out from (docs/design/005-store.md).
//
//   ASSIGN_OR_RETURN(std::unique_ptr<Store> s, clickhouse::Open("clickhouse://ch1:8123/pyrometer", "/var/lib/p", {}));
//
// Exactly once: an append is acknowledged when all its rows are in ClickHouse. What a group of batches is about to
// insert is written down there before; so whoever opens the database after a crash knows which rows to look for, and a
// batch that comes again is not inserted where it is already. On replicated tables the same rows sent again are
// recognised by ClickHouse itself.
//
// One store writes to one database at a time: one that is opened later takes it over, and the former refuses batches
// from then on. What either acknowledged is there, once; owner.h says what that rests on.
//
// The folder holds nothing that is not in the cluster, but a store that has it opens without reading all names again.
//
// Not promised: that a batch that was never acknowledged shows whole or not at all (its rows may lie on several
// shards); that acknowledged rows survive a power cut of a single ClickHouse server older than 20.10, which does not
// write through; Backup (ClickHouse has its own).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/store/store.h"

namespace pyrometer::store::clickhouse {

// Opens or creates database and tables. Errors say what to do:
//   INVALID_ARGUMENT     the URL, see url.h; what its ca-file names
//   UNAVAILABLE          no server answers, or none of a shard
//   PERMISSION_DENIED    user or password
//   FAILED_PRECONDITION  a ClickHouse or tables of a version that this program does not know; a cluster that is not as
//                        the URL says; with tls=1 a certificate that is not to be trusted; and as Store::Open for the
//                        folder
StatusOr<std::unique_ptr<Store>> Open(std::string_view url, const std::string& folder, StoreOptions options);

}  // namespace pyrometer::store::clickhouse

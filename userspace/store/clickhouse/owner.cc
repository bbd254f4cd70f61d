#include "userspace/store/clickhouse/owner.h"

#include <unistd.h>

#include <random>

#include "userspace/base/strings.h"
#include "userspace/store/clickhouse/row_binary.h"
#include "userspace/store/codec.h"
#include "userspace/store/database.h"

namespace pyrometer::store::clickhouse {
namespace {

std::string MakeName() {
  std::random_device random;
  std::string bytes;
  for (int i = 0; i < 2; ++i) PutBigEndian32(random(), &bytes);
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  return StrFormat("%s of process %d on %s", HexEncode(bytes), getpid(), host);
}

StatusOr<std::string> NameIn(const Rows& rows) {
  if (rows.bytes().empty()) return std::string();
  RowReader in(rows.bytes());
  std::string name(in.String());
  if (!in.ok()) return InternalError("ClickHouse: malformed answer");
  return name;
}

}  // namespace

Owner::Owner(Cluster* cluster) : cluster_(*cluster), name_(MakeName()) {}

std::string Owner::Sql() const {
  std::string sql = StrFormat("SELECT value FROM %s WHERE family = %d AND key = '%s'", cluster_.Local(Table::kRecords),
                              static_cast<int>(Family::kMeta), kOwnerKey);
  // A replica that reaches no ZooKeeper does not hear of a new owner: it answers nothing.
  if (cluster_.replicated()) sql += StrFormat(" AND %s", cluster_.HearsOthers(Table::kRecords));
  return sql + " ORDER BY version DESC LIMIT 1 FORMAT RowBinary";
}

StatusOr<std::string> Owner::Current() const {
  ASSIGN_OR_RETURN(const Rows rows, cluster_.SelectSettled(1, Table::kRecords, Sql()));
  return NameIn(rows);
}

Status Owner::TakeOver(bool from_another) {
  if (from_another) {
    std::string expected;
    RowWriter(&expected).String(name_);
    if (const Status known = cluster_.AwaitAnswer(1, Sql(), expected); !known.ok()) {
      RETURN_IF_ERROR(Look());  // another one may have opened it at the same time
      return known;
    }
    RETURN_IF_ERROR(cluster_.AwaitInserts());
  }
  cluster_.SetGuard([this] { return Look(kLookAgeNs); });
  return OkStatus();
}

Status Owner::Look(uint64_t max_age_ns) {
  RETURN_IF_ERROR(lost());
  const uint64_t now_ns = MonotonicNowNs();
  const uint64_t looked_ns = looked_ns_;
  if (looked_ns != 0 && now_ns - looked_ns < max_age_ns) return OkStatus();
  ASSIGN_OR_RETURN(const Rows rows, cluster_.SelectSome(1, Sql()));
  ASSIGN_OR_RETURN(const std::string owner, NameIn(rows));
  if (owner == name_) {
    looked_ns_ = now_ns;
    return OkStatus();
  }
  if (owner.empty() && cluster_.replicated()) {
    return UnavailableError("no ClickHouse server of shard 1 reaches its ZooKeeper");
  }
  const std::lock_guard lock(mutex_);
  lost_ = FailedPreconditionError(StrFormat(
      "another pyrometer store (%s) has taken over the database %s of ClickHouse: stop one of the two, or give each a "
      "database of its own",
      owner.empty() ? "which emptied its tables" : ToUtf8(owner), cluster_.url().database));
  return lost_;
}

Status Owner::lost() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

}  // namespace pyrometer::store::clickhouse

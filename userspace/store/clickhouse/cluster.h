// The servers behind one URL: which shard each belongs to, what they can do, and the tables of the store on them.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<Cluster> cluster, Cluster::Connect(url));
//   RETURN_IF_ERROR(cluster->CreateTables());
//   ASSIGN_OR_RETURN(Rows rows, cluster->Select(cluster->All(kPoints), "SELECT …", budget));
//
// A question goes to the first server that answers, in the order of shards and of the URL, and reaches all shards
// through the Distributed tables. Rows are inserted into the table of a shard itself, so that an insert is over when it
// says so.
//
// Threads: all methods from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/clickhouse/http.h"
#include "userspace/store/clickhouse/url.h"
#include "userspace/store/read_budget.h"

namespace pyrometer::store::clickhouse {

// Version of the tables that this program makes.
inline constexpr uint32_t kTablesVersion = 3;
// The oldest that it reads: opening them makes them of its own version.
inline constexpr uint32_t kOldestTablesVersion = 2;

// Rows of an answer; what they take of a question's memory is given back with them.
class Rows {
 public:
  Rows(std::string bytes, ReadBudget* budget) : bytes_(std::move(bytes)), budget_(budget) {}
  Rows(Rows&& other) noexcept
      : bytes_(std::move(other.bytes_)), budget_(std::exchange(other.budget_, nullptr)), charged_(other.charged_) {}
  Rows& operator=(Rows&&) = delete;
  ~Rows() {
    if (budget_ != nullptr) budget_->Release(charged_);
  }
  std::string_view bytes() const { return bytes_; }

 private:
  std::string bytes_;
  ReadBudget* budget_;
  uint64_t charged_ = bytes_.size();
};

// Tables; names in cluster.cc.
enum class Table : uint8_t {
  kPoints = 0,     // every point, its stacks and buckets with it
  kRollups = 1,    // sums of groups by hour, of hours whose points are gone
  kFunctions = 2,  // cost of functions by hour
  kRecords = 3,    // everything else: names, stacks, series, agents. On the first shard only
};
inline constexpr size_t kTables = 4;

class Cluster {
 public:
  // Asks every server who it is. Errors say what to do: UNAVAILABLE (a shard without a server that answers),
  // FAILED_PRECONDITION (too old a version, an unknown cluster, servers of it that the URL does not name, replicas
  // without ZooKeeper), PERMISSION_DENIED.
  static StatusOr<std::unique_ptr<Cluster>> Connect(const Url& url);

  // Database and tables, where they are not there yet, on every server that answers.
  Status CreateTables();
  // Servers that did not answer at the start: asks them again, and makes the tables there.
  void LookForServers();

  uint32_t shards() const { return shards_; }
  bool replicated() const { return replicated_; }
  // database.table for questions: over all shards.
  std::string All(Table table) const;
  std::string Local(Table table) const;

  // Of the first server that answers.
  StatusOr<Rows> Select(std::string_view sql, ReadBudget* budget) const;
  // Of the first of a shard that answers.
  StatusOr<Rows> SelectShard(uint32_t shard, std::string_view sql, ReadBudget* budget = nullptr) const;
  // Of one of a shard that has everything that was ever inserted there: waits for it a while; UNAVAILABLE then.
  StatusOr<Rows> SelectSettled(uint32_t shard, Table table, std::string_view sql) const;
  // Of the first of a shard whose answer is not empty.
  StatusOr<Rows> SelectSome(uint32_t shard, std::string_view sql) const;
  // Until every server of a shard that can be reached answers this, or nothing; UNAVAILABLE after `patience_ns`.
  Status AwaitAnswer(uint32_t shard, std::string_view sql, std::string_view expected) const;
  // The condition that a replica hears what others take.
  std::string HearsOthers(Table table) const;
  // Bytes of a row of points as it was inserted, in SQL.
  static std::string PointBytes();
  // On one server of the shard.
  Status Execute(uint32_t shard, std::string_view sql) const;

  // Of an insert: names the table too.
  std::string InsertId(Table table, const std::string& what) const;
  // One block of rows, all or nothing, tried on all servers of the shard until one has it or `patience_ns` is over.
  // `id`: an InsertId of these very rows, for ever. `is_there`: asks a table that does not recognise what it
  // has already whether the rows are there, called before each further try; null where rows that are there twice do no
  // harm. UNAVAILABLE means that the rows may be there or not.
  Status Insert(uint32_t shard, Table table, std::string_view columns, std::string_view rows, const std::string& id,
                const std::function<StatusOr<bool>()>& is_there) const;

  // `may_send` is asked before each insert from now on, and before each further try of it; its error is the insert's.
  void SetGuard(std::function<Status()> may_send) { may_send_ = std::move(may_send); }
  // Waits until no server that answers works any more on an insert that was sent until now, of whatever process.
  Status AwaitInserts() const;

  // Bytes of the database on disk, one replica of each shard.
  StatusOr<uint64_t> DiskBytes() const;

  const Url& url() const { return url_; }

 private:
  struct Server {
    Server(const Url& url, const Address& address) : http(url, address) {}
    HttpClient http;
    // Set by Ask, before `ready`.
    uint32_t shard = 0;  // from 1; 0 = not asked yet
    std::set<std::string> settings;
    std::set<std::string> table_settings;  // of MergeTree
    bool has_zookeeper = false;
    bool has_codecs = false;
    std::atomic<bool> ready{false};  // asked, and has the tables
    std::atomic<uint64_t> away_until_ns{0};
  };

  explicit Cluster(const Url& url) : url_(url) {}
  Status Ask(Server* server);
  Status Create(Server* server) const;
  std::string Ddl(const Server& server, Table table) const;
  // Those of a shard, or of all with 0, that answered when last asked first.
  std::vector<Server*> ServersOf(uint32_t shard) const;
  static void Saw(Server* server, const Status& status);
  Settings QuestionSettings(const Server& server) const;
  Status InsertAt(Server* server, Table table, std::string_view columns, std::string_view rows,
                  const std::string& query_id) const;
  // What is asked of a server in passing.
  uint64_t AskTimeoutNs() const;
  StatusOr<std::vector<std::string>> Column(const HttpClient& http, std::string_view sql) const;
  // Waits until the server does not work on inserts any more whose id begins so.
  Status AwaitEnd(Server* server, const std::string& query_id) const;

  const Url url_;
  uint32_t shards_ = 1;
  bool replicated_ = false;
  std::function<Status()> may_send_;
  std::mutex mutex_;                              // one LookForServers at a time
  std::vector<std::unique_ptr<Server>> servers_;  // after Connect: in the order of shards, then as the URL names them
};

}  // namespace pyrometer::store::clickhouse

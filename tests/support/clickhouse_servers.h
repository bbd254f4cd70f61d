// ClickHouse servers for tests: of this machine's clickhouse-server, on free ports of loopback, in a folder that goes
// away; with replicas also a ZooKeeper (Debian's package zookeeper).
//
//   ClickHouseServers servers(2, 2);                       // shards, replicas
//   ASSERT_EQ(servers.Start(), "");                        // else why not
//   store::clickhouse::Open(servers.Url("test"), …);
//   servers.Kill(1); … servers.Restart(1);                 // shard 1's second replica: as kill -9
//
// PYROMETER_TEST_CLICKHOUSE in the environment: 1x1 (one server) and 2x2 (a cluster of two shards of two replicas each)
// ask for the tests in their whole length, minutes; without it they are short, as scripts/test runs them.
//
// What it starts ends with it, and with the test's process. Threads: none shared.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace pyrometer::test_support {

class ClickHouseServers {
 public:
  ClickHouseServers(int shards, int replicas);
  ~ClickHouseServers();
  ClickHouseServers(const ClickHouseServers&) = delete;
  ClickHouseServers& operator=(const ClickHouseServers&) = delete;

  // Why they cannot run on this machine; "" when they can.
  static std::string WhyNot(bool with_zookeeper);
  // Whether tests take their time.
  static bool Whole();
  // Before Start: HTTPS too, with a certificate and its key (PEM).
  void UseTls(std::string certificate, std::string key);
  uint16_t https_port(size_t server) const { return servers_[server].https; }
  // "", or what went wrong.
  std::string Start();

  // clickhouse://…/DATABASE?batch=0&…, all servers in the order of shard and replica.
  std::string Url(const std::string& database, const std::string& more = "") const;
  size_t size() const { return servers_.size(); }
  // As kill -9 does.
  void Kill(size_t server);
  // "", or what went wrong.
  std::string Restart(size_t server);
  // How parts are compressed that are written from the next Restart on, "lz4" (as it comes) or "zstd": this release
  // knows it only as a server's setting.
  void SetCompression(const std::string& method);
  // What a server complained of, the newest; for the report of a test that failed.
  std::string Complaints(size_t server) const;
  // The answer to a statement, as text; with "error: " before it when it is none.
  std::string Ask(size_t server, const std::string& sql) const;

 private:
  struct Server {
    int shard = 0;
    uint16_t http = 0, tcp = 0, interserver = 0, https = 0;
    std::string folder;
    pid_t process = -1;
  };
  void WriteConfig(const Server& server) const;
  std::string AwaitAnswer(const Server& server) const;

  std::string folder_, certificate_, key_;
  bool replicated_ = false;
  bool clustered_ = false;
  std::string compression_ = "lz4";
  uint16_t zookeeper_port_ = 0;
  pid_t zookeeper_ = -1;
  std::vector<Server> servers_;
};

}  // namespace pyrometer::test_support

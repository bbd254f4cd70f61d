#include "tests/support/clickhouse_servers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::test_support {
namespace {

// A server on a busy machine; a Java machine beside it.
constexpr uint64_t kStartTimeoutNs = 90 * kNsPerSecond;
constexpr char kZookeeperJar[] = "/usr/share/java/zookeeper.jar";

std::string FindProgram(const std::string& name) {
  for (const char* folder : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/"}) {
    if (access((folder + name).c_str(), X_OK) == 0) return folder + name;
  }
  return "";
}

// A port that nobody else takes while this process lives, also while the server that has it is down: below those that
// the kernel gives to connections by itself, and bound to a name of this machine that tells other tests that it is
// taken.
uint16_t FreePort() {
  constexpr uint16_t kFirst = 20'000, kEnd = 32'000;
  static std::vector<UniqueFd> taken;
  static std::mt19937 random(std::random_device{}());
  for (int tries = 0; tries < 1000; ++tries) {
    const auto port = static_cast<uint16_t>(kFirst + random() % (kEnd - kFirst));
    UniqueFd name(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un path = {};
    path.sun_family = AF_UNIX;
    // The first byte stays 0: a name without a file.
    const std::string text = StrFormat("pyrometer-test-port-%d", port);
    text.copy(path.sun_path + 1, sizeof(path.sun_path) - 1);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
    if (!name || bind(name.get(), reinterpret_cast<sockaddr*>(&path), size) != 0) continue;
    const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (!fd || bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) continue;
    taken.push_back(std::move(name));
    return port;
  }
  return 0;
}

pid_t Spawn(const std::vector<std::string>& arguments, const std::string& output) {
  const pid_t child = fork();
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // nothing survives a test that was stopped
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int out = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  std::vector<char*> args;
  for (const std::string& argument : arguments) args.push_back(const_cast<char*>(argument.c_str()));
  args.push_back(nullptr);
  execv(args[0], args.data());
  _exit(127);
}

// The end of a server's log of errors.
std::string ComplaintsOf(const std::string& folder) {
  constexpr size_t kMostBytes = 4000;
  std::ifstream errors(folder + "/errors");
  const std::string all(std::istreambuf_iterator<char>(errors), {});
  return all.size() <= kMostBytes ? all : all.substr(all.size() - kMostBytes);
}

void End(pid_t* process) {
  if (*process <= 0) return;
  kill(*process, SIGKILL);
  waitpid(*process, nullptr, 0);
  *process = -1;
}

// What stands after the headers; "" when there is no connection.
std::string Http(uint16_t port, const std::string& request) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  timeval patience{.tv_sec = 60, .tv_usec = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return "";
  if (write(fd.get(), request.data(), request.size()) != static_cast<ssize_t>(request.size())) return "";
  std::string answer;
  char buffer[4096];
  for (ssize_t got = 0; (got = read(fd.get(), buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, static_cast<size_t>(got));
  }
  const size_t head = answer.find("\r\n\r\n");
  if (head == std::string::npos) return "";
  const std::string body = answer.substr(head + 4);
  return answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200") ? body : "error: " + body;
}

}  // namespace

ClickHouseServers::ClickHouseServers(int shards, int replicas)
    : replicated_(replicas > 1), clustered_(shards * replicas > 1) {
  std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-clickhouse-XXXXXX").string();
  folder_ = mkdtemp(pattern.data());
  zookeeper_port_ = FreePort();
  for (int i = 0; i < shards * replicas; ++i) {
    servers_.push_back({.shard = i / replicas,
                        .http = FreePort(),
                        .tcp = FreePort(),
                        .interserver = FreePort(),
                        .https = FreePort(),
                        .folder = StrFormat("%s/%d", folder_, i)});
  }
}

ClickHouseServers::~ClickHouseServers() {
  for (Server& server : servers_) End(&server.process);
  End(&zookeeper_);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string ClickHouseServers::WhyNot(bool with_zookeeper) {
  if (FindProgram("clickhouse-server").empty()) return "clickhouse-server is not installed";
  if (with_zookeeper && access(kZookeeperJar, R_OK) != 0) return "zookeeper is not installed";
  if (with_zookeeper && FindProgram("java").empty()) return "java is not installed";
  return "";
}

bool ClickHouseServers::Whole() { return getenv("PYROMETER_TEST_CLICKHOUSE") != nullptr; }

void ClickHouseServers::WriteConfig(const Server& server) const {
  std::filesystem::create_directories(server.folder + "/data");
  std::filesystem::create_directories(server.folder + "/tmp");
  std::ofstream config(server.folder + "/config.xml");
  config << StrFormat(
      "<yandex><logger><level>warning</level><log>%s/log</log><errorlog>%s/errors</errorlog></logger>"
      "<http_port>%d</http_port><tcp_port>%d</tcp_port><interserver_http_port>%d</interserver_http_port>"
      "<interserver_http_host>127.0.0.1</interserver_http_host><listen_host>127.0.0.1</listen_host>"
      "<path>%s/data/</path><tmp_path>%s/tmp/</tmp_path><format_schema_path>%s/</format_schema_path>"
      "<users_config>%s/users.xml</users_config><default_profile>default</default_profile>"
      "<default_database>default</default_database><mark_cache_size>67108864</mark_cache_size>"
      "<uncompressed_cache_size>0</uncompressed_cache_size><max_concurrent_queries>100</max_concurrent_queries>"
      // Parts that were merged go soon: a hundred files each, which are all to be removed at the end.
      "<merge_tree><old_parts_lifetime>5</old_parts_lifetime></merge_tree>",
      server.folder, server.folder, server.http, server.tcp, server.interserver, server.folder, server.folder,
      server.folder, server.folder);
  config << StrFormat("<compression><case><method>%s</method></case></compression>", compression_);
  if (clustered_) {
    config << "<remote_servers><test>";
    for (size_t i = 0; i < servers_.size(); ++i) {
      if (i == 0 || servers_[i].shard != servers_[i - 1].shard) {
        config << (i == 0 ? "" : "</shard>") << "<shard><internal_replication>true</internal_replication>";
      }
      config << StrFormat("<replica><host>127.0.0.1</host><port>%d</port></replica>", servers_[i].tcp);
    }
    config << "</shard></test></remote_servers>";
  } else {
    config << "<remote_servers></remote_servers>";
  }
  if (replicated_) {
    config << StrFormat(
        "<zookeeper><node><host>127.0.0.1</host><port>%d</port></node>"
        "<session_timeout_ms>4000</session_timeout_ms></zookeeper>",
        zookeeper_port_);
  }
  if (!certificate_.empty()) {
    config << StrFormat(
        "<https_port>%d</https_port><openSSL><server><certificateFile>%s</certificateFile><privateKeyFile>%s"
        "</privateKeyFile><verificationMode>none</verificationMode><loadDefaultCAFile>false</loadDefaultCAFile>"
        "<disableProtocols>sslv2,sslv3,tlsv1,tlsv1_1</disableProtocols></server></openSSL>",
        server.https, certificate_, key_);
  }
  config << "</yandex>";
  std::ofstream(server.folder + "/users.xml")
      << "<yandex><profiles><default><max_memory_usage>2000000000</max_memory_usage></default></profiles><users>"
         "<default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>"
         "<quota>default</quota></default></users><quotas><default></default></quotas></yandex>";
}

void ClickHouseServers::UseTls(std::string certificate, std::string key) {
  certificate_ = std::move(certificate);
  key_ = std::move(key);
}

std::string ClickHouseServers::Start() {
  if (replicated_) {
    std::filesystem::create_directories(folder_ + "/zookeeper");
    std::ofstream(folder_ + "/zoo.cfg") << StrFormat(
        "tickTime=1000\ndataDir=%s/zookeeper\nclientPort=%d\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        "maxClientCnxns=0\n4lw.commands.whitelist=ruok\n",
        folder_, zookeeper_port_);
    zookeeper_ = Spawn({FindProgram("java"), "-Xmx256m", "-cp", kZookeeperJar,
                        "org.apache.zookeeper.server.quorum.QuorumPeerMain", folder_ + "/zoo.cfg"},
                       folder_ + "/zookeeper.log");
  }
  for (Server& server : servers_) {
    WriteConfig(server);
    server.process = Spawn({FindProgram("clickhouse-server"), "--config-file=" + server.folder + "/config.xml"},
                           server.folder + "/output");
  }
  for (const Server& server : servers_) {
    if (std::string problem = AwaitAnswer(server); !problem.empty()) return problem;
  }
  return "";
}

std::string ClickHouseServers::AwaitAnswer(const Server& server) const {
  const uint64_t until_ns = MonotonicNowNs() + kStartTimeoutNs;
  // With replicas only a server that reaches ZooKeeper is of use.
  const std::string sql = replicated_ ? "SELECT count() FROM system.zookeeper WHERE path = '/'" : "SELECT 1";
  std::string answer;
  while (MonotonicNowNs() < until_ns) {
    answer = Http(server.http, StrFormat("POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", sql.size(), sql));
    if (!answer.empty() && !answer.starts_with("error: ")) return "";
    if (waitpid(server.process, nullptr, WNOHANG) != 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return StrFormat("a ClickHouse server did not start (%s): %s", answer, ComplaintsOf(server.folder));
}

std::string ClickHouseServers::Complaints(size_t server) const { return ComplaintsOf(servers_[server].folder); }

std::string ClickHouseServers::Url(const std::string& database, const std::string& more) const {
  std::string url = "clickhouse://";
  for (size_t i = 0; i < servers_.size(); ++i) url += StrFormat("%s127.0.0.1:%d", i == 0 ? "" : ",", servers_[i].http);
  // On a machine with much to do a server alone may be slow; where there is another, that one is to take over soon.
  return url + "/" + database + "?batch=0" + (clustered_ ? "&cluster=test" : "") +
         (replicated_ ? "" : "&patience=80s") + more;
}

void ClickHouseServers::Kill(size_t server) { End(&servers_[server].process); }

std::string ClickHouseServers::Restart(size_t server) {
  Server& one = servers_[server];
  one.process =
      Spawn({FindProgram("clickhouse-server"), "--config-file=" + one.folder + "/config.xml"}, one.folder + "/output");
  return AwaitAnswer(one);
}

void ClickHouseServers::SetCompression(const std::string& method) {
  compression_ = method;
  for (const Server& server : servers_) WriteConfig(server);
}

std::string ClickHouseServers::Ask(size_t server, const std::string& sql) const {
  return Http(servers_[server].http, StrFormat("POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", sql.size(), sql));
}

}  // namespace pyrometer::test_support

// The HTTP API of a whole store, call by call (docs/api.md).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

#include "tests/unit/server/live_store.h"
#include "tests/unit/server/test_client.h"
#include "ui-export/formats/format.h"
#include "ui-export/formats/gzip.h"
#include "ui-export/formats/web_assets.h"

namespace pyrometer::server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::vector<std::string> Names(const json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return names;
}

// One store for all of these: three windows of node n1, the newest one minute old at most.
class HttpTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    store_ = new LiveStore({.mode = "up", .node = "n1"});
    agent_ = new Agent();
    ASSERT_TRUE(agent_->Connect(store_->grpc()).ok());
    for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
      ASSERT_TRUE(agent_->client().Send(WindowBatch(*agent_, sequence, WindowStart(4 - sequence))).ok());
    }
    ASSERT_TRUE(agent_->Wait([] { return agent_->acks.size() == 3; }));
  }
  static void TearDownTestSuite() {
    delete agent_;
    delete store_;
  }

  static TestReply Get(const std::string& path) { return Ask(store_->http_port(), {.path = path}); }
  static json GetJson(const std::string& path) {
    const TestReply reply = Get(path);
    EXPECT_EQ(reply.status, 200) << path << ": " << reply.body.substr(0, 500);
    EXPECT_EQ(reply.Header("content-type"), "application/json") << path;
    const json value = reply.Json();
    EXPECT_FALSE(value.is_discarded()) << reply.body.substr(0, 200);
    return value;
  }
  static json Error(const std::string& path, int status) {
    const TestReply reply = Get(path);
    EXPECT_EQ(reply.status, status) << path << ": " << reply.body.substr(0, 500);
    const json value = reply.Json();
    EXPECT_TRUE(value.contains("error")) << path;
    return value.contains("error") ? value["error"] : json();
  }

  static LiveStore* store_;
  static Agent* agent_;
};
LiveStore* HttpTest::store_ = nullptr;
Agent* HttpTest::agent_ = nullptr;

TEST_F(HttpTest, Status) {
  const json status = GetJson("/api/v1/status");
  EXPECT_THAT(Names(status),
              ElementsAre("authRequired", "mode", "node", "nodes", "nowMs", "startedMs", "store", "version"));
  EXPECT_EQ(status["mode"], "up");
  EXPECT_EQ(status["node"], "n1");
  EXPECT_EQ(status["authRequired"], false);
  EXPECT_EQ(status["nodes"], 1);
  EXPECT_EQ(status["store"]["batches"], 3);
  EXPECT_EQ(status["store"]["samples"], 330);
  EXPECT_THAT(Names(status["store"]), ElementsAre("batches", "bytes", "memoryBytes", "samples", "series", "stacks"));
  EXPECT_LE(status["startedMs"].get<int64_t>(), status["nowMs"].get<int64_t>());
}

TEST_F(HttpTest, Nodes) {
  const json nodes = GetJson("/api/v1/nodes")["nodes"];
  ASSERT_EQ(nodes.size(), 1u);
  const json& node = nodes[0];
  EXPECT_THAT(Names(node), ElementsAre("agentId", "cpuNsPerS", "cpus", "delivered", "dropped", "frequencyHz", "kernel",
                                       "lastSeenMs", "node", "online", "probes", "rssBytes", "taken", "version"));
  EXPECT_EQ(node["node"], "n1");
  EXPECT_EQ(node["agentId"], "agent-n1");
  EXPECT_EQ(node["online"], true);
  EXPECT_EQ(node["cpus"], 4);
  EXPECT_EQ(node["kernel"], "6.1.0");
  EXPECT_EQ(node["frequencyHz"], 99);
  EXPECT_EQ(node["probes"][1], json({{"name", "tcp_latency"}, {"state", "off"}, {"reason", "no BTF"}}));
  EXPECT_EQ(node["cpuNsPerS"], 10'000'000);
  EXPECT_EQ(node["rssBytes"], 50'000'000);
  EXPECT_EQ(node["taken"], 345);
  EXPECT_EQ(node["delivered"], 330);
  EXPECT_EQ(node["dropped"], json({{"ring full", 15}}));
}

TEST_F(HttpTest, Containers) {
  const json reply = GetJson("/api/v1/containers");
  EXPECT_EQ(reply["windowNs"], 30 * kNsPerSecond);
  EXPECT_EQ(reply["newestMs"], WindowStart(0) / 1'000'000);
  const json& list = reply["containers"];
  ASSERT_EQ(list.size(), 2u);
  const json& shop = list[0];
  EXPECT_EQ(shop["labels"]["container.name"], "shop");
  EXPECT_EQ(shop["labels"]["container.id"], "c0ffee");
  EXPECT_EQ(shop["labels"]["node"], "n1");
  EXPECT_EQ(shop["labels"]["image"], "shop:1");
  EXPECT_EQ(shop["isHost"], false);
  EXPECT_NEAR(shop["cores"].get<double>(), 0.10101010, 1e-9);
  EXPECT_EQ(shop["samples"], 300);
  EXPECT_EQ(shop["syscalls"], 300);
  EXPECT_NEAR(shop["rttP50Ns"].get<double>(), 10e6, 10e6 / 16);
  ASSERT_GE(shop["spark"].size(), 1u);
  for (const json& point : shop["spark"]) EXPECT_NEAR(point["v"].get<double>(), 0.1010101, 1e-6);
  const json& host = list[1];
  EXPECT_EQ(host["isHost"], true);
  EXPECT_EQ(host["labels"]["service"], "cron.service");
  EXPECT_FALSE(host["labels"].contains("container.name"));
  EXPECT_TRUE(host["rttP50Ns"].is_null());
  EXPECT_EQ(host["syscalls"], 0);
}

TEST_F(HttpTest, ContainersOfALaggingNode) {
  // Asked as of three minutes later: what came last still counts as now. As of ten minutes later it does not.
  const auto ask = [&](int64_t later_s) {
    const int64_t to_ms = WindowStart(0) / 1'000'000 + later_s * 1000;
    return GetJson("/api/v1/containers?from=" + std::to_string(to_ms - 900'000) + "&to=" + std::to_string(to_ms));
  };
  EXPECT_NEAR(ask(180)["containers"][0]["cores"].get<double>(), 0.10101010, 1e-9);
  EXPECT_EQ(ask(180)["windowNs"], 30 * kNsPerSecond);
  EXPECT_EQ(ask(600)["containers"][0]["cores"], 0.0);
  EXPECT_EQ(ask(600)["containers"].size(), 2u);
  EXPECT_EQ(ask(600)["newestMs"], 0);
}

TEST_F(HttpTest, Types) {
  const json types = GetJson("/api/v1/types")["types"];
  std::map<std::string, std::string> kinds;
  for (const json& type : types)
    kinds[type["name"]] = type["kind"].get<std::string>() + "/" + type["unit"].get<std::string>();
  EXPECT_EQ(kinds["cpu"], "profile/nanoseconds");
  EXPECT_EQ(kinds["syscall_latency"], "histogram/nanoseconds");
  EXPECT_EQ(kinds["tcp_bytes_sent"], "counter/bytes");
}

TEST_F(HttpTest, LabelsAndTheirValues) {
  EXPECT_THAT(GetJson("/api/v1/labels?query=cpu")["labels"].get<std::vector<std::string>>(),
              ElementsAre("comm", "container.id", "container.name", "image", "node", "service"));
  EXPECT_THAT(GetJson("/api/v1/label-values?label=service")["values"].get<std::vector<std::string>>(),
              ElementsAre("cron.service", "shop"));
  EXPECT_THAT(GetJson("/api/v1/label-values?label=service&query=" + Encode("{container.name=\"shop\"}"))["values"]
                  .get<std::vector<std::string>>(),
              ElementsAre("shop"));
  EXPECT_EQ(Error("/api/v1/label-values", 400)["code"], "invalid_argument");
}

TEST_F(HttpTest, Series) {
  const json reply = GetJson("/api/v1/series?query=cpu&by=service&step=10s");
  EXPECT_EQ(reply["unit"], "nanoseconds");
  EXPECT_EQ(reply["stepNs"], 10 * kNsPerSecond);
  ASSERT_EQ(reply["series"].size(), 2u);
  const json& shop = reply["series"][1];
  EXPECT_EQ(shop["labels"], json({{"service", "shop"}}));
  ASSERT_EQ(shop["points"].size(), 3u);
  EXPECT_EQ(shop["points"][0][0], WindowStart(3) / 1'000'000);
  EXPECT_EQ(shop["points"][0][1], 1'010'101'000);
  EXPECT_FALSE(shop.contains("counts"));
  const json reads = GetJson("/api/v1/series?query=syscall_latency")["series"][0];
  EXPECT_EQ(reads["counts"][0][1], 100);
  EXPECT_EQ(reads["points"][0][1], 98 * 5'000'000 + 2 * 20'000'000);
  // A range holds the windows that start in it.
  const std::string range =
      "&from=" + std::to_string(WindowStart(2) / 1'000'000) + "&to=" + std::to_string(WindowStart(1) / 1'000'000);
  EXPECT_EQ(GetJson("/api/v1/series?query=cpu" + range)["series"][0]["points"].size(), 1u);
}

TEST_F(HttpTest, Flame) {
  const json flame = GetJson("/api/v1/flame?query=" + Encode("{container.name=\"shop\"}"));
  EXPECT_EQ(flame["version"], 1);
  EXPECT_EQ(flame["profile"]["types"][1]["unit"], "nanoseconds");
  EXPECT_EQ(flame["profile"]["defaultType"], 1);
  std::set<std::string> strings;
  for (const json& text : flame["strings"]) strings.insert(text.get<std::string>());
  EXPECT_TRUE(strings.contains("hot_a") && strings.contains("hot_b") && strings.contains("all"));
  EXPECT_FALSE(strings.contains("idle"));
  EXPECT_EQ(flame["nodes"]["parent"][0], -1);
  int64_t samples = 0;
  for (const json& value : flame["samples"]["values"][0]) samples += value.get<int64_t>();
  EXPECT_EQ(samples, 300);
  // Labels at the root.
  const json by = GetJson("/api/v1/flame?by=service");
  std::set<std::string> roots;
  for (size_t i = 1; i < by["nodes"]["parent"].size(); ++i) {
    if (by["nodes"]["parent"][i] != 0) continue;
    const size_t frame = by["nodes"]["frame"][i];
    roots.insert(by["strings"][by["frames"]["name"][frame].get<size_t>()].get<std::string>());
  }
  EXPECT_THAT(roots, ElementsAre("cron.service", "shop"));
  // Fewer nodes, the same total.
  const json few = GetJson("/api/v1/flame?maxNodes=3");
  EXPECT_LE(few["nodes"]["frame"].size(), 6u);
  samples = 0;
  for (const json& value : few["samples"]["values"][0]) samples += value.get<int64_t>();
  EXPECT_EQ(samples, 330);
  EXPECT_GT(GetJson("/api/v1/flame?query=syscall_latency")["samples"]["node"].size(), 0u);
  EXPECT_EQ(GetJson("/api/v1/flame?query=syscall_latency&by=service")["labelSets"], json({{{"service", "shop"}}}));
  EXPECT_EQ(GetJson("/api/v1/flame?from=-2h&to=-1h")["samples"]["node"].size(), 0u);
  // Zoomed in: the way, what lies beside it in one sum, and what is below.
  const json focus = GetJson("/api/v1/flame?by=service&focus=" + Encode("shop\nmain\nwork"));
  std::map<std::string, int64_t> below;
  int64_t all = 0;
  for (size_t i = 0; i < focus["samples"]["node"].size(); ++i) {
    const size_t frame = focus["nodes"]["frame"][focus["samples"]["node"][i].get<size_t>()];
    const int64_t count = focus["samples"]["values"][0][i];
    below[focus["strings"][focus["frames"]["name"][frame].get<size_t>()].get<std::string>()] += count;
    all += count;
  }
  EXPECT_EQ(below, (std::map<std::string, int64_t>{{"(outside the focus)", 30}, {"hot_a", 180}, {"hot_b", 120}}));
  EXPECT_EQ(all, 330);
  EXPECT_EQ(Error("/api/v1/flame?query=syscall_latency&focus=x", 400)["code"], "invalid_argument");
  // Names that are too long for an address come in a body.
  const auto in_body = [&](const std::string& body, const std::string& type = "application/json") {
    return Ask(
        store_->http_port(),
        {.method = "POST", .path = "/api/v1/flame?by=service", .body = body, .headers = {{"Content-Type", type}}});
  };
  const json same = in_body(R"({"focus":["shop","main","work"]})").Json();
  EXPECT_EQ(same["samples"], focus["samples"]);
  EXPECT_EQ(same["strings"], focus["strings"]);
  for (const char* body : {"", "[]", "{", R"({"focus":"shop"})", R"({"focus":[1]})", R"({"focus":[],"more":1})"}) {
    EXPECT_EQ(in_body(body).status, 400) << body;
  }
  EXPECT_EQ(in_body(R"({"focus":["shop"]})", "text/plain").status, 400);
  // The range that was asked, so that it can be asked again to the window.
  const json range = focus["range"];
  EXPECT_EQ(range[1].get<int64_t>() - range[0].get<int64_t>(), 15 * 60 * 1000);
  EXPECT_EQ(GetJson("/api/v1/flame?from=" + range[0].dump() + "&to=" + range[1].dump())["range"], range);
  EXPECT_EQ(Error("/api/v1/flame?query=tcp_connections", 400)["code"], "invalid_argument");
}

TEST_F(HttpTest, Top) {
  const json top = GetJson("/api/v1/top?limit=2&query=" + Encode("cpu{service=\"shop\"}"));
  EXPECT_EQ(top["unit"], "nanoseconds");
  EXPECT_EQ(top["total"], 3 * 1'010'101'000ll);
  ASSERT_EQ(top["functions"].size(), 2u);
  const json& first = top["functions"][0];
  EXPECT_EQ(first["name"], "hot_a");
  EXPECT_EQ(first["module"], "/usr/bin/shop");
  EXPECT_EQ(first["kind"], 1);
  EXPECT_NEAR(first["self"].get<double>() / top["total"].get<double>(), 0.6, 1e-9);
  EXPECT_EQ(top["functions"][1]["name"], "hot_b");
}

TEST_F(HttpTest, FunctionOverTime) {
  const json reply = GetJson("/api/v1/function?name=hot_a&from=-2h&query=" + Encode("cpu{service=\"shop\"}"));
  EXPECT_EQ(reply["unit"], "nanoseconds");
  double self = 0, total = 0;
  for (const json& point : reply["points"]) {
    EXPECT_EQ(point[0].get<int64_t>() % 3'600'000, 0);
    self += point[1].get<double>();
    total += point[2].get<double>();
  }
  EXPECT_NEAR(self / (3 * 1'010'101'000ll), 0.6, 1e-9);
  EXPECT_EQ(self, total);
  EXPECT_EQ(Error("/api/v1/function?query=cpu", 400)["message"], "which function? Give its name");
  EXPECT_THAT(
      Error("/api/v1/function?name=hot_a&query=" + Encode("cpu{node=\"n1\"}"), 400)["message"].get<std::string>(),
      HasSubstr("kept per service"));
}

TEST_F(HttpTest, TenantsAreKeptApart) {
  const json tenants = GetJson("/api/v1/tenants")["tenants"];
  ASSERT_EQ(tenants.size(), 1u);
  EXPECT_EQ(tenants[0]["tenant"], "");
  EXPECT_GT(tenants[0]["samples"].get<int64_t>(), 0);
  EXPECT_EQ(tenants[0]["foldedSamples"], 0);
  EXPECT_EQ(GetJson("/api/v1/label-values?label=service&tenant=red")["values"], json::array());
  EXPECT_EQ(GetJson("/api/v1/flame?tenant=red")["samples"]["node"].size(), 0u);
  EXPECT_EQ(Error("/api/v1/flame?tenant=" + Encode("no name"), 400)["code"], "invalid_argument");
}

TEST_F(HttpTest, Histograms) {
  const json reply = GetJson("/api/v1/histograms?by=container.name,syscall");
  EXPECT_EQ(reply["unit"], "nanoseconds");
  ASSERT_EQ(reply["histograms"].size(), 1u);
  const json& row = reply["histograms"][0];
  EXPECT_EQ(row["labels"], json({{"container.name", "shop"}, {"syscall", "read"}}));
  EXPECT_EQ(row["count"], 300);
  EXPECT_EQ(row["sum"], 3 * (98 * 5'000'000 + 2 * 20'000'000));
  EXPECT_EQ(row["max"], 20'000'000);
  EXPECT_NEAR(row["p50"].get<double>(), 5e6, 5e6 / 16);
  EXPECT_NEAR(row["p99"].get<double>(), 20e6, 20e6 / 16);
  EXPECT_EQ(row["errors"], json({{"EAGAIN", 9}, {"ERESTARTSYS", 3}}));
  EXPECT_EQ(row["exemplars"], 6);
  ASSERT_EQ(row["buckets"].size(), 2u);
  for (const json& bucket : row["buckets"]) EXPECT_LT(bucket[0].get<int64_t>(), bucket[1].get<int64_t>());
  EXPECT_LE(row["buckets"][0][0].get<int64_t>(), 5'000'000);
  EXPECT_GT(row["buckets"][0][1].get<int64_t>(), 5'000'000);
  EXPECT_EQ(row["buckets"][1][2], 6);
  EXPECT_EQ(Error("/api/v1/histograms?query=cpu", 400)["code"], "invalid_argument");
}

TEST_F(HttpTest, Heatmap) {
  const json reply = GetJson("/api/v1/heatmap?step=10s");
  EXPECT_EQ(reply["stepNs"], 10 * kNsPerSecond);
  ASSERT_EQ(reply["columns"].size(), 3u);
  EXPECT_EQ(reply["columns"][0]["t"], WindowStart(3) / 1'000'000);
  EXPECT_EQ(reply["columns"][0]["buckets"][0][2], 98);
}

TEST_F(HttpTest, HeatmapOfSamples) {
  // These agents send no times.
  const json reply = GetJson("/api/v1/heatmap?query=cpu");
  EXPECT_EQ(reply["stepNs"], kNsPerSecond);
  EXPECT_EQ(reply["cellNs"], 20'000'000);
  EXPECT_EQ(reply["samples"], 330);
  EXPECT_EQ(reply["timed"], 0);
  EXPECT_EQ(reply["columns"], json::array());
  EXPECT_EQ(Error("/api/v1/heatmap?query=cpu&cell=30ms", 400)["code"], "invalid_argument");
}

TEST_F(HttpTest, Exemplars) {
  const json reply = GetJson("/api/v1/exemplars?minNs=10000000&limit=2");
  ASSERT_EQ(reply["exemplars"].size(), 2u);
  const json& slow = reply["exemplars"][0];
  EXPECT_EQ(slow["durationNs"], 20'000'000);
  EXPECT_EQ(slow["comm"], "shop");
  EXPECT_EQ(slow["tid"], 12);
  EXPECT_EQ(slow["labels"]["syscall"], "read");
  EXPECT_EQ(slow["frames"], json({"hot_a", "work", "main"}));
  // The flame graph holds all three, weighted by duration.
  int64_t total = 0;
  for (const json& value : reply["flame"]["samples"]["values"][1]) total += value.get<int64_t>();
  EXPECT_EQ(total, 60'000'000);
  EXPECT_EQ(GetJson("/api/v1/exemplars?minNs=1&maxNs=6000000")["exemplars"].size(), 3u);
  EXPECT_EQ(Error("/api/v1/exemplars?minNs=x", 400)["code"], "invalid_argument");
  EXPECT_EQ(Error("/api/v1/exemplars?kind=fast", 400)["code"], "invalid_argument");
  // Of each window one of the two was also drawn.
  EXPECT_EQ(slow["slow"], true);
  EXPECT_EQ(slow["weight"], 0);
  EXPECT_EQ(slow["splitNs"], json::object());
  EXPECT_EQ(slow["waker"], nullptr);
  const json drawn = GetJson("/api/v1/exemplars?kind=drawn");
  ASSERT_EQ(drawn["exemplars"].size(), 3u);
  const json& one = drawn["exemplars"][0];
  EXPECT_EQ(one["durationNs"], 5'000'000);
  EXPECT_EQ(one["weight"], 49);
  EXPECT_EQ(one["slow"], true);
  EXPECT_EQ(one["splitNs"], (json{{"network", 4'000'000}, {"running", 1'000'000}}));
  EXPECT_EQ(one["waker"], (json{{"comm", "feeder"},
                                {"tid", 99},
                                {"cause", "network"},
                                {"waitNs", 3'000'000},
                                {"frames", {"hot_a", "work", "main"}}}));
  total = 0;
  for (const json& value : drawn["flame"]["samples"]["values"][1]) total += value.get<int64_t>();
  EXPECT_EQ(total, 3 * 49 * 5'000'000);
}

TEST_F(HttpTest, Peers) {
  const json peers = GetJson("/api/v1/peers")["peers"];
  ASSERT_EQ(peers.size(), 1u);
  const json& peer = peers[0];
  EXPECT_EQ(peer["labels"]["peer"], "10.0.0.2");
  EXPECT_EQ(peer["labels"]["direction"], "out");
  EXPECT_EQ(peer["labels"]["container.name"], "shop");
  EXPECT_NEAR(peer["rttP50Ns"].get<double>(), 10e6, 10e6 / 16);
  EXPECT_NEAR(peer["minRttNs"].get<double>(), 9e6, 9e6 / 16);
  EXPECT_NEAR(peer["connectP50Ns"].get<double>(), 11e6, 11e6 / 16);
  EXPECT_EQ(peer["samples"], 150);
  EXPECT_EQ(peer["retransmits"], 6);
  EXPECT_EQ(peer["retransmitsByCause"], json({{"other", 6}}));  // stored by an agent that told no causes
  EXPECT_EQ(peer["bytesSent"], 3000);
  EXPECT_EQ(peer["bytesReceived"], 9000);
  EXPECT_EQ(peer["connections"], 12);
  EXPECT_EQ(GetJson("/api/v1/peers?query=" + Encode("{container.name=\"nope\"}"))["peers"].size(), 0u);
  EXPECT_EQ(Error("/api/v1/peers?by=peer,cause", 400)["code"], "invalid_argument");
}

TEST_F(HttpTest, Export) {
  const TestReply pprof = Get("/api/v1/export?query=cpu");
  ASSERT_EQ(pprof.status, 200);
  EXPECT_THAT(pprof.Header("content-disposition"), StartsWith("attachment; filename=\"pyrometer-cpu-20"));
  EXPECT_THAT(pprof.Header("content-disposition"), HasSubstr(".pb.gz\""));
  const auto profile = formats::Parse(pprof.body, formats::Format::kPprof);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->Total(0), 330);
  const TestReply folded = Get("/api/v1/export?format=folded&query=" + Encode("{service=\"shop\"}"));
  EXPECT_THAT(folded.body, HasSubstr("main;work;hot_a "));
  EXPECT_EQ(folded.Header("content-type"), "text/plain; charset=utf-8");
  for (const char* format : {"speedscope", "svg", "json"}) {
    const TestReply reply = Get(std::string("/api/v1/export?format=") + format);
    EXPECT_EQ(reply.status, 200) << format;
    EXPECT_FALSE(reply.body.empty()) << format;
  }
  EXPECT_THAT(Error("/api/v1/export?format=docx", 400)["message"].get<std::string>(), HasSubstr("speedscope"));
}

TEST_F(HttpTest, Metrics) {
  const TestReply reply = Get("/metrics");
  ASSERT_EQ(reply.status, 200);
  EXPECT_THAT(reply.Header("content-type"), StartsWith("text/plain; version=0.0.4"));
  EXPECT_THAT(reply.body, HasSubstr("pyrometer_batches_total{result=\"accepted\"} 3\n"));
  EXPECT_THAT(reply.body, HasSubstr("pyrometer_store_samples_total 330\n"));
  EXPECT_THAT(reply.body, HasSubstr("pyrometer_agents_online 1\n"));
  // Every sample line has a family that was announced before it.
  std::set<std::string> families;
  for (const std::string_view line : Split(StripWhitespace(reply.body), '\n')) {
    if (line.starts_with("# TYPE ")) {
      families.insert(std::string(Split(line, ' ')[2]));
    } else if (!line.starts_with('#')) {
      std::string_view name = line.substr(0, line.find_first_of("{ "));
      // The lines of a histogram carry its name with one of these behind it.
      for (const std::string_view part : {"_bucket", "_sum", "_count"}) {
        if (line.find("_seconds_") != std::string_view::npos && name.ends_with(part)) name.remove_suffix(part.size());
      }
      EXPECT_TRUE(families.contains(std::string(name))) << line;
    }
  }
}

// ---- bad input ----------------------------------------------------------------------------------------

TEST_F(HttpTest, MalformedSelectorsPointAtTheCharacter) {
  for (const char* call :
       {"series", "flame", "top", "histograms", "heatmap", "exemplars", "peers", "export", "labels"}) {
    const json error = Error(std::string("/api/v1/") + call + "?query=" + Encode("cpu{service\"x\"}"), 400);
    EXPECT_EQ(error["code"], "invalid_argument") << call;
    EXPECT_EQ(error["position"], 11) << call;
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("expected '='")) << call;
  }
}

TEST_F(HttpTest, MalformedParameters) {
  for (const char* path : {"/api/v1/series?step=x", "/api/v1/series?step=0", "/api/v1/series?from=yesterday",
                           "/api/v1/flame?maxNodes=-1", "/api/v1/top?limit=1e9", "/api/v1/flame?from=now&to=-1h",
                           "/api/v1/heatmap?step=0", "/api/v1/series?query=%FF%FE"}) {
    const json error = Error(path, 400);
    EXPECT_FALSE(error["message"].get<std::string>().empty()) << path;
    EXPECT_FALSE(error.contains("position")) << path;
  }
}

TEST_F(HttpTest, UnknownPathsAndMethods) {
  EXPECT_EQ(Error("/api/v1/nothing", 404)["code"], "not_found");
  EXPECT_EQ(Error("/api", 404)["code"], "not_found");
  EXPECT_EQ(Error("/missing.js", 404)["code"], "not_found");
  EXPECT_EQ(Get("/../../etc/passwd").status, 404);
  const TestReply wrong = Ask(store_->http_port(), {.method = "DELETE", .path = "/api/v1/status"});
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.Header("allow"), "GET");
  EXPECT_EQ(Ask(store_->http_port(), {.method = "PUT", .path = "/api/v1/sessions"}).status, 405);
  EXPECT_EQ(Ask(store_->http_port(), {.method = "POST", .path = "/"}).status, 405);
  const TestReply head = Ask(store_->http_port(), {.method = "HEAD", .path = "/api/v1/status"});
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");
}

TEST_F(HttpTest, OtherHostsAreRefused) {
  const auto status = [&](const std::string& host) {
    return Ask(store_->http_port(), {.path = "/api/v1/status", .headers = {{"Host", host}}}).status;
  };
  EXPECT_EQ(status("evil.example"), 403);
  EXPECT_EQ(status("evil.example:" + std::to_string(store_->http_port())), 403);
  EXPECT_EQ(status("localhost:1234"), 200);
  EXPECT_EQ(status("[::1]:7070"), 200);
  EXPECT_EQ(Ask(store_->http_port(), {.path = "/", .headers = {{"Host", "evil.example"}}}).status, 403);
  EXPECT_THAT(AskRaw(store_->http_port(), "GET /api/v1/status HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 403"));
}

TEST_F(HttpTest, TooLarge) {
  EXPECT_EQ(Ask(store_->http_port(), {.method = "POST",
                                      .path = "/api/v1/sessions",
                                      .body = std::string(2u << 20, ' '),
                                      .headers = {{"Content-Type", "application/json"}}})
                .status,
            413);
  EXPECT_EQ(Ask(store_->http_port(), {.path = "/api/v1/series?query=" + std::string(9000, 'x')}).status, 414);
  const std::string many_headers =
      AskRaw(store_->http_port(), "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n");
  EXPECT_THAT(many_headers, Not(HasSubstr("200 OK")));
}

TEST_F(HttpTest, NonsenseOnTheWire) {
  for (const std::string& bytes :
       {std::string("\r\n\r\n"), std::string("GET\r\n\r\n"), std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        std::string("GET / HTTP/9\r\n\r\n"), std::string(5000, '\0') + "\r\n\r\n"}) {
    EXPECT_THAT(AskRaw(store_->http_port(), bytes), Not(HasSubstr("200 OK")));
  }
  EXPECT_EQ(Get("/api/v1/status").status, 200);
}

TEST_F(HttpTest, SecurityHeaders) {
  for (const char* path : {"/api/v1/status", "/api/v1/nothing", "/"}) {
    const TestReply reply = Get(path);
    EXPECT_THAT(reply.Header("content-security-policy"), HasSubstr("default-src 'none'")) << path;
    EXPECT_THAT(reply.Header("content-security-policy"), HasSubstr("frame-ancestors 'none'")) << path;
    EXPECT_EQ(reply.Header("x-content-type-options"), "nosniff") << path;
    EXPECT_EQ(reply.Header("referrer-policy"), "no-referrer") << path;
    EXPECT_EQ(reply.headers.count("access-control-allow-origin"), 0u) << path;
  }
  EXPECT_EQ(Get("/api/v1/status").Header("cache-control"), "no-store");
}

TEST_F(HttpTest, GzipWhenAccepted) {
  const auto get = [&](const char* path, const char* accept) {
    return Ask(store_->http_port(), {.path = path, .headers = {{"Accept-Encoding", accept}}});
  };
  const TestReply packed = get("/metrics", "br, gzip");
  ASSERT_EQ(packed.status, 200);
  ASSERT_EQ(packed.Header("content-encoding"), "gzip");
  EXPECT_EQ(packed.Header("vary"), "Accept-Encoding");
  const StatusOr<std::string> plain = formats::Gunzip(packed.body, 1u << 20);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_THAT(*plain, HasSubstr("pyrometer_store_samples_total 330\n"));
  EXPECT_LT(packed.body.size(), plain->size());
  EXPECT_EQ(get("/metrics", "gzip;q=0").Header("content-encoding"), "");
  EXPECT_EQ(get("/metrics", "identity").Header("content-encoding"), "");
  EXPECT_EQ(get("/metrics", "*").Header("content-encoding"), "gzip");
  EXPECT_EQ(get("/api/v1/status", "gzip").Header("content-encoding"), "") << "too small to be worth it";
  EXPECT_EQ(get("/api/v1/export", "gzip").Header("content-encoding"), "") << "packed once is enough";
}

TEST_F(HttpTest, ThePage) {
  if (formats::FindWebAsset("index.html") == nullptr) {
    EXPECT_EQ(Get("/").status, 404);
    EXPECT_THAT(Get("/").body, HasSubstr("without its page"));
    return;
  }
  const TestReply index = Get("/");
  ASSERT_EQ(index.status, 200);
  EXPECT_THAT(index.Header("content-type"), StartsWith("text/html"));
  EXPECT_EQ(index.Header("cache-control"), "no-cache");
  EXPECT_EQ(Get("/containers/shop").body, index.body) << "the page's own addresses";
  const TestReply again = Ask(store_->http_port(), {.path = "/", .headers = {{"If-None-Match", index.Header("etag")}}});
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
  for (const formats::WebAsset& asset : formats::WebAssets()) {
    const TestReply reply = Get("/" + std::string(asset.path));
    EXPECT_EQ(reply.status, 200) << asset.path;
    EXPECT_EQ(reply.body, asset.content) << asset.path;
    EXPECT_EQ(reply.Header("content-type"), asset.mime_type) << asset.path;
    if (asset.path.starts_with("assets/")) {
      EXPECT_THAT(reply.Header("cache-control"), HasSubstr("immutable"));
    }
  }
}

TEST_F(HttpTest, ManyRequestsAtATime) {
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 24; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) good += Get("/api/v1/flame").status == 200;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 240);
}

// ---- sessions -------------------------------------------------------------------------------------------

TestReply Post(uint16_t port, const std::string& body,
               std::multimap<std::string, std::string> headers = {{"Content-Type", "application/json"}}) {
  return Ask(port, {.method = "POST", .path = "/api/v1/sessions", .body = body, .headers = std::move(headers)});
}

TEST(HttpSessionTest, StartListStop) {
  LiveStore store;
  const uint16_t port = store.http_port();
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  EXPECT_EQ(Ask(port, {.path = "/api/v1/sessions"}).body, R"({"sessions":[]})");
  const TestReply started = Post(
      port,
      R"({"node":"n1","target":{"container":"shop"},"durationNs":5000000000,"frequencyHz":199,"probes":["cpu","waits"]})");
  ASSERT_EQ(started.status, 200) << started.body;
  const json session = started.Json();
  EXPECT_THAT(Names(session),
              ElementsAre("durationNs", "error", "id", "node", "probes", "samples", "startedMs", "state", "target"));
  EXPECT_EQ(session["probes"], json({"cpu", "waits"}));
  EXPECT_EQ(session["target"], "container=shop");
  EXPECT_EQ(session["state"], "pending");
  EXPECT_EQ(session["durationNs"], 5'000'000'000);
  ASSERT_TRUE(agent.Wait([&] { return agent.starts.size() == 1; }));
  EXPECT_EQ(agent.starts[0].probes, (std::vector<std::string>{"cpu", "waits"}));
  EXPECT_EQ(Ask(port, {.path = "/api/v1/sessions"}).Json()["sessions"][0], session);
  const std::string id = session["id"];
  EXPECT_EQ(Ask(port, {.method = "DELETE", .path = "/api/v1/sessions/" + id}).status, 200);
  ASSERT_TRUE(agent.Wait([&] { return agent.stops.size() == 1; }));
  EXPECT_EQ(Ask(port, {.method = "DELETE", .path = "/api/v1/sessions/nope"}).status, 404);
}

TEST(HttpSessionTest, OneThatFailsInTheMiddleSaysWhy) {
  LiveStore store;
  const uint16_t port = store.http_port();
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  const std::string id = Post(port, R"({"node":"n1"})").Json()["id"];
  ASSERT_TRUE(agent.Wait([&] { return agent.starts.size() == 1; }));
  ASSERT_TRUE(agent.client()
                  .SendSession({.id = id,
                                .state = rpc::SessionState::kFailed,
                                .error = "its probe cpu_sampler failed: cannot read samples",
                                .samples = 7})
                  .ok());
  json session;
  for (int i = 0; i < 200 && session["state"] != "failed"; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    session = Ask(port, {.path = "/api/v1/sessions"}).Json()["sessions"][0];
  }
  EXPECT_EQ(session["state"], "failed");
  EXPECT_EQ(session["error"], "its probe cpu_sampler failed: cannot read samples");
  EXPECT_EQ(session["samples"], 7);
}

TEST(HttpSessionTest, BadInput) {
  LiveStore store;
  const uint16_t port = store.http_port();
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  const auto code = [&](const std::string& body) { return Post(port, body).Json()["error"]["code"]; };
  for (const char* body :
       {"", "{", "[]", "null", R"({"node":1})", R"({"node":"n1","durationNs":-1})",
        R"({"node":"n1","durationNs":"5s"})", R"({"node":"n1","durationNs":99999999999999999})",
        R"({"node":"n1","target":"shop"})", R"({"node":"n1","target":{"pod":"x"}})",
        R"({"node":"n1","target":{"pid":1,"container":"x"}})", R"({"node":"n1","probes":["gpu"]})",
        R"({"node":"n1","probes":[1]})", R"({"node":"n1","frequencyHz":1000000})", R"({"nodes":"n1"})", R"({})"}) {
    EXPECT_EQ(code(body), "invalid_argument") << body;
  }
  EXPECT_EQ(Post(port, R"({"node":"n2"})").status, 404);
  EXPECT_THAT(Post(port, R"({"node":"n2"})").body, HasSubstr("known: n1"));
  EXPECT_TRUE(agent.starts.empty());
}

TEST(HttpSessionTest, PagesOfOtherSitesCannotStartSessions) {
  LiveStore store;
  const uint16_t port = store.http_port();
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  const std::string body = R"({"node":"n1"})";
  EXPECT_EQ(Post(port, body, {{"Content-Type", "text/plain"}}).status, 400);
  EXPECT_EQ(Post(port, body, {{"Content-Type", "application/x-www-form-urlencoded"}}).status, 400);
  EXPECT_EQ(Post(port, body, {{"Content-Type", "multipart/form-data; boundary=x"}}).status, 400);
  EXPECT_EQ(Post(port, body, {{"Content-Type", "application/json"}, {"Origin", "https://evil.example"}}).status, 403);
  EXPECT_TRUE(agent.starts.empty());
  EXPECT_EQ(Post(port, body,
                 {{"Content-Type", "application/json; charset=utf-8"},
                  {"Origin", "http://127.0.0.1:" + std::to_string(port)}})
                .status,
            200);
}

TEST(HttpTokenTest, EveryCallAsksForIt) {
  LiveStore store({.token = "right"});
  const uint16_t port = store.http_port();
  for (const char* path : {"/api/v1/status", "/api/v1/flame", "/api/v1/sessions", "/api/v1/nothing", "/metrics"}) {
    const TestReply none = Ask(port, {.path = path});
    EXPECT_EQ(none.status, 401) << path;
    EXPECT_EQ(none.Header("www-authenticate"), "Bearer") << path;
    EXPECT_EQ(Ask(port, {.path = path, .headers = {{"Authorization", "Bearer wrong"}}}).status, 401) << path;
    EXPECT_EQ(Ask(port, {.path = path, .headers = {{"Authorization", "right"}}}).status, 401) << path;
  }
  EXPECT_EQ(Ask(port, {.path = "/api/v1/status", .headers = {{"Authorization", "Bearer right"}}}).status, 200);
  EXPECT_EQ(Ask(port, {.path = "/metrics", .headers = {{"Authorization", "Bearer right"}}}).status, 200);
  EXPECT_NE(Ask(port, {.path = "/"}).status, 401) << "the page asks for the token itself";
  EXPECT_EQ(Post(port, "{}").status, 401);
}

TEST(HttpTokenTest, TokensOfTenantsOpenThatTenantOnly) {
  LiveStore store({.token = "everything", .tenant_tokens = {{"red", "r3d"}, {"blue", "b1ue"}}});
  const uint16_t port = store.http_port();
  const auto get = [port](const std::string& path, const std::string& token) {
    return Ask(port, {.path = path, .headers = {{"Authorization", "Bearer " + token}}});
  };
  // An agent that names no tenant belongs to its token's.
  Agent red("n1"), blue("n2"), thief("n3");
  ASSERT_TRUE(red.Connect(store.grpc(), {.token = "r3d"}).ok());
  ASSERT_TRUE(blue.Connect(store.grpc(), {.token = "b1ue", .tenant = "blue"}).ok());
  EXPECT_EQ(thief.Connect(store.grpc(), {.token = "r3d", .tenant = "blue"}).code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(thief.Connect(store.grpc(), {.token = "guess"}).code(), StatusCode::kUnauthenticated);
  for (Agent* agent : {&red, &blue}) {
    ASSERT_TRUE(agent->client().Send(WindowBatch(*agent, 1, WindowStart(1))).ok());
    ASSERT_TRUE(agent->Wait([agent] { return agent->acks.size() == 1; }));
  }
  const auto nodes = [](const TestReply& reply) {
    std::vector<std::string> names;
    const json body = reply.Json();  // a loop over a part of a temporary outlives it
    for (const json& node : body["nodes"]) names.push_back(node["node"]);
    return names;
  };
  EXPECT_THAT(nodes(get("/api/v1/nodes", "r3d")), ElementsAre("n1"));
  EXPECT_THAT(nodes(get("/api/v1/nodes?tenant=red", "r3d")), ElementsAre("n1"));
  EXPECT_THAT(nodes(get("/api/v1/nodes", "b1ue")), ElementsAre("n2"));
  EXPECT_THAT(nodes(get("/api/v1/nodes?tenant=blue", "everything")), ElementsAre("n2"));
  for (const char* call : {"nodes", "flame", "top", "series", "export", "labels", "sessions"}) {
    const TestReply other = get(std::string("/api/v1/") + call + "?tenant=blue", "r3d");
    EXPECT_EQ(other.status, 403) << call;
    EXPECT_EQ(other.Json()["error"]["code"], "permission_denied") << call;
  }
  EXPECT_EQ(get("/api/v1/tenants", "r3d").Json()["tenants"].size(), 1u);
  std::set<std::string> tenants;
  const json all = get("/api/v1/tenants", "everything").Json();
  for (const json& one : all["tenants"]) tenants.insert(one["tenant"]);
  EXPECT_TRUE(tenants.contains("red") && tenants.contains("blue")) << all;  // beside the default one
  EXPECT_EQ(get("/metrics", "r3d").status, 403);

  // Sessions, over gRPC and HTTP.
  const auto red_client = rpc::QueryClient::Connect(store.grpc(), {.token = "r3d"});
  const auto blue_client = rpc::QueryClient::Connect(store.grpc(), {.token = "b1ue"});
  ASSERT_TRUE(red_client.ok() && blue_client.ok());
  const auto session = (*blue_client)->StartSession({.node = "n2", .duration_ns = kNsPerSecond});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ((*red_client)->GetSession(session->spec.id).status().code(), StatusCode::kNotFound);
  EXPECT_EQ((*red_client)->StopSession(session->spec.id).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Ask(port, {.method = "DELETE",
                       .path = "/api/v1/sessions/" + session->spec.id,
                       .headers = {{"Authorization", "Bearer r3d"}}})
                .status,
            404);
  EXPECT_TRUE((*blue_client)->GetSession(session->spec.id).ok());
  EXPECT_EQ((*red_client)->StartSession({.node = "n2", .duration_ns = kNsPerSecond}).status().code(),
            StatusCode::kNotFound);
  // Symbols are everybody's.
  EXPECT_EQ((*red_client)->UploadSymbols("x", [] { return std::string(); }).status().code(),
            StatusCode::kPermissionDenied);
}

TEST(HttpPortTest, GrpcClientsAreToldWhatItIs) {
  LiveStore store;
  const Status status = rpc::QueryClient::Connect(store.server().http_address(), {}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_THAT(Message(status), HasSubstr("HTTP port"));
}

TEST(EmptyStoreTest, EveryCallAnswers) {
  LiveStore store;
  for (const char* call : {"status", "nodes", "containers", "types", "labels", "label-values?label=node", "series",
                           "flame", "top", "histograms", "heatmap", "exemplars", "peers", "export", "sessions"}) {
    const TestReply reply = Ask(store.http_port(), {.path = std::string("/api/v1/") + call});
    EXPECT_EQ(reply.status, 200) << call << ": " << reply.body;
  }
  EXPECT_TRUE(Ask(store.http_port(), {.path = "/api/v1/status"}).Json()["node"].is_null());
}

}  // namespace
}  // namespace pyrometer::server

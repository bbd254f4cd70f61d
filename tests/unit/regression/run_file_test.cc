#include "userspace/regression/run_file.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/regression/made_up_program.h"

namespace pyrometer::regression {
namespace {

RunSet Some() {
  RunSet runs = MadeUpProgram().Source("other1", "src/\"x\".cc", 12).Others().Make(4, 1);
  for (const Side side : {Side::kBaseline, Side::kCandidate}) {
    runs.origin(side) = {
        .command = "./bench --all", .how = "BPF, 1999 Hz", .frequency_hz = 1999, .machine = ThisMachine()};
  }
  Run counted = runs.runs().back();
  counted.facts.instructions = 123'456'789'012;
  runs.AddRun(std::move(counted));
  return runs;
}

TEST(RunFile, KeepsEverything) {
  const RunSet runs = Some();
  const auto read = ParseRuns(SerializeRuns(runs));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->functions(), runs.functions());
  EXPECT_EQ(read->nodes(), runs.nodes());
  EXPECT_EQ(read->origin(Side::kBaseline), runs.origin(Side::kBaseline));
  ASSERT_EQ(read->runs().size(), runs.runs().size());
  for (size_t i = 0; i < runs.runs().size(); ++i) {
    EXPECT_EQ(read->runs()[i].counts, runs.runs()[i].counts);
    EXPECT_EQ(read->runs()[i].facts, runs.runs()[i].facts);
    EXPECT_EQ(read->runs()[i].block, i);
  }
}

// The example of docs/formats/runs.md.
constexpr std::string_view kExample =
    R"({"format":"pyrometer-runs","version":1,"origin":{"command":"./bench","how":"BPF, 1999 Hz","frequency_hz":1999,"machine":)"
    R"({"cpu":"AMD EPYC","cpus":2,"kernel":"6.1.0-18-amd64","architecture":"x86_64","governor":"","virtualization":"",)"
    R"("memory_bytes":8589934592}},"functions":[["main","bench","",0],["sum","bench","sum.c",7]],"nodes":[[0,1],[1,2]],)"
    R"("runs":[{"started_ns":1700000000000000000,"wall_ns":2000000000,"cpu_ns":1900000000,"lost_samples":0,)"
    R"("counts":[[1,12],[2,3788]]}]})";

TEST(RunFile, TheDocumentedExampleIsRead) {
  const auto runs = ParseRuns(kExample);
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_EQ(runs->functions()[2].name, "sum");
  EXPECT_EQ(runs->runs()[0].facts.samples, 3800u);
}

std::string With(std::string_view what, std::string_view instead) {
  std::string text(kExample);
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), instead);
}

TEST(RunFile, WhatIsWrongIsRefusedByName) {
  const std::pair<std::string, const char*> kCases[] = {
      {"", "not JSON"},
      {"[]", "not JSON"},
      {std::string(100'000, '['), "not JSON"},
      {With("pyrometer-runs", "gerbil"), "format"},
      {With("\"counts\":[[1,12]", "\"counts\":[[7,12]"), "stack of a count"},
      {With("[1,12],[2,3788]", "[2,12],[1,3788]"), "ascending"},
      {With("[1,12],[2,3788]", "[1,12],[1,3788]"), "ascending"},
      {With("3788", "-1"), "a count"},
      {With("3788", "1e300"), "a count"},
      {With("3788", "18446744073709551615"), "a count"},
      {With("[[0,1],[1,2]]", "[[0,1],[2,2]]"), "parent"},
      {With("[[0,1],[1,2]]", "[[0,1],[1,9]]"), "function"},
      {With("[[0,1],[1,2]]", "[[0,1],[0,1]]"), "twice"},
      {With("[[0,1],[1,2]]", "[[0,1],[1,0]]"), "no function"},
      {With("\"sum\",\"bench\"", "\"main\",\"bench\""), "twice"},
      {With("\"sum.c\"", "7"), "file"},
      {With("\"functions\"", "\"functional\""), "missing"},
      {With("\"cpus\":2", "\"cpus\":99999999999"), "cpus"},
  };
  for (const auto& [text, part] : kCases) {
    const auto runs = ParseRuns(text);
    ASSERT_FALSE(runs.ok()) << text.substr(0, 200);
    EXPECT_EQ(runs.status().code(), StatusCode::kDataLoss) << runs.status();
    EXPECT_NE(Message(runs.status()).find(part), std::string::npos) << runs.status() << " should name " << part;
  }
  EXPECT_EQ(ParseRuns(With("\"version\":1", "\"version\":2")).status().code(), StatusCode::kFailedPrecondition);
}

TEST(RunFile, DamageIsRefusedOrReadAsSomethingValid) {
  const std::string good = SerializeRuns(Some());
  std::mt19937_64 engine(1);
  for (int round = 0; round < 300; ++round) {
    std::string bad = good;
    if (round % 3 == 0) bad.resize(engine() % bad.size());
    for (int i = 0; i < 3 && !bad.empty(); ++i) bad[engine() % bad.size()] = static_cast<char>(engine());
    const auto runs = ParseRuns(bad);
    if (!runs.ok()) continue;
    for (const regression::Run& run : runs->runs()) {
      for (const auto& [node, count] : run.counts) ASSERT_LT(node, runs->nodes().size());
    }
  }
}

TEST(RunFile, AFileThatIsNotThere) {
  const auto runs = ReadRunFile("/nonexistent/base.pyro");
  ASSERT_FALSE(runs.ok());
  EXPECT_NE(Message(runs.status()).find("/nonexistent/base.pyro"), std::string::npos) << runs.status();
}

}  // namespace
}  // namespace pyrometer::regression

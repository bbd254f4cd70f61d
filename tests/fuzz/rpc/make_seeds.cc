// Writes the first inputs of ingest_fuzzer: streams of messages as agents send them.
//
//   build/fuzz/tests/fuzz/rpc/rpc_make_seeds tests/fuzz/rpc
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/file.h"
#include "userspace/rpc/batch_codec.h"

namespace pyrometer {
namespace {

constexpr int64_t kTime = 1'700'000'000'000'000'000 - 60'000'000'000;

std::string Framed(const v1::AgentMessage& message) {
  const std::string bytes = message.SerializeAsString();
  std::string out;
  out += static_cast<char>(bytes.size() >> 8);
  out += static_cast<char>(bytes.size() & 0xff);
  return out + bytes;
}

profile::Batch MakeBatch(uint64_t sequence, bool offsets) {
  profile::Batch batch;
  batch.agent_id = "agent";
  batch.node = "node";
  batch.sequence = sequence;
  profile::Dictionary& d = batch.dictionary;
  const auto mapping = d.InternMapping({.build_id = d.InternString("abc123"), .file = d.InternString("/bin/app")});
  profile::StackId stack = profile::kEmptyStack;
  std::vector<profile::StackId> stacks;
  for (int i = 0; i < 4 + static_cast<int>(sequence); ++i) {
    const auto function = d.InternFunction(
        {.name = d.InternString("f" + std::to_string(i)), .file = d.InternString("f.cc"), .start_line = i});
    profile::Frame frame{.kind = profile::FrameKind::kNative, .mapping = mapping, .address = ElfAddress(0x10 * i)};
    if (i == 2) {
      frame.miss = d.InternString("no symbols");
    } else {
      frame.lines = {{.function = function, .line = i + 1, .column = 2}, {.function = function, .line = i + 9}};
    }
    stack = d.InternStack(stack, d.InternFrame(frame));
    stacks.push_back(stack);
  }
  const auto series = [&](std::string type, std::string service) {
    batch.series.push_back(
        {std::move(type), profile::LabelSet::Make({{"service", std::move(service)}, {"node", "node"}}).value()});
    return static_cast<uint32_t>(batch.series.size() - 1);
  };
  profile::ProfilePoint point{
      .series = series("cpu", "shop"), .time_ns = kTime, .duration_ns = 10'000'000'000, .period_ns = 10};
  for (const profile::StackId id : stacks) point.samples.push_back({id, 2, 20});
  for (size_t i = 0; offsets && i < stacks.size(); ++i) {
    point.offsets_ms.push_back(static_cast<uint16_t>(i));
    point.offsets_ms.push_back(static_cast<uint16_t>(9000 + i));
  }
  batch.profiles.push_back(point);
  profile::HistogramPoint histogram{
      .series = series("syscall_latency", "shop"), .time_ns = kTime, .duration_ns = 10'000'000'000};
  histogram.histogram.Record(5000, 3);
  histogram.histogram.Record(5'000'000, 1);
  histogram.errors = {{2, 1}};
  histogram.exemplars = {{kTime + 1, 5'000'000, stacks.back(), "comm", 7}};
  batch.histograms.push_back(histogram);
  batch.counters.push_back({series("tcp_retransmits", "shop"), kTime, 10'000'000'000, 4});
  return batch;
}

int Run(const std::string& folder) {
  v1::AgentMessage hello;
  hello.mutable_hello()->set_protocol(1);
  hello.mutable_hello()->set_agent_id("agent");
  hello.mutable_hello()->set_node("node");
  hello.mutable_hello()->set_tenant("red");
  hello.mutable_hello()->mutable_status()->set_cpus(4);
  v1::AgentMessage session;
  session.mutable_session()->set_id("s1");
  std::string stream = Framed(hello) + Framed(session);
  std::optional<rpc::StreamEncoder> encoder;
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
    const bool new_tables = sequence == 3;
    if (sequence == 1 || new_tables) encoder.emplace();
    v1::AgentMessage message;
    if (!encoder->Encode(MakeBatch(sequence, sequence != 2), message.mutable_batch()).ok()) return 1;
    message.mutable_batch()->set_reset_tables(new_tables);
    stream += Framed(message);
  }
  v1::AgentMessage lone;
  rpc::StreamEncoder other;
  if (!other.Encode(MakeBatch(9, true), lone.mutable_batch()).ok()) return 1;
  for (const auto& [name, bytes] :
       {std::pair(std::string("stream"), stream), {"batch", Framed(lone)}, {"hello", Framed(hello)}}) {
    const Status written = WriteFileAtomically(folder + "/corpus_ingest/" + name, bytes);
    if (!written.ok()) {
      std::fprintf(stderr, "%s\n", written.ToString().c_str());
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace pyrometer

int main(int argc, char** argv) {
  if (argc != 2 || !pyrometer::CreateDirectories(std::string(argv[1]) + "/corpus_ingest").ok()) {
    std::fprintf(stderr, "usage: rpc_make_seeds FOLDER\n");
    return 2;
  }
  return pyrometer::Run(argv[1]);
}

#include "userspace/rpc/batch_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "tests/unit/rpc/random_batch.h"
#include "userspace/rpc/types.h"

namespace pyrometer::rpc {
namespace {

using ::testing::HasSubstr;

// Sends by way of bytes, as the network does.
StatusOr<profile::Batch> Pass(StreamEncoder& encoder, StreamDecoder& decoder, const profile::Batch& batch,
                              v1::Batch* seen = nullptr) {
  v1::Batch message;
  RETURN_IF_ERROR(encoder.Encode(batch, &message));
  v1::Batch received;
  EXPECT_TRUE(received.ParseFromString(message.SerializeAsString()));
  if (seen != nullptr) *seen = received;
  return decoder.Decode(received);
}

profile::Batch SmallBatch() {
  profile::Batch batch;
  batch.agent_id = "a";
  batch.node = "n";
  batch.sequence = 7;
  batch.series = {{"cpu", profile::LabelSet::Make({{"node", "n"}}).value()}};
  auto& d = batch.dictionary;
  const profile::FrameId frame =
      d.InternFrame({.kind = profile::FrameKind::kNative,
                     .mapping = d.InternMapping({.build_id = d.InternString("ab"), .file = d.InternString("/x")}),
                     .address = ElfAddress(0x10),
                     .lines = {{.function = d.InternFunction({.name = d.InternString("main")}), .line = 3}}});
  batch.profiles = {{.series = 0,
                     .time_ns = 1'000,
                     .duration_ns = 10,
                     .period_ns = 5,
                     .samples = {{d.InternStack(profile::kEmptyStack, frame), 2, 10}}}};
  return batch;
}

// docs/formats/wire.md draws these bytes.
TEST(BatchCodecTest, ExactBytes) {
  const std::vector<std::string> expected = {
      "0807",                                // sequence 7
      "12046e6f6465",                        // string 1 "node"
      "12016e",                              // string 2 "n"
      "12026162",                            // string 3 "ab"
      "12022f78",                            // string 4 "/x"
      "12046d61696e",                        // string 5 "main"
      "1a0408031004",                        // mapping 1: build id 3, file 4
      "22020805",                            // function 1: name 5
      "2a0c0801100118102a0408011003",        // frame 1: native, mapping 1, address 0x10, function 1 line 3
      "32021001",                            // stack 1: parent 0, frame 1
      "3a0b0a036370751201011a0102",          // series 1: "cpu", labels 1=2
      "420f080110e807180a20052a0101320102",  // point: series 1, time 1000, 10 ns, period 5, stack 1 twice
      "5a0161",                              // agent "a"
      "62016e",                              // node "n"
  };
  EXPECT_EQ(HexEncode(SerializeBatch(SmallBatch()).value()), Join(expected, ""));
}

TEST(BatchCodecTest, SpoolFormRoundTrips) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const profile::Batch batch = RandomData(seed).Batch(seed + 1);
    const StatusOr<std::string> bytes = SerializeBatch(batch);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const StatusOr<profile::Batch> again = ParseBatch(*bytes);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(BatchText(*again), BatchText(batch)) << "seed " << seed;
  }
}

TEST(BatchCodecTest, StreamRoundTripsAndSendsDefinitionsOnce) {
  RandomData random(1);
  StreamEncoder encoder;
  StreamDecoder decoder("agent-1", "node-1");
  size_t definitions = 0;
  std::set<std::string> strings;
  for (uint64_t sequence = 1; sequence <= 300; ++sequence) {
    const profile::Batch batch = random.Batch(sequence);
    v1::Batch seen;
    const StatusOr<profile::Batch> again = Pass(encoder, decoder, batch, &seen);
    ASSERT_TRUE(again.ok()) << again.status();
    ASSERT_EQ(BatchText(*again), BatchText(batch)) << "sequence " << sequence;
    EXPECT_FALSE(seen.reset_tables());
    for (const std::string& text : seen.strings()) EXPECT_TRUE(strings.insert(text).second) << text << " came twice";
    definitions += static_cast<size_t>(seen.frames_size());
  }
  EXPECT_GT(definitions, 100u);
  // The very same batch again costs points only.
  const profile::Batch batch = random.Batch(301);
  v1::Batch seen;
  ASSERT_TRUE(Pass(encoder, decoder, batch, &seen).ok());
  ASSERT_TRUE(Pass(encoder, decoder, batch, &seen).ok());
  EXPECT_EQ(seen.strings_size() + seen.frames_size() + seen.stacks_size() + seen.series_size(), 0);
}

TEST(BatchCodecTest, SendsOnlyWhatIsReferredTo) {
  profile::Batch batch = SmallBatch();
  batch.dictionary.InternString("nobody needs this");
  v1::Batch message;
  ASSERT_TRUE(StreamEncoder().Encode(batch, &message).ok());
  EXPECT_EQ(message.DebugString().find("nobody"), std::string::npos);
}

TEST(BatchCodecTest, RepairsTextThatIsNotUtf8) {
  profile::Batch batch = SmallBatch();
  auto& d = batch.dictionary;
  const profile::FrameId frame =
      d.InternFrame({.lines = {{.function = d.InternFunction({.name = d.InternString("bad\xff name")}), .line = 1}}});
  batch.profiles[0].samples = {{d.InternStack(profile::kEmptyStack, frame), 1, 5}};
  batch.histograms = {{.series = 0, .exemplars = {{.comm = "\xc3"}}}};
  const StatusOr<profile::Batch> again = ParseBatch(SerializeBatch(batch).value());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(StackText(again->dictionary, again->profiles[0].samples[0].stack), HasSubstr("bad\xEF\xBF\xBD name"));
  EXPECT_EQ(again->histograms[0].exemplars[0].comm, "\xEF\xBF\xBD");
}

TEST(BatchCodecTest, CutsLongStringsAtACharacter) {
  profile::Batch batch = SmallBatch();
  std::string name(kMaxStringBytes - 1, 'x');
  name += "ä";  // two bytes across the limit
  auto& d = batch.dictionary;
  const profile::FrameId frame =
      d.InternFrame({.lines = {{.function = d.InternFunction({.name = d.InternString(name)})}}});
  batch.profiles[0].samples = {{d.InternStack(profile::kEmptyStack, frame), 1, 5}};
  const StatusOr<profile::Batch> again = ParseBatch(SerializeBatch(batch).value());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(StackText(again->dictionary, again->profiles[0].samples[0].stack),
              HasSubstr(std::string(kMaxStringBytes - 1, 'x') + " "));
}

TEST(BatchCodecTest, RefusesStacksThatAreTooDeepAndGoesOn) {
  profile::Batch deep = SmallBatch();
  auto& d = deep.dictionary;
  profile::StackId stack = deep.profiles[0].samples[0].stack;
  const profile::FrameId frame = d.stack(stack).frame;
  for (size_t i = 0; i < kMaxStackDepth; ++i) stack = d.InternStack(stack, frame);
  deep.profiles[0].samples = {{stack, 1, 5}};
  StreamEncoder encoder;
  StreamDecoder decoder("a", "n");
  ASSERT_TRUE(Pass(encoder, decoder, SmallBatch()).ok());
  v1::Batch message;
  const Status status = encoder.Encode(deep, &message);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Message(status), HasSubstr("deeper than 8192"));
  // The next batch starts new tables on both sides.
  v1::Batch seen;
  const StatusOr<profile::Batch> next = Pass(encoder, decoder, SmallBatch(), &seen);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_TRUE(seen.reset_tables());
  EXPECT_EQ(BatchText(*next), BatchText(SmallBatch()));
}

TEST(BatchCodecTest, RefusesBatchesAboveTheMessageLimit) {
  profile::Batch batch = SmallBatch();
  auto& d = batch.dictionary;
  for (int i = 0; i < 700; ++i) {
    const std::string name = StrFormat("%05d", i) + std::string(50'000, 'x');
    const profile::FrameId frame =
        d.InternFrame({.lines = {{.function = d.InternFunction({.name = d.InternString(name)})}}});
    batch.profiles[0].samples.push_back({d.InternStack(profile::kEmptyStack, frame), 1, 5});
  }
  const StatusOr<std::string> bytes = SerializeBatch(batch);
  EXPECT_EQ(bytes.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(bytes.status()), HasSubstr("the limit is"));
}

TEST(BatchCodecTest, StartsNewTablesBeforeTheyGrowTooLarge) {
  StreamEncoder encoder;
  StreamDecoder decoder("a", "n");
  bool reset = false;
  // 64 MiB of strings in pieces of 10 MB.
  for (int round = 0; round < 9 && !reset; ++round) {
    profile::Batch batch = SmallBatch();
    auto& d = batch.dictionary;
    for (int i = 0; i < 200; ++i) {
      const std::string name = StrFormat("%d-%d-", round, i) + std::string(50'000, 'x');
      const profile::FrameId frame =
          d.InternFrame({.lines = {{.function = d.InternFunction({.name = d.InternString(name)})}}});
      batch.profiles[0].samples.push_back({d.InternStack(profile::kEmptyStack, frame), 1, 5});
    }
    v1::Batch seen;
    const StatusOr<profile::Batch> again = Pass(encoder, decoder, batch, &seen);
    ASSERT_TRUE(again.ok()) << again.status();
    ASSERT_EQ(BatchText(*again), BatchText(batch));
    reset = seen.reset_tables();
  }
  EXPECT_TRUE(reset);
}

// ---- hostile senders --------------------------------------------------------------------------------

v1::Batch SmallMessage() {
  v1::Batch message;
  EXPECT_TRUE(StreamEncoder().Encode(SmallBatch(), &message).ok());
  return message;
}

struct HostileCase {
  const char* name;
  void (*change)(v1::Batch*);
  const char* message;
};

class HostileBatchTest : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileBatchTest, IsRefused) {
  v1::Batch message = SmallMessage();
  ASSERT_TRUE(StreamDecoder("a", "n").Decode(message).ok());
  GetParam().change(&message);
  StreamDecoder decoder("a", "n");
  const Status status = decoder.Decode(message).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Message(status), HasSubstr(GetParam().message));
  // Its tables may be half extended: nothing more is taken.
  EXPECT_FALSE(decoder.Decode(SmallMessage()).ok());
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileBatchTest,
    ::testing::Values(
        HostileCase{"NoSequence", [](v1::Batch* b) { b->set_sequence(0); }, "sequence"},
        HostileCase{"MappingString", [](v1::Batch* b) { b->mutable_mappings(0)->set_file(99); }, "string 99"},
        HostileCase{"FunctionString", [](v1::Batch* b) { b->mutable_functions(0)->set_name(99); }, "string 99"},
        HostileCase{"FrameMapping", [](v1::Batch* b) { b->mutable_frames(0)->set_mapping(2); }, "mapping 2"},
        HostileCase{"FrameMiss", [](v1::Batch* b) { b->mutable_frames(0)->set_miss(~0u); }, "string 4294967295"},
        HostileCase{"LineFunction",
                    [](v1::Batch* b) { b->mutable_frames(0)->mutable_lines(0)->set_function(5); }, "function 5"},
        HostileCase{"TooManyLines",
                    [](v1::Batch* b) {
                      for (int i = 0; i < 2000; ++i) b->mutable_frames(0)->add_lines()->set_function(1);
                    },
                    "inlined"},
        HostileCase{"StackOfItself", [](v1::Batch* b) { b->mutable_stacks(0)->set_parent(1); }, "stack 1"},
        HostileCase{"StackFrame", [](v1::Batch* b) { b->mutable_stacks(0)->set_frame(2); }, "frame 2"},
        HostileCase{"DeepStack",
                    [](v1::Batch* b) {
                      for (uint32_t i = 0; i < 9000; ++i) {
                        v1::StackNode* node = b->add_stacks();
                        node->set_parent(i + 1);
                        node->set_frame(1);
                      }
                    },
                    "deeper"},
        HostileCase{"LongString",
                    [](v1::Batch* b) { b->add_strings(std::string(kMaxStringBytes + 1, 'x')); }, "over the limit"},
        HostileCase{"LabelName", [](v1::Batch* b) { b->mutable_series(0)->set_label_names(0, 77); }, "string 77"},
        HostileCase{"LabelColumns", [](v1::Batch* b) { b->mutable_series(0)->add_label_names(1); }, "label names"},
        HostileCase{"LabelTwice",
                    [](v1::Batch* b) {
                      b->mutable_series(0)->add_label_names(1);
                      b->mutable_series(0)->add_label_values(3);
                    },
                    "twice"},
        HostileCase{"TypeName", [](v1::Batch* b) { b->mutable_series(0)->set_type("a{b"); }, "a{b"},
        HostileCase{"NoType", [](v1::Batch* b) { b->mutable_series(0)->set_type(""); }, "profile type"},
        HostileCase{"LabelBytes",
                    [](v1::Batch* b) {
                      b->add_strings(std::string(2000, 'v'));
                      for (int i = 0; i < 70'000; ++i) {
                        v1::Series* series = b->add_series();
                        series->set_type("cpu");
                        series->add_label_names(1);
                        series->add_label_values(6);
                      }
                    },
                    "labels of all series"},
        HostileCase{"PointSeriesZero", [](v1::Batch* b) { b->mutable_profiles(0)->set_series(0); }, "series 0"},
        HostileCase{"PointSeries", [](v1::Batch* b) { b->mutable_profiles(0)->set_series(2); }, "series 2"},
        HostileCase{"PointStack", [](v1::Batch* b) { b->mutable_profiles(0)->set_stacks(0, 2); }, "stack 2"},
        HostileCase{"PointColumns", [](v1::Batch* b) { b->mutable_profiles(0)->add_counts(2); }, "columns"},
        HostileCase{"PointValueColumn",
                    [](v1::Batch* b) {
                      b->mutable_profiles(0)->add_values(2);
                      b->mutable_profiles(0)->add_values(2);
                    },
                    "columns"},
        HostileCase{"ValueOverflow",
                    [](v1::Batch* b) {
                      b->mutable_profiles(0)->set_counts(0, uint64_t{1} << 60);
                      b->mutable_profiles(0)->set_period_ns(uint64_t{1} << 60);
                    },
                    "out of range"},
        HostileCase{"CountOverflow",
                    [](v1::Batch* b) {
                      b->mutable_profiles(0)->set_counts(0, uint64_t{1} << 62);
                      b->mutable_profiles(0)->add_counts(uint64_t{1} << 62);
                      b->mutable_profiles(0)->add_stacks(1);
                      b->mutable_profiles(0)->set_period_ns(0);
                    },
                    "out of range"},
        HostileCase{"BucketIndex",
                    [](v1::Batch* b) {
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      point->add_buckets(976);
                      point->add_counts(1);
                    },
                    "bucket"},
        HostileCase{"BucketColumns",
                    [](v1::Batch* b) {
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      point->add_buckets(1);
                    },
                    "columns"},
        HostileCase{"Errno",
                    [](v1::Batch* b) {
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      (*point->mutable_errors())[-5] = 1;
                    },
                    "errno"},
        HostileCase{"ExemplarStack",
                    [](v1::Batch* b) {
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      point->add_exemplars()->set_stack(3);
                    },
                    "stack 3"},
        HostileCase{"LongComm",
                    [](v1::Batch* b) {
                      b->add_strings(std::string(300, 'c'));
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      point->add_exemplars()->set_comm(6);
                    },
                    "thread name"},
        HostileCase{"LongCall",
                    [](v1::Batch* b) {
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      point->add_exemplars()->set_call(std::string(1025, 'c'));
                    },
                    "exemplar's call"},
        HostileCase{"WakerStack",
                    [](v1::Batch* b) {
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      v1::Waker* waker = point->add_exemplars()->mutable_waker();
                      waker->set_wait_ns(1);
                      waker->set_stack(3);
                    },
                    "stack 3"},
        HostileCase{"LongCause",
                    [](v1::Batch* b) {
                      b->add_strings(std::string(300, 'c'));
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      point->add_exemplars()->add_split()->set_cause(6);
                    },
                    "thread name"},
        HostileCase{"ManyParts",
                    [](v1::Batch* b) {
                      v1::HistogramPoint* point = b->add_histograms();
                      point->set_series(1);
                      v1::Exemplar* exemplar = point->add_exemplars();
                      for (int i = 0; i < 33; ++i) exemplar->add_split()->set_ns(1);
                    },
                    "over 32 parts"},
        HostileCase{"CounterSeries", [](v1::Batch* b) { b->add_counters()->set_series(9); }, "series 9"},
        HostileCase{"ResetForgets", [](v1::Batch* b) {
                      b->clear_series();
                      b->set_reset_tables(true);
                    },
                    "series 1"}),
    [](const auto& one) { return one.param.name; });

TEST(BatchCodecTest, EqualContentDefinedTwiceKeepsIdsApart) {
  v1::Batch message = SmallMessage();
  // A second, equal frame and a stack on it: another sender may not intern as we do.
  *message.add_frames() = message.frames(0);
  message.add_stacks()->set_frame(2);
  v1::StackNode* child = message.add_stacks();
  child->set_parent(2);
  child->set_frame(1);
  message.mutable_profiles(0)->add_stacks(3);
  message.mutable_profiles(0)->add_counts(4);
  const StatusOr<profile::Batch> batch = StreamDecoder("a", "n").Decode(message);
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->dictionary.Depth(batch->profiles[0].samples[1].stack), 2u);
}

TEST(BatchCodecTest, KindsOfNewerSendersBecomeUnknown) {
  v1::Batch message = SmallMessage();
  message.mutable_frames(0)->set_kind(77);
  const StatusOr<profile::Batch> batch = StreamDecoder("a", "n").Decode(message);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(batch->dictionary.frame(1).kind, profile::FrameKind::kUnknown);
}

// Bytes at random: any answer is fine, but what is accepted must itself be sendable.
TEST(BatchCodecTest, MutatedBytesNeverCrash) {
  size_t accepted = 0, refused = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    RandomData random(seed);
    const std::string good = SerializeBatch(random.Batch(1 + seed)).value();
    for (int round = 0; round < 50; ++round) {
      std::string bytes = good;
      for (uint64_t changes = 1 + random.Below(4); changes > 0 && !bytes.empty(); --changes) {
        const size_t at = random.Below(bytes.size());
        switch (random.Below(4)) {
          case 0:
            bytes[at] = static_cast<char>(random.Below(256));
            break;
          case 1:
            bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
            break;
          case 2:
            bytes.erase(at, 1 + random.Below(8));
            break;
          default:
            bytes.insert(at, bytes.substr(random.Below(bytes.size()), random.Below(40)));
        }
      }
      const StatusOr<profile::Batch> batch = ParseBatch(bytes);
      if (!batch.ok()) {
        EXPECT_EQ(batch.status().code(), StatusCode::kInvalidArgument);
        ++refused;
        continue;
      }
      ++accepted;
      const StatusOr<std::string> again = SerializeBatch(*batch);
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(BatchText(ParseBatch(*again).value()), BatchText(*batch));
    }
  }
  EXPECT_GT(refused, 500u);
  EXPECT_GT(accepted, 100u);
}

TEST(BatchCodecTest, TruncatedBytesNeverCrash) {
  const std::string good = SerializeBatch(RandomData(3).Batch(1)).value();
  for (size_t size = 0; size < good.size(); ++size) {
    const StatusOr<profile::Batch> batch = ParseBatch(std::string_view(good).substr(0, size));
    if (!batch.ok()) {
      EXPECT_EQ(batch.status().code(), StatusCode::kInvalidArgument);
    }
  }
}

}  // namespace
}  // namespace pyrometer::rpc

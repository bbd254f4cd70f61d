#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "tests/unit/rpc/random_batch.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

using ::testing::HasSubstr;

std::vector<v1::ProfileChunk> Encode(const profile::Profile& profile, size_t chunk_bytes) {
  std::vector<v1::ProfileChunk> chunks;
  const Status status = EncodeProfile(
      profile,
      [&](const v1::ProfileChunk& chunk) {
        v1::ProfileChunk received;
        EXPECT_TRUE(received.ParseFromString(chunk.SerializeAsString()));
        chunks.push_back(received);
        return OkStatus();
      },
      chunk_bytes);
  EXPECT_TRUE(status.ok()) << status;
  return chunks;
}

StatusOr<profile::Profile> Decode(const std::vector<v1::ProfileChunk>& chunks) {
  ProfileDecoder decoder;
  for (const v1::ProfileChunk& chunk : chunks) RETURN_IF_ERROR(decoder.Add(chunk));
  return decoder.Finish();
}

TEST(ProfileCodecTest, RoundTripsInOneAndInManyPieces) {
  size_t most = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const profile::Profile profile = RandomData(seed).Profile();
    for (const size_t chunk_bytes : {size_t{1}, size_t{2000}, kProfileChunkBytes}) {
      const std::vector<v1::ProfileChunk> chunks = Encode(profile, chunk_bytes);
      most = std::max(most, chunks.size());
      const StatusOr<profile::Profile> again = Decode(chunks);
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(ProfileText(*again), ProfileText(profile));
      EXPECT_EQ(again->sample_count(), profile.sample_count());
      EXPECT_EQ(again->value_types, profile.value_types);
      EXPECT_EQ(again->default_value, profile.default_value);
      EXPECT_EQ(again->period_type, profile.period_type);
      EXPECT_EQ(again->period, profile.period);
      EXPECT_EQ(again->time_ns, profile.time_ns);
      EXPECT_EQ(again->duration_ns, profile.duration_ns);
      EXPECT_EQ(again->comments, profile.comments);
      EXPECT_EQ(again->accounting, profile.accounting);
      EXPECT_EQ(again->Total(1), profile.Total(1));
    }
  }
  EXPECT_GT(most, 50u);
}

TEST(ProfileCodecTest, AnEmptyProfileIsOnePiece) {
  profile::Profile profile;
  profile.value_types = {{"cpu", "nanoseconds"}};
  const std::vector<v1::ProfileChunk> chunks = Encode(profile, kProfileChunkBytes);
  ASSERT_EQ(chunks.size(), 1u);
  const StatusOr<profile::Profile> again = Decode(chunks);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->value_types, profile.value_types);
  EXPECT_EQ(again->sample_count(), 0u);
}

TEST(ProfileCodecTest, StopsWhenTheSinkFails) {
  const profile::Profile profile = RandomData(5).Profile();
  int calls = 0;
  const Status status = EncodeProfile(
      profile,
      [&](const v1::ProfileChunk&) {
        ++calls;
        return CancelledError("gone");
      },
      1);
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_EQ(calls, 1);
}

TEST(ProfileCodecTest, RefusesMalformedPieces) {
  const std::vector<v1::ProfileChunk> good = Encode(RandomData(7).Profile(), kProfileChunkBytes);
  ASSERT_EQ(good.size(), 1u);
  ASSERT_TRUE(Decode(good).ok());
  const auto refused = [&](auto change, const char* part) {
    v1::ProfileChunk chunk = good[0];
    change(&chunk);
    const Status status = Decode({chunk}).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << part;
    EXPECT_THAT(Message(status), HasSubstr(part));
  };
  refused([](v1::ProfileChunk* c) { c->set_sample_stacks(0, 1u << 30); }, "stack 1073741824");
  refused([](v1::ProfileChunk* c) { c->set_sample_labels(0, 1u << 30); }, "label set 1073741824");
  refused([](v1::ProfileChunk* c) { c->add_sample_values(1); }, "columns");
  refused([](v1::ProfileChunk* c) { c->add_sample_labels(0); }, "columns");
  refused([](v1::ProfileChunk* c) { c->set_default_value(2); }, "default value");
  refused([](v1::ProfileChunk* c) { c->clear_value_types(); }, "value types");
  refused([](v1::ProfileChunk* c) { c->mutable_label_sets(0)->add_names("x"); }, "names");
  EXPECT_EQ(Decode({}).status().code(), StatusCode::kInvalidArgument);
}

TEST(ProfileCodecTest, MutatedBytesNeverCrash) {
  SilenceProtobuf();
  for (uint32_t seed = 0; seed < 40; ++seed) {
    RandomData random(seed);
    const std::string good = Encode(random.Profile(), kProfileChunkBytes)[0].SerializeAsString();
    for (int round = 0; round < 30; ++round) {
      std::string bytes = good;
      for (uint64_t changes = 1 + random.Below(4); changes > 0; --changes) {
        bytes[random.Below(bytes.size())] = static_cast<char>(random.Below(256));
      }
      v1::ProfileChunk chunk;
      if (!chunk.ParseFromString(bytes)) continue;
      const StatusOr<profile::Profile> profile = Decode({chunk});
      if (profile.ok()) ProfileText(*profile);
    }
  }
}

}  // namespace
}  // namespace pyrometer::rpc

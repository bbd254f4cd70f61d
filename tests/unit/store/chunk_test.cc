#include "userspace/store/chunk.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::store {
namespace {

// The same bytes stand in docs/formats/store.md: a change here is a change of the format.
TEST(Chunk, ExactBytes) {
  EXPECT_EQ(HexEncode(EncodePointKey({.series = 7, .time_ns = 1'700'000'000'000'000'000, .ordinal = 258})),
            "0000000717979cfe362a00000000000000000102");

  const ProfileChunk derived{.duration_ns = 10'000'000'000,
                             .period_ns = 10'000'000,
                             .rows = {{3, 2, 20'000'000}, {5, 1, 10'000'000}, {300, 200, 2'000'000'000}}};
  EXPECT_EQ(HexEncode(EncodeProfileChunk(derived)),
            "00"          // values are count × period
            "80c8afa025"  // 10,000,000,000 ns
            "80ade204"    // 10,000,000 ns
            "03"          // three stacks
            "0302a702"    // 3, +2, +295
            "0201c801");  // 2, 1, 200
  const ProfileChunk explicit_values{.duration_ns = 1, .period_ns = 0, .rows = {{1, 2, 3}}};
  EXPECT_EQ(HexEncode(EncodeProfileChunk(explicit_values)), "01010001010203");

  HistogramChunk histogram{.duration_ns = 1};
  histogram.histogram.Record(5, 2);
  histogram.histogram.Record(100, 1);
  histogram.errors = {{11, 4}};
  histogram.exemplars = {{.time_ns = 1007, .value = 100, .node = 9, .comm = 2, .tid = 77}};
  EXPECT_EQ(HexEncode(EncodeHistogramChunk(histogram, 1000)),
            "00"      // flags
            "01"      // duration
            "02"      // two buckets:
            "0534"    // 5, +52 (57 holds 100…103)
            "0201"    // counts
            "6e64"    // sum 110, max 100
            "011604"  // one errno: 11, 4 times
            "01"      // one exemplar:
            "0e6409024d");
  EXPECT_EQ(HexEncode(EncodeTotal({PointKind::kHistogram, 10, 300, 5})), "010aac0205");
}

TEST(Chunk, RandomRoundTrip) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 500; ++round) {
    ProfileChunk chunk{.duration_ns = random() >> (random() % 64), .period_ns = random() % 2 == 0 ? 0 : random() >> 40};
    uint64_t node = 0;
    for (size_t i = 0, n = random() % 200; i < n; ++i) {
      node += 1 + (random() >> (44 + random() % 20)) % 100'000;
      const uint64_t count = random() >> (random() % 40 + 24);
      chunk.rows.push_back({static_cast<NodeId>(node), count, round % 2 == 0 ? count * chunk.period_ns : random()});
    }
    const std::string bytes = EncodeProfileChunk(chunk);
    ProfileChunkHeader header;
    std::vector<StackSum> rows;
    ASSERT_TRUE(DecodeProfileChunk(bytes, &header, &rows).ok());
    EXPECT_EQ(rows, chunk.rows);
    EXPECT_EQ(header.duration_ns, chunk.duration_ns);
    EXPECT_EQ(header.period_ns, chunk.period_ns);

    HistogramChunk histogram{.duration_ns = random()};
    for (size_t i = 0, n = random() % 50; i < n; ++i)
      histogram.histogram.Record(random() >> (random() % 64), 1 + random() % 9);
    for (size_t i = 0, n = random() % 5; i < n; ++i) histogram.errors[static_cast<int32_t>(random() % 200)] = random();
    for (size_t i = 0, n = random() % 5; i < n; ++i) {
      histogram.exemplars.push_back({static_cast<int64_t>(random()), random(), static_cast<NodeId>(random()),
                                     static_cast<uint32_t>(random()), static_cast<uint32_t>(random())});
    }
    const StatusOr<HistogramChunk> back = DecodeHistogramChunk(EncodeHistogramChunk(histogram, 12345), 12345);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->histogram, histogram.histogram);
    EXPECT_EQ(back->errors, histogram.errors);
    ASSERT_EQ(back->exemplars.size(), histogram.exemplars.size());
    for (size_t i = 0; i < back->exemplars.size(); ++i) {
      EXPECT_EQ(back->exemplars[i].time_ns, histogram.exemplars[i].time_ns);
      EXPECT_EQ(back->exemplars[i].value, histogram.exemplars[i].value);
      EXPECT_EQ(back->exemplars[i].node, histogram.exemplars[i].node);
      EXPECT_EQ(back->exemplars[i].comm, histogram.exemplars[i].comm);
      EXPECT_EQ(back->exemplars[i].tid, histogram.exemplars[i].tid);
    }

    const TotalRecord total{static_cast<PointKind>(random() % 3), random(), random(), random()};
    EXPECT_EQ(DecodeTotal(EncodeTotal(total)).value(), total);
    const PointKey key{static_cast<SeriesId>(random()), static_cast<int64_t>(random() >> 1), random()};
    EXPECT_EQ(DecodePointKey(EncodePointKey(key)).value(), key);
  }
}

TEST(Chunk, KeysSortBySeriesThenTime) {
  EXPECT_LT(EncodePointKey({1, 5, 9}), EncodePointKey({1, 6, 1}));
  EXPECT_LT(EncodePointKey({1, INT64_MAX, UINT64_MAX}), EncodePointKey({2, 0, 0}));
  EXPECT_LE(PointKeyPrefix(2, -5), EncodePointKey({2, 0, 0}));
  EXPECT_LT(EncodePointKey({2, 6, UINT64_MAX}), PointKeyPrefix(2, 7));
}

// Every truncation is refused, every flipped bit gives an error or another well-formed chunk, never a crash.
TEST(Chunk, HostileBytes) {
  ProfileChunk chunk{.duration_ns = 10'000'000'000, .period_ns = 10'101'010};
  for (NodeId n = 1; n < 300; n += 7) chunk.rows.push_back({n, n, n * chunk.period_ns});
  HistogramChunk histogram{.duration_ns = 5};
  for (int i = 0; i < 40; ++i) histogram.histogram.Record(uint64_t{1} << i);
  histogram.errors = {{2, 1}, {11, 5}};
  histogram.exemplars = {{1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}};
  const std::string profile_bytes = EncodeProfileChunk(chunk);
  const std::string histogram_bytes = EncodeHistogramChunk(histogram, 0);
  const std::string total_bytes = EncodeTotal({PointKind::kCounter, 1000, 2000, 3000});
  ProfileChunkHeader header;
  std::vector<StackSum> rows;
  for (size_t i = 0; i < profile_bytes.size(); ++i) {
    EXPECT_FALSE(DecodeProfileChunk(profile_bytes.substr(0, i), &header, &rows).ok()) << i;
  }
  for (size_t i = 0; i < histogram_bytes.size(); ++i) {
    EXPECT_FALSE(DecodeHistogramChunk(histogram_bytes.substr(0, i), 0).ok()) << i;
  }
  for (size_t i = 0; i < total_bytes.size(); ++i) EXPECT_FALSE(DecodeTotal(total_bytes.substr(0, i)).ok()) << i;
  EXPECT_FALSE(DecodeProfileChunk(profile_bytes + '\0', &header, &rows).ok());
  EXPECT_FALSE(DecodeHistogramChunk(histogram_bytes + '\0', 0).ok());

  std::mt19937_64 random(4);
  for (int round = 0; round < 30'000; ++round) {
    std::string bytes = round % 2 == 0 ? profile_bytes : histogram_bytes;
    for (size_t i = 0, n = 1 + random() % 4; i < n; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (DecodeProfileChunk(bytes, &header, &rows).ok()) {
      // What is accepted is canonical: sorted, each stack once.
      for (size_t i = 1; i < rows.size(); ++i) ASSERT_LT(rows[i - 1].node, rows[i].node);
    }
    DecodeHistogramChunk(bytes, 0).status().IgnoreError();
    DecodeTotal(bytes).status().IgnoreError();
    DecodePointKey(bytes).status().IgnoreError();
  }
}

}  // namespace
}  // namespace pyrometer::store

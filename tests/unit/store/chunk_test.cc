#include "userspace/store/chunk.h"

#include <gtest/gtest.h>

#include <random>

#include "userspace/base/strings.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {
namespace {

constexpr int64_t kTime = 1'700'000'010'000'000'000;
constexpr uint32_t kHour = 472'222;  // that of kTime

std::vector<StackSum> RandomRows(std::mt19937_64& random, uint64_t period, bool derived, bool zeros) {
  std::vector<StackSum> rows;
  uint64_t leaf = random() % 5;
  for (size_t i = 0, n = random() % 300; i < n; ++i) {
    const uint64_t count = (random() >> (random() % 40 + 24)) + (zeros ? 0 : 1);
    rows.push_back({static_cast<LeafId>(leaf), count, derived ? count * period : random() >> (random() % 64)});
    leaf += 1 + (random() >> (44 + random() % 20)) % 100'000;
  }
  return rows;
}

// The same bytes stand in docs/formats/store.md: a change here is a change of the format.
TEST(Chunk, ExactBytes) {
  EXPECT_EQ(HourOf(kTime), kHour);
  EXPECT_EQ(HexEncode(EncodeWindowKey({.hour = kHour, .trie = 2, .series = 7, .ordinal = 258})),
            "0007349e00000002000000070000000000000102");
  EXPECT_EQ(HexEncode(EncodePointKey({.trie = 2, .series = 7, .hour = kHour, .ordinal = 258})),
            "7300000002000000070007349e0000000000000102");

  const WindowChunk derived{.offset_ns = 810'000'000'000,
                            .duration_ns = 10'000'000'000,
                            .period_ns = 10'000'000,
                            .rows = {{3, 2, 20'000'000}, {5, 1, 10'000'000}, {300, 200, 2'000'000'000}}};
  EXPECT_EQ(HexEncode(EncodeWindowChunk(derived)),
            "04"        // values are count × period, times in seconds
            "aa06"      // 810 s after the hour
            "0a"        // 10 s
            "80ade204"  // 10,000,000 ns
            "03"        // three stacks, then their bits: leaves 3, 5, 300, counts 2, 1, 200
            "1f000040c4e40200003c8c01");
  const WindowChunk explicit_values{.offset_ns = 1, .duration_ns = 1, .period_ns = 0, .rows = {{1, 2, 3}}};
  EXPECT_EQ(HexEncode(EncodeWindowChunk(explicit_values)), "01010100011b01");

  HistogramChunk histogram{.time_ns = kTime, .duration_ns = 1};
  histogram.histogram.Record(5, 2);
  histogram.histogram.Record(100, 1);
  histogram.errors = {{11, 4}};
  histogram.exemplars = {{.time_ns = kTime + 7, .value = 100, .leaf = 9, .comm = 2, .tid = 77}};
  EXPECT_EQ(HexEncode(EncodeHistograms({histogram}, kHour)),
            "08"            // all of one length
            "01"            // one window
            "809099fc922f"  // it starts its 810 s
            "01"            // duration
            "02"            // two buckets:
            "0534"          // 5, +52 (57 holds 100…103)
            "0201"          // counts
            "6e64"          // sum 110, max 100
            "011604"        // one errno: 11, 4 times
            "01"            // one exemplar:
            "0e6409024d");
  histogram.exemplars[0].call = "read(3)";
  EXPECT_EQ(HexEncode(EncodeHistograms({histogram}, kHour)),
            "28"  // the same, and exemplars say their calls
            "01809099fc922f010205340201"
            "6e64011604"
            "010e6409024d"
            "07726561642833"
            "29");
  histogram.exemplars[0].call = "";
  histogram.exemplars[0].weight = 200;
  histogram.exemplars[0].typical = true;
  histogram.exemplars[0].split = {{3, 90}, {4, 10}};
  histogram.exemplars[0].waker = {.wait_ns = 80, .leaf = 5, .comm = 6, .cause = 3, .tid = 78};
  EXPECT_EQ(HexEncode(EncodeHistograms({histogram}, kHour)),
            "48"  // exemplars have details
            "01809099fc922f010205340201"
            "6e64011604"
            "010e6409024d"
            "01c801"      // typical, stands for 200 calls
            "02035a040a"  // two parts: 90 and 10 ns
            "500506034e");
  EXPECT_EQ(
      HexEncode(EncodeTotals(
          {PointKind::kProfile, {{kTime, 10'000'000'000, 300, 600}, {kTime + 10'000'000'000, 10'000'000'000, 2, 4}}},
          kHour)),
      "1c"      // profile; seconds, one length, values are count × a number
      "02"      // two windows
      "d40c14"  // they start 810 s after the hour, 10 s later
      "0a"      // 10 s long
      "ac0202"  // counts 300, 2
      "02");    // values are twice the counts
}

TEST(Chunk, RandomWindows) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 2000; ++round) {
    WindowChunk chunk{.offset_ns = random() % 3'600'000'000'000,
                      .duration_ns = random() >> (random() % 64),
                      .period_ns = random() % 2 == 0 ? 0 : random() >> 40};
    if (round % 3 == 0) {
      chunk.offset_ns -= chunk.offset_ns % 1'000'000'000;
      chunk.duration_ns = 10'000'000'000;
    }
    chunk.rows = RandomRows(random, chunk.period_ns, round % 2 == 0, round % 5 == 0);
    const std::string bytes = EncodeWindowChunk(chunk);
    WindowHeader header;
    std::vector<StackSum> rows;
    ASSERT_TRUE(DecodeWindowChunk(bytes, &header, &rows).ok());
    ASSERT_EQ(rows, chunk.rows);
    EXPECT_EQ(header.offset_ns, chunk.offset_ns);
    EXPECT_EQ(header.duration_ns, chunk.duration_ns);
    EXPECT_EQ(header.period_ns, chunk.period_ns);
    WindowHeader again;
    ASSERT_TRUE(DecodeWindowHeader(bytes, &again).ok());
    EXPECT_EQ(again.offset_ns, chunk.offset_ns);
    EXPECT_EQ(again.values_derived, header.values_derived);
  }
}

TEST(Chunk, RandomOffsets) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 500; ++round) {
    OffsetsChunk chunk{.offset_ns = random() % 3'600'000'000'000, .duration_ns = 10'000'000'000, .period_ns = 7};
    LeafId leaf = 0;
    for (size_t i = 0, n = random() % 50; i < n; ++i) {
      leaf += 1 + random() % 100;
      OffsetsChunk::Row row{.leaf = leaf};
      for (size_t k = 1 + random() % 20; k > 0; --k) row.offsets_ms.push_back(static_cast<uint16_t>(random() % 10'000));
      std::sort(row.offsets_ms.begin(), row.offsets_ms.end());
      chunk.rows.push_back(row);
    }
    const StatusOr<OffsetsChunk> back = DecodeOffsetsChunk(EncodeOffsetsChunk(chunk));
    ASSERT_TRUE(back.ok()) << back.status();
    ASSERT_EQ(back->rows, chunk.rows);
    EXPECT_EQ(back->offset_ns, chunk.offset_ns);
  }
}

TEST(Chunk, RandomPoints) {
  std::mt19937_64 random(5);
  const auto time = [&](int round) {
    const int64_t offset = static_cast<int64_t>(random() % 3'600'000'000'000);
    return HourStart(kHour) + (round % 2 == 0 ? offset : offset / 1'000'000'000 * 1'000'000'000);
  };
  for (int round = 0; round < 500; ++round) {
    std::vector<HistogramChunk> chunks(random() % 4);
    for (HistogramChunk& chunk : chunks) {
      chunk.time_ns = time(round);
      chunk.duration_ns = round % 3 == 0 ? 10'000'000'000 : random();
      for (size_t i = 0, n = random() % 50; i < n; ++i) {
        chunk.histogram.Record(random() >> (random() % 64), 1 + random() % 9);
      }
      for (size_t i = 0, n = random() % 5; i < n; ++i) chunk.errors[static_cast<int32_t>(random() % 200)] = random();
      for (size_t i = 0, n = random() % 5; i < n; ++i) {
        chunk.exemplars.push_back({static_cast<int64_t>(random()), random(), static_cast<LeafId>(random()),
                                   static_cast<uint32_t>(random()), static_cast<uint32_t>(random()),
                                   round % 2 == 0 ? "" : std::string(random() % 9, 'c')});
        if (round % 5 != 0) continue;
        StoredHistogramExemplar& exemplar = chunk.exemplars.back();
        exemplar.weight = random() % 3 * random();
        exemplar.typical = random() % 2 == 0;
        for (size_t k = random() % 3; k > 0; --k) exemplar.split.emplace_back(random(), random());
        if (random() % 2 == 0) {
          exemplar.waker = {1 + random() % 1000, static_cast<LeafId>(random()), static_cast<uint32_t>(random()),
                            static_cast<uint32_t>(random()), static_cast<uint32_t>(random())};
        }
      }
    }
    const StatusOr<std::vector<HistogramChunk>> back = DecodeHistograms(EncodeHistograms(chunks, kHour), kHour);
    ASSERT_TRUE(back.ok()) << back.status();
    ASSERT_EQ(back->size(), chunks.size());
    for (size_t i = 0; i < chunks.size(); ++i) {
      EXPECT_EQ((*back)[i].time_ns, chunks[i].time_ns);
      EXPECT_EQ((*back)[i].duration_ns, chunks[i].duration_ns);
      EXPECT_EQ((*back)[i].histogram, chunks[i].histogram);
      EXPECT_EQ((*back)[i].errors, chunks[i].errors);
      ASSERT_EQ((*back)[i].exemplars.size(), chunks[i].exemplars.size());
      for (size_t e = 0; e < chunks[i].exemplars.size(); ++e) {
        EXPECT_EQ((*back)[i].exemplars[e].time_ns, chunks[i].exemplars[e].time_ns);
        EXPECT_EQ((*back)[i].exemplars[e].value, chunks[i].exemplars[e].value);
        EXPECT_EQ((*back)[i].exemplars[e].leaf, chunks[i].exemplars[e].leaf);
        EXPECT_EQ((*back)[i].exemplars[e].tid, chunks[i].exemplars[e].tid);
        EXPECT_EQ((*back)[i].exemplars[e].call, chunks[i].exemplars[e].call);
        EXPECT_EQ((*back)[i].exemplars[e].weight, chunks[i].exemplars[e].weight);
        EXPECT_EQ((*back)[i].exemplars[e].typical, chunks[i].exemplars[e].typical);
        EXPECT_EQ((*back)[i].exemplars[e].split, chunks[i].exemplars[e].split);
        EXPECT_EQ((*back)[i].exemplars[e].waker, chunks[i].exemplars[e].waker);
      }
    }
    TotalsRecord totals{.kind = static_cast<PointKind>(random() % 3)};
    for (size_t i = 0, n = random() % 20; i < n; ++i) {
      const uint64_t count = round % 5 == 0 ? random() % 3 : random() >> (random() % 64);
      const uint64_t value = round % 3 == 0 ? count * 3 : round % 5 == 0 ? count * (random() % 2) : random();
      totals.windows.push_back({time(round), round % 2 == 0 ? 10'000'000'000 : random(), count, value});
    }
    const StatusOr<TotalsRecord> totals_back = DecodeTotals(EncodeTotals(totals, kHour), kHour);
    ASSERT_TRUE(totals_back.ok()) << totals_back.status();
    EXPECT_EQ(totals_back->windows, totals.windows);
    EXPECT_EQ(totals_back->kind, totals.kind);
    const PointKey point{static_cast<TrieId>(random()), static_cast<SeriesId>(random()),
                         static_cast<uint32_t>(random()), random()};
    EXPECT_EQ(DecodePointKey(EncodePointKey(point)).value(), point);
    const WindowKey window{static_cast<uint32_t>(random()), static_cast<TrieId>(random()),
                           static_cast<SeriesId>(random()), random()};
    EXPECT_EQ(DecodeWindowKey(EncodeWindowKey(window)).value(), window);
  }
}

TEST(Chunk, KeysSortAsTheyAreRead) {
  EXPECT_LT(EncodeWindowKey({1, 9, 9, 9}), EncodeWindowKey({2, 1, 1, 1}));
  EXPECT_LT(EncodeWindowKey({1, 1, 9, 9}), EncodeWindowKey({1, 2, 1, 1}));
  EXPECT_LT(EncodePointKey({1, 5, 9, 9}), EncodePointKey({1, 6, 1, 1}));
  EXPECT_LT(EncodePointKey({1, 5, 9, UINT64_MAX}), EncodePointKey({1, 5, 10, 0}));
  EXPECT_LT(EncodePointKey({9, 9, 9, 9}).front(), 't');
  EXPECT_EQ(PrefixEnd("a\xff"), "b");
}

// Every truncation is refused, every flipped bit gives an error or another well-formed chunk, never a crash.
TEST(Chunk, HostileBytes) {
  std::mt19937_64 random(6);
  WindowChunk chunk{.offset_ns = 10'000'000'000, .duration_ns = 10'000'000'000, .period_ns = 10'101'010};
  for (LeafId n = 1; n < 300; n += 7) chunk.rows.push_back({n, n, n * chunk.period_ns});
  HistogramChunk histogram{.time_ns = kTime, .duration_ns = 5};
  for (int i = 0; i < 40; ++i) histogram.histogram.Record(uint64_t{1} << i);
  histogram.errors = {{2, 1}, {11, 5}};
  histogram.exemplars = {{1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}};
  HistogramChunk with_call = histogram;
  with_call.exemplars[1].call = "read(5)";
  HistogramChunk with_details = histogram;
  with_details.exemplars[0].weight = 1000;
  with_details.exemplars[1].split = {{1, 2}, {3, 4}};
  with_details.exemplars[1].waker = {.wait_ns = 5, .leaf = 6, .comm = 7, .cause = 8, .tid = 9};
  OffsetsChunk offsets{.duration_ns = 10'000'000'000, .rows = {{3, {1, 2, 900}}, {9, {77}}}};
  const std::string good[] = {EncodeWindowChunk(chunk),
                              EncodeHistograms({histogram, histogram}, kHour),
                              EncodeHistograms({histogram, with_call}, kHour),
                              EncodeHistograms({histogram, with_details}, kHour),
                              EncodeTotals({PointKind::kCounter, {{kTime, 1000, 2000, 3000}}}, kHour),
                              EncodeOffsetsChunk(offsets)};
  WindowHeader header;
  std::vector<StackSum> rows;
  const auto decode = [&](size_t which, const std::string& bytes) {
    switch (which) {
      case 0:
        return DecodeWindowChunk(bytes, &header, &rows);
      case 1:
      case 2:
      case 3:
        return DecodeHistograms(bytes, kHour).status();
      case 4:
        return DecodeTotals(bytes, kHour).status();
      default:
        return DecodeOffsetsChunk(bytes).status();
    }
  };
  for (size_t which = 0; which < std::size(good); ++which) {
    ASSERT_TRUE(decode(which, good[which]).ok()) << which;
    for (size_t i = 0; i < good[which].size(); ++i) {
      EXPECT_EQ(decode(which, good[which].substr(0, i)).code(), StatusCode::kDataLoss) << which << " at " << i;
    }
    EXPECT_FALSE(decode(which, good[which] + '\0').ok());
  }
  for (int round = 0; round < 40'000; ++round) {
    const size_t which = static_cast<size_t>(round) % std::size(good);
    std::string bytes = good[which];
    for (size_t i = 0, n = 1 + random() % 4; i < n; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (!decode(which, bytes).ok() || which != 0) continue;
    for (size_t i = 1; i < rows.size(); ++i) ASSERT_LT(rows[i - 1].leaf, rows[i].leaf);
  }
}

}  // namespace
}  // namespace pyrometer::store

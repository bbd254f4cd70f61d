#include "userspace/store/cells.h"

#include <gtest/gtest.h>

#include <random>

#include "userspace/base/strings.h"
#include "userspace/store/hour_builder.h"
#include "userspace/store/rollup.h"

namespace pyrometer::store {
namespace {

std::vector<CellRow> RowsOf(CellsReader* reader) {
  std::vector<CellRow> rows;
  const Status read = reader->Read([&](LeafId leaf, uint32_t cell, uint64_t count, uint64_t value) {
    rows.push_back({leaf, cell, count, value});
  });
  EXPECT_TRUE(read.ok()) << read;
  return rows;
}

// Stacks of every density, from one cell to all of them, with counts around any mean.
CellsBlock RandomBlock(std::mt19937_64& random, int round) {
  CellsBlock block;
  const uint64_t period = round % 2 == 0 ? 10'101'010 : 1;
  for (SeriesId series = 1; series < 1 + random() % 5; ++series) {
    uint64_t offset = random() % 3 * 1'000'000'000;
    for (size_t i = 0, n = 1 + random() % 30; i < n && offset < 3'600'000'000'000; ++i) {
      block.windows.push_back({.series = series,
                               .offset_ns = offset,
                               .duration_ns = 10'000'000'000 + (round % 3 == 0 ? random() % 1000 : 0),
                               .period_ns = round % 5 == 0 ? 1 + random() % 3 : period});
      offset += random() % 2 * 10'000'000'000 + (round % 7 == 0 ? random() % 1000 : 0);
    }
  }
  LeafId leaf = 0;
  const bool explicit_values = round % 4 == 1;
  for (size_t i = 0, n = random() % 60; i < n; ++i) {
    leaf += 1 + static_cast<LeafId>(random() % 9);
    const uint64_t density = random() % 101;
    const uint64_t mean = uint64_t{1} << (random() % 12);
    for (uint32_t cell = 0; cell < block.windows.size(); ++cell) {
      if (random() % 100 >= density) continue;
      uint64_t count = 1 + random() % mean;
      if (random() % 50 == 0) count = random() >> (24 + random() % 40);
      if (explicit_values && random() % 10 == 0) count = 0;
      if (!explicit_values && count == 0) count = 1;
      const uint64_t value = explicit_values ? 1 + (random() >> (random() % 64)) / 2
                                             : SaturatingMultiply(count, block.windows[cell].period_ns);
      block.rows.push_back({leaf, cell, count, value});
    }
  }
  return block;
}

TEST(Cells, RandomBlocks) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 3000; ++round) {
    const CellsBlock block = RandomBlock(random, round);
    const std::string bytes = EncodeCells(block);
    CellsReader reader;
    ASSERT_TRUE(reader.Open(bytes).ok()) << round;
    ASSERT_EQ(reader.windows(), block.windows) << round;
    ASSERT_EQ(RowsOf(&reader), block.rows) << round;
  }
}

// The same bytes stand in docs/formats/store.md.
TEST(Cells, ExactBytes) {
  CellsBlock block;
  for (SeriesId series : {3u, 7u}) {
    for (uint64_t i = 0; i < 4; ++i) {
      block.windows.push_back({series, i * 10'000'000'000, 10'000'000'000, 10'000'000});
    }
  }
  // Stack 1 in all eight cells, stack 2 in two, stack 9 once.
  const uint64_t counts[] = {4, 2, 3, 5, 1, 4, 2, 3};
  for (uint32_t cell = 0; cell < 8; ++cell) block.rows.push_back({1, cell, counts[cell], counts[cell] * 10'000'000});
  for (uint32_t cell : {1u, 5u}) block.rows.push_back({2, cell, 1, 10'000'000});
  block.rows.push_back({9, 4, 1, 10'000'000});
  EXPECT_EQ(HexEncode(EncodeCells(block)),
            "0c"          // times in seconds, one period
            "0280ade204"  // two series, 10,000,000 ns
            "03"          // series 3:
            "04"          // four windows: starts 0, +10, +10, +10 s; lengths 10 s, then no change
            "00140a000a000a00"
            "0400"  // series 7: windows as before
            "03"    // three stacks
            "06"
            "730080599a00"  // leaves 1, 2, 9; cells 8, 2, 1; above one per cell 16, 0, 0
            "75649d48");    // stack 1: above 3 1 2 4 0 3 1 2; stack 2: cells 1, 5; stack 9: cell 4
  CellsReader reader;
  const std::string bytes = EncodeCells(block);
  ASSERT_TRUE(reader.Open(bytes).ok());
  EXPECT_EQ(RowsOf(&reader), block.rows);
}

TEST(Cells, HostileBytes) {
  std::mt19937_64 random(2);
  std::vector<std::string> good;
  for (int round = 0; round < 12; ++round) {
    CellsBlock block = RandomBlock(random, round);
    while (block.rows.empty()) block = RandomBlock(random, round);
    good.push_back(EncodeCells(block));
  }
  const auto decode = [](const std::string& bytes) -> Status {
    CellsReader reader;
    RETURN_IF_ERROR(reader.Open(bytes));
    LeafId last_leaf = 0;
    uint32_t last_cell = 0;
    return reader.Read([&](LeafId leaf, uint32_t cell, uint64_t, uint64_t) {
      EXPECT_LT(cell, reader.windows().size());
      EXPECT_TRUE(leaf > last_leaf || (leaf == last_leaf && cell >= last_cell));
      last_leaf = leaf;
      last_cell = cell;
    });
  };
  for (const std::string& bytes : good) {
    ASSERT_TRUE(decode(bytes).ok());
    for (size_t i = 0; i < bytes.size(); ++i) {
      EXPECT_EQ(decode(bytes.substr(0, i)).code(), StatusCode::kDataLoss) << i;
    }
  }
  for (int round = 0; round < 30'000; ++round) {
    std::string bytes = good[static_cast<size_t>(round) % good.size()];
    for (size_t i = 0, n = 1 + random() % 4; i < n; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    decode(bytes).IgnoreError();
  }
}

// Whatever the order of the windows, blocks hold all rows and rollups their sums.
TEST(HourBuilder, KeepsEveryRow) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    HourBuilder builder(1000, 200, 7);
    std::map<std::tuple<SeriesId, uint64_t, LeafId>, std::pair<uint64_t, uint64_t>> expected;
    std::map<std::pair<GroupId, LeafId>, std::pair<uint64_t, uint64_t>> group_sums;
    std::map<GroupId, uint64_t> points;
    for (size_t w = 0, n = random() % 40; w < n; ++w) {
      const SeriesId series = 1 + static_cast<SeriesId>(random() % 6);
      const GroupId group = 1 + series % 2;
      const bool derived = series % 3 != 0;
      const WindowHeader header{
          .offset_ns = w * 10'000'000'000, .duration_ns = 10'000'000'000, .period_ns = 5, .values_derived = derived};
      std::vector<StackSum> rows;
      for (LeafId leaf = static_cast<LeafId>(random() % 20); leaf < 1000; leaf += 1 + random() % 60) {
        const uint64_t count = 1 + random() % 4;
        rows.push_back({leaf, count, derived ? count * 5 : random() % 1000});
        auto& sum = expected[{series, header.offset_ns, leaf}];
        sum.first += count;
        sum.second += rows.back().value;
        auto& group_sum = group_sums[{group, leaf}];
        group_sum.first += count;
        group_sum.second += rows.back().value;
      }
      ++points[group];
      ASSERT_TRUE(builder.Add(series, group, header, rows).ok());
    }
    const HourBuilder::Result made = builder.Build();
    std::map<std::tuple<SeriesId, uint64_t, LeafId>, std::pair<uint64_t, uint64_t>> found;
    for (const std::string& bytes : made.blocks) {
      CellsReader reader;
      ASSERT_TRUE(reader.Open(bytes).ok());
      EXPECT_LE(reader.windows().size(), 7u);
      for (const CellRow& row : RowsOf(&reader)) {
        const CellWindow& window = reader.windows()[row.cell];
        auto& sum = found[{window.series, window.offset_ns, row.leaf}];
        sum.first += row.count;
        sum.second += row.value;
      }
    }
    ASSERT_EQ(found, expected);
    std::map<std::pair<GroupId, LeafId>, std::pair<uint64_t, uint64_t>> found_groups;
    for (const auto& [group, rollup] : made.groups) {
      EXPECT_EQ(rollup.header.points, points[group]);
      Rollup back;
      ASSERT_TRUE(DecodeRollup(EncodeRollup(rollup), &back).ok());
      EXPECT_EQ(back.rows, rollup.rows);
      EXPECT_EQ(back.header.count, rollup.header.count);
      for (const StackSum& row : back.rows) found_groups[{group, row.leaf}] = {row.count, row.value};
    }
    ASSERT_EQ(found_groups, group_sums);
  }
}

TEST(HourBuilder, RefusesAnUnknownStack) {
  HourBuilder builder(10);
  EXPECT_EQ(builder.Add(1, 1, {}, {{10, 1, 1}}).code(), StatusCode::kDataLoss);
}

TEST(Rollup, MergesAndComesBack) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 500; ++round) {
    Rollup sum;
    std::map<LeafId, std::pair<uint64_t, uint64_t>> model;
    uint64_t points = 0;
    for (size_t part = 0, n = 1 + random() % 4; part < n; ++part) {
      const uint64_t period = round % 3 == 0 ? 1 + part : 10;
      Rollup one{.header = {.points = 1 + random() % 5,
                            .period_ns = period,
                            .first_offset_ns = random() % 100,
                            .end_offset_ns = 100 + random() % 100}};
      points += one.header.points;
      for (LeafId leaf = static_cast<LeafId>(random() % 9); leaf < 200; leaf += 1 + random() % 20) {
        const uint64_t count = 1 + random() % 9;
        const uint64_t value = round % 2 == 0 ? count * period : random() % 1000;
        one.rows.push_back({leaf, count, value});
        one.header.count += count;
        one.header.value += value;
        model[leaf].first += count;
        model[leaf].second += value;
      }
      MergeRollup(one, &sum);
    }
    Rollup back;
    const std::string bytes = EncodeRollup(sum);
    ASSERT_TRUE(DecodeRollup(bytes, &back).ok());
    EXPECT_EQ(back.header.points, points);
    ASSERT_EQ(back.rows.size(), model.size());
    for (const StackSum& row : back.rows) EXPECT_EQ(std::pair(row.count, row.value), model[row.leaf]);
    RollupHeader header;
    ASSERT_TRUE(DecodeRollupHeader(bytes, &header).ok());
    EXPECT_EQ(header.count, back.header.count);
    for (size_t i = 0; i < bytes.size(); ++i) {
      Rollup cut;
      EXPECT_FALSE(DecodeRollup(bytes.substr(0, i), &cut).ok());
    }
  }
}

}  // namespace
}  // namespace pyrometer::store

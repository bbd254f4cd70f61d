#include "userspace/rpc/top_codec.h"

#include <gtest/gtest.h>

#include <random>

#include "proto/pyrometer/v1/pyrometer.pb.h"

namespace pyrometer::rpc {
namespace {

using profile::FrameKind;

MergeTopReply RandomReply(uint64_t seed) {
  std::mt19937_64 random(seed);
  MergeTopReply reply;
  reply.whole.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  reply.whole.default_value = 1;
  reply.whole.accounting.taken = random() % 1000;
  if (random() % 8 != 0) reply.whole.Add(0, profile::kEmptyStack, {static_cast<int64_t>(random() % 1000), 1});
  for (size_t t = random() % 4; t > 0; --t) {
    profile::LabelledTop& top = reply.tops.emplace_back();
    top.labels = profile::LabelSet().With("service", std::to_string(random() % 100));
    top.table.total = static_cast<int64_t>(random() % 100'000);
    top.table.functions = random() % 1000;
    for (size_t r = random() % 60; r > 0; --r) {
      top.table.rows.push_back({.name = "f" + std::to_string(random()),
                                .module = random() % 2 == 0 ? "" : "/lib/x.so",
                                .file = random() % 2 == 0 ? "" : "x.c",
                                .kind = static_cast<FrameKind>(random() % 6),
                                .self = static_cast<int64_t>(random() % 1000),
                                .total = static_cast<int64_t>(random() % 100'000)});
    }
    top.table.SetPercents();
  }
  return reply;
}

std::string Text(const MergeTopReply& reply) {
  std::string text = std::to_string(reply.whole.accounting.taken) + " " + std::to_string(reply.whole.Total(0)) + "\n";
  for (const profile::LabelledTop& top : reply.tops) {
    text += top.labels.ToString() + " " + std::to_string(top.table.total) + " " + std::to_string(top.table.functions) +
            "\n";
    for (const profile::FunctionCost& row : top.table.rows) {
      text += row.name + "|" + row.module + "|" + row.file + "|" + std::to_string(static_cast<int>(row.kind)) + "|" +
              std::to_string(row.self) + "|" + std::to_string(row.total) + "|" + std::to_string(row.self_percent) +
              "|" + std::to_string(row.total_percent) + "\n";
    }
  }
  return text;
}

TEST(TopCodec, WhatIsSentArrivesInPiecesOfAnySize) {
  size_t most = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const MergeTopReply reply = RandomReply(seed);
    for (const size_t chunk_bytes : {size_t{1}, size_t{200}, size_t{1} << 20}) {
      TopDecoder decoder;
      size_t pieces = 0;
      ASSERT_TRUE(EncodeTop(
                      reply,
                      [&](const v1::TopChunk& chunk) {
                        ++pieces;
                        v1::TopChunk copy;
                        EXPECT_TRUE(copy.ParseFromString(chunk.SerializeAsString()));
                        return decoder.Add(copy);
                      },
                      chunk_bytes)
                      .ok());
      const StatusOr<MergeTopReply> back = decoder.Finish();
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(Text(*back), Text(reply));
      most = std::max(most, pieces);
    }
  }
  EXPECT_GT(most, 20u);
}

TEST(TopCodec, MalformedPiecesAreRefused) {
  EXPECT_EQ(TopDecoder().Finish().status().code(), StatusCode::kInvalidArgument);
  v1::TopChunk chunk;
  EXPECT_EQ(TopDecoder().Add(chunk).code(), StatusCode::kInvalidArgument) << "no value types";
  chunk.mutable_header()->add_value_types()->set_type("samples");
  EXPECT_TRUE(TopDecoder().Add(chunk).ok());
  chunk.add_tables()->set_continued(true);
  EXPECT_EQ(TopDecoder().Add(chunk).code(), StatusCode::kInvalidArgument) << "continues nothing";
  chunk.mutable_tables(0)->set_continued(false);
  chunk.mutable_tables(0)->mutable_labels()->add_names("only a name");
  EXPECT_EQ(TopDecoder().Add(chunk).code(), StatusCode::kInvalidArgument);
  chunk.mutable_tables(0)->clear_labels();
  chunk.mutable_tables(0)->add_rows()->set_kind(77);
  TopDecoder decoder;
  ASSERT_TRUE(decoder.Add(chunk).ok());
  EXPECT_EQ(decoder.Finish()->tops.at(0).table.rows.at(0).kind, FrameKind::kUnknown);
}

}  // namespace
}  // namespace pyrometer::rpc

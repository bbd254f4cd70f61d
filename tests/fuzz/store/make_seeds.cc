// Writes the first inputs of chunk_fuzzer and trie_fuzzer: one record of every kind, from the encoders themselves.
//
//   build/fuzz/tests/fuzz/store/store_make_seeds tests/fuzz/store
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/file.h"
#include "userspace/store/cells.h"
#include "userspace/store/chunk.h"
#include "userspace/store/function_index.h"
#include "userspace/store/names.h"
#include "userspace/store/rollup.h"
#include "userspace/store/trie.h"

namespace pyrometer::store {
namespace {

std::string g_folder;
bool g_failed = false;

void Write(const std::string& name, const std::string& bytes) {
  const Status written = WriteFileAtomically(g_folder + "/" + name, bytes);
  if (written.ok()) return;
  std::fprintf(stderr, "%s\n", written.ToString().c_str());
  g_failed = true;
}

void Chunk(int kind, const std::string& name, const std::string& record) {
  Write("corpus_chunk/" + name, std::string(1, static_cast<char>(kind)) + record);
}

std::vector<StackSum> Rows(std::mt19937* random, size_t count, bool derived) {
  std::vector<StackSum> rows;
  LeafId leaf = 0;
  for (size_t i = 0; i < count; ++i) {
    leaf += 1 + (*random)() % (i % 10 == 0 ? 500 : 4);
    const uint64_t samples = 1 + ((*random)() % 4 == 0 ? (*random)() % 100 : 0);
    rows.push_back({leaf, samples, derived ? samples * 10 : (*random)() % 1000});
  }
  return rows;
}

std::string Entry(int gap, const std::string& record) {
  std::string out(1, static_cast<char>(gap));
  out += static_cast<char>(record.size() >> 8);
  out += static_cast<char>(record.size() & 0xff);
  return out + record;
}

void Chunks() {
  std::mt19937 random(1);
  constexpr uint32_t kHour = 471'000;
  const int64_t start = HourStart(kHour);
  for (const bool derived : {true, false}) {
    const std::string form = derived ? "" : "_values";
    const auto rows = Rows(&random, 40, derived);
    Chunk(
        0, "window" + form,
        EncodeWindowChunk({.offset_ns = 10'000'000'000, .duration_ns = 10'000'000'000, .period_ns = 10, .rows = rows}));
    Chunk(5, "rollup" + form,
          EncodeRollup({.header = {.points = 60, .period_ns = 10, .end_offset_ns = 3'600'000'000'000}, .rows = rows}));
    CellsBlock block;
    for (SeriesId series = 1; series < 6; ++series) {
      for (uint64_t window = 0; window < 6; ++window) {
        block.windows.push_back(
            {.series = series, .offset_ns = window * 600'000'000'000, .duration_ns = 10'000'000'000, .period_ns = 10});
      }
    }
    for (LeafId leaf = 1; leaf < 30; ++leaf) {
      for (uint32_t cell = random() % 5; cell < block.windows.size(); cell += 1 + random() % (1 + leaf / 2)) {
        const uint64_t count = 1 + random() % 5;
        block.rows.push_back({leaf, cell, count, derived ? count * 10 : random() % 1000});
      }
    }
    Chunk(4, "cells" + form, EncodeCells(block));
  }
  OffsetsChunk offsets{.offset_ns = 0, .duration_ns = 10'000'000'000, .period_ns = 10, .rows = {}};
  for (LeafId leaf = 3; leaf < 12; leaf += 2) {
    OffsetsChunk::Row row{.leaf = leaf, .offsets_ms = {}};
    for (unsigned ms = random() % 20; ms < 10'000; ms += 1 + random() % 2000)
      row.offsets_ms.push_back(static_cast<uint16_t>(ms));
    offsets.rows.push_back(row);
  }
  Chunk(1, "offsets", EncodeOffsetsChunk(offsets));
  std::vector<HistogramChunk> histograms(2);
  for (HistogramChunk& chunk : histograms) {
    chunk.time_ns = start + 10'000'000'000;
    chunk.duration_ns = 10'000'000'000;
    for (int i = 0; i < 30; ++i) chunk.histogram.Record(random() % 1'000'000);
    chunk.errors = {{2, 3}, {11, 1}};
    chunk.exemplars.push_back({.time_ns = start + 11'000'000'000, .value = 900'000, .leaf = 4, .comm = 2, .tid = 77});
  }
  Chunk(2, "histograms", EncodeHistograms(histograms, kHour));
  Chunk(3, "totals",
        EncodeTotals({.kind = PointKind::kProfile,
                      .windows = {{start, 10'000'000'000, 100, 1000}, {start + 10'000'000'000, 10'000'000'000, 5, 50}}},
                     kHour));
  std::string functions;
  AppendFunctionEntry({.hour = 3, .self = 70, .total = 900}, &functions);
  AppendFunctionEntry({.hour = 23, .self = 0, .total = 1u << 30}, &functions);
  Chunk(6, "functions", functions);
  Chunk(7, "frame",
        EncodeFrame({.kind = profile::FrameKind::kNative,
                     .build_id = 1,
                     .file = 2,
                     .address = 0x1234,
                     .lines = {{.function = 1, .line = 10, .column = 2}, {.function = 2, .line = 20}}}));
  Chunk(7, "frame_miss", EncodeFrame({.kind = profile::FrameKind::kKernel, .file = 2, .address = ~0ull, .miss = 9}));
}

void Tries() {
  std::mt19937 random(2);
  StackTrie trie;
  std::string fresh;
  TrieSpan begin = trie.end();
  for (int record = 0; record < 3; ++record) {
    const TrieSpan from = trie.end();
    for (int stack = 0; stack < 12; ++stack) {
      NodeId node = 0;
      for (int depth = 0; depth < 6; ++depth) {
        const uint32_t frame = 1 + random() % 4 + static_cast<uint32_t>(depth) * 3;
        const NodeId child = trie.Find(node, frame);
        node = child != 0 ? child : trie.Add(node, frame);
      }
      trie.FindOrAddLeaf(node);
    }
    fresh += Entry(0, trie.EncodeFresh(from, trie.end()));
  }
  const std::string dense = trie.EncodeDense(begin, trie.end());
  Write("corpus_trie/fresh", fresh);
  Write("corpus_trie/dense", Entry(0, dense));
  Write("corpus_trie/gap", Entry(5, trie.EncodeFresh(begin, trie.end())));
  const TrieSpan middle = trie.end();
  NodeId node = 1;
  for (uint32_t frame = 1; frame < 9; ++frame) {
    const NodeId child = trie.Find(node, frame);
    node = child != 0 ? child : trie.Add(node, frame);
  }
  trie.FindOrAddLeaf(node);
  Write("corpus_trie/dense_and_fresh", Entry(0, dense) + Entry(0, trie.EncodeFresh(middle, trie.end())));
  Write("corpus_trie/dense_twice", Entry(0, dense) + Entry(0, trie.EncodeDense(middle, trie.end())));
}

}  // namespace
}  // namespace pyrometer::store

int main(int argc, char** argv) {
  using namespace pyrometer;
  if (argc != 2) {
    std::fprintf(stderr, "usage: store_make_seeds FOLDER\n");
    return 2;
  }
  store::g_folder = argv[1];
  for (const char* corpus : {"/corpus_chunk", "/corpus_trie"}) {
    const Status made = CreateDirectories(store::g_folder + corpus);
    if (!made.ok()) {
      std::fprintf(stderr, "%s\n", made.ToString().c_str());
      return 1;
    }
  }
  store::Chunks();
  store::Tries();
  return store::g_failed ? 1 : 0;
}

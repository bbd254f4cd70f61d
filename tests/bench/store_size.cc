// Bytes at rest per raw sample of the generator's hour (tests/support/fleet.h), dictionary and index included, by
// family.
//
//   build/bench/tests/bench/store_size [--services 50] [--pods 10] [--windows 60] [--window 60] [--samples 1000]
//                                      [--stacks 20000] [--deploy 0] [--offsets] [--pprof] [--keep DIR]
//                                      [--backend clickhouse://host:port/database?batch=0]
//                                      [--clickhouse-rows]
//
// --backend: into ClickHouse, and what is at rest there; also how long two questions take.
// --window SECONDS; --deploy N: every pod is new every N windows; --offsets: with the milliseconds of each sample.
// --pprof prints the same data as gzip pprof files, one per pod and window, extrapolated from every hundredth.
// --clickhouse-rows: the same data as plain rows in a ClickHouse of its own too (clickhouse_rows.h), and all of it in
// one table in the end; the whole hour takes some minutes. Needs clickhouse-server.
#include <rocksdb/db.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/clickhouse_rows.h"
#include "tests/support/fleet.h"
#include "ui-export/formats/format.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/profile/profile.h"
#include "userspace/store/clickhouse/clickhouse.h"
#include "userspace/store/store.h"

namespace pyrometer {
namespace {

struct Arguments {
  testing::FleetOptions fleet;
  int windows = 60;
  bool pprof = false;
  bool clickhouse_rows = false;
  std::string keep;
  std::string backend;
};

Arguments Parse(int argc, char** argv) {
  Arguments a;
  const auto number = [&](int& i) { return i + 1 < argc ? std::atoi(argv[++i]) : 0; };
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--services")
      a.fleet.services = number(i);
    else if (flag == "--pods")
      a.fleet.pods = number(i);
    else if (flag == "--nodes")
      a.fleet.nodes = number(i);
    else if (flag == "--windows")
      a.windows = number(i);
    else if (flag == "--window")
      a.fleet.window_ns = static_cast<uint64_t>(number(i)) * kNsPerSecond;
    else if (flag == "--samples")
      a.fleet.samples = number(i);
    else if (flag == "--stacks")
      a.fleet.stacks = number(i);
    else if (flag == "--deploy")
      a.fleet.deploy_every = number(i);
    else if (flag == "--offsets")
      a.fleet.offsets = true;
    else if (flag == "--pprof")
      a.pprof = true;
    else if (flag == "--clickhouse-rows")
      a.clickhouse_rows = true;
    else if (flag == "--backend" && i + 1 < argc)
      a.backend = argv[++i];
    else if (flag == "--keep" && i + 1 < argc)
      a.keep = argv[++i];
    else {
      std::fprintf(stderr, "unknown argument %s; see the head of tests/bench/store_size.cc\n", argv[i]);
      std::exit(2);
    }
  }
  return a;
}

void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

// The rows of one pod and window as a pprof file.
size_t PprofBytes(const testing::FleetStream::Batch& batch, const profile::ProfilePoint& point,
                  const profile::Dictionary& dictionary) {
  profile::Profile p;
  p.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  p.default_value = 1;
  p.period = static_cast<int64_t>(point.period_ns);
  p.period_type = p.value_types[1];
  profile::DictionaryMapper mapper(dictionary, &p.dictionary);
  for (const auto& sample : point.samples) {
    p.Add(0, mapper.Stack(sample.stack), {static_cast<int64_t>(sample.count), static_cast<int64_t>(sample.value)});
  }
  (void)batch;
  const StatusOr<std::string> bytes = formats::Serialize(p, formats::Format::kPprof, {});
  Must(bytes.status());
  return bytes->size();
}

// Bytes by family.
std::map<std::string, uint64_t> PrintFamilies(const std::string& folder, double samples) {
  std::map<std::string, uint64_t> result;
  std::vector<std::string> names;
  if (!rocksdb::DB::ListColumnFamilies({}, folder, &names).ok()) return result;
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (const std::string& name : names) descriptors.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* raw = nullptr;
  if (!rocksdb::DB::OpenForReadOnly({}, folder, descriptors, &handles, &raw).ok()) return result;
  const std::unique_ptr<rocksdb::DB> db(raw);
  std::vector<rocksdb::LiveFileMetaData> files;
  db->GetLiveFilesMetaData(&files);
  for (const std::string& name : names) {
    uint64_t bytes = 0, entries = 0;
    for (const auto& file : files) {
      if (file.column_family_name != name) continue;
      bytes += file.size;
      entries += file.num_entries;
    }
    std::printf("  %-12s %12s  %6.4f B/sample  %10s records\n", name.c_str(), FormatBytes(bytes).c_str(),
                static_cast<double>(bytes) / samples, FormatCount(entries).c_str());
    result[name] = bytes;
  }
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  return result;
}

// One line per way to keep the data, in bytes per raw sample.
void PrintTable(const std::map<std::string, uint64_t>& families, uint64_t disk, const bench::ClickHouseRows& rows,
                double pprof_per_sample, double samples) {
  const auto per = [&](uint64_t bytes) { return static_cast<double>(bytes) / samples; };
  const auto of = [&](std::initializer_list<const char*> names) {
    uint64_t bytes = 0;
    for (const char* name : names) bytes += families.contains(name) ? families.at(name) : 0;
    return bytes;
  };
  const uint64_t points = of({"cells", "windows"}), dictionary = of({"tries", "names", "series"});
  std::printf("\nB per raw sample                  samples   stacks, names   sums, indexes   together\n");
  std::printf("%-30s %10.3f %15.3f %15.3f %10.3f\n", "pyrometer", per(points), per(dictionary),
              per(disk - std::min(disk, points + dictionary)), per(disk));
  for (const bench::ClickHouseRows::Layout& layout : rows.layouts) {
    std::printf("%-30s %10.3f %15.3f %15s %10.3f   stack column %.3f\n",
                StrFormat("ClickHouse rows: %s", layout.name).c_str(), per(layout.rows_bytes),
                per(layout.dictionary_bytes), "-", per(layout.rows_bytes + layout.dictionary_bytes),
                per(layout.stack_column_bytes));
  }
  if (pprof_per_sample > 0) std::printf("%-30s %53.3f\n", "gzip pprof files", pprof_per_sample);
  std::printf("(ClickHouse %s)\n", rows.version.c_str());
}

// All stacks of one service, and of all, without names; the second time each.
void AskTwice(const store::Store& store) {
  const std::vector<store::Group> groups = *store.FindGroups({.type = "cpu"});
  for (const bool all : {false, true}) {
    uint64_t took_ns = 0, stacks = 0;
    for (int round = 0; round < 2; ++round) {
      const uint64_t before = MonotonicNowNs();
      stacks = 0;
      for (const store::Group& group : groups) {
        store::StackSelection selection;
        selection.trie = group.trie;
        selection.groups = {group.id};
        selection.groups_are_whole = true;
        const auto sums = store.SumStacks(selection, {});
        Must(sums.status());
        stacks += sums->sums.size();
        if (!all) break;
      }
      took_ns = MonotonicNowNs() - before;
    }
    std::printf("%s: %s stacks in %s\n", all ? "every service, one after the other" : "one service",
                FormatCount(stacks).c_str(), FormatDurationNs(took_ns).c_str());
  }
}

int Main(int argc, char** argv) {
  const Arguments a = Parse(argc, argv);
  std::string folder = a.keep;
  if (folder.empty()) {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-size-XXXXXX").string();
    folder = mkdtemp(pattern.data());
  }
  const testing::Fleet fleet(a.fleet);
  // After the last hour has ended, but not its day: sums of days are amortised over 24 hours.
  const int64_t later =
      a.fleet.start_ns + static_cast<int64_t>(a.fleet.window_ns) * a.windows + 2 * 3600ll * 1'000'000'000;
  store::StoreOptions options;
  options.memory_budget_bytes = 1u << 30;
  options.limits.retention_ns = options.limits.rollup_retention_ns = 0;
  if (a.fleet.offsets) options.limits.offsets_retention_ns = 1000 * store::kDayNs;
  options.now = [&] { return a.fleet.start_ns + static_cast<int64_t>(a.fleet.window_ns) * (a.windows + 1); };
  const auto open = [&] {
    return a.backend.empty() ? store::Store::Open(folder, options)
                             : store::clickhouse::Open(a.backend, folder, options);
  };
  auto opened = open();
  Must(opened.status());
  auto store = *std::move(opened);

  testing::FleetStream stream(&fleet);
  std::vector<std::unique_ptr<store::StreamMemo>> memos;
  for (int node = 0; node < a.fleet.nodes; ++node) memos.push_back(store->NewMemo());
  uint64_t samples = 0, append_ns = 0, rows = 0;
  size_t pprof_bytes = 0, pprof_files = 0;
  for (int window = 0; window < a.windows; ++window) {
    for (int node = 0; node < a.fleet.nodes; ++node) {
      const testing::FleetStream::Batch batch = stream.Window(node, window);
      for (const auto& point : batch.profiles) rows += point.samples.size();
      if (a.pprof && node % 10 == window % 10) {
        pprof_bytes += PprofBytes(batch, batch.profiles[0], stream.dictionary());
        ++pprof_files;
      }
      const uint64_t before = MonotonicNowNs();
      Must(store->Append(batch.view(), memos[static_cast<size_t>(node)].get()).status());
      append_ns += MonotonicNowNs() - before;
      samples += fleet.SamplesPerBatch(node);
    }
  }
  const uint64_t before = MonotonicNowNs();
  uint64_t hours = 0, housekept_rows = 0;
  for (bool more = true; more;) {
    const auto result = store->Housekeep(later, 60 * kNsPerSecond);
    Must(result.status());
    more = result->more;
    hours += result->hours;
    housekept_rows += result->rows;
  }
  const uint64_t housekeeping_ns = MonotonicNowNs() - before;
  Must(store->Settle());
  const store::StoreStats stats = store->Stats().value();
  store.reset();
  store = *open();  // the log is empty then
  const uint64_t disk = store->Stats().value().disk_bytes;
  if (!a.backend.empty()) AskTwice(*store);
  store.reset();
  const double per = static_cast<double>(samples);
  std::printf("%s raw samples in %s rows; %s services, %s nodes, %s stacks, %s frames, %s strings\n",
              FormatCount(samples).c_str(), FormatCount(rows).c_str(), FormatCount(stats.tries).c_str(),
              FormatCount(stats.nodes).c_str(), FormatCount(stats.stacks).c_str(), FormatCount(stats.frames).c_str(),
              FormatCount(stats.strings).c_str());
  std::map<std::string, uint64_t> families;
  if (a.backend.empty()) families = PrintFamilies(folder, per);
  std::printf("at rest: %s, %.4f B per raw sample\n", FormatBytes(disk).c_str(), static_cast<double>(disk) / per);
  std::printf("append (one stream after the other, synced): %.2f M raw samples/s; housekeeping: %.1f ns per row\n",
              per / static_cast<double>(append_ns) * 1e3,
              static_cast<double>(housekeeping_ns) / static_cast<double>(housekept_rows + 1));
  double pprof_per_sample = 0;
  if (a.pprof) {
    const double each = static_cast<double>(pprof_bytes) / static_cast<double>(pprof_files);
    pprof_per_sample = each / static_cast<double>(a.fleet.samples);
    std::printf("as gzip pprof files: %.0f B each, %.2f B per raw sample\n", each, pprof_per_sample);
  }
  if (a.clickhouse_rows) {
    const auto measured = bench::MeasureClickHouseRows(fleet, a.windows);
    Must(measured.status());
    PrintTable(families, disk, *measured, pprof_per_sample, per);
  }
  if (a.keep.empty()) std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace pyrometer

int main(int argc, char** argv) { return pyrometer::Main(argc, argv); }

#include "tests/bench/clickhouse_rows.h"

#include <chrono>
#include <map>
#include <optional>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>

#include "tests/support/clickhouse_servers.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/profile/dictionary.h"
#include "userspace/store/clickhouse/http.h"
#include "userspace/store/clickhouse/row_binary.h"

namespace pyrometer::bench {
namespace {

using store::clickhouse::HttpClient;
using store::clickhouse::RowWriter;

constexpr uint64_t kTimeoutNs = 600 * kNsPerSecond;
// Of rows before they are sent: a million samples, or some ten thousand stacks of names.
constexpr size_t kInsertBytes = 20u << 20;
constexpr std::string_view kHash = "hash", kDense = "dense";
constexpr std::string_view kTables[] = {
    "samples_hash (series UInt32, time DateTime, stack UInt64, count UInt32) ENGINE = MergeTree ORDER BY (series, "
    "time, "
    "stack)",
    "samples_dense (series UInt32, time DateTime, stack UInt32, count UInt32) ENGINE = MergeTree ORDER BY (series, "
    "time, stack)",
    "stacks_hash (stack UInt64, frames Array(String)) ENGINE = MergeTree ORDER BY stack",
    "stacks_dense (service UInt32, stack UInt32, frames Array(UInt32)) ENGINE = MergeTree ORDER BY (service, stack)",
    "frames_dense (frame UInt32, build_id String, binary String, address UInt64, function String, file String, line "
    "UInt32) ENGINE = MergeTree ORDER BY frame",
    "series_hash (series UInt32, type String, names Array(String), values Array(String)) ENGINE = MergeTree ORDER BY "
    "series",
    "series_dense (series UInt32, type String, names Array(String), values Array(String)) ENGINE = MergeTree ORDER BY "
    "series",
};

// Rows on their way into one table.
class Inserter {
 public:
  Inserter(const HttpClient* client, std::string table) : client_(*client), table_(std::move(table)) {}
  RowWriter Row() { return RowWriter(&bytes_); }
  Status SendIfMany() { return bytes_.size() < kInsertBytes ? OkStatus() : Send(); }
  Status Send() {
    if (bytes_.empty()) return OkStatus();
    RETURN_IF_ERROR(client_.Insert(StrFormat("INSERT INTO bench.%s FORMAT RowBinary", table_), bytes_, {}, kTimeoutNs));
    bytes_.clear();
    return OkStatus();
  }

 private:
  const HttpClient& client_;
  const std::string table_;
  std::string bytes_;
};

// Turns batches into rows of both layouts.
class Loader {
 public:
  Loader(const testing::Fleet* fleet, const HttpClient* client)
      : stream_(fleet),
        dictionary_(stream_.dictionary()),
        samples_hash_(client, "samples_hash"),
        samples_dense_(client, "samples_dense"),
        stacks_hash_(client, "stacks_hash"),
        stacks_dense_(client, "stacks_dense"),
        frames_dense_(client, "frames_dense"),
        series_hash_(client, "series_hash"),
        series_dense_(client, "series_dense") {}

  Status Add(int node, int window) {
    const testing::FleetStream::Batch batch = stream_.Window(node, window);
    stacks_.resize(dictionary_.stack_count());
    frames_.resize(dictionary_.frame_count());
    for (; known_series_ < batch.series->size(); ++known_series_) AddSeries((*batch.series)[known_series_]);
    for (const profile::ProfilePoint& point : batch.profiles) {
      const auto seconds = static_cast<uint32_t>(point.time_ns / static_cast<int64_t>(kNsPerSecond));
      for (const profile::ProfilePoint::Sample& sample : point.samples) {
        if (!stacks_[sample.stack].known) RETURN_IF_ERROR(AddStack(sample.stack, service_of_series_[point.series]));
        const auto count = static_cast<uint32_t>(sample.count);
        AddSample(&samples_hash_, point.series, seconds, count, stacks_[sample.stack].hash);
        AddSample(&samples_dense_, point.series, seconds, count, stacks_[sample.stack].number);
        ++rows_;
        samples_ += sample.count;
      }
    }
    RETURN_IF_ERROR(samples_hash_.SendIfMany());
    return samples_dense_.SendIfMany();
  }
  Status Finish() {
    for (Inserter* inserter : {&samples_hash_, &samples_dense_, &stacks_hash_, &stacks_dense_, &frames_dense_,
                               &series_hash_, &series_dense_}) {
      RETURN_IF_ERROR(inserter->Send());
    }
    return OkStatus();
  }
  uint64_t rows() const { return rows_; }
  uint64_t samples() const { return samples_; }

 private:
  struct KnownStack {
    bool known = false;
    uint32_t number = 0;  // within its service
    uint64_t hash = 0;
  };
  struct Service {
    uint32_t number = 0;
    uint32_t stacks = 0;
  };

  template <typename Stack>
  static void AddSample(Inserter* to, uint32_t series, uint32_t seconds, uint32_t count, Stack stack) {
    RowWriter row = to->Row();
    row.U32(series);
    row.U32(seconds);
    if constexpr (sizeof(Stack) == 8) {
      row.U64(stack);
    } else {
      row.U32(stack);
    }
    row.U32(count);
  }

  void AddSeries(const profile::SeriesKey& series) {
    std::vector<std::string_view> names, values;
    for (const profile::Label& label : series.labels.labels()) {
      names.push_back(label.name);
      values.push_back(label.value);
    }
    for (Inserter* to : {&series_hash_, &series_dense_}) {
      RowWriter row = to->Row();
      row.U32(static_cast<uint32_t>(known_series_));
      row.String(series.type);
      row.Strings(names);
      row.Strings(values);
    }
    const std::string service(series.labels.Get(profile::kLabelService));
    service_of_series_.push_back(
        &services_.try_emplace(service, Service{.number = static_cast<uint32_t>(services_.size())}).first->second);
  }

  Status AddStack(profile::StackId stack, Service* service) {
    const std::vector<profile::FrameId> frames = dictionary_.FramesLeafFirst(stack);
    std::vector<std::string_view> names;
    std::string all;
    for (const profile::FrameId frame : frames) {
      std::string& name = frames_[frame];
      if (name.empty()) name = AddFrame(frame);
      names.push_back(name);
      all.append(name).push_back('\0');
    }
    KnownStack& made = stacks_[stack];
    made = {.known = true, .number = service->stacks++, .hash = std::hash<std::string>()(all)};
    RowWriter dense = stacks_dense_.Row();
    dense.U32(service->number);
    dense.U32(made.number);
    dense.Array(frames);
    RETURN_IF_ERROR(stacks_dense_.SendIfMany());
    RETURN_IF_ERROR(frames_dense_.SendIfMany());
    // After a deploy the same names may be at other addresses.
    const auto [entry, added] = by_hash_.try_emplace(made.hash, stack);
    if (!added) return OkStatus();
    RowWriter hash = stacks_hash_.Row();
    hash.U64(made.hash);
    hash.Strings(names);
    return stacks_hash_.SendIfMany();
  }

  // "function file:line"
  std::string AddFrame(profile::FrameId id) {
    const profile::Frame& frame = dictionary_.frame(id);
    const profile::Mapping& mapping = dictionary_.mapping(frame.mapping);
    const profile::Function& function = dictionary_.function(frame.lines[0].function);
    const std::string_view name = dictionary_.string(function.name), file = dictionary_.string(function.file);
    RowWriter row = frames_dense_.Row();
    row.U32(id);
    row.String(dictionary_.string(mapping.build_id));
    row.String(dictionary_.string(mapping.file));
    row.U64(frame.address.value);
    row.String(name);
    row.String(file);
    row.U32(static_cast<uint32_t>(frame.lines[0].line));
    return StrFormat("%s %s:%d", name, file, frame.lines[0].line);
  }

  testing::FleetStream stream_;
  const profile::Dictionary& dictionary_;
  Inserter samples_hash_, samples_dense_, stacks_hash_, stacks_dense_, frames_dense_, series_hash_, series_dense_;
  std::vector<KnownStack> stacks_;   // by StackId
  std::vector<std::string> frames_;  // by FrameId: their names, "" = not seen yet
  std::unordered_map<uint64_t, profile::StackId> by_hash_;
  std::map<std::string, Service> services_;
  std::vector<Service*> service_of_series_;
  size_t known_series_ = 0;
  uint64_t rows_ = 0, samples_ = 0;
};

StatusOr<uint64_t> AskNumber(const HttpClient& client, const std::string& sql) {
  ASSIGN_OR_RETURN(const std::string text, client.Select(sql, {}, nullptr, kTimeoutNs));
  const std::optional<uint64_t> number = ParseUint64(StripWhitespace(text));
  if (!number) return InternalError(StrFormat("ClickHouse answers '%s' to %s", text, sql));
  return *number;
}

// Every table rewritten as one part, and so compressed in the server's present way.
Status MergeAll(const HttpClient& client) {
  for (const std::string_view table : kTables) {
    const std::string name(table.substr(0, table.find(' ')));
    const std::string parts = StrFormat(
        "SELECT arrayStringConcat(arraySort(groupArray(name)), ' ') FROM system.parts WHERE active AND database = "
        "'bench' "
        "AND table = '%s'",
        name);
    ASSIGN_OR_RETURN(const std::string before, client.Select(parts, {}, nullptr, kTimeoutNs));
    for (const uint64_t until_ns = MonotonicNowNs() + kTimeoutNs;;) {
      // Refused while a merge of the server's own is under way.
      const Status merged = client.Execute(StrFormat("OPTIMIZE TABLE bench.%s FINAL", name),
                                           {{"optimize_throw_if_noop", "1"}}, kTimeoutNs);
      ASSIGN_OR_RETURN(const std::string now, client.Select(parts, {}, nullptr, kTimeoutNs));
      if (merged.ok() && now != before && now.find(' ') == std::string::npos) break;
      if (MonotonicNowNs() > until_ns) {
        return DeadlineExceededError(StrFormat("ClickHouse does not merge bench.%s: %s", name, merged.ToString()));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }
  return OkStatus();
}

StatusOr<ClickHouseRows::Layout> Measure(const HttpClient& client, std::string_view layout, const std::string& codec,
                                         const Loader& loader) {
  const std::string samples = StrFormat("bench.samples_%s", layout);
  ASSIGN_OR_RETURN(const uint64_t rows, AskNumber(client, "SELECT count() FROM " + samples));
  ASSIGN_OR_RETURN(const uint64_t sum, AskNumber(client, "SELECT sum(count) FROM " + samples));
  // Every stack of the samples has its names.
  ASSIGN_OR_RETURN(const uint64_t found,
                   AskNumber(client, StrFormat(layout == kHash ? "SELECT count() FROM %s WHERE stack IN (SELECT stack "
                                                                 "FROM bench.stacks_hash)"
                                                               : "SELECT count() FROM %s WHERE stack IN (SELECT stack "
                                                                 "FROM bench.stacks_dense)",
                                               samples)));
  if (rows != loader.rows() || sum != loader.samples() || found != rows) {
    return DataLossError(StrFormat("ClickHouse has %d rows, %d with a stack, of %d, and %d samples of %d in %s", rows,
                                   found, loader.rows(), sum, loader.samples(), samples));
  }
  const std::string bytes = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'bench' AND ";
  ClickHouseRows::Layout result{.name = StrFormat("%s, %s", layout, codec)};
  ASSIGN_OR_RETURN(result.rows_bytes, AskNumber(client, StrFormat("%stable = 'samples_%s'", bytes, layout)));
  ASSIGN_OR_RETURN(
      result.dictionary_bytes,
      AskNumber(client, StrFormat("%stable LIKE '%%_%s' AND table != 'samples_%s'", bytes, layout, layout)));
  ASSIGN_OR_RETURN(result.stack_column_bytes,
                   AskNumber(client, StrFormat("SELECT data_compressed_bytes FROM system.columns WHERE database = "
                                               "'bench' AND table = 'samples_%s' AND name = 'stack'",
                                               layout)));
  return result;
}

}  // namespace

StatusOr<ClickHouseRows> MeasureClickHouseRows(const testing::Fleet& fleet, int windows) {
  if (const std::string reason = test_support::ClickHouseServers::WhyNot(false); !reason.empty()) {
    return FailedPreconditionError(reason);
  }
  test_support::ClickHouseServers servers(1, 1);
  if (const std::string problem = servers.Start(); !problem.empty()) return UnavailableError(problem);
  ASSIGN_OR_RETURN(const store::clickhouse::Url url, store::clickhouse::ParseUrl(servers.Url("bench")));
  const HttpClient client(url, url.servers[0]);
  ClickHouseRows result;
  ASSIGN_OR_RETURN(const std::string version, client.Select("SELECT version()", {}, nullptr, kTimeoutNs));
  result.version = std::string(StripWhitespace(version));
  RETURN_IF_ERROR(client.Execute("CREATE DATABASE bench", {}, kTimeoutNs));
  for (const std::string_view table : kTables) {
    RETURN_IF_ERROR(client.Execute(StrFormat("CREATE TABLE bench.%s", table), {}, kTimeoutNs));
  }
  Loader loader(&fleet, &client);
  for (int window = 0; window < windows; ++window) {
    for (int node = 0; node < fleet.options().nodes; ++node) RETURN_IF_ERROR(loader.Add(node, window));
  }
  RETURN_IF_ERROR(loader.Finish());
  for (const auto& [method, codec] : {std::pair{"lz4", "LZ4"}, std::pair{"zstd", "ZSTD"}}) {
    if (std::string_view(method) != "lz4") {
      servers.SetCompression(method);
      servers.Kill(0);
      if (const std::string problem = servers.Restart(0); !problem.empty()) return UnavailableError(problem);
    }
    RETURN_IF_ERROR(MergeAll(client));
    for (const std::string_view layout : {kHash, kDense}) {
      ASSIGN_OR_RETURN(ClickHouseRows::Layout measured, Measure(client, layout, codec, loader));
      result.layouts.push_back(std::move(measured));
    }
  }
  return result;
}

}  // namespace pyrometer::bench

#include "userspace/rpc/batch_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/types.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

// Room for the envelope around a Batch and for gRPC's framing.
constexpr size_t kEnvelopeBytes = 1024;
constexpr size_t kMaxTypeBytes = 128;
// errno values end at 4095 in the kernel's ABI (MAX_ERRNO).
constexpr int32_t kMaxErrno = 4095;
constexpr uint64_t kMaxTotal = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

bool IsTypeName(std::string_view name) {
  if (name.empty() || name.size() > kMaxTypeBytes) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    const bool later = (c >= '0' && c <= '9') || c == '.' || c == ':';
    if (!letter && (i == 0 || !later)) return false;
  }
  return true;
}

// Adds to `*total`; false when the sum leaves what a profile (int64) can hold.
bool AddBounded(uint64_t value, uint64_t* total) {
  if (value > kMaxTotal - *total) return false;
  *total += value;
  return true;
}

bool ValuesFollowFromCounts(const profile::ProfilePoint& point) {
  for (const profile::ProfilePoint::Sample& sample : point.samples) {
    uint64_t product = 0;
    if (__builtin_mul_overflow(sample.count, point.period_ns, &product) || product != sample.value) return false;
  }
  return true;
}

}  // namespace

// ---- Encoding --------------------------------------------------------------------------------------

struct StreamEncoder::Tables {
  TableWriter writer;
  std::map<profile::SeriesKey, uint32_t> series;  // -> wire id
  bool fresh = true;                              // nothing sent yet with these tables
  bool first_of_stream = true;
};

StreamEncoder::StreamEncoder() : tables_(std::make_unique<Tables>()) {}
StreamEncoder::~StreamEncoder() = default;
StreamEncoder::StreamEncoder(StreamEncoder&&) noexcept = default;

namespace {

class BatchWriter {
 public:
  BatchWriter(const profile::Batch& batch, TableWriter* writer, std::map<profile::SeriesKey, uint32_t>* series,
              v1::Batch* message)
      : batch_(batch), writer_(*writer), series_(*series), mapper_(batch.dictionary, &writer->tables), out_(*message) {}

  Status Write() {
    out_.set_sequence(batch_.sequence);
    wire_series_.assign(batch_.series.size(), 0);
    for (const profile::ProfilePoint& point : batch_.profiles) WriteProfile(point);
    for (const profile::HistogramPoint& point : batch_.histograms) WriteHistogram(point);
    for (const profile::CounterPoint& point : batch_.counters) {
      v1::CounterPoint* wire = out_.add_counters();
      wire->set_series(Series(point.series));
      wire->set_time_ns(point.time_ns);
      wire->set_duration_ns(point.duration_ns);
      wire->set_value(point.value);
    }
    return writer_.Emit(&out_);
  }

 private:
  uint32_t Series(uint32_t index) {
    uint32_t& wire_id = wire_series_.at(index);
    if (wire_id != 0) return wire_id;
    const profile::SeriesKey& key = batch_.series[index];
    const auto [entry, added] = series_.try_emplace(key, static_cast<uint32_t>(series_.size() + 1));
    wire_id = entry->second;
    if (added) {
      v1::Series* wire = out_.add_series();
      wire->set_type(key.type);
      for (const profile::Label& label : key.labels.labels()) {
        wire->add_label_names(writer_.tables.InternString(label.name));
        wire->add_label_values(writer_.tables.InternString(label.value));
      }
    }
    return wire_id;
  }

  void WriteProfile(const profile::ProfilePoint& point) {
    v1::ProfilePoint* wire = out_.add_profiles();
    wire->set_series(Series(point.series));
    wire->set_time_ns(point.time_ns);
    wire->set_duration_ns(point.duration_ns);
    wire->set_period_ns(point.period_ns);
    const bool derived = ValuesFollowFromCounts(point);
    for (const profile::ProfilePoint::Sample& sample : point.samples) {
      wire->add_stacks(mapper_.Stack(sample.stack));
      wire->add_counts(sample.count);
      if (!derived) wire->add_values(sample.value);
    }
  }

  void WriteHistogram(const profile::HistogramPoint& point) {
    v1::HistogramPoint* wire = out_.add_histograms();
    wire->set_series(Series(point.series));
    wire->set_time_ns(point.time_ns);
    wire->set_duration_ns(point.duration_ns);
    for (const profile::Histogram::Bucket& bucket : point.histogram.buckets()) {
      wire->add_buckets(bucket.index);
      wire->add_counts(bucket.count);
    }
    wire->set_sum(point.histogram.sum());
    wire->set_max(point.histogram.max());
    for (const auto& [error, calls] : point.errors) (*wire->mutable_errors())[error] = calls;
    for (const profile::Exemplar& exemplar : point.exemplars) {
      v1::Exemplar* to = wire->add_exemplars();
      to->set_time_ns(exemplar.time_ns);
      to->set_value(exemplar.value);
      to->set_stack(mapper_.Stack(exemplar.stack));
      to->set_comm(writer_.tables.InternString(WireText(exemplar.comm, kMaxCommBytes)));
      to->set_tid(exemplar.tid);
    }
  }

  const profile::Batch& batch_;
  TableWriter& writer_;
  std::map<profile::SeriesKey, uint32_t>& series_;
  profile::DictionaryMapper mapper_;
  v1::Batch& out_;
  std::vector<uint32_t> wire_series_;  // index in batch_.series -> wire id, 0 = not yet
};

}  // namespace

Status StreamEncoder::Encode(const profile::Batch& batch, v1::Batch* message) {
  // What the peer could not follow, or should not keep for ever: new ones with this batch.
  const auto start_new_tables = [this] {
    const bool first = tables_->first_of_stream;
    tables_ = std::make_unique<Tables>();
    tables_->first_of_stream = first;
  };
  if (tables_->writer.tables.stack_count() > kSoftMaxStacks || tables_->series.size() > kSoftMaxSeries ||
      tables_->writer.string_bytes() > kSoftMaxTableBytes) {
    start_new_tables();
  }
  message->Clear();
  Status status = BatchWriter(batch, &tables_->writer, &tables_->series, message).Write();
  if (tables_->fresh && !tables_->first_of_stream) message->set_reset_tables(true);
  if (status.ok() && message->ByteSizeLong() > kMaxMessageBytes - kEnvelopeBytes) {
    status = InvalidArgumentError(StrFormat("batch %d takes %s; the limit is %s", batch.sequence,
                                            FormatBytes(message->ByteSizeLong()),
                                            FormatBytes(kMaxMessageBytes - kEnvelopeBytes)));
  }
  if (!status.ok()) {
    start_new_tables();  // they hold definitions that the peer will not get
    message->Clear();
    return status;
  }
  tables_->fresh = false;
  tables_->first_of_stream = false;
  return OkStatus();
}

StatusOr<std::string> SerializeBatch(const profile::Batch& batch) {
  v1::Batch message;
  RETURN_IF_ERROR(StreamEncoder().Encode(batch, &message));
  message.set_agent_id(WireText(batch.agent_id, kMaxCommBytes));
  message.set_node(WireText(batch.node, kMaxCommBytes));
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

// ---- Decoding --------------------------------------------------------------------------------------

struct StreamDecoder::Tables {
  TableReader reader{kMaxTableEntries, kMaxTableBytes};
  std::vector<profile::SeriesKey> series = {{}};  // by wire id
  size_t label_bytes = 0;                         // of all series
};

StreamDecoder::StreamDecoder(std::string agent_id, std::string node)
    : agent_id_(std::move(agent_id)), node_(std::move(node)), tables_(std::make_unique<Tables>()) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;

namespace {

StatusOr<profile::SeriesKey> ReadSeries(const v1::Series& wire, const TableReader& reader, size_t* label_bytes) {
  if (!IsTypeName(wire.type())) {
    return InvalidArgumentError(StrFormat("'%s' is no name of a profile type", WireText(wire.type(), kMaxTypeBytes)));
  }
  if (wire.label_names_size() != wire.label_values_size()) {
    return InvalidArgumentError(
        StrFormat("a series with %d label names and %d values", wire.label_names_size(), wire.label_values_size()));
  }
  if (static_cast<size_t>(wire.label_names_size()) > profile::kMaxLabelsPerSet) {
    return InvalidArgumentError(
        StrFormat("%d labels on one series; the limit is %d", wire.label_names_size(), profile::kMaxLabelsPerSet));
  }
  std::vector<profile::Label> labels;
  for (int i = 0; i < wire.label_names_size(); ++i) {
    ASSIGN_OR_RETURN(const profile::StringId name, reader.String(wire.label_names(i)));
    ASSIGN_OR_RETURN(const profile::StringId value, reader.String(wire.label_values(i)));
    labels.push_back({std::string(reader.tables.string(name)), std::string(reader.tables.string(value))});
    *label_bytes += labels.back().name.size() + labels.back().value.size();
  }
  // The same few strings may be named by millions of series: bound what they grow to.
  if (*label_bytes > kMaxSeriesLabelBytes) {
    return InvalidArgumentError(StrFormat("labels of all series take over %s", FormatBytes(kMaxSeriesLabelBytes)));
  }
  ASSIGN_OR_RETURN(profile::LabelSet set, profile::LabelSet::Make(std::move(labels)));
  return profile::SeriesKey{wire.type(), std::move(set)};
}

class BatchReader {
 public:
  BatchReader(const TableReader& reader, const std::vector<profile::SeriesKey>& series, profile::Batch* batch)
      : reader_(reader), series_(series), mapper_(reader.tables, &batch->dictionary), batch_(*batch) {
    batch_series_.assign(series.size(), std::nullopt);
  }

  Status Read(const v1::Batch& message) {
    const size_t points = static_cast<size_t>(message.profiles_size()) +
                          static_cast<size_t>(message.histograms_size()) + static_cast<size_t>(message.counters_size());
    if (points > kMaxPointsPerBatch) {
      return InvalidArgumentError(StrFormat("%d points in one batch; the limit is %d", points, kMaxPointsPerBatch));
    }
    for (const v1::ProfilePoint& wire : message.profiles()) RETURN_IF_ERROR(ReadProfile(wire));
    for (const v1::HistogramPoint& wire : message.histograms()) RETURN_IF_ERROR(ReadHistogram(wire));
    for (const v1::CounterPoint& wire : message.counters()) {
      ASSIGN_OR_RETURN(const uint32_t series, Series(wire.series()));
      batch_.counters.push_back({series, wire.time_ns(), wire.duration_ns(), wire.value()});
    }
    return OkStatus();
  }

 private:
  StatusOr<uint32_t> Series(uint32_t wire_id) {
    if (wire_id == 0 || wire_id >= series_.size()) {
      return InvalidArgumentError(StrFormat("series %d was never defined (%d are)", wire_id, series_.size() - 1));
    }
    std::optional<uint32_t>& index = batch_series_[wire_id];
    if (!index) {
      index = static_cast<uint32_t>(batch_.series.size());
      batch_.series.push_back(series_[wire_id]);
    }
    return *index;
  }

  StatusOr<profile::StackId> Stack(uint32_t wire_id) {
    ASSIGN_OR_RETURN(const profile::StackId id, reader_.Stack(wire_id));
    return mapper_.Stack(id);
  }

  Status ReadProfile(const v1::ProfilePoint& wire) {
    if (wire.counts_size() != wire.stacks_size() ||
        (wire.values_size() != 0 && wire.values_size() != wire.stacks_size())) {
      return InvalidArgumentError(StrFormat("a profile with columns of %d stacks, %d counts, %d values",
                                            wire.stacks_size(), wire.counts_size(), wire.values_size()));
    }
    profile::ProfilePoint point{
        .time_ns = wire.time_ns(), .duration_ns = wire.duration_ns(), .period_ns = wire.period_ns()};
    ASSIGN_OR_RETURN(point.series, Series(wire.series()));
    point.samples.reserve(static_cast<size_t>(wire.stacks_size()));
    uint64_t counts = 0, values = 0;
    for (int i = 0; i < wire.stacks_size(); ++i) {
      profile::ProfilePoint::Sample sample{.count = wire.counts(i)};
      ASSIGN_OR_RETURN(sample.stack, Stack(wire.stacks(i)));
      if (wire.values_size() != 0) {
        sample.value = wire.values(i);
      } else if (__builtin_mul_overflow(sample.count, point.period_ns, &sample.value)) {
        return InvalidArgumentError("a profile whose value (count times period) is out of range");
      }
      if (!AddBounded(sample.count, &counts) || !AddBounded(sample.value, &values)) {
        return InvalidArgumentError("a profile whose total is out of range");
      }
      point.samples.push_back(sample);
    }
    batch_.profiles.push_back(std::move(point));
    return OkStatus();
  }

  Status ReadHistogram(const v1::HistogramPoint& wire) {
    if (wire.buckets_size() != wire.counts_size()) {
      return InvalidArgumentError(
          StrFormat("a histogram with columns of %d buckets, %d counts", wire.buckets_size(), wire.counts_size()));
    }
    if (static_cast<uint32_t>(wire.buckets_size()) > profile::kHistogramBuckets) {
      return InvalidArgumentError(
          StrFormat("a histogram with %d buckets; there are %d", wire.buckets_size(), profile::kHistogramBuckets));
    }
    profile::HistogramPoint point{.time_ns = wire.time_ns(), .duration_ns = wire.duration_ns()};
    ASSIGN_OR_RETURN(point.series, Series(wire.series()));
    uint64_t counts = 0;
    for (int i = 0; i < wire.buckets_size(); ++i) {
      if (wire.buckets(i) >= profile::kHistogramBuckets || !AddBounded(wire.counts(i), &counts)) {
        return InvalidArgumentError(StrFormat("a histogram bucket out of range (index %d)", wire.buckets(i)));
      }
      if (wire.counts(i) != 0) point.histogram.AddBucket(wire.buckets(i), wire.counts(i));
    }
    point.histogram.AddSum(wire.sum());
    point.histogram.ObserveMax(wire.max());
    for (const auto& [error, calls] : wire.errors()) {
      if (error <= 0 || error > kMaxErrno) return InvalidArgumentError(StrFormat("errno %d does not exist", error));
      point.errors[error] = calls;
    }
    for (const v1::Exemplar& from : wire.exemplars()) {
      profile::Exemplar exemplar{.time_ns = from.time_ns(), .value = from.value(), .tid = from.tid()};
      ASSIGN_OR_RETURN(exemplar.stack, Stack(from.stack()));
      ASSIGN_OR_RETURN(const profile::StringId comm, reader_.String(from.comm()));
      if (reader_.tables.string(comm).size() > kMaxCommBytes) {
        return InvalidArgumentError(StrFormat("a thread name over %d bytes", kMaxCommBytes));
      }
      exemplar.comm = reader_.tables.string(comm);
      point.exemplars.push_back(std::move(exemplar));
    }
    batch_.histograms.push_back(std::move(point));
    return OkStatus();
  }

  const TableReader& reader_;
  const std::vector<profile::SeriesKey>& series_;
  profile::DictionaryMapper mapper_;
  profile::Batch& batch_;
  std::vector<std::optional<uint32_t>> batch_series_;  // wire id -> index in batch_.series
};

}  // namespace

StatusOr<profile::Batch> StreamDecoder::Decode(const v1::Batch& message) {
  if (broken_) return InvalidArgumentError("an earlier batch of this stream was malformed");
  broken_ = true;  // until all of it has been read
  if (message.sequence() == 0) return InvalidArgumentError("a batch without sequence number");
  if (message.reset_tables()) tables_ = std::make_unique<Tables>();
  RETURN_IF_ERROR(tables_->reader.Read(message));
  if (tables_->series.size() + static_cast<size_t>(message.series_size()) > kMaxTableEntries) {
    return InvalidArgumentError(StrFormat("more than %d series", kMaxTableEntries));
  }
  for (const v1::Series& wire : message.series()) {
    ASSIGN_OR_RETURN(profile::SeriesKey key, ReadSeries(wire, tables_->reader, &tables_->label_bytes));
    tables_->series.push_back(std::move(key));
  }
  profile::Batch batch;
  batch.agent_id = agent_id_;
  batch.node = node_;
  batch.sequence = message.sequence();
  RETURN_IF_ERROR(BatchReader(tables_->reader, tables_->series, &batch).Read(message));
  broken_ = false;
  return batch;
}

StatusOr<profile::Batch> ParseBatch(std::string_view bytes) {
  if (bytes.size() > kMaxMessageBytes) {
    return InvalidArgumentError(
        StrFormat("a batch of %s; the limit is %s", FormatBytes(bytes.size()), FormatBytes(kMaxMessageBytes)));
  }
  SilenceProtobuf();
  v1::Batch message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return InvalidArgumentError("not a batch in protobuf form");
  }
  return StreamDecoder(message.agent_id(), message.node()).Decode(message);
}

}  // namespace pyrometer::rpc

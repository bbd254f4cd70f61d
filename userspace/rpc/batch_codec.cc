#include "userspace/rpc/batch_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/stream_tables.h"
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

  // About what they take at the other end (stream_tables.h).
  uint64_t ReceiverBytes() const {
    const profile::Dictionary& d = writer.tables;
    return writer.string_bytes() + d.string_count() * 16 + d.function_count() * 24 + d.frame_count() * 56 +
           d.stack_count() * 16 + series.size() * 256;
  }
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
    wire->mutable_offsets_ms()->Assign(point.offsets_ms.begin(), point.offsets_ms.end());
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
      to->set_call(WireText(exemplar.call, kMaxCallBytes));
      to->set_weight(exemplar.weight);
      to->set_typical(exemplar.typical);
      const auto name = [this](std::string_view text) {
        return writer_.tables.InternString(WireText(text, kMaxCommBytes));
      };
      for (const profile::TimePart& part : exemplar.split) {
        if (to->split_size() == static_cast<int>(kMaxTimeParts)) break;
        v1::TimePart* wire_part = to->add_split();
        wire_part->set_cause(name(part.cause));
        wire_part->set_ns(part.ns);
      }
      if (exemplar.waker.wait_ns == 0) continue;
      v1::Waker* waker = to->mutable_waker();
      waker->set_stack(mapper_.Stack(exemplar.waker.stack));
      waker->set_comm(name(exemplar.waker.comm));
      waker->set_tid(exemplar.waker.tid);
      waker->set_cause(name(exemplar.waker.cause));
      waker->set_wait_ns(exemplar.waker.wait_ns);
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
      tables_->writer.string_bytes() > kSoftMaxTableBytes ||
      (max_table_bytes_ != 0 && tables_->ReceiverBytes() > max_table_bytes_)) {
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
  message.set_tenant(WireText(batch.tenant, kMaxCommBytes));
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
  StreamTables definitions{kMaxTableEntries, kMaxTableBytes};
  std::vector<profile::SeriesKey> series = {{}};  // by wire id
  size_t label_bytes = 0;                         // of all series
};

StreamDecoder::StreamDecoder(std::string agent_id, std::string node, std::string tenant)
    : agent_id_(std::move(agent_id)),
      node_(std::move(node)),
      tenant_(std::move(tenant)),
      tables_(std::make_unique<Tables>()) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;

uint64_t StreamDecoder::bytes() const {
  return tables_->definitions.bytes() + tables_->series.capacity() * sizeof(profile::SeriesKey) +
         2 * tables_->label_bytes;
}

namespace {

StatusOr<std::string> ReadString(const StreamTables& tables, uint32_t id) {
  if (id < tables.string_count()) return std::string(tables.string(id));
  return InvalidArgumentError(StrFormat("string %d was never defined (%d are)", id, tables.string_count() - 1));
}

StatusOr<profile::SeriesKey> ReadSeries(const v1::Series& wire, const StreamTables& tables, size_t* label_bytes) {
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
    profile::Label label;
    ASSIGN_OR_RETURN(label.name, ReadString(tables, wire.label_names(i)));
    ASSIGN_OR_RETURN(label.value, ReadString(tables, wire.label_values(i)));
    labels.push_back(std::move(label));
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
  BatchReader(const StreamTables& tables, size_t series_count, DecodedBatch* batch)
      : tables_(tables), series_count_(series_count), batch_(*batch) {}

  Status Read(const v1::Batch& message) {
    const size_t points = static_cast<size_t>(message.profiles_size()) +
                          static_cast<size_t>(message.histograms_size()) + static_cast<size_t>(message.counters_size());
    if (points > kMaxPointsPerBatch) {
      return InvalidArgumentError(StrFormat("%d points in one batch; the limit is %d", points, kMaxPointsPerBatch));
    }
    for (const v1::ProfilePoint& wire : message.profiles()) RETURN_IF_ERROR(ReadProfile(wire));
    for (const v1::HistogramPoint& wire : message.histograms()) RETURN_IF_ERROR(ReadHistogram(wire));
    for (const v1::CounterPoint& wire : message.counters()) {
      RETURN_IF_ERROR(CheckSeries(wire.series()));
      batch_.counters.push_back({wire.series(), wire.time_ns(), wire.duration_ns(), wire.value()});
    }
    return OkStatus();
  }

 private:
  Status CheckSeries(uint32_t id) const {
    if (id != 0 && id < series_count_) return OkStatus();
    return InvalidArgumentError(StrFormat("series %d was never defined (%d are)", id, series_count_ - 1));
  }
  Status CheckStack(uint32_t id) const {
    if (id < tables_.stack_count()) return OkStatus();
    return InvalidArgumentError(StrFormat("stack %d was never defined (%d are)", id, tables_.stack_count() - 1));
  }

  Status ReadProfile(const v1::ProfilePoint& wire) {
    if (wire.counts_size() != wire.stacks_size() ||
        (wire.values_size() != 0 && wire.values_size() != wire.stacks_size())) {
      return InvalidArgumentError(StrFormat("a profile with columns of %d stacks, %d counts, %d values",
                                            wire.stacks_size(), wire.counts_size(), wire.values_size()));
    }
    RETURN_IF_ERROR(CheckSeries(wire.series()));
    profile::ProfilePoint point{.series = wire.series(),
                                .time_ns = wire.time_ns(),
                                .duration_ns = wire.duration_ns(),
                                .period_ns = wire.period_ns()};
    point.samples.reserve(static_cast<size_t>(wire.stacks_size()));
    uint64_t counts = 0, values = 0;
    for (int i = 0; i < wire.stacks_size(); ++i) {
      profile::ProfilePoint::Sample sample{.stack = wire.stacks(i), .count = wire.counts(i)};
      if (sample.stack >= tables_.stack_count()) return CheckStack(sample.stack);
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
    if (wire.offsets_ms_size() != 0) {
      if (static_cast<uint64_t>(wire.offsets_ms_size()) != counts) {
        return InvalidArgumentError(
            StrFormat("a profile with %d offsets of %d samples", wire.offsets_ms_size(), counts));
      }
      point.offsets_ms.reserve(counts);
      for (const uint32_t offset : wire.offsets_ms()) {
        if (offset > UINT16_MAX) return InvalidArgumentError(StrFormat("an offset of %d ms", offset));
        point.offsets_ms.push_back(static_cast<uint16_t>(offset));
      }
    }
    batch_.profiles.push_back(std::move(point));
    return OkStatus();
  }

  // Names of threads and of causes.
  Status ReadShortString(uint32_t id, std::string* text) {
    ASSIGN_OR_RETURN(*text, ReadString(tables_, id));
    if (text->size() <= kMaxCommBytes) return OkStatus();
    return InvalidArgumentError(StrFormat("a thread name over %d bytes", kMaxCommBytes));
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
    RETURN_IF_ERROR(CheckSeries(wire.series()));
    profile::HistogramPoint point{
        .series = wire.series(), .time_ns = wire.time_ns(), .duration_ns = wire.duration_ns()};
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
      profile::Exemplar exemplar{
          .time_ns = from.time_ns(), .value = from.value(), .stack = from.stack(), .tid = from.tid()};
      RETURN_IF_ERROR(CheckStack(from.stack()));
      RETURN_IF_ERROR(ReadShortString(from.comm(), &exemplar.comm));
      if (from.call().size() > kMaxCallBytes) {
        return InvalidArgumentError(StrFormat("an exemplar's call over %d bytes", kMaxCallBytes));
      }
      exemplar.call = from.call();
      exemplar.weight = from.weight();
      exemplar.typical = from.typical();
      if (from.split_size() > static_cast<int>(kMaxTimeParts)) {
        return InvalidArgumentError(StrFormat("an exemplar's time in over %d parts", kMaxTimeParts));
      }
      for (const v1::TimePart& part : from.split()) {
        profile::TimePart& to = exemplar.split.emplace_back();
        to.ns = part.ns();
        RETURN_IF_ERROR(ReadShortString(part.cause(), &to.cause));
      }
      if (from.has_waker() && from.waker().wait_ns() != 0) {
        const v1::Waker& waker = from.waker();
        RETURN_IF_ERROR(CheckStack(waker.stack()));
        exemplar.waker.stack = waker.stack();
        exemplar.waker.tid = waker.tid();
        exemplar.waker.wait_ns = waker.wait_ns();
        RETURN_IF_ERROR(ReadShortString(waker.comm(), &exemplar.waker.comm));
        RETURN_IF_ERROR(ReadShortString(waker.cause(), &exemplar.waker.cause));
      }
      point.exemplars.push_back(std::move(exemplar));
    }
    batch_.histograms.push_back(std::move(point));
    return OkStatus();
  }

  const StreamTables& tables_;
  const size_t series_count_;  // with entry 0
  DecodedBatch& batch_;
};

}  // namespace

StatusOr<DecodedBatch> StreamDecoder::DecodeInPlace(const v1::Batch& message) {
  if (broken_) return InvalidArgumentError("an earlier batch of this stream was malformed");
  broken_ = true;  // until all of it has been read
  if (message.sequence() == 0) return InvalidArgumentError("a batch without sequence number");
  if (message.reset_tables()) {
    tables_ = std::make_unique<Tables>();
    ++generation_;
  }
  RETURN_IF_ERROR(tables_->definitions.Read(message));
  if (tables_->series.size() + static_cast<size_t>(message.series_size()) > kMaxTableEntries) {
    return InvalidArgumentError(StrFormat("more than %d series", kMaxTableEntries));
  }
  for (const v1::Series& wire : message.series()) {
    ASSIGN_OR_RETURN(profile::SeriesKey key, ReadSeries(wire, tables_->definitions, &tables_->label_bytes));
    tables_->series.push_back(std::move(key));
  }
  DecodedBatch batch{.sequence = message.sequence()};
  RETURN_IF_ERROR(BatchReader(tables_->definitions, tables_->series.size(), &batch).Read(message));
  broken_ = false;
  return batch;
}

profile::BatchView StreamDecoder::View(const DecodedBatch& decoded) const {
  return {.tenant = tenant_,
          .agent_id = agent_id_,
          .node = node_,
          .sequence = decoded.sequence,
          .definitions = &tables_->definitions,
          .series = tables_->series,
          .profiles = decoded.profiles,
          .histograms = decoded.histograms,
          .counters = decoded.counters};
}

StatusOr<profile::Batch> StreamDecoder::Decode(const v1::Batch& message) {
  ASSIGN_OR_RETURN(const DecodedBatch decoded, DecodeInPlace(message));
  return profile::CopyBatch(View(decoded));
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
  return StreamDecoder(message.agent_id(), message.node(), message.tenant()).Decode(message);
}

}  // namespace pyrometer::rpc

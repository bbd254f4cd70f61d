#include <map>
#include <string>
#include <utility>
#include <vector>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/types.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

// A client asked for the profile and trusts its store more than a store its agents: whole-fleet merges
// hold tens of millions of stacks.
constexpr size_t kMaxProfileEntries = 128u << 20;
constexpr size_t kMaxProfileStringBytes = size_t{2} << 30;
// pprof files seen carry up to 4 values per sample.
constexpr int kMaxValueTypes = 64;

void WriteValueType(const profile::ValueType& type, v1::ValueType* wire) {
  wire->set_type(WireText(type.type, kMaxStringBytes));
  wire->set_unit(WireText(type.unit, kMaxStringBytes));
}

void WriteCounts(const std::map<std::string, uint64_t>& counts, google::protobuf::Map<std::string, uint64_t>* wire) {
  for (const auto& [reason, count] : counts) (*wire)[WireText(reason, kMaxStringBytes)] += count;
}

void WriteHeader(const profile::Profile& profile, v1::ProfileChunk* chunk) {
  for (const profile::ValueType& type : profile.value_types) WriteValueType(type, chunk->add_value_types());
  chunk->set_default_value(static_cast<uint32_t>(profile.default_value));
  WriteValueType(profile.period_type, chunk->mutable_period_type());
  chunk->set_period(profile.period);
  chunk->set_time_ns(profile.time_ns);
  chunk->set_duration_ns(profile.duration_ns);
  for (const std::string& comment : profile.comments) chunk->add_comments(WireText(comment, kMaxStringBytes));
  v1::Accounting* accounting = chunk->mutable_accounting();
  accounting->set_taken(profile.accounting.taken);
  accounting->set_delivered(profile.accounting.delivered);
  WriteCounts(profile.accounting.dropped, accounting->mutable_dropped());
  WriteCounts(profile.accounting.stop_reasons, accounting->mutable_stop_reasons());
  WriteCounts(profile.accounting.miss_reasons, accounting->mutable_miss_reasons());
  accounting->set_expected(profile.accounting.expected);
  WriteCounts(profile.accounting.means, accounting->mutable_means());
  accounting->set_frames(profile.accounting.frames);
}

}  // namespace

Status EncodeProfile(const profile::Profile& profile, const std::function<Status(const v1::ProfileChunk&)>& sink,
                     size_t chunk_bytes) {
  TableWriter writer;
  profile::DictionaryMapper mapper(profile.dictionary, &writer.tables);
  size_t labels_sent = 1;
  v1::ProfileChunk chunk;
  WriteHeader(profile, &chunk);

  const auto flush = [&]() -> Status {
    for (; labels_sent < writer.tables.label_set_count(); ++labels_sent) {
      WriteLabels(writer.tables.label_set(static_cast<profile::LabelSetId>(labels_sent)), chunk.add_label_sets());
    }
    RETURN_IF_ERROR(writer.Emit(&chunk));
    if (chunk.ByteSizeLong() > kMaxMessageBytes) {
      return InvalidArgumentError(StrFormat("a piece of the profile takes %s; the limit is %s",
                                            FormatBytes(chunk.ByteSizeLong()), FormatBytes(kMaxMessageBytes)));
    }
    RETURN_IF_ERROR(sink(chunk));
    chunk.Clear();
    return OkStatus();
  };

  // Definitions weigh some 40 bytes per new stack node, samples some 10: an estimate is enough here,
  // the true size is checked before sending.
  size_t tables_before = 0, sample_bytes = 0;
  const auto table_weight = [&] {
    return 40 * (writer.tables.stack_count() + writer.tables.frame_count() + writer.tables.function_count() +
                 writer.tables.string_count() + writer.tables.label_set_count());
  };
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const profile::Profile::Sample& sample = profile.sample(i);
    chunk.add_sample_labels(mapper.LabelSet(sample.labels));
    chunk.add_sample_stacks(mapper.Stack(sample.stack));
    for (const int64_t value : profile.values(i)) chunk.add_sample_values(value);
    sample_bytes += 6 + 6 * profile.value_types.size();
    if (sample_bytes + table_weight() - tables_before >= chunk_bytes) {
      RETURN_IF_ERROR(flush());
      sample_bytes = 0;
      tables_before = table_weight();
    }
  }
  // Always at least one chunk: it carries the header.
  return flush();
}

struct ProfileDecoder::State {
  TableReader reader{kMaxProfileEntries, kMaxProfileStringBytes};
  std::vector<profile::LabelSetId> label_sets = {0};  // by wire id
  profile::Profile profile;
  bool has_header = false;
  bool broken = false;

  Status ReadHeader(const v1::ProfileChunk& chunk);
  Status Read(const v1::ProfileChunk& chunk);
};

ProfileDecoder::ProfileDecoder() : state_(std::make_unique<State>()) {}
ProfileDecoder::~ProfileDecoder() = default;

Status ProfileDecoder::State::ReadHeader(const v1::ProfileChunk& chunk) {
  if (chunk.value_types_size() == 0 || chunk.value_types_size() > kMaxValueTypes) {
    return InvalidArgumentError(StrFormat("a profile with %d value types", chunk.value_types_size()));
  }
  for (const v1::ValueType& type : chunk.value_types()) profile.value_types.push_back({type.type(), type.unit()});
  if (chunk.default_value() >= profile.value_types.size()) {
    return InvalidArgumentError(
        StrFormat("default value type %d of %d", chunk.default_value(), profile.value_types.size()));
  }
  profile.default_value = chunk.default_value();
  profile.period_type = {chunk.period_type().type(), chunk.period_type().unit()};
  profile.period = chunk.period();
  profile.time_ns = chunk.time_ns();
  profile.duration_ns = chunk.duration_ns();
  profile.comments.assign(chunk.comments().begin(), chunk.comments().end());
  const v1::Accounting& accounting = chunk.accounting();
  profile.accounting.taken = accounting.taken();
  profile.accounting.delivered = accounting.delivered();
  profile.accounting.dropped = {accounting.dropped().begin(), accounting.dropped().end()};
  profile.accounting.stop_reasons = {accounting.stop_reasons().begin(), accounting.stop_reasons().end()};
  profile.accounting.miss_reasons = {accounting.miss_reasons().begin(), accounting.miss_reasons().end()};
  profile.accounting.expected = accounting.expected();
  profile.accounting.means = {accounting.means().begin(), accounting.means().end()};
  profile.accounting.frames = accounting.frames();
  return OkStatus();
}

Status ProfileDecoder::State::Read(const v1::ProfileChunk& chunk) {
  if (!has_header) {
    RETURN_IF_ERROR(ReadHeader(chunk));
    has_header = true;
  }
  RETURN_IF_ERROR(reader.Read(chunk));
  if (label_sets.size() + static_cast<size_t>(chunk.label_sets_size()) > kMaxProfileEntries) {
    return InvalidArgumentError(StrFormat("more than %d label sets", kMaxProfileEntries));
  }
  for (const v1::Labels& wire : chunk.label_sets()) {
    ASSIGN_OR_RETURN(const profile::LabelSet labels, ReadLabels(wire));
    label_sets.push_back(reader.tables.InternLabelSet(labels));
  }
  const size_t samples = static_cast<size_t>(chunk.sample_stacks_size());
  const size_t width = profile.value_types.size();
  if (static_cast<size_t>(chunk.sample_labels_size()) != samples ||
      static_cast<size_t>(chunk.sample_values_size()) != samples * width) {
    return InvalidArgumentError(StrFormat("a profile with columns of %d stacks, %d label sets, %d values", samples,
                                          chunk.sample_labels_size(), chunk.sample_values_size()));
  }
  for (size_t i = 0; i < samples; ++i) {
    ASSIGN_OR_RETURN(const profile::StackId stack, reader.Stack(chunk.sample_stacks(static_cast<int>(i))));
    const uint32_t labels = chunk.sample_labels(static_cast<int>(i));
    if (labels >= label_sets.size()) {
      return InvalidArgumentError(StrFormat("label set %d was never defined (%d are)", labels, label_sets.size() - 1));
    }
    profile.Add(label_sets[labels], stack, std::span(chunk.sample_values().data() + i * width, width));
  }
  return OkStatus();
}

Status ProfileDecoder::Add(const v1::ProfileChunk& chunk) {
  if (state_->broken) return InvalidArgumentError("an earlier piece of this profile was malformed");
  state_->broken = true;  // until all of it has been read
  RETURN_IF_ERROR(state_->Read(chunk));
  state_->broken = false;
  return OkStatus();
}

StatusOr<profile::Profile> ProfileDecoder::Finish() {
  if (state_->broken) return InvalidArgumentError("a piece of this profile was malformed");
  if (!state_->has_header) return InvalidArgumentError("a profile without any piece");
  state_->profile.dictionary = std::move(state_->reader.tables);
  profile::Profile profile = std::move(state_->profile);
  state_ = std::make_unique<State>();
  return profile;
}

}  // namespace pyrometer::rpc

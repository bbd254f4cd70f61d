// Our tables become pprof's: a frame is a location, ids are ours (dense, from 1). Only entries that a
// sample reaches are written, since a dictionary may be shared with other profiles.
#include <algorithm>
#include <limits>
#include <unordered_map>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "proto/pprof/profile.pb.h"
#include "ui-export/formats/format.h"
#include "ui-export/formats/frame_kinds.h"
#include "ui-export/formats/json_text.h"
#include "ui-export/formats/pprof.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

namespace pb = perftools::profiles;
using profile::FrameKind;

constexpr std::string_view kAccountingPrefix = "pyrometer.accounting ";
constexpr uint32_t kLengthDelimited = 2;  // protobuf wire type

// Samples are by far the largest part; the rest of the message must still fit under 2 GiB.
constexpr int kMaxSampleBytes = 1 << 30;

constexpr uint32_t LengthTag(int field) { return static_cast<uint32_t>(field) << 3 | kLengthDelimited; }

class PprofWriter {
 public:
  PprofWriter(const profile::Profile& profile, std::vector<std::string>* notes)
      : profile_(profile), dictionary_(profile.dictionary), notes_(notes), stream_(&out_), coded_(&stream_) {
    String("");
  }

  StatusOr<std::string> Write() {
    for (const profile::ValueType& type : profile_.value_types) {
      WriteMessage(pb::Profile::kSampleTypeFieldNumber, Type(type));
    }
    RETURN_IF_ERROR(WriteSamples());
    CollectMappings();
    WriteLocations();
    WriteMappings();
    WriteFunctions();
    WriteHeader();
    for (const std::string& text : string_table_) {
      coded_.WriteTag(LengthTag(pb::Profile::kStringTableFieldNumber));
      coded_.WriteVarint64(text.size());
      coded_.WriteString(text);
    }
    coded_.Trim();
    if (coded_.ByteCount() < 0 || coded_.HadError() || out_.size() > std::numeric_limits<int32_t>::max()) {
      return ResourceExhaustedError("the profile is larger than the 2 GiB that one pprof file can hold");
    }
    if (missed_ && notes_ != nullptr) {
      notes_->push_back("pprof has no field for why a frame has no name: miss reasons are kept as totals only");
    }
    return std::move(out_);
  }

 private:
  struct MappingFacts {
    uint64_t id = 0;
    uint64_t weight = 0;  // samples that pass through it
    bool functions = false;
    bool files = false;
    bool lines = false;
    bool inlined = false;
  };

  int64_t String(std::string_view text) {
    const auto [entry, added] = string_ids_.try_emplace(ToUtf8(text), static_cast<int64_t>(string_table_.size()));
    if (added) string_table_.push_back(entry->first);
    return entry->second;
  }
  int64_t String(profile::StringId id) { return String(dictionary_.string(id)); }

  pb::ValueType Type(const profile::ValueType& type) {
    pb::ValueType out;
    out.set_type(String(type.type));
    out.set_unit(String(type.unit));
    return out;
  }

  template <typename Message>
  void WriteMessage(int field, const Message& message) {
    coded_.WriteTag(LengthTag(field));
    coded_.WriteVarint64(message.ByteSizeLong());
    message.SerializeWithCachedSizes(&coded_);
  }

  Status WriteSamples() {
    frame_weights_.resize(dictionary_.frame_count());
    pb::Sample out;
    for (size_t i = 0; i < profile_.sample_count(); ++i) {
      out.Clear();
      const profile::Profile::Sample& sample = profile_.sample(i);
      for (profile::StackId at = sample.stack; at != profile::kEmptyStack; at = dictionary_.stack(at).parent) {
        const profile::FrameId frame = dictionary_.stack(at).frame;
        out.add_location_id(uint64_t{frame} + 1);
        ++frame_weights_[frame];
      }
      for (const int64_t value : profile_.values(i)) out.add_value(value);
      for (const auto& [name, value] : Labels(sample.labels)) {
        pb::Label* to = out.add_label();
        to->set_key(name);
        to->set_str(value);
      }
      WriteMessage(pb::Profile::kSampleFieldNumber, out);
      if (coded_.ByteCount() > kMaxSampleBytes) {
        return ResourceExhaustedError("the profile is larger than the 2 GiB that one pprof file can hold");
      }
    }
    return OkStatus();
  }

  // String table indexes of a label set, looked up once per set.
  const std::vector<std::pair<int64_t, int64_t>>& Labels(profile::LabelSetId id) {
    const auto [entry, added] = labels_.try_emplace(id);
    if (added) {
      for (const profile::Label& label : dictionary_.label_set(id).labels()) {
        entry->second.emplace_back(String(label.name), String(label.value));
      }
    }
    return entry->second;
  }

  // Null for frames that have neither a mapping nor a pseudo mapping.
  MappingFacts* Facts(const profile::Frame& frame) {
    if (frame.mapping != 0) return &mappings_[frame.mapping];
    const std::string_view pseudo = PseudoMapping(frame.kind);
    return pseudo.empty() ? nullptr : &pseudo_mappings_[std::string(pseudo)];
  }

  void CollectMappings() {
    for (profile::FrameId id = 0; id < frame_weights_.size(); ++id) {
      if (frame_weights_[id] == 0) continue;
      const profile::Frame& frame = dictionary_.frame(id);
      MappingFacts* facts = Facts(frame);
      if (facts == nullptr) continue;
      facts->weight += frame_weights_[id];
      facts->functions |= !frame.lines.empty();
      facts->inlined |= frame.lines.size() > 1;
      for (const profile::Line& line : frame.lines) {
        facts->files |= dictionary_.function(line.function).file != 0;
        facts->lines |= line.line != 0;
      }
    }
    // The first mapping names the profile in pprof: the main binary with most samples, before
    // libraries, before the kernel and code without a file. Among equals the order of first use.
    for (const auto& [id, facts] : mappings_) mapping_order_.push_back(id);
    std::sort(mapping_order_.begin(), mapping_order_.end());
    const auto rank = [this](profile::MappingId id) {
      const std::string_view file = dictionary_.string(dictionary_.mapping(id).file);
      if (file.empty() || file.front() == '[' || file.starts_with("//")) return 2;
      return LooksLikeLibrary(file) ? 1 : 0;
    };
    const auto main =
        std::min_element(mapping_order_.begin(), mapping_order_.end(), [&](profile::MappingId a, profile::MappingId b) {
          const int rank_a = rank(a);
          const int rank_b = rank(b);
          return rank_a != rank_b ? rank_a < rank_b : mappings_[a].weight > mappings_[b].weight;
        });
    if (main != mapping_order_.end()) std::rotate(mapping_order_.begin(), main, main + 1);
    uint64_t next = 1;
    for (const profile::MappingId id : mapping_order_) mappings_[id].id = next++;
    for (const std::string_view name : {kKernelMapping, kJitMapping, kInterpretedMapping}) {
      const auto found = pseudo_mappings_.find(std::string(name));
      if (found != pseudo_mappings_.end()) found->second.id = next++;
    }
  }

  void WriteLocations() {
    pb::Location out;
    for (profile::FrameId id = 0; id < frame_weights_.size(); ++id) {
      if (frame_weights_[id] == 0) continue;
      const profile::Frame& frame = dictionary_.frame(id);
      out.Clear();
      out.set_id(uint64_t{id} + 1);
      if (const MappingFacts* facts = Facts(frame)) out.set_mapping_id(facts->id);
      out.set_address(frame.address.value);
      for (const profile::Line& line : frame.lines) {
        pb::Line* to = out.add_line();
        to->set_function_id(uint64_t{line.function} + 1);
        to->set_line(line.line);
        to->set_column(line.column);
        if (functions_.size() <= line.function) functions_.resize(line.function + 1);
        functions_[line.function] = true;
      }
      missed_ |= frame.miss != 0;
      WriteMessage(pb::Profile::kLocationFieldNumber, out);
    }
  }

  void WriteMapping(const MappingFacts& facts, const profile::Mapping& mapping, int64_t file) {
    pb::Mapping out;
    out.set_id(facts.id);
    out.set_memory_start(mapping.start);
    out.set_memory_limit(mapping.limit);
    out.set_file_offset(mapping.file_offset);
    out.set_filename(file);
    out.set_build_id(String(mapping.build_id));
    out.set_has_functions(facts.functions);
    out.set_has_filenames(facts.files);
    out.set_has_line_numbers(facts.lines);
    out.set_has_inline_frames(facts.inlined);
    WriteMessage(pb::Profile::kMappingFieldNumber, out);
  }

  void WriteMappings() {
    for (const profile::MappingId id : mapping_order_) {
      const profile::Mapping& mapping = dictionary_.mapping(id);
      WriteMapping(mappings_[id], mapping, String(mapping.file));
    }
    for (const std::string_view name : {kKernelMapping, kJitMapping, kInterpretedMapping}) {
      const auto found = pseudo_mappings_.find(std::string(name));
      if (found != pseudo_mappings_.end()) WriteMapping(found->second, {}, String(name));
    }
  }

  void WriteFunctions() {
    for (profile::FunctionId id = 0; id < functions_.size(); ++id) {
      if (!functions_[id]) continue;
      const profile::Function& function = dictionary_.function(id);
      pb::Function out;
      out.set_id(uint64_t{id} + 1);
      out.set_name(String(function.name));
      // pprof's own tools read a missing system name as "unknown", not as "the same".
      out.set_system_name(function.system_name != 0 ? String(function.system_name) : String(function.name));
      out.set_filename(String(function.file));
      out.set_start_line(function.start_line);
      WriteMessage(pb::Profile::kFunctionFieldNumber, out);
    }
  }

  void WriteHeader() {
    pb::Profile header;
    header.set_time_nanos(profile_.time_ns);
    header.set_duration_nanos(
        static_cast<int64_t>(std::min<uint64_t>(profile_.duration_ns, std::numeric_limits<int64_t>::max())));
    if (profile_.period_type != profile::ValueType{} || profile_.period != 0) {
      *header.mutable_period_type() = Type(profile_.period_type);
      header.set_period(profile_.period);
    }
    for (const std::string& comment : profile_.comments) header.add_comment(String(comment));
    if (profile_.accounting != profile::Accounting{}) {
      header.add_comment(String(AccountingComment(profile_.accounting)));
    }
    if (profile_.default_value < profile_.value_types.size()) {
      header.set_default_sample_type(String(profile_.value_types[profile_.default_value].type));
    }
    // Its fields follow those above in the same message; protobuf merges pieces in any order.
    header.ByteSizeLong();
    header.SerializeWithCachedSizes(&coded_);
  }

  const profile::Profile& profile_;
  const profile::Dictionary& dictionary_;
  std::vector<std::string>* notes_;
  std::string out_;
  google::protobuf::io::StringOutputStream stream_;
  google::protobuf::io::CodedOutputStream coded_;
  std::vector<std::string> string_table_;
  std::unordered_map<std::string, int64_t> string_ids_;
  std::unordered_map<profile::LabelSetId, std::vector<std::pair<int64_t, int64_t>>> labels_;
  std::vector<uint64_t> frame_weights_;  // by FrameId: samples that hold it, once per occurrence
  std::unordered_map<profile::MappingId, MappingFacts> mappings_;
  std::unordered_map<std::string, MappingFacts> pseudo_mappings_;
  std::vector<profile::MappingId> mapping_order_;
  std::vector<bool> functions_;  // by FunctionId: used
  bool missed_ = false;
};

}  // namespace

std::string AccountingComment(const profile::Accounting& accounting) {
  std::string comment(kAccountingPrefix);
  AppendJsonAccounting(&comment, accounting);
  return comment;
}

bool ParseAccountingComment(std::string_view comment, profile::Accounting* accounting) {
  if (!comment.starts_with(kAccountingPrefix)) return false;
  comment.remove_prefix(kAccountingPrefix.size());
  const StatusOr<nlohmann::json> document = ParseJson(comment);
  return document.ok() && ReadJsonAccounting(*document, accounting);
}

StatusOr<std::string> WritePprof(const profile::Profile& profile, std::vector<std::string>* notes) {
  if (profile.value_types.empty()) return InvalidArgumentError("a profile without value types has no pprof form");
  return PprofWriter(profile, notes).Write();
}

}  // namespace pyrometer::formats

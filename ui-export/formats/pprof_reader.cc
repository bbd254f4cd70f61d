// Two passes over the message: tables first (samples usually stand before what they refer to), then
// samples. Entries are parsed one at a time by the generated classes, so a file that claims a hundred
// million empty entries costs no more than its own bytes.
#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "proto/pprof/profile.pb.h"
#include "ui-export/formats/format.h"
#include "ui-export/formats/frame_kinds.h"
#include "ui-export/formats/import.h"
#include "ui-export/formats/pprof.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

namespace pb = perftools::profiles;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// Entries per table; a profile of 64 nodes and a day has some 100,000 functions.
constexpr size_t kMaxTableEntries = size_t{32} << 20;
// One sample, location, …: 4 MiB is 400,000 frames of a stack. Also bounds what parsing one unfolds to.
constexpr int kMaxEntryBytes = 4 << 20;
constexpr size_t kMaxSampleTypes = 64;

// Foreign ids, commonly 1…n, to ours.
class IdMap {
 public:
  // False when `id` is there already.
  bool Insert(uint64_t id, uint32_t value) {
    if (id <= dense_.size() * 2 + 1024) {
      if (id >= dense_.size()) dense_.resize(id + 1, kNone);
      if (dense_[id] != kNone || sparse_.contains(id)) return false;
      dense_[id] = value;
      return true;
    }
    return sparse_.emplace(id, value).second;
  }
  const uint32_t* Find(uint64_t id) const {
    if (id < dense_.size() && dense_[id] != kNone) return &dense_[id];
    const auto found = sparse_.find(id);
    return found == sparse_.end() ? nullptr : &found->second;
  }

 private:
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  std::vector<uint32_t> dense_;
  std::unordered_map<uint64_t, uint32_t> sparse_;
};

Status Malformed(std::string_view what) { return DataLossError(StrFormat("not a valid pprof profile: %s", what)); }

class PprofReader {
 public:
  PprofReader(std::string_view bytes, std::vector<std::string>* notes) : bytes_(bytes), notes_(notes) {}

  StatusOr<profile::Profile> Read() {
    RETURN_IF_ERROR(ReadFields([this](int field, std::string_view entry) { return CollectStrings(field, entry); },
                               [](int, uint64_t) { return OkStatus(); }));
    if (strings_.empty() || !strings_[0].empty()) return Malformed("its string table does not start with \"\"");
    string_ids_.resize(strings_.size());
    // Mappings and functions before locations, whatever their order in the file.
    RETURN_IF_ERROR(ReadFields([this](int field, std::string_view entry) { return ReadTable(field, entry); },
                               [this](int field, uint64_t value) { return ReadScalar(field, value); }));
    if (profile_.value_types.empty()) return Malformed("it names no sample types");
    RETURN_IF_ERROR(ReadFields(
        [this](int field, std::string_view entry) {
          return field == pb::Profile::kLocationFieldNumber ? ReadLocation(entry) : OkStatus();
        },
        [](int, uint64_t) { return OkStatus(); }));
    RETURN_IF_ERROR(ReadFields(
        [this](int field, std::string_view entry) {
          return field == pb::Profile::kSampleFieldNumber ? ReadSample(entry) : OkStatus();
        },
        [](int, uint64_t) { return OkStatus(); }));
    RETURN_IF_ERROR(Finish());
    return std::move(profile_);
  }

 private:
  // Calls `entry` for each length-delimited field of the top message and `scalar` for each varint.
  template <typename Entry, typename Scalar>
  Status ReadFields(const Entry& on_entry, const Scalar& on_scalar) {
    CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes_.data()), static_cast<int>(bytes_.size()));
    while (const uint32_t tag = in.ReadTag()) {
      const int field = WireFormatLite::GetTagFieldNumber(tag);
      switch (WireFormatLite::GetTagWireType(tag)) {
        case WireFormatLite::WIRETYPE_LENGTH_DELIMITED: {
          uint32_t length = 0;
          if (!in.ReadVarint32(&length)) return Malformed("it is cut short");
          const size_t at = static_cast<size_t>(in.CurrentPosition());
          if (length > bytes_.size() - at) return Malformed("it is cut short");
          RETURN_IF_ERROR(on_entry(field, bytes_.substr(at, length)));
          if (!in.Skip(static_cast<int>(length))) return Malformed("it is cut short");
          break;
        }
        case WireFormatLite::WIRETYPE_VARINT: {
          uint64_t value = 0;
          if (!in.ReadVarint64(&value)) return Malformed("it is cut short");
          RETURN_IF_ERROR(on_scalar(field, value));
          break;
        }
        default:
          if (!WireFormatLite::SkipField(&in, tag)) return Malformed("it is cut short or damaged");
      }
    }
    if (!in.ConsumedEntireMessage()) return Malformed("it is cut short or damaged");
    return OkStatus();
  }

  template <typename Message>
  static Status ParseEntry(std::string_view entry, std::string_view what, Message* message) {
    if (entry.size() > static_cast<size_t>(kMaxEntryBytes)) {
      return ResourceExhaustedError(StrFormat("pprof profile with a %s of %s; the limit is %s", what,
                                              FormatBytes(entry.size()), FormatBytes(kMaxEntryBytes)));
    }
    if (!message->ParseFromArray(entry.data(), static_cast<int>(entry.size()))) {
      return Malformed(StrFormat("damaged %s", what));
    }
    return OkStatus();
  }

  static Status CheckCount(size_t count, std::string_view what) {
    if (count < kMaxTableEntries) return OkStatus();
    return ResourceExhaustedError(StrFormat("pprof profile with more than %d %s", kMaxTableEntries, what));
  }

  Status CollectStrings(int field, std::string_view entry) {
    if (field != pb::Profile::kStringTableFieldNumber) return OkStatus();
    strings_.push_back(entry);
    return CheckCount(strings_.size(), "strings");
  }

  StatusOr<std::string> Text(int64_t index) const {
    if (index < 0 || static_cast<uint64_t>(index) >= strings_.size()) {
      return Malformed(StrFormat("string index %d of %d", index, strings_.size()));
    }
    return ToUtf8(strings_[static_cast<size_t>(index)]);
  }
  // Interned once however often it is referred to: a long string may be named by every function.
  StatusOr<profile::StringId> String(int64_t index) {
    if (index >= 0 && static_cast<uint64_t>(index) < string_ids_.size() &&
        string_ids_[static_cast<size_t>(index)] != 0) {
      return string_ids_[static_cast<size_t>(index)];
    }
    ASSIGN_OR_RETURN(const std::string text, Text(index));
    const profile::StringId id = profile_.dictionary.InternString(text);
    string_ids_[static_cast<size_t>(index)] = id;
    return id;
  }
  // Label text, cut before it is copied.
  StatusOr<std::string> LabelText(int64_t index) const {
    if (index < 0 || static_cast<uint64_t>(index) >= strings_.size()) {
      return Malformed(StrFormat("string index %d of %d", index, strings_.size()));
    }
    return ToUtf8(strings_[static_cast<size_t>(index)].substr(0, profile::kMaxLabelValueBytes + 1));
  }

  StatusOr<profile::ValueType> Type(std::string_view entry, std::string_view what) {
    pb::ValueType in;
    RETURN_IF_ERROR(ParseEntry(entry, what, &in));
    ASSIGN_OR_RETURN(std::string type, Text(in.type()));
    ASSIGN_OR_RETURN(std::string unit, Text(in.unit()));
    return profile::ValueType{std::move(type), std::move(unit)};
  }

  Status ReadTable(int field, std::string_view entry) {
    switch (field) {
      case pb::Profile::kSampleTypeFieldNumber: {
        ASSIGN_OR_RETURN(profile::ValueType type, Type(entry, "sample type"));
        if (profile_.value_types.size() >= kMaxSampleTypes) {
          return ResourceExhaustedError(StrFormat("pprof profile with more than %d sample types", kMaxSampleTypes));
        }
        profile_.value_types.push_back(std::move(type));
        return OkStatus();
      }
      case pb::Profile::kPeriodTypeFieldNumber: {
        ASSIGN_OR_RETURN(profile_.period_type, Type(entry, "period type"));
        return OkStatus();
      }
      case pb::Profile::kMappingFieldNumber:
        return ReadMapping(entry);
      case pb::Profile::kFunctionFieldNumber:
        return ReadFunction(entry);
      case pb::Profile::kCommentFieldNumber:
        return ReadPackedComments(entry);
      default:
        return OkStatus();
    }
  }

  Status ReadScalar(int field, uint64_t value) {
    const int64_t number = static_cast<int64_t>(value);
    switch (field) {
      case pb::Profile::kTimeNanosFieldNumber:
        profile_.time_ns = number;
        return OkStatus();
      case pb::Profile::kDurationNanosFieldNumber:
        profile_.duration_ns = static_cast<uint64_t>(std::max<int64_t>(number, 0));
        return OkStatus();
      case pb::Profile::kPeriodFieldNumber:
        profile_.period = number;
        return OkStatus();
      case pb::Profile::kCommentFieldNumber:
        return ReadComment(number);
      case pb::Profile::kDefaultSampleTypeFieldNumber: {
        ASSIGN_OR_RETURN(default_type_, Text(number));
        return OkStatus();
      }
      case pb::Profile::kDropFramesFieldNumber:
      case pb::Profile::kKeepFramesFieldNumber:
        hides_frames_ |= number != 0;
        return OkStatus();
      default:
        return OkStatus();
    }
  }

  Status ReadComment(int64_t index) {
    ASSIGN_OR_RETURN(std::string comment, Text(index));
    if (!ParseAccountingComment(comment, &profile_.accounting)) {
      comment_bytes_ += comment.size() + sizeof(std::string);
      // Comments may all point at one huge string: the sum is what counts.
      if (comment_bytes_ > static_cast<size_t>(kMaxEntryBytes)) {
        return ResourceExhaustedError(
            StrFormat("pprof profile with more than %s of comments", FormatBytes(kMaxEntryBytes)));
      }
      profile_.comments.push_back(std::move(comment));
    }
    return OkStatus();
  }

  Status ReadPackedComments(std::string_view entry) {
    CodedInputStream in(reinterpret_cast<const uint8_t*>(entry.data()), static_cast<int>(entry.size()));
    while (static_cast<size_t>(in.CurrentPosition()) < entry.size()) {
      uint64_t index = 0;
      if (!in.ReadVarint64(&index)) return Malformed("damaged comments");
      RETURN_IF_ERROR(ReadComment(static_cast<int64_t>(index)));
    }
    return OkStatus();
  }

  Status ReadMapping(std::string_view entry) {
    pb::Mapping in;
    RETURN_IF_ERROR(ParseEntry(entry, "mapping", &in));
    if (in.id() == 0) return Malformed("a mapping with id 0");
    ASSIGN_OR_RETURN(const profile::StringId file, String(in.filename()));
    ASSIGN_OR_RETURN(const profile::StringId build_id, String(in.build_id()));
    const profile::MappingId id = profile_.dictionary.InternMapping({.build_id = build_id,
                                                                     .file = file,
                                                                     .start = in.memory_start(),
                                                                     .limit = in.memory_limit(),
                                                                     .file_offset = in.file_offset()});
    if (!mappings_.Insert(in.id(), id)) return Malformed(StrFormat("two mappings with id %d", in.id()));
    return CheckCount(++mapping_count_, "mappings");
  }

  Status ReadFunction(std::string_view entry) {
    pb::Function in;
    RETURN_IF_ERROR(ParseEntry(entry, "function", &in));
    if (in.id() == 0) return Malformed("a function with id 0");
    profile::Function function;
    ASSIGN_OR_RETURN(function.name, String(in.name()));
    ASSIGN_OR_RETURN(function.system_name, String(in.system_name()));
    ASSIGN_OR_RETURN(function.file, String(in.filename()));
    function.start_line = in.start_line();
    if (function.name == 0) function.name = function.system_name;
    if (function.system_name == function.name) function.system_name = 0;
    if (!functions_.Insert(in.id(), profile_.dictionary.InternFunction(function))) {
      return Malformed(StrFormat("two functions with id %d", in.id()));
    }
    return CheckCount(++function_count_, "functions");
  }

  Status ReadLocation(std::string_view entry) {
    pb::Location in;
    RETURN_IF_ERROR(ParseEntry(entry, "location", &in));
    if (in.id() == 0) return Malformed("a location with id 0");
    profile::Frame frame;
    frame.address = ElfAddress(in.address());
    if (in.mapping_id() != 0) {
      const uint32_t* mapping = mappings_.Find(in.mapping_id());
      if (mapping == nullptr) {
        return Malformed(StrFormat("location %d refers to mapping %d, which is not there", in.id(), in.mapping_id()));
      }
      frame.mapping = *mapping;
    }
    if (static_cast<size_t>(in.line_size()) > kMaxInlineDepth) return InlineDepthError();
    for (const pb::Line& line : in.line()) {
      const uint32_t* function = functions_.Find(line.function_id());
      if (function == nullptr) {
        return Malformed(
            StrFormat("location %d refers to function %d, which is not there", in.id(), line.function_id()));
      }
      frame.lines.push_back({.function = *function, .line = line.line(), .column = line.column()});
    }
    const profile::Dictionary& dictionary = profile_.dictionary;
    FrameClues clues{.mapping_file = dictionary.string(dictionary.mapping(frame.mapping).file),
                     .address = frame.address.value};
    if (!frame.lines.empty()) {
      clues.function_name = dictionary.string(dictionary.function(frame.lines[0].function).name);
    }
    frame.kind = ClassifyFrame(clues);
    if (IsPseudoMapping(clues.mapping_file)) frame.mapping = 0;
    if (!locations_.Insert(in.id(), profile_.dictionary.InternFrame(std::move(frame)))) {
      return Malformed(StrFormat("two locations with id %d", in.id()));
    }
    return CheckCount(++location_count_, "locations");
  }

  StatusOr<profile::LabelSetId> Labels(const pb::Sample& sample) {
    if (sample.label_size() == 0) return profile::LabelSetId{0};
    label_key_.clear();
    for (const pb::Label& label : sample.label()) {
      for (const int64_t part : {label.key(), label.str(), label.num(), label.num_unit()}) {
        label_key_.append(reinterpret_cast<const char*>(&part), sizeof(part));
      }
    }
    const auto known = label_sets_.find(label_key_);
    if (known != label_sets_.end()) return known->second;
    std::vector<profile::Label> labels;
    for (const pb::Label& label : sample.label()) {
      ASSIGN_OR_RETURN(std::string key, LabelText(label.key()));
      ASSIGN_OR_RETURN(std::string text, LabelText(label.str()));
      ASSIGN_OR_RETURN(const std::string unit, LabelText(label.num_unit()));
      if (label.str() == 0) {
        text = unit.empty() ? StrFormat("%d", label.num()) : StrFormat("%d %s", label.num(), unit);
        numeric_labels_ = true;
      }
      labels.push_back({std::move(key), std::move(text)});
    }
    const size_t given = labels.size();
    profile::LabelSet set = profile::LabelSet::MakeLenient(std::move(labels));
    labels_lost_ |= set.labels().size() < given;
    const profile::LabelSetId id = profile_.dictionary.InternLabelSet(set);
    label_sets_.emplace(label_key_, id);
    return id;
  }

  Status ReadSample(std::string_view entry) {
    RETURN_IF_ERROR(ParseEntry(entry, "sample", &sample_));
    if (static_cast<size_t>(sample_.value_size()) != profile_.value_types.size()) {
      return Malformed(StrFormat("a sample has %d values, the profile %d sample types", sample_.value_size(),
                                 profile_.value_types.size()));
    }
    frames_.clear();
    for (const uint64_t id : sample_.location_id()) {
      const uint32_t* frame = locations_.Find(id);
      if (frame == nullptr) return Malformed(StrFormat("a sample refers to location %d, which is not there", id));
      frames_.push_back(*frame);
    }
    truncated_ |= LimitDepth(&profile_.dictionary, &frames_);
    ASSIGN_OR_RETURN(const profile::LabelSetId labels, Labels(sample_));
    profile_.Add(labels, stacks_.Intern(&profile_.dictionary, frames_),
                 std::span<const int64_t>(sample_.value().data(), profile_.value_types.size()));
    RETURN_IF_ERROR(CheckStackBudget(profile_.dictionary));
    return CheckCount(++sample_count_, "samples");
  }

  Status Finish() {
    // Without a default, pprof's own tools show the last type.
    profile_.default_value = profile_.value_types.size() - 1;
    for (size_t i = 0; i < profile_.value_types.size() && !default_type_.empty(); ++i) {
      if (profile_.value_types[i].type == default_type_) profile_.default_value = i;
    }
    if (notes_ == nullptr) return OkStatus();
    if (hides_frames_) notes_->push_back("the file's drop_frames/keep_frames are not applied: all frames are kept");
    if (numeric_labels_) notes_->push_back("numeric labels were read as text");
    if (labels_lost_) notes_->push_back("repeated, empty or oversized labels were left out");
    if (truncated_) notes_->push_back(DepthNote());
    return OkStatus();
  }

  std::string_view bytes_;
  std::vector<std::string>* notes_;
  profile::Profile profile_;
  std::vector<std::string_view> strings_;
  std::vector<profile::StringId> string_ids_;  // by string table index; 0 = not interned yet
  IdMap mappings_, functions_, locations_;
  size_t mapping_count_ = 0, function_count_ = 0, location_count_ = 0, sample_count_ = 0, comment_bytes_ = 0;
  std::unordered_map<std::string, profile::LabelSetId> label_sets_;  // by the label's raw numbers
  std::string label_key_;
  std::string default_type_;
  pb::Sample sample_;
  std::vector<profile::FrameId> frames_;
  StackInterner stacks_;
  bool hides_frames_ = false, numeric_labels_ = false, labels_lost_ = false, truncated_ = false;
};

}  // namespace

StatusOr<profile::Profile> ReadPprof(std::string_view bytes, std::vector<std::string>* notes) {
  if (bytes.size() > kMaxInputBytes) {
    return ResourceExhaustedError(StrFormat("pprof profile larger than the limit of %s", FormatBytes(kMaxInputBytes)));
  }
  return PprofReader(bytes, notes).Read();
}

}  // namespace pyrometer::formats

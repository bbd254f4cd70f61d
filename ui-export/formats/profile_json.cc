#include "ui-export/formats/profile_json.h"

#include <algorithm>

#include "ui-export/formats/format.h"
#include "ui-export/formats/import.h"
#include "ui-export/formats/json_text.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

using nlohmann::json;
using profile::FrameKind;

constexpr FrameKind kKinds[] = {FrameKind::kUnknown, FrameKind::kNative,      FrameKind::kKernel,
                                FrameKind::kJit,     FrameKind::kInterpreted, FrameKind::kSynthetic};

class JsonWriter {
 public:
  explicit JsonWriter(const profile::Profile& profile) : profile_(profile), dictionary_(profile.dictionary) {}

  StatusOr<std::string> Write() {
    Text("{\"format\":");
    AppendJsonString(&out_, kProfileJsonFormat);
    Text(",\n\"version\":");
    Number(kProfileJsonVersion);
    Text(",\n\"valueTypes\":[");
    for (size_t i = 0; i < profile_.value_types.size(); ++i) {
      if (i > 0) Text(",");
      Type(profile_.value_types[i]);
    }
    Text("],\n\"defaultValue\":");
    Number(static_cast<uint64_t>(profile_.default_value));
    Text(",\n\"periodType\":");
    Type(profile_.period_type);
    Text(",\n\"period\":");
    Number(profile_.period);
    Text(",\n\"timeNs\":");
    Number(profile_.time_ns);
    Text(",\n\"durationNs\":");
    Number(profile_.duration_ns);
    Text(",\n\"comments\":[");
    for (size_t i = 0; i < profile_.comments.size(); ++i) {
      if (i > 0) Text(",");
      AppendJsonString(&out_, profile_.comments[i]);
    }
    Text("],\n\"accounting\":");
    AppendJsonAccounting(&out_, profile_.accounting);
    Tables();
    RETURN_IF_ERROR(Samples());
    Text("}\n");
    return std::move(out_);
  }

 private:
  void Text(std::string_view text) { out_ += text; }
  void Number(int64_t value) { AppendJsonInteger(&out_, value); }
  void Number(uint64_t value) { AppendJsonInteger(&out_, value); }
  void Number(uint32_t value) { AppendJsonInteger(&out_, uint64_t{value}); }

  void Type(const profile::ValueType& type) {
    Text("{\"type\":");
    AppendJsonString(&out_, type.type);
    Text(",\"unit\":");
    AppendJsonString(&out_, type.unit);
    Text("}");
  }

  // ,"key":number, left out when it is 0.
  template <typename Integer>
  void Member(std::string_view key, Integer value) {
    if (value == 0) return;
    if (out_.back() != '{') Text(",");
    Text("\"");
    Text(key);
    Text("\":");
    Number(value);
  }

  template <typename Each>
  void Table(std::string_view name, size_t count, const Each& each) {
    Text(",\n\"");
    Text(name);
    Text("\":[");
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) Text(",");
      each(i);
    }
    Text("]");
  }

  void Tables() {
    const profile::Dictionary& d = dictionary_;
    Table("strings", d.string_count(),
          [&](size_t i) { AppendJsonString(&out_, d.string(static_cast<profile::StringId>(i))); });
    Table("mappings", d.mapping_count(), [&](size_t i) {
      const profile::Mapping& mapping = d.mapping(static_cast<profile::MappingId>(i));
      Text("{");
      Member("file", mapping.file);
      Member("buildId", mapping.build_id);
      Member("start", mapping.start);
      Member("limit", mapping.limit);
      Member("offset", mapping.file_offset);
      Text("}");
    });
    Table("functions", d.function_count(), [&](size_t i) {
      const profile::Function& function = d.function(static_cast<profile::FunctionId>(i));
      Text("{");
      Member("name", function.name);
      Member("systemName", function.system_name);
      Member("file", function.file);
      Member("startLine", function.start_line);
      Text("}");
    });
    Table("frames", d.frame_count(), [&](size_t i) {
      const profile::Frame& frame = d.frame(static_cast<profile::FrameId>(i));
      Text("{\"kind\":\"");
      Text(FrameKindName(frame.kind));
      Text("\"");
      Member("mapping", frame.mapping);
      Member("address", frame.address.value);
      Member("miss", frame.miss);
      if (!frame.lines.empty()) {
        Text(",\"lines\":[");
        for (size_t l = 0; l < frame.lines.size(); ++l) {
          Text(l > 0 ? ",{" : "{");
          Member("function", frame.lines[l].function);
          Member("line", frame.lines[l].line);
          Member("column", frame.lines[l].column);
          Text("}");
        }
        Text("]");
      }
      Text("}");
    });
    Text(",\n\"stacks\":{\"parent\":[");
    for (profile::StackId i = 0; i < d.stack_count(); ++i) {
      if (i > 0) Text(",");
      Number(d.stack(i).parent);
    }
    Text("],\"frame\":[");
    for (profile::StackId i = 0; i < d.stack_count(); ++i) {
      if (i > 0) Text(",");
      Number(d.stack(i).frame);
    }
    Text("]}");
    Table("labelSets", d.label_set_count(), [&](size_t i) {
      Text("{");
      for (const profile::Label& label : d.label_set(static_cast<profile::LabelSetId>(i)).labels()) {
        if (out_.back() != '{') Text(",");
        AppendJsonString(&out_, label.name);
        Text(":");
        AppendJsonString(&out_, label.value);
      }
      Text("}");
    });
  }

  Status Samples() {
    const size_t count = profile_.sample_count();
    Text(",\n\"samples\":{\"labels\":[");
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) Text(",");
      Number(profile_.sample(i).labels);
    }
    Text("],\"stack\":[");
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) Text(",");
      Number(profile_.sample(i).stack);
    }
    Text("],\"values\":[");
    for (size_t t = 0; t < profile_.value_types.size(); ++t) {
      Text(t > 0 ? ",[" : "[");
      for (size_t i = 0; i < count; ++i) {
        if (i > 0) Text(",");
        Number(profile_.values(i)[t]);
      }
      Text("]");
    }
    Text("]}");
    if (out_.size() > kMaxOutputBytes) {
      return ResourceExhaustedError(StrFormat("the JSON would exceed %s", FormatBytes(kMaxOutputBytes)));
    }
    return OkStatus();
  }

  const profile::Profile& profile_;
  const profile::Dictionary& dictionary_;
  std::string out_;
};

Status Wrong(std::string_view member, std::string_view why) {
  return InvalidArgumentError(StrFormat("not a valid pyrometer-profile: \"%s\" %s", member, why));
}

class JsonReader {
 public:
  explicit JsonReader(const json& document) : document_(document) {}

  StatusOr<profile::Profile> Read() {
    RETURN_IF_ERROR(CheckVersion());
    RETURN_IF_ERROR(ReadHeader());
    RETURN_IF_ERROR(ReadStrings());
    RETURN_IF_ERROR(ReadMappings());
    RETURN_IF_ERROR(ReadFunctions());
    RETURN_IF_ERROR(ReadFrames());
    RETURN_IF_ERROR(ReadStacks());
    RETURN_IF_ERROR(ReadLabelSets());
    RETURN_IF_ERROR(ReadSamples());
    return std::move(profile_);
  }

 private:
  Status CheckVersion() {
    const json* format = Find(document_, "format");
    if (format == nullptr || !format->is_string() || format->get_ref<const std::string&>() != kProfileJsonFormat) {
      return Wrong("format", "is missing or another");
    }
    const json* version = Find(document_, "version");
    const auto number = version == nullptr ? std::nullopt : JsonInt64(*version);
    if (!number || *number < 1) return Wrong("version", "is missing or not a number");
    if (*number > kProfileJsonVersion) {
      return FailedPreconditionError(
          StrFormat("pyrometer-profile of version %d; this program reads up to %d: use a newer pyrometer", *number,
                    kProfileJsonVersion));
    }
    return OkStatus();
  }

  // The table `name` of `parent`, which must be an array.
  StatusOr<const json*> Array(const json& parent, std::string_view name) {
    const json* table = Find(parent, name);
    if (table == nullptr || !table->is_array()) return Wrong(name, "is missing or not a list");
    return table;
  }

  template <typename Integer>
  Status Optional(const json& entry, std::string_view table, std::string_view key, Integer* out) {
    const json* value = Find(entry, key);
    if (value == nullptr) return OkStatus();
    if constexpr (std::is_signed_v<Integer>) {
      const auto number = JsonInt64(*value);
      if (!number) return Wrong(table, StrFormat("has a \"%s\" that is not a whole number", key));
      *out = *number;
    } else {
      const auto number = JsonUint64(*value);
      if (!number) return Wrong(table, StrFormat("has a \"%s\" that is not a whole number of 0 or more", key));
      *out = *number;
    }
    return OkStatus();
  }

  // An optional index into a table already read, through `ids`.
  Status Reference(const json& entry, std::string_view table, std::string_view key, const std::vector<uint32_t>& ids,
                   uint32_t* out) {
    uint64_t index = 0;
    RETURN_IF_ERROR(Optional(entry, table, key, &index));
    if (index == 0) {
      *out = 0;
      return OkStatus();
    }
    if (index >= ids.size()) return Wrong(table, StrFormat("has a \"%s\" beyond its table", key));
    *out = ids[index];
    return OkStatus();
  }

  StatusOr<profile::ValueType> Type(const json& value, std::string_view member) {
    const json* type = Find(value, "type");
    const json* unit = Find(value, "unit");
    if (type == nullptr || unit == nullptr || !type->is_string() || !unit->is_string()) {
      return Wrong(member, "lacks \"type\" or \"unit\"");
    }
    return profile::ValueType{type->get<std::string>(), unit->get<std::string>()};
  }

  Status ReadHeader() {
    ASSIGN_OR_RETURN(const json* types, Array(document_, "valueTypes"));
    for (const json& type : *types) {
      ASSIGN_OR_RETURN(profile::ValueType value_type, Type(type, "valueTypes"));
      profile_.value_types.push_back(std::move(value_type));
    }
    if (profile_.value_types.empty()) return Wrong("valueTypes", "is empty");
    uint64_t default_value = 0;
    RETURN_IF_ERROR(Optional(document_, "defaultValue", "defaultValue", &default_value));
    if (default_value >= profile_.value_types.size()) return Wrong("defaultValue", "is beyond valueTypes");
    profile_.default_value = default_value;
    if (const json* period_type = Find(document_, "periodType")) {
      ASSIGN_OR_RETURN(profile_.period_type, Type(*period_type, "periodType"));
    }
    RETURN_IF_ERROR(Optional(document_, "period", "period", &profile_.period));
    RETURN_IF_ERROR(Optional(document_, "timeNs", "timeNs", &profile_.time_ns));
    RETURN_IF_ERROR(Optional(document_, "durationNs", "durationNs", &profile_.duration_ns));
    if (const json* comments = Find(document_, "comments")) {
      if (!comments->is_array()) return Wrong("comments", "is not a list");
      for (const json& comment : *comments) {
        if (!comment.is_string()) return Wrong("comments", "holds something that is not text");
        profile_.comments.push_back(comment.get<std::string>());
      }
    }
    const json* accounting = Find(document_, "accounting");
    if (accounting != nullptr && !ReadJsonAccounting(*accounting, &profile_.accounting)) {
      return Wrong("accounting", "is not an accounting object");
    }
    return OkStatus();
  }

  Status ReadStrings() {
    ASSIGN_OR_RETURN(const json* table, Array(document_, "strings"));
    if (table->empty() || !(*table)[0].is_string() || !(*table)[0].get_ref<const std::string&>().empty()) {
      return Wrong("strings", "does not start with \"\"");
    }
    for (const json& text : *table) {
      if (!text.is_string()) return Wrong("strings", "holds something that is not text");
      strings_.push_back(profile_.dictionary.InternString(text.get_ref<const std::string&>()));
    }
    return OkStatus();
  }

  Status ReadMappings() {
    ASSIGN_OR_RETURN(const json* table, Array(document_, "mappings"));
    for (const json& entry : *table) {
      if (!entry.is_object()) return Wrong("mappings", "holds something that is not an object");
      profile::Mapping mapping;
      RETURN_IF_ERROR(Reference(entry, "mappings", "file", strings_, &mapping.file));
      RETURN_IF_ERROR(Reference(entry, "mappings", "buildId", strings_, &mapping.build_id));
      RETURN_IF_ERROR(Optional(entry, "mappings", "start", &mapping.start));
      RETURN_IF_ERROR(Optional(entry, "mappings", "limit", &mapping.limit));
      RETURN_IF_ERROR(Optional(entry, "mappings", "offset", &mapping.file_offset));
      mappings_.push_back(profile_.dictionary.InternMapping(mapping));
    }
    return OkStatus();
  }

  Status ReadFunctions() {
    ASSIGN_OR_RETURN(const json* table, Array(document_, "functions"));
    for (const json& entry : *table) {
      if (!entry.is_object()) return Wrong("functions", "holds something that is not an object");
      profile::Function function;
      RETURN_IF_ERROR(Reference(entry, "functions", "name", strings_, &function.name));
      RETURN_IF_ERROR(Reference(entry, "functions", "systemName", strings_, &function.system_name));
      RETURN_IF_ERROR(Reference(entry, "functions", "file", strings_, &function.file));
      RETURN_IF_ERROR(Optional(entry, "functions", "startLine", &function.start_line));
      functions_.push_back(profile_.dictionary.InternFunction(function));
    }
    return OkStatus();
  }

  Status ReadFrames() {
    ASSIGN_OR_RETURN(const json* table, Array(document_, "frames"));
    for (const json& entry : *table) {
      if (!entry.is_object()) return Wrong("frames", "holds something that is not an object");
      profile::Frame frame;
      const json* kind = Find(entry, "kind");
      if (kind == nullptr || !kind->is_string()) return Wrong("frames", "holds one without \"kind\"");
      const auto known = std::find_if(std::begin(kKinds), std::end(kKinds), [&](FrameKind k) {
        return FrameKindName(k) == kind->get_ref<const std::string&>();
      });
      if (known == std::end(kKinds)) return Wrong("frames", "holds one of an unknown \"kind\"");
      frame.kind = *known;
      RETURN_IF_ERROR(Reference(entry, "frames", "mapping", mappings_, &frame.mapping));
      RETURN_IF_ERROR(Optional(entry, "frames", "address", &frame.address.value));
      RETURN_IF_ERROR(Reference(entry, "frames", "miss", strings_, &frame.miss));
      if (const json* lines = Find(entry, "lines")) {
        if (!lines->is_array()) return Wrong("frames", "holds \"lines\" that are not a list");
        if (lines->size() > kMaxInlineDepth) return InlineDepthError();
        for (const json& line_entry : *lines) {
          profile::Line line;
          RETURN_IF_ERROR(Reference(line_entry, "frames", "function", functions_, &line.function));
          RETURN_IF_ERROR(Optional(line_entry, "frames", "line", &line.line));
          RETURN_IF_ERROR(Optional(line_entry, "frames", "column", &line.column));
          frame.lines.push_back(line);
        }
      }
      frames_.push_back(profile_.dictionary.InternFrame(std::move(frame)));
    }
    return OkStatus();
  }

  Status ReadStacks() {
    const json* stacks = Find(document_, "stacks");
    if (stacks == nullptr) return Wrong("stacks", "is missing");
    ASSIGN_OR_RETURN(const json* parents, Array(*stacks, "parent"));
    ASSIGN_OR_RETURN(const json* frames, Array(*stacks, "frame"));
    if (parents->size() != frames->size()) return Wrong("stacks", "has \"parent\" and \"frame\" of different length");
    std::vector<uint32_t> depths;
    for (size_t i = 0; i < parents->size(); ++i) {
      const auto parent = JsonUint64((*parents)[i]);
      const auto frame = JsonUint64((*frames)[i]);
      if (!parent || !frame) return Wrong("stacks", "holds something that is not an index");
      if (i == 0) {
        if (*parent != 0 || *frame != 0) return Wrong("stacks", "does not start with the empty stack");
        stacks_.push_back(profile::kEmptyStack);
        depths.push_back(0);
        continue;
      }
      if (*parent >= i) return Wrong("stacks", "has a parent that does not stand before its child");
      if (*frame >= frames_.size()) return Wrong("stacks", "has a frame beyond \"frames\"");
      depths.push_back(depths[*parent] + 1);
      if (depths.back() > kMaxStackDepth) {
        return ResourceExhaustedError(StrFormat("a stack deeper than %d frames", kMaxStackDepth));
      }
      stacks_.push_back(profile_.dictionary.InternStack(stacks_[*parent], frames_[*frame]));
      RETURN_IF_ERROR(CheckStackBudget(profile_.dictionary));
    }
    return OkStatus();
  }

  Status ReadLabelSets() {
    ASSIGN_OR_RETURN(const json* table, Array(document_, "labelSets"));
    for (const json& entry : *table) {
      if (!entry.is_object()) return Wrong("labelSets", "holds something that is not an object");
      std::vector<profile::Label> labels;
      for (const auto& [name, value] : entry.items()) {
        if (!value.is_string()) return Wrong("labelSets", "holds a value that is not text");
        labels.push_back({name, value.get<std::string>()});
      }
      StatusOr<profile::LabelSet> set = profile::LabelSet::Make(std::move(labels));
      if (!set.ok()) return WithContext(set.status(), "not a valid pyrometer-profile: \"labelSets\"");
      label_sets_.push_back(profile_.dictionary.InternLabelSet(*set));
    }
    return OkStatus();
  }

  Status ReadSamples() {
    const json* samples = Find(document_, "samples");
    if (samples == nullptr) return Wrong("samples", "is missing");
    ASSIGN_OR_RETURN(const json* labels, Array(*samples, "labels"));
    ASSIGN_OR_RETURN(const json* stacks, Array(*samples, "stack"));
    ASSIGN_OR_RETURN(const json* values, Array(*samples, "values"));
    const size_t types = profile_.value_types.size();
    if (labels->size() != stacks->size() || values->size() != types) {
      return Wrong("samples", "has lists of different length");
    }
    for (const json& column : *values) {
      if (!column.is_array() || column.size() != stacks->size()) {
        return Wrong("samples", "has lists of different length");
      }
    }
    std::vector<int64_t> row(types);
    for (size_t i = 0; i < stacks->size(); ++i) {
      const auto label_set = JsonUint64((*labels)[i]);
      const auto stack = JsonUint64((*stacks)[i]);
      if (!label_set || *label_set >= label_sets_.size()) return Wrong("samples", "has labels beyond \"labelSets\"");
      if (!stack || *stack >= stacks_.size()) return Wrong("samples", "has a stack beyond \"stacks\"");
      for (size_t t = 0; t < types; ++t) {
        const auto value = JsonInt64((*values)[t][i]);
        if (!value) return Wrong("samples", "has a value that is not a whole number");
        row[t] = *value;
      }
      profile_.Add(label_sets_[*label_set], stacks_[*stack], row);
    }
    return OkStatus();
  }

  const json& document_;
  profile::Profile profile_;
  // Position in the file -> id in our dictionary.
  std::vector<uint32_t> strings_, mappings_, functions_, frames_, stacks_, label_sets_;
};

}  // namespace

StatusOr<std::string> WriteProfileJson(const profile::Profile& profile, std::vector<std::string>* notes) {
  if (profile.value_types.empty()) return InvalidArgumentError("a profile without value types cannot be written");
  if (notes != nullptr) {
    for (profile::StringId id = 0; id < profile.dictionary.string_count(); ++id) {
      if (IsUtf8(profile.dictionary.string(id))) continue;
      notes->push_back("names that are not UTF-8 had their bad bytes replaced");
      break;
    }
  }
  return JsonWriter(profile).Write();
}

StatusOr<profile::Profile> ReadProfileJson(const json& document) { return JsonReader(document).Read(); }

}  // namespace pyrometer::formats

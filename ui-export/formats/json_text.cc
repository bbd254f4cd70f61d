#include "ui-export/formats/json_text.h"

#include <algorithm>

#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

// Length of the UTF-8 encodings of U+2028 and U+2029: line ends to JavaScript inside a script.
bool IsLineSeparator(std::string_view text, size_t i) {
  return text.size() - i >= 3 && text[i] == '\xE2' && text[i + 1] == '\x80' &&
         (text[i + 2] == '\xA8' || text[i + 2] == '\xA9');
}

void AppendValidJsonString(std::string* out, std::string_view text) {
  out->push_back('"');
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '<':
        *out += "\\u003c";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == '\x7f') {
          *out += StrFormat("\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else if (c == '\xE2' && IsLineSeparator(text, i)) {
          *out += text[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
          i += 2;
        } else {
          out->push_back(c);
        }
    }
  }
  out->push_back('"');
}

// Walks the text once, minding strings, and counts what a parser would build.
Status CheckLimits(std::string_view text) {
  size_t depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        break;
      case '{':
      case '[':
        ++depth;
        ++values;
        if (depth > kMaxJsonDepth) {
          return ResourceExhaustedError(StrFormat("JSON nested deeper than %d levels at byte %d", kMaxJsonDepth, i));
        }
        break;
      case '}':
      case ']':
        if (depth > 0) --depth;
        break;
      case ',':
        ++values;
        break;
      default:
        break;
    }
    if (values > kMaxJsonValues) {
      return ResourceExhaustedError(StrFormat("JSON with more than %d values", kMaxJsonValues));
    }
  }
  return OkStatus();
}

bool ReadCounts(const nlohmann::json* value, std::map<std::string, uint64_t>* counts) {
  if (value == nullptr) return true;
  if (!value->is_object()) return false;
  for (const auto& [name, count] : value->items()) {
    const auto number = JsonUint64(count);
    if (!number) return false;
    (*counts)[name] = *number;
  }
  return true;
}

}  // namespace

void AppendJsonString(std::string* out, std::string_view text) {
  if (IsUtf8(text)) {
    AppendValidJsonString(out, text);
  } else {
    AppendValidJsonString(out, ToUtf8(text));
  }
}

void AppendJsonInteger(std::string* out, int64_t value) {
  const bool quote = value > kMaxSafeInteger || value < -kMaxSafeInteger;
  if (quote) out->push_back('"');
  *out += std::to_string(value);
  if (quote) out->push_back('"');
}

void AppendJsonInteger(std::string* out, uint64_t value) {
  const bool quote = value > static_cast<uint64_t>(kMaxSafeInteger);
  if (quote) out->push_back('"');
  *out += std::to_string(value);
  if (quote) out->push_back('"');
}

void AppendJsonCounts(std::string* out, const std::map<std::string, uint64_t>& counts) {
  out->push_back('{');
  bool first = true;
  for (const auto& [name, count] : counts) {
    if (!first) out->push_back(',');
    first = false;
    AppendJsonString(out, name);
    out->push_back(':');
    AppendJsonInteger(out, count);
  }
  out->push_back('}');
}

void AppendJsonAccounting(std::string* out, const profile::Accounting& accounting) {
  *out += "{\"taken\":";
  AppendJsonInteger(out, accounting.taken);
  *out += ",\"delivered\":";
  AppendJsonInteger(out, accounting.delivered);
  *out += ",\"dropped\":";
  AppendJsonCounts(out, accounting.dropped);
  *out += ",\"stopReasons\":";
  AppendJsonCounts(out, accounting.stop_reasons);
  *out += ",\"missReasons\":";
  AppendJsonCounts(out, accounting.miss_reasons);
  *out += ",\"expected\":";
  AppendJsonInteger(out, accounting.expected);
  *out += ",\"means\":";
  AppendJsonCounts(out, accounting.means);
  *out += ",\"frames\":";
  AppendJsonInteger(out, accounting.frames);
  out->push_back('}');
}

StatusOr<nlohmann::json> ParseJson(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  RETURN_IF_ERROR(CheckLimits(text));
  // The library reports malformed text by exception only; it ends here.
  try {
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    return InvalidArgumentError(StrFormat("not JSON: syntax error at byte %d", error.byte));
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgumentError(StrFormat("not JSON that can be read: %s", error.what()));
  }
}

const nlohmann::json* Find(const nlohmann::json& parent, std::string_view key) {
  if (!parent.is_object()) return nullptr;
  const auto found = parent.find(std::string(key));
  return found == parent.end() ? nullptr : &*found;
}

std::optional<int64_t> JsonInt64(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_string()) return ParseInt64(value.get_ref<const std::string&>());
  return std::nullopt;
}

std::optional<uint64_t> JsonUint64(const nlohmann::json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_string()) return ParseUint64(value.get_ref<const std::string&>());
  return std::nullopt;
}

bool ReadJsonAccounting(const nlohmann::json& value, profile::Accounting* accounting) {
  const nlohmann::json* taken = Find(value, "taken");
  const nlohmann::json* delivered = Find(value, "delivered");
  if (taken == nullptr || delivered == nullptr) return false;
  const auto taken_count = JsonUint64(*taken);
  const auto delivered_count = JsonUint64(*delivered);
  profile::Accounting read;
  if (!taken_count || !delivered_count || !ReadCounts(Find(value, "dropped"), &read.dropped) ||
      !ReadCounts(Find(value, "stopReasons"), &read.stop_reasons) ||
      !ReadCounts(Find(value, "missReasons"), &read.miss_reasons)) {
    return false;
  }
  // Files of before these existed have none.
  const auto number = [&](std::string_view key, uint64_t* into) {
    const nlohmann::json* field = Find(value, key);
    if (field == nullptr) return true;
    const auto count = JsonUint64(*field);
    if (count) *into = *count;
    return count.has_value();
  };
  if (!number("expected", &read.expected) || !number("frames", &read.frames) ||
      !ReadCounts(Find(value, "means"), &read.means)) {
    return false;
  }
  read.taken = *taken_count;
  read.delivered = *delivered_count;
  *accounting = std::move(read);
  return true;
}

}  // namespace pyrometer::formats

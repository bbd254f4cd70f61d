#include "tests/unit/formats/schema_check.h"

#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

using nlohmann::json;

bool HasType(const json& value, const std::string& type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  return false;
}

std::string Check(const json& root, const json& schema, const json& value, const std::string& path) {
  for (const auto& [word, rule] : schema.items()) {
    if (word == "$schema" || word == "title" || word == "description" || word == "definitions") continue;
    if (word == "$ref") {
      const json::json_pointer target(rule.get<std::string>().substr(1));
      if (std::string error = Check(root, root.at(target), value, path); !error.empty()) return error;
    } else if (word == "type") {
      if (!HasType(value, rule)) return StrFormat("%s is not of type %s", path, rule.get<std::string>());
    } else if (word == "const") {
      if (value != rule) return StrFormat("%s is not %s", path, rule.dump());
    } else if (word == "enum") {
      bool any = false;
      for (const json& option : rule) any = any || value == option;
      if (!any) return StrFormat("%s is none of %s", path, rule.dump());
    } else if (word == "required") {
      for (const json& key : rule) {
        if (!value.contains(key)) return StrFormat("%s lacks %s", path, key.dump());
      }
    } else if (word == "properties") {
      for (const auto& [key, sub] : rule.items()) {
        if (!value.is_object() || !value.contains(key)) continue;
        if (std::string error = Check(root, sub, value[key], path + "/" + key); !error.empty()) return error;
      }
    } else if (word == "items") {
      for (size_t i = 0; value.is_array() && i < value.size(); ++i) {
        if (std::string error = Check(root, rule, value[i], StrFormat("%s/%d", path, i)); !error.empty()) return error;
      }
    } else if (word == "anyOf") {
      std::string errors;
      bool any = false;
      for (const json& option : rule) {
        const std::string error = Check(root, option, value, path);
        any = any || error.empty();
        errors += error + "; ";
      }
      if (!any) return errors;
    } else if (word == "minimum") {
      if (value.is_number() && value.get<double>() < rule.get<double>()) {
        return StrFormat("%s is below %s", path, rule.dump());
      }
    } else {
      return StrFormat("the schema uses \"%s\", which is not checked", word);
    }
  }
  return {};
}

}  // namespace

std::string SchemaError(const json& schema, const json& document) { return Check(schema, schema, document, "#"); }

}  // namespace pyrometer::formats

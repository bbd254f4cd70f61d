// Checks a JSON document against a JSON Schema of the few words that our schemas use: type, const,
// enum, required, properties, items, anyOf, minimum, $ref within the document. An unknown word is an
// error, so that a schema cannot ask for more than is checked.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace pyrometer::formats {

// "" when `document` fits `schema`; else where and why it does not.
std::string SchemaError(const nlohmann::json& schema, const nlohmann::json& document);

}  // namespace pyrometer::formats

// Small help around JSON text: writing without a document in memory, reading with limits.
//
//   std::string out; AppendJsonString(&out, name);
//   ASSIGN_OR_RETURN(nlohmann::json document, ParseJson(text));   // depth and element count bounded
//
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "nlohmann/json.hpp"
#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// Largest integer that JavaScript and other double-based readers keep exactly.
inline constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

// Quoted; `<`, U+2028 and U+2029 escaped too, so that the text may stand inside <script>. Bytes that
// are not UTF-8 become U+FFFD.
void AppendJsonString(std::string* out, std::string_view text);
// A number, or a string of digits where a double would round it.
void AppendJsonInteger(std::string* out, int64_t value);
void AppendJsonInteger(std::string* out, uint64_t value);
// {"name":count,…}
void AppendJsonCounts(std::string* out, const std::map<std::string, uint64_t>& counts);
// {"taken":…,"delivered":…,"dropped":{…},"stopReasons":{…},"missReasons":{…},"expected":…,"means":{…},"frames":…}
void AppendJsonAccounting(std::string* out, const profile::Accounting& accounting);

// Documents deeper or with more values than this are refused before anything is built: a document in
// memory costs about 16 bytes per value.
inline constexpr size_t kMaxJsonDepth = 64;
inline constexpr size_t kMaxJsonValues = size_t{64} << 20;

// INVALID_ARGUMENT with the byte offset when malformed, RESOURCE_EXHAUSTED over a limit.
StatusOr<nlohmann::json> ParseJson(std::string_view text);

// Member `key` of object `parent`; nullptr when absent or `parent` is no object.
const nlohmann::json* Find(const nlohmann::json& parent, std::string_view key);
// A whole number written as number or as string of digits; nullopt on anything else.
std::optional<int64_t> JsonInt64(const nlohmann::json& value);
std::optional<uint64_t> JsonUint64(const nlohmann::json& value);
// False when `value` is not an accounting object as AppendJsonAccounting writes it.
bool ReadJsonAccounting(const nlohmann::json& value, profile::Accounting* accounting);

}  // namespace pyrometer::formats

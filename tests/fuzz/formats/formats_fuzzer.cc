// Any bytes as each of the formats that we read. What is accepted must be sound: it can be written,
// and our lossless format gives it back the same.
#include <cstdint>
#include <string_view>

#include "ui-export/formats/format.h"
#include "ui-export/formats/viewer_json.h"
#include "userspace/base/check.h"

using pyrometer::StatusOr;
using pyrometer::formats::Format;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const Format format : {Format::kPprof, Format::kFolded, Format::kSpeedscope, Format::kJson}) {
    std::vector<std::string> notes;
    const StatusOr<pyrometer::profile::Profile> profile = pyrometer::formats::Parse(bytes, format, &notes);
    if (!profile.ok()) continue;
    const StatusOr<std::string> json = pyrometer::formats::Serialize(*profile, Format::kJson);
    CHECK(json.ok());
    const StatusOr<pyrometer::profile::Profile> again = pyrometer::formats::Parse(*json, Format::kJson);
    CHECK(again.ok());
    CHECK(*pyrometer::formats::Serialize(*again, Format::kJson) == *json);
    for (const Format other : {Format::kPprof, Format::kFolded, Format::kSpeedscope, Format::kSvg}) {
      CHECK(pyrometer::formats::Serialize(*profile, other).ok());
    }
    CHECK(!pyrometer::formats::ViewerJson(*profile).empty());
  }
  return 0;
}

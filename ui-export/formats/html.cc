#include "ui-export/formats/html.h"

#include "ui-export/formats/format.h"
#include "ui-export/formats/viewer_json.h"
#include "ui-export/formats/web_assets.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

// Agreed with web/viewer.html; its build keeps this element as it is.
constexpr std::string_view kPlaceholder = "__PYROMETER_DATA__";

}  // namespace

StatusOr<std::string> WriteHtml(const profile::Profile& profile, std::string_view title) {
  const std::string_view viewer = ViewerPage();
  if (viewer.empty()) {
    return FailedPreconditionError(
        "this pyrometer was built without its page (-DPYROMETER_WEB=OFF): write .svg or .speedscope.json instead");
  }
  const size_t place = viewer.find(kPlaceholder);
  if (place == std::string_view::npos) return InternalError("the embedded viewer has no place for data");
  const std::string data = ViewerJson(profile, title);
  if (data.size() > kMaxOutputBytes - viewer.size()) {
    return ResourceExhaustedError(StrFormat("the page would exceed %s", FormatBytes(kMaxOutputBytes)));
  }
  std::string page;
  page.reserve(viewer.size() + data.size());
  page += viewer.substr(0, place);
  page += data;
  page += viewer.substr(place + kPlaceholder.size());
  return page;
}

}  // namespace pyrometer::formats

// The page's files, inside the program. Generated from ui-export/web at build time.
//
//   if (const WebAsset* asset = FindWebAsset("/assets/index-1a2b.js")) Reply(asset->mime_type, asset->content);
//
// Threads: constants. Built with -DPYROMETER_WEB=OFF there are none.
#pragma once

#include <span>
#include <string_view>

namespace pyrometer::formats {

struct WebAsset {
  std::string_view path;  // "index.html", "assets/index-1a2b.js"
  std::string_view content;
  std::string_view mime_type;  // "text/html; charset=utf-8"
  std::string_view etag;       // quoted, from the content: "\"9f86d081884c7d65\""
};

// `path` with or without a leading slash; "" and "/" are index.html. Null when there is no such file.
const WebAsset* FindWebAsset(std::string_view path);
// All files, sorted by path.
std::span<const WebAsset> WebAssets();
// The viewer for exported pages, data still missing; "" when built without.
std::string_view ViewerPage();

}  // namespace pyrometer::formats

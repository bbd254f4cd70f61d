#include "ui-export/formats/web_assets.h"

#include <algorithm>

namespace pyrometer::formats {

const WebAsset* FindWebAsset(std::string_view path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  if (path.empty()) path = "index.html";
  const std::span<const WebAsset> assets = WebAssets();
  const auto found = std::lower_bound(assets.begin(), assets.end(), path,
                                      [](const WebAsset& asset, std::string_view p) { return asset.path < p; });
  return found != assets.end() && found->path == path ? &*found : nullptr;
}

}  // namespace pyrometer::formats

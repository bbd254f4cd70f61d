#include "userspace/query/function_table.h"

#include <algorithm>

namespace pyrometer::query {

const std::vector<FunctionPlace>& FunctionTable::Of(profile::FrameId id) {
  std::vector<FunctionPlace>& places = places_[id];
  if (!places.empty()) return places;
  const profile::Frame& frame = dictionary_.frame(id);
  FunctionPlace place;
  place.kind = frame.kind;
  place.module = modules.Id(dictionary_.string(dictionary_.mapping(frame.mapping).file));
  for (size_t i = 0; i < std::max<size_t>(1, frame.lines.size()); ++i) {
    place.name = names.Id(dictionary_.FrameName(id, i));
    place.file = 0;
    place.line = 0;
    if (i < frame.lines.size()) {
      const profile::Function& function = dictionary_.function(frame.lines[i].function);
      place.file = files.Id(dictionary_.string(function.file));
      const int64_t line = function.start_line != 0 ? function.start_line : frame.lines[i].line;
      place.line = static_cast<int32_t>(std::clamp<int64_t>(line, 0, INT32_MAX));
    }
    places.push_back(place);
  }
  return places;
}

}  // namespace pyrometer::query

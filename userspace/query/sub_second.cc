#include "userspace/query/sub_second.h"

#include <map>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/query/selection.h"

namespace pyrometer::query {

StatusOr<SubSecondMap> SubSecond(const Engine& engine, const Selector& selector, TimeRange range, uint64_t step_ns,
                                 uint64_t cell_ns) {
  if (cell_ns < kNsPerMs)
    return InvalidArgumentError("cell: samples are timed to the millisecond, ask for 1ms or more");
  if (step_ns == 0 || step_ns > uint64_t{INT64_MAX} || step_ns % cell_ns != 0) {
    return InvalidArgumentError(
        StrFormat("step: %s is no multiple of the cell of %s", FormatDurationNs(step_ns), FormatDurationNs(cell_ns)));
  }
  const size_t cells = step_ns / cell_ns;
  const Status too_many = InvalidArgumentError(
      StrFormat("more than %s cells: ask for a shorter range or larger cells", FormatCount(kMaxCells)));
  if (cells > kMaxCells) return too_many;
  ASSIGN_OR_RETURN(const Found found, Find(engine.reader(), engine.tenant(), selector, {}));
  SubSecondMap map;
  std::map<int64_t, std::vector<uint64_t>> columns;
  bool fits = true;
  const auto add = [&](const store::OffsetsWindow& window) {
    // Most samples of a window are of a few columns.
    int64_t start = -1;
    std::vector<uint64_t>* column = nullptr;
    for (const store::OffsetsWindow::Row& row : window.rows) {
      for (const uint16_t offset_ms : row.offsets_ms) {
        const int64_t time_ns = window.time_ns + static_cast<int64_t>(offset_ms * kNsPerMs);
        const auto in_step = static_cast<uint64_t>(time_ns) % step_ns;
        if (column == nullptr || time_ns - static_cast<int64_t>(in_step) != start) {
          start = time_ns - static_cast<int64_t>(in_step);
          if (!columns.contains(start) && (columns.size() + 1) * cells > kMaxCells) {
            fits = false;
            return;
          }
          column = &columns[start];
          column->resize(cells);
        }
        ++(*column)[in_step / cell_ns];
        ++map.timed;
      }
    }
  };
  for (const StackPart& part : StackParts(found, {})) {
    RETURN_IF_ERROR(engine.reader().ScanOffsets(part.selection, range, add, engine.budget()));
    if (!fits) return too_many;
  }
  for (auto& [time_ns, counts] : columns) map.columns.push_back({time_ns, std::move(counts)});
  ASSIGN_OR_RETURN(const SumTotals totals, engine.Totals(selector, range));
  map.samples = totals.samples;
  return map;
}

}  // namespace pyrometer::query

// Texts of selectors: what is accepted has a canonical text that means the same.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "userspace/base/check.h"
#include "userspace/query/selector.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)query::ParseSelector(text);
  const StatusOr<query::Selector> selector = query::ParseSelector(text, "cpu");
  if (!selector.ok()) {
    // Points at a character: nothing of it may be missing.
    CHECK(!selector.status().message().empty());
    return 0;
  }
  const std::string canonical = selector->ToString();
  const StatusOr<query::Selector> again = query::ParseSelector(canonical, "cpu");
  // The canonical text may be longer than what is taken: escapes.
  if (canonical.size() > query::kMaxSelectorBytes) return 0;
  CHECK(again.ok());
  CHECK(again->ToString() == canonical);
  const store::SeriesFilter filter = selector->Filter();
  CHECK(filter.matchers.size() >= selector->matchers.size());
  static const profile::LabelSet labels =
      profile::LabelSet::Make({{"service", "shop"}, {"node", "n1"}, {"container.name", "a b\"c"}}).value();
  CHECK(selector->Matches(selector->type, labels) == again->Matches(selector->type, labels));
  return 0;
}

// A perf map, in two pieces as it grows.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/perf_map.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::symbolize;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::unique_ptr<PerfMap> map = PerfMap::Empty(PerfMap::Options{.max_bytes = 1u << 20, .max_entries = 1000});
  map->Parse(bytes.substr(0, size / 2));
  map->Parse(bytes.substr(size / 2));
  CHECK(map->entry_count() <= 2 * 1000 + 1);
  for (uint64_t address = 1; address != 0; address <<= 1) {
    const Symbol symbol = map->Symbolize(VirtualAddress(address));
    CHECK(symbol.found() == (symbol.miss == MissReason::kNone));
    CHECK(IsUtf8(symbol.name()));
  }
  return 0;
}

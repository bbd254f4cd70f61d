// Call frame information: the first byte says of which kind, the rest is the section.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/unwind/cfi.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer::unwind;
  if (size == 0) return 0;
  CfiSection section;
  section.bytes = std::string_view(reinterpret_cast<const char*>(data + 1), size - 1);
  section.address = 0x5000;
  section.text_base = 0x1000;
  section.data_base = 0x8000;
  section.debug_frame = data[0] & 1;
  section.is_64bit = !(data[0] & 2);
  CfiReader reader(section);
  (void)reader.Scan();  // what came before the damage is kept
  std::vector<CfiRow> rows;
  uint64_t left = 1u << 20;  // rows; a section of n bytes can ask for more than n
  for (const Fde& fde : reader.fdes()) {
    CHECK(fde.start < fde.end);
    rows.clear();
    reader.Run(fde, &rows);
    uint64_t before = fde.start;
    for (const CfiRow& row : rows) {
      CHECK(row.address >= before && row.address < fde.end);
      CHECK(row.rule.reg < PYRO_REGISTERS);
      before = row.address;
    }
    if (rows.size() >= left) break;
    left -= rows.size();
  }
  return 0;
}

// A table file, and a stack walked by it: the first 256 bytes are registers and stack, the rest the file. Its checksum
// is put right, or nothing behind it would ever be read.
#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "userspace/base/check.h"
#include "userspace/unwind/stack_walker.h"
#include "userspace/unwind/table_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::unwind;
  constexpr size_t kStackBytes = 256, kChecksumAt = 16, kChecked = 24;
  if (size < kStackBytes + kChecked) return 0;
  std::string file(reinterpret_cast<const char*>(data + kStackBytes), size - kStackBytes);
  const uint64_t checksum = XXH3_64bits(file.data() + kChecked, file.size() - kChecked);
  std::memcpy(file.data() + kChecksumAt, &checksum, sizeof(checksum));
  const StatusOr<UnwindTable> table = ParseTable(file);
  if (!table.ok() || table->parts.empty()) return 0;
  CHECK(ParseTable(SerializeTable(*table)).ok());

  constexpr uint64_t kStackStart = 0x7ffd00000000;
  const std::string_view stack(reinterpret_cast<const char*>(data), kStackBytes);
  Registers registers{};
  std::memcpy(&registers, data, sizeof(registers) < kStackBytes ? sizeof(registers) : kStackBytes);
  registers.reg[PYRO_REG_RSP] = kStackStart + (registers.reg[PYRO_REG_RSP] & 0x7f);
  registers.stack_start = kStackStart;
  const uint64_t base = table->parts[0].base.value;
  if (base > (uint64_t{1} << 40)) return 0;
  const uint64_t bias = 0x550000000000;
  const uint64_t start = base + bias;
  registers.ip = start + (registers.ip & 0xffffff);
  StackWalker walker;
  walker.Map({.start = VirtualAddress(start),
              .end = VirtualAddress(start + (uint64_t{64} << 20)),
              .kind = PYRO_MAPPING_TABLE,
              .table = &*table,
              .bias = bias});
  const StackWalker::Result result = walker.Walk(registers, StackCopy(kStackStart, stack), 512);
  CHECK(result.frames.size() <= 512);
  CHECK(result.stop < PYRO_STOP_COUNT);
  return 0;
}

// A jitdump file, read once in part and once whole as it grows.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/jit_dump.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::symbolize;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto dump = JitDump::Empty({.max_entries = 1000, .max_names_bytes = 1u << 20});
  for (const size_t taken : {size / 2, size}) {
    dump->Read(*elf::MakeMemorySource(std::make_shared<const std::string>(bytes.substr(0, taken)), "dump"));
  }
  for (uint64_t address = 1; address != 0; address <<= 1) {
    const Symbol symbol = dump->Symbolize(VirtualAddress(address));
    CHECK(symbol.found() == (symbol.miss == MissReason::kNone));
    CHECK(IsUtf8(symbol.name()));
    CHECK(symbol.file == nullptr || IsUtf8(*symbol.file));
  }
  return 0;
}

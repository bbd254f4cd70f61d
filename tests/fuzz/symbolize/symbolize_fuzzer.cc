// Everything of strangers that symbolize/ and elf/ read. The first byte chooses the reader:
//   'e' an ELF file (headers, sections, notes, symbols, PLT, minidebuginfo, Go's table)
//   'p' a perf map     'k' /proc/kallsyms     'd' a mangled name
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/binary_symbols.h"
#include "userspace/symbolize/demangle.h"
#include "userspace/symbolize/kernel_symbols.h"
#include "userspace/symbolize/perf_map.h"

namespace pyrometer::symbolize {
namespace {

constexpr size_t kMaxMemoryBytes = 8u << 20;

void ReadElf(std::string_view bytes) {
  BinarySource source;
  source.path = "/fuzz/binary";
  source.image = std::make_shared<const std::string>(bytes);
  const auto symbols =
      BinarySymbols::Build({}, source, BuildOptions{.debug_folders = {}, .max_memory_bytes = kMaxMemoryBytes});
  CHECK(symbols->index().memory_bytes() <= kMaxMemoryBytes);
  for (uint64_t address = 0x1000; address != 0; address <<= 1) {
    const auto hit = symbols->index().Find(ElfAddress(address));
    if (hit.has_value()) CHECK(!Demangle(symbols->index().name(hit->function)).empty());
  }
  const auto file = elf::ElfFile::FromBytes(source.image, "fuzz");
  if (!file.ok()) return;
  // What is read does not matter, only that reading it ends well.
  (void)file->ReadDebugAltLink();
  for (const elf::Section& section : file->sections()) {
    if ((section.flags & SHF_COMPRESSED) != 0) (void)file->ReadSection(section, kMaxMemoryBytes);
  }
}

void CheckText(const Symbol& symbol) {
  CHECK(symbol.found() == (symbol.miss == MissReason::kNone));
  CHECK(IsUtf8(symbol.name()));
}

}  // namespace
}  // namespace pyrometer::symbolize

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::symbolize;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'e':
      ReadElf(bytes);
      break;
    case 'p': {
      const std::unique_ptr<PerfMap> map = PerfMap::Empty(PerfMap::Options{});
      map->Parse(bytes);
      for (uint64_t address = 1; address != 0; address <<= 1) CheckText(map->Symbolize(VirtualAddress(address)));
      break;
    }
    case 'k': {
      const size_t half = bytes.size() / 2;
      const KallsymsTable table = ParseKallsyms(bytes.substr(half), bytes.substr(0, half));
      for (uint64_t address = 1; address != 0; address <<= 1) (void)table.index.Find(ElfAddress(address));
      break;
    }
    case 'd':
      CHECK(Demangle(bytes).size() <= std::max<size_t>(kMaxDemangledBytes * 3, bytes.size() * 3));
      break;
    default:
      break;
  }
  return 0;
}

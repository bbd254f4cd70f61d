// An ELF file with everything in it: headers, sections, notes, symbols, PLT, minidebuginfo, Go's table, DWARF.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/binary_symbols.h"
#include "userspace/symbolize/demangle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::symbolize;
  constexpr size_t kMaxMemoryBytes = 8u << 20;
  BinarySource source;
  source.path = "/fuzz/binary";
  source.image = std::make_shared<const std::string>(reinterpret_cast<const char*>(data), size);
  const auto symbols =
      BinarySymbols::Build({}, source, BuildOptions{.debug_folders = {}, .max_memory_bytes = kMaxMemoryBytes});
  const SymbolIndex& index = symbols->index();
  CHECK(index.memory_bytes() <= kMaxMemoryBytes);
  std::vector<SymbolIndex::Frame> frames;
  for (uint64_t address = 0x1000; address != 0; address <<= 1) {
    const auto hit = index.Find(ElfAddress(address));
    if (hit.has_value()) CHECK(!Demangle(index.name(hit->function)).empty());
    index.Frames(ElfAddress(address), &frames);
  }
  const auto file = elf::ElfFile::FromBytes(source.image, "fuzz");
  if (!file.ok()) return 0;
  // What is read does not matter, only that reading it ends well.
  (void)file->ReadDebugAltLink();
  for (const elf::Section& section : file->sections()) {
    if (file->IsCompressed(section)) {
      (void)file->ReadSection(section, kMaxMemoryBytes);
      (void)file->UnpackSection(section, kMaxMemoryBytes, [](std::string_view) { return OkStatus(); });
    }
  }
  return 0;
}

// Debug sections without the ELF file around them: for each of 11 sections u32 length and bytes (make_seeds.py cuts
// them out of real files). The same bytes serve as split units and as supplementary file.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/symbolize/dwarf/cursor.h"
#include "userspace/symbolize/dwarf/reader.h"
#include "userspace/symbolize/symbol_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::symbolize;
  constexpr size_t kMaxMemoryBytes = 8u << 20;
  dwarf::DebugSections sections;
  std::vector<std::unique_ptr<elf::ByteSource>> sources;
  dwarf::Cursor cursor(std::string_view(reinterpret_cast<const char*>(data), size));
  for (dwarf::Section* section :
       {&sections.info, &sections.types, &sections.abbrev, &sections.line, &sections.str, &sections.line_str,
        &sections.str_offsets, &sections.addr, &sections.ranges, &sections.rnglists, &sections.cu_index}) {
    uint64_t bytes = cursor.U32();
    if (bytes > cursor.left()) bytes = cursor.left();
    sources.push_back(elf::MakeMemorySource(std::make_shared<const std::string>(cursor.Bytes(bytes)), "section"));
    *section = dwarf::Section(sources.back().get(), 0, bytes);
  }
  PlaceBuilder places(kMaxMemoryBytes);
  dwarf::ReaderOptions options;
  options.find_split = [&](uint64_t, const std::string&, const std::string&) {
    return dwarf::SplitUnit{nullptr, sections};
  };
  options.find_supplement = [&] { return dwarf::SplitUnit{nullptr, sections}; };
  dwarf::Reader reader(sections, options, &places);
  reader.Read();
  CHECK(places.memory_bytes() <= 4 * kMaxMemoryBytes);
  const SymbolIndex index = SymbolIndexBuilder().Build(&places);
  std::vector<SymbolIndex::Frame> frames;
  for (uint64_t address = 1; address != 0; address <<= 1) {
    frames.clear();
    index.Frames(ElfAddress(address), &frames);
    for (const SymbolIndex::Frame& frame : frames) {
      (void)index.name(frame.function);
      (void)index.file(frame.file);
    }
  }
  CHECK(index.Verify().ok());
  return 0;
}

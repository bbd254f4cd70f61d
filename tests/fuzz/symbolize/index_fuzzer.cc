// A symbol index file. The header's checksum is made right first: a hostile file has a right one, too.
#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/symbolize/symbol_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::symbolize;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size >= sizeof(format::Header)) {
    format::Header header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    header.file_bytes = size;
    header.checksum = 0;
    header.checksum = XXH3_64bits(&header, sizeof(header));
    std::memcpy(bytes.data(), &header, sizeof(header));
  }
  const StatusOr<SymbolIndex> index = SymbolIndex::FromBytes(std::make_shared<const std::string>(std::move(bytes)));
  if (!index.ok()) return 0;
  std::vector<ElfAddress> addresses;
  for (uint64_t address = 0xff0; address < 0x1040; ++address) addresses.push_back(ElfAddress(address));
  for (uint64_t address = 1; address != 0; address <<= 1) addresses.push_back(ElfAddress(address));
  SymbolIndex::FrameLists lists;
  index->Frames(addresses, &lists);
  std::vector<SymbolIndex::Hit> hits;
  index->Find(addresses, &hits);
  std::vector<SymbolIndex::Frame> frames;
  for (size_t i = 0; i < addresses.size(); ++i) {
    frames.clear();
    CHECK(index->Frames(addresses[i], &frames) == lists.first[i + 1] - lists.first[i]);
    for (const SymbolIndex::Frame& frame : frames) {
      (void)index->name(frame.function);
      (void)index->start_line(frame.function);
      (void)index->file(frame.file);
    }
  }
  (void)index->Verify();
  return 0;
}

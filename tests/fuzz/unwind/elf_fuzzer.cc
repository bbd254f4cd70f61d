// An ELF file to an unwind table, which its own file format must give back.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "userspace/base/check.h"
#include "userspace/elf/elf_file.h"
#include "userspace/unwind/table_builder.h"
#include "userspace/unwind/table_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  const auto file =
      elf::ElfFile::FromBytes(std::make_shared<const std::string>(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!file.ok()) return 0;
  const StatusOr<unwind::UnwindTable> table = unwind::BuildUnwindTable(*file, {});
  if (!table.ok()) return 0;
  const std::string bytes = unwind::SerializeTable(*table);
  const StatusOr<unwind::UnwindTable> again = unwind::ParseTable(bytes);
  if (!again.ok()) std::fprintf(stderr, "%s\n", std::string(again.status().message()).c_str());
  CHECK(again.ok());
  CHECK(unwind::SerializeTable(*again) == bytes);
  return 0;
}

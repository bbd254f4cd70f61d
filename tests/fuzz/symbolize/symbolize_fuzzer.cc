// Text of strangers that becomes names. The first byte chooses the reader: 'k' /proc/kallsyms, 'd' a mangled name.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/demangle.h"
#include "userspace/symbolize/kernel_symbols.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  using namespace pyrometer::symbolize;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'k': {
      const size_t half = bytes.size() / 2;
      const KallsymsTable table = ParseKallsyms(bytes.substr(half), bytes.substr(0, half));
      for (uint64_t address = 1; address != 0; address <<= 1) (void)table.index.Find(ElfAddress(address));
      break;
    }
    case 'd':
      for (const DemangleStyle style : {DemangleStyle::kFull, DemangleStyle::kNoParameters}) {
        const std::string name = Demangle(bytes, style);
        CHECK(name.size() <= std::max<size_t>(kMaxDemangledBytes * 3, bytes.size() * 3));
        CHECK(IsUtf8(name));
      }
      break;
    default:
      break;
  }
  return 0;
}

#include "userspace/store/clickhouse/row_binary.h"

#include <cstring>

namespace pyrometer::store::clickhouse {

void RowReader::Copy(void* to, size_t bytes) {
  if (bytes > rest_.size()) {
    Fail();
    return;
  }
  std::memcpy(to, rest_.data(), bytes);
  rest_.remove_prefix(bytes);
}

}  // namespace pyrometer::store::clickhouse

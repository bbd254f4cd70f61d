#include "userspace/base/utc.h"

#include <gtest/gtest.h>

namespace pyrometer {
namespace {

TEST(Utc, IsWrittenByStrftimesFormats) {
  EXPECT_EQ(FormatUtc(1'764'000'000'999'999'999, "%Y-%m-%dT%H:%M:%S"), "2025-11-24T16:00:00");
  EXPECT_EQ(FormatUtc(0, "%Y%m%d-%H%M%S"), "19700101-000000");
  EXPECT_EQ(FormatUtc(-1, "%Y-%m-%d %H:%M:%S UTC"), "1969-12-31 23:59:59 UTC");
}

}  // namespace
}  // namespace pyrometer

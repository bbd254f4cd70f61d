// Symbols as the lines of a profile's frame.
#pragma once

#include "userspace/profile/dictionary.h"
#include "userspace/symbolize/symbol.h"

namespace pyrometer::symbolize {

// Fills frame->lines, or frame->miss when there is no name; what was in both is dropped.
void SetLines(const Symbol& symbol, profile::Dictionary* dictionary, profile::Frame* frame);

}  // namespace pyrometer::symbolize

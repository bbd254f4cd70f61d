#include "userspace/symbolize/profile_lines.h"

#include <memory>
#include <string>

namespace pyrometer::symbolize {

void SetLines(const Symbol& symbol, profile::Dictionary* dictionary, profile::Frame* frame) {
  frame->lines.clear();
  frame->miss = 0;
  if (!symbol.found()) {
    frame->miss = dictionary->InternString(MissReasonName(symbol.miss));
    return;
  }
  const auto add_line = [&](const FunctionName& name, const std::shared_ptr<const std::string>& file, uint32_t line) {
    profile::Function function;
    function.name = dictionary->InternString(name.name);
    function.system_name = name.system_name.empty() ? 0 : dictionary->InternString(name.system_name);
    if (file != nullptr) function.file = dictionary->InternString(*file);
    function.start_line = name.start_line;
    frame->lines.push_back({.function = dictionary->InternFunction(function), .line = line});
  };
  for (const InlinedFrame& inlined : symbol.inlined) add_line(*inlined.function, inlined.file, inlined.line);
  add_line(*symbol.function, symbol.file, symbol.line);
}

}  // namespace pyrometer::symbolize

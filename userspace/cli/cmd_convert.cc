// `pyrometer convert IN OUT`: between profile formats.
#include <cstdio>

#include "ui-export/formats/format.h"
#include "userspace/base/strings.h"
#include "userspace/cli/command.h"
#include "userspace/cli/output.h"
#include "userspace/cli/terminal.h"

namespace pyrometer::cli {
namespace {

int RunConvert(const std::string& input, const OutputFlags& output) {
  const auto formats = ResolveOutputs(output);
  if (!formats.ok()) return FailQuery(formats.status());
  std::vector<std::string> notes;
  const auto profile = formats::ReadProfile(input, &notes);
  if (!profile.ok()) return Fail(WithContext(profile.status(), StrFormat("cannot convert %s", input)));
  for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  const Status written = WriteOutputs(*profile, output, *formats, "");
  return written.ok() ? kExitDone : Fail(written);
}

}  // namespace

void AddConvertCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command = AddCommand(app, "convert", "Convert a profile from one format to another",
                                 "pyrometer convert profile.pb.gz profile.html");
  auto input = std::make_shared<std::string>();
  auto output = std::make_shared<OutputFlags>();
  output->paths.resize(1);
  command->add_option("IN", *input, "Profile to read (pprof, folded, speedscope or JSON; - is standard input)")
      ->required();
  command->add_option("OUT", output->paths[0], "File to write; its extension chooses the format (- is standard output)")
      ->required();
  command->add_option("--format", output->format,
                      "Format of OUT whatever its extension: pprof, folded, speedscope, "
                      "html, svg, json");
  command->callback(
      [&invocation, input, output] { invocation.run = [input, output] { return RunConvert(*input, *output); }; });
}

}  // namespace pyrometer::cli

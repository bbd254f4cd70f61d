// The one binary, `pyrometer`. Exit codes: terminal.h.
#include <malloc.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <thread>

#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/cli/command.h"
#include "userspace/cli/terminal.h"

namespace pyrometer::cli {

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& description,
                     const std::string& example) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer("Example:\n  " + example);
  command->option_defaults()->always_capture_default(false);
  return command;
}

namespace {

// glibc gives every few threads a heap of their own, 8 a CPU, and what one heap has free the others cannot use: under
// an attack with batches of new stacks a store with --memory 256MiB grew to 432 MiB on 2 CPUs, with 2 heaps to 192.
void LimitHeaps() {
  const unsigned heaps = std::clamp(std::thread::hardware_concurrency() / 2, 2u, 8u);
  ::mallopt(M_ARENA_MAX, static_cast<int>(heaps));
}

int Main(int argc, char** argv) {
  LimitHeaps();
  // A reader that goes away (`pyrometer top | head`) is not a reason to die without a word.
  std::signal(SIGPIPE, SIG_IGN);

  CLI::App app(
      "Pyrometer reads where CPU time goes, how long system calls take and how far away the network is, per\n"
      "container, with nothing changed in the programs it watches.");
  app.name("pyrometer");
  app.set_version_flag("--version", std::string(kVersion));
  app.require_subcommand(1);
  app.footer(
      "Start with `pyrometer up` and open the URL it prints, or `pyrometer record -o profile.html`.\n"
      "`pyrometer COMMAND --help` has an example of each; `pyrometer doctor` says what works on this machine.");
  app.failure_message([](const CLI::App* at, const CLI::Error& error) {
    // The innermost command that was being parsed knows the right --help.
    const CLI::App* command = at;
    while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
    std::string name = command->get_name();
    for (const CLI::App* parent = command->get_parent(); parent != nullptr; parent = parent->get_parent()) {
      name = parent->get_name() + " " + name;
    }
    return StrFormat("pyrometer: %s; see `%s --help`\n", error.what(), name);
  });

  Invocation invocation;
  AddUpCommand(app, invocation);
  AddAgentCommand(app, invocation);
  AddStoreCommand(app, invocation);
  AddRecordCommand(app, invocation);
  AddSessionCommand(app, invocation);
  AddTopCommand(app, invocation);
  AddFlameCommand(app, invocation);
  AddSeriesCommand(app, invocation);
  AddNetCommand(app, invocation);
  AddExportCommand(app, invocation);
  AddSyscallsCommand(app, invocation);
  AddWaitsCommand(app, invocation);
  AddConvertCommand(app, invocation);
  AddSymbolsCommand(app, invocation);
  AddCiCommand(app, invocation);
  AddDoctorCommand(app, invocation);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version arrive here too, with code 0.
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  const int code = invocation.run();
  if (std::fflush(stdout) != 0 && code == kExitDone) {
    return Fail(ErrnoError(errno, "cannot write to standard output"));
  }
  return code;
}

}  // namespace
}  // namespace pyrometer::cli

int main(int argc, char** argv) { return pyrometer::cli::Main(argc, argv); }

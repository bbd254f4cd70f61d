// How a command is added: a function registers a CLI11 subcommand, its flags and, as callback, what
// to run; the callback stores the exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pyrometer::cli {

// Filled while the command line is parsed; run afterwards, so that parse errors (exit 2) and
// failures of the work (exit 1) never mix.
struct Invocation {
  std::function<int()> run;
};

void AddUpCommand(CLI::App& app, Invocation& invocation);
void AddAgentCommand(CLI::App& app, Invocation& invocation);
void AddStoreCommand(CLI::App& app, Invocation& invocation);
// fsck, backup and restore, below `store`.
void AddStoreTools(CLI::App& store, Invocation& invocation);
void AddRecordCommand(CLI::App& app, Invocation& invocation);
void AddSessionCommand(CLI::App& app, Invocation& invocation);
void AddTopCommand(CLI::App& app, Invocation& invocation);
void AddFlameCommand(CLI::App& app, Invocation& invocation);
void AddSeriesCommand(CLI::App& app, Invocation& invocation);
void AddNetCommand(CLI::App& app, Invocation& invocation);
void AddExportCommand(CLI::App& app, Invocation& invocation);
void AddSyscallsCommand(CLI::App& app, Invocation& invocation);
void AddWaitsCommand(CLI::App& app, Invocation& invocation);
void AddConvertCommand(CLI::App& app, Invocation& invocation);
void AddSymbolsCommand(CLI::App& app, Invocation& invocation);
void AddCiCommand(CLI::App& app, Invocation& invocation);
// check, below `ci`.
void AddCiCheckCommand(CLI::App& ci, Invocation& invocation);
void AddDoctorCommand(CLI::App& app, Invocation& invocation);

// `description` and, under the flags, an example.
CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& description,
                     const std::string& example);

}  // namespace pyrometer::cli

// `pyrometer symbols upload`: debug files to the store, so that samples get names and lines; old samples too.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/cli/command.h"
#include "userspace/cli/connection.h"
#include "userspace/cli/terminal.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kPieceBytes = 1u << 20;

StatusOr<rpc::SymbolUpload> Upload(rpc::QueryApi& store, const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd file, OpenForReading(path));
  return store.UploadSymbols(path, [&]() -> StatusOr<std::string> {
    std::string piece(kPieceBytes, '\0');
    ssize_t got;
    do got = ::read(file.get(), piece.data(), piece.size());
    while (got < 0 && errno == EINTR);
    if (got < 0) return ErrnoError(errno, StrFormat("cannot read %s", path));
    piece.resize(static_cast<size_t>(got));
    return piece;
  });
}

int RunUpload(const ConnectionFlags& connection, const std::vector<std::string>& files) {
  auto store = Connect(connection);
  if (!store.ok()) return Fail(store.status());
  // The others are still of use when one is refused.
  Status problem;
  for (const std::string& path : files) {
    const StatusOr<rpc::SymbolUpload> upload = Upload(**store, path);
    if (!upload.ok()) {
      if (!problem.ok()) (void)Fail(problem);
      problem = upload.status();
      continue;
    }
    std::printf("%s: build ID %s, %s, %s functions%s%s\n", path.c_str(), upload->build_id.c_str(),
                FormatBytes(upload->bytes).c_str(), FormatCount(upload->functions).c_str(),
                upload->has_lines ? " with lines" : ", no lines",
                upload->replaced ? " (replaces an earlier upload)" : "");
  }
  return problem.ok() ? kExitDone : Fail(problem);
}

}  // namespace

void AddSymbolsCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* symbols = AddCommand(app, "symbols", "Give the store the symbols of your binaries",
                                 "pyrometer symbols upload build/shop build/libshop.so.debug");
  symbols->require_subcommand(1);
  CLI::App* upload = AddCommand(*symbols, "upload", "Upload debug files or unstripped binaries; names old samples too",
                                "pyrometer symbols upload build/shop build/libshop.so.debug");
  auto connection = AddConnectionFlags(upload);
  auto files = std::make_shared<std::vector<std::string>>();
  upload->add_option("FILE", *files, "Unstripped ELF files or their .debug files, with a build ID")->required();
  upload->callback([&invocation, connection, files] {
    invocation.run = [connection, files] { return RunUpload(*connection, *files); };
  });
}

}  // namespace pyrometer::cli

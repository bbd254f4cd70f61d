#include "userspace/cli/output.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "userspace/base/strings.h"

namespace pyrometer::cli {

std::shared_ptr<OutputFlags> AddOutputFlags(CLI::App* command) {
  auto flags = std::make_shared<OutputFlags>();
  command
      ->add_option("-o,--output", flags->paths,
                   "File to write, may repeat; the extension chooses the format: .pb.gz .pprof .folded "
                   ".speedscope.json .html .svg .json; - is standard output")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command
      ->add_option("--format", flags->format,
                   "Format of the output whatever its extension: pprof, folded, "
                   "speedscope, html, svg, json")
      ->type_name("NAME");
  return flags;
}

StatusOr<std::vector<formats::Format>> ResolveOutputs(const OutputFlags& flags) {
  std::vector<formats::Format> formats;
  for (const std::string& path : flags.paths) {
    if (!flags.format.empty()) {
      ASSIGN_OR_RETURN(const formats::Format format, formats::FormatFromName(flags.format));
      formats.push_back(format);
    } else {
      ASSIGN_OR_RETURN(const formats::Format format, formats::FormatFromPath(path));
      formats.push_back(format);
    }
    if (path == "-") continue;
    std::filesystem::path folder = std::filesystem::path(path).parent_path();
    if (folder.empty()) folder = ".";
    if (::access(folder.c_str(), W_OK | X_OK) != 0) {
      return ErrnoError(errno, StrFormat("cannot write into the folder %s of %s", folder.string(), path));
    }
    if (std::filesystem::is_directory(path)) {
      return InvalidArgumentError(StrFormat("%s is a folder; name a file in it", path));
    }
  }
  return formats;
}

Status WriteOutputs(const profile::Profile& profile, const OutputFlags& flags,
                    const std::vector<formats::Format>& formats, const std::string& title) {
  formats::WriteOptions options;
  options.title = title;
  for (size_t i = 0; i < flags.paths.size(); ++i) {
    std::vector<std::string> notes;
    RETURN_IF_ERROR(formats::WriteProfile(profile, formats[i], flags.paths[i], options, &notes));
    if (flags.paths[i] != "-") std::fprintf(stderr, "wrote %s\n", flags.paths[i].c_str());
    for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  }
  return OkStatus();
}

}  // namespace pyrometer::cli

#include "userspace/symbolize/debug_files.h"

#include <memory>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_source.h"
#include "userspace/symbolize/debug_information.h"

namespace pyrometer::symbolize {
namespace {

StatusOr<elf::ElfFile> OpenElf(const std::string& root, const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenInRoot(root, path));
  return elf::ElfFile::FromFd(std::make_shared<const UniqueFd>(std::move(fd)), root + path);
}

bool HasOwnSymbols(const elf::ElfFile& file) {
  return file.FindSection(SHT_SYMTAB) != nullptr || HasDebugInformation(file);
}

// Whether `debug`, found by debug link, belongs to the binary of `query`.
bool Belongs(const elf::ElfFile& debug, const DebugFileQuery& query) {
  const StatusOr<BuildId> id = debug.ReadBuildId();
  const bool both_have_ids = id.ok() && !id->is_fallback() && !query.build_id.empty() && !query.build_id.is_fallback();
  if (both_have_ids) return *id == query.build_id;
  const StatusOr<uint32_t> crc = elf::Crc32OfSource(debug.source(), kMaxChecksumBytes);
  return crc.ok() && *crc == query.link->crc32;
}

}  // namespace

StatusOr<elf::ElfFile> FindDebugFile(const DebugFileQuery& query, const std::vector<std::string>& debug_folders) {
  std::vector<std::string> roots;
  if (!query.root.empty() && query.root != "/") roots.push_back(query.root);
  roots.push_back("");
  const bool by_id = !query.build_id.is_fallback() && query.build_id.hex.size() > 2;
  for (const std::string& root : roots) {
    if (by_id) {
      const std::string tail =
          StrFormat("/.build-id/%s/%s.debug", query.build_id.hex.substr(0, 2), query.build_id.hex.substr(2));
      for (const std::string& folder : debug_folders) {
        StatusOr<elf::ElfFile> file = OpenElf(root, folder + tail);
        if (!file.ok() || !HasOwnSymbols(*file)) continue;
        const StatusOr<BuildId> id = file->ReadBuildId();
        if (id.ok() && *id == query.build_id) return file;
      }
    }
    if (!query.link.has_value()) continue;
    const size_t slash = query.path.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : query.path.substr(0, slash);
    const std::string& name = query.link->file_name;
    std::vector<std::string> places = {folder + "/" + name, folder + "/.debug/" + name};
    for (const std::string& debug_folder : debug_folders) places.push_back(debug_folder + folder + "/" + name);
    for (const std::string& place : places) {
      if (place == query.path) continue;  // a link to itself
      StatusOr<elf::ElfFile> file = OpenElf(root, place);
      if (file.ok() && HasOwnSymbols(*file) && Belongs(*file, query)) return file;
    }
  }
  return NotFoundError(StrFormat("no debug file for %s", query.path));
}

}  // namespace pyrometer::symbolize

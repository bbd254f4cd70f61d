#include "userspace/symbolize/debug_information.h"

#include <optional>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_source.h"
#include "userspace/symbolize/dwarf/cursor.h"
#include "userspace/symbolize/dwarf/package.h"
#include "userspace/symbolize/dwarf/section.h"

namespace pyrometer::symbolize {
namespace {

using dwarf::DebugFile;
using dwarf::DebugSections;
using dwarf::SectionNames;
using dwarf::SplitUnit;

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}
std::string BaseOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// Opens the files that one binary's debug information refers to.
class Companions {
 public:
  Companions(std::shared_ptr<const elf::ElfFile> file, const DebugInformation& about)
      : file_(std::move(file)), about_(about) {
    if (!about_.root.empty() && about_.root != "/") roots_.push_back(about_.root);
    roots_.push_back("");
    open_options_.scratch_folder = about_.scratch_folder;
    // Names of debug files say where they are in our view: "/proc/12/root/usr/lib/debug/…".
    debug_path_ = file_->name();
    if (!about_.root.empty() && debug_path_.starts_with(about_.root)) debug_path_.erase(0, about_.root.size());
  }

  StatusOr<SplitUnit> FindSplit(uint64_t id, const std::string& folder, const std::string& name) {
    OpenPackages();
    for (const dwarf::Package& package : packages_) {
      if (std::optional<DebugSections> sections = package.Find(id)) {
        return SplitUnit{package.file(), *std::move(sections)};
      }
    }
    const std::string here = FolderOf(about_.binary_path);
    for (const std::string& path :
         {dwarf::JoinPath(folder, name), dwarf::JoinPath(here, name), dwarf::JoinPath(here, BaseOf(name)),
          dwarf::JoinPath(FolderOf(debug_path_), BaseOf(name))}) {
      for (const std::string& root : roots_) {
        StatusOr<std::shared_ptr<const DebugFile>> file = OpenDebugFile(root, path, SectionNames::kSplit);
        if (file.ok()) return SplitUnit{*file, (*file)->sections()};
      }
    }
    return NotFoundError(StrFormat("%s is not there; keep it beside %s, or a package of all made by dwp",
                                   dwarf::JoinPath(folder, name), about_.binary_path));
  }

  StatusOr<SplitUnit> FindSupplement() {
    ASSIGN_OR_RETURN(const elf::DebugAltLink link, ReadSupplementLink());
    std::vector<std::string> paths = {dwarf::JoinPath(FolderOf(debug_path_), link.path)};
    if (link.build_id.hex.size() > 2) {
      for (const std::string& folder : about_.debug_folders) {
        paths.push_back(
            StrFormat("%s/.build-id/%s/%s.debug", folder, link.build_id.hex.substr(0, 2), link.build_id.hex.substr(2)));
      }
    }
    for (const std::string& folder : about_.debug_folders) {
      paths.push_back(StrFormat("%s/.dwz/%s", folder, BaseOf(link.path)));
    }
    for (const std::string& path : paths) {
      for (const std::string& root : roots_) {
        StatusOr<std::shared_ptr<const DebugFile>> file = OpenDebugFile(root, path, SectionNames::kPlain);
        if (!file.ok()) continue;
        const StatusOr<BuildId> id = (*file)->elf().ReadBuildId();
        const bool same = link.build_id.empty() || (id.ok() && *id == link.build_id) ||
                          SupplementChecksum((*file)->elf()) == link.build_id.hex;
        if (same) return SplitUnit{*file, (*file)->sections()};
      }
    }
    return NotFoundError(
        StrFormat("%s, which the debug information of %s refers to, is not there", link.path, about_.binary_path));
  }

 private:
  StatusOr<std::shared_ptr<const DebugFile>> OpenDebugFile(const std::string& root, const std::string& path,
                                                           SectionNames names) {
    ASSIGN_OR_RETURN(UniqueFd fd, OpenInRoot(root, path));
    ASSIGN_OR_RETURN(elf::ElfFile elf,
                     elf::ElfFile::FromFd(std::make_shared<const UniqueFd>(std::move(fd)), root + path));
    ASSIGN_OR_RETURN(std::unique_ptr<DebugFile> file,
                     DebugFile::Open(std::make_shared<const elf::ElfFile>(std::move(elf)), open_options_, names));
    return std::shared_ptr<const DebugFile>(std::move(file));
  }

  void OpenPackages() {
    if (std::exchange(packages_opened_, true)) return;
    for (const std::string& path : {about_.binary_path, debug_path_}) {
      for (const std::string& root : roots_) {
        StatusOr<std::shared_ptr<const DebugFile>> file = OpenDebugFile(root, path + ".dwp", SectionNames::kSplit);
        if (!file.ok()) continue;
        if (StatusOr<dwarf::Package> package = dwarf::Package::Open(*file); package.ok()) {
          packages_.push_back(*std::move(package));
        }
      }
    }
  }

  // GNU's section, or the standard's of version 5.
  StatusOr<elf::DebugAltLink> ReadSupplementLink() const {
    if (StatusOr<elf::DebugAltLink> link = file_->ReadDebugAltLink(); link.ok()) return link;
    std::string bytes;
    elf::DebugAltLink link;
    if (!ReadSupplementSection(*file_, &link.path, &link.build_id.hex)) {
      return NotFoundError(StrFormat("%s refers to a supplementary file without naming it", file_->name()));
    }
    return link;
  }
  static bool ReadSupplementSection(const elf::ElfFile& file, std::string* path, std::string* checksum) {
    const elf::Section* section = file.FindSection(".debug_sup");
    if (section == nullptr || !section->has_bytes()) return false;
    constexpr uint64_t kMaxBytes = 64u << 10;
    const StatusOr<std::string> bytes = file.ReadSection(*section, kMaxBytes);
    if (!bytes.ok()) return false;
    dwarf::Cursor cursor(*bytes);
    cursor.Skip(3);  // version, whether this is the supplement
    *path = std::string(cursor.String());
    *checksum = HexEncode(cursor.Bytes(cursor.Uleb()));
    return cursor.ok();
  }
  static std::string SupplementChecksum(const elf::ElfFile& file) {
    std::string path, checksum;
    return ReadSupplementSection(file, &path, &checksum) ? checksum : "";
  }

  const std::shared_ptr<const elf::ElfFile> file_;
  const DebugInformation& about_;
  std::vector<std::string> roots_;
  std::string debug_path_;
  dwarf::OpenOptions open_options_;
  bool packages_opened_ = false;
  std::vector<dwarf::Package> packages_;
};

}  // namespace

bool HasDebugInformation(const elf::ElfFile& file) { return DebugInformationBytes(file) > 0; }

uint64_t DebugInformationBytes(const elf::ElfFile& file) {
  for (const char* name : {".debug_info", ".zdebug_info"}) {
    const elf::Section* section = file.FindSection(name);
    if (section != nullptr && section->has_bytes() && section->size != 0) return section->size;
  }
  return 0;
}

Status AddDebugInformation(std::shared_ptr<const elf::ElfFile> file, const DebugInformation& about,
                           PlaceBuilder* places, dwarf::Reader::Counters* counters) {
  dwarf::OpenOptions options;
  options.scratch_folder = about.scratch_folder;
  StatusOr<std::unique_ptr<DebugFile>> debug = DebugFile::Open(file, options, SectionNames::kPlain);
  if (debug.status().code() == StatusCode::kNotFound) return OkStatus();
  RETURN_IF_ERROR(debug.status());
  Companions companions(file, about);
  dwarf::ReaderOptions reader_options;
  reader_options.stop = about.stop;
  reader_options.find_split = [&](uint64_t id, const std::string& folder, const std::string& name) {
    return companions.FindSplit(id, folder, name);
  };
  reader_options.find_supplement = [&] { return companions.FindSupplement(); };
  dwarf::Reader reader((*debug)->sections(), std::move(reader_options), places);
  reader.Read();
  if (counters != nullptr) *counters = reader.counters();
  return reader.status().ok() ? OkStatus() : WithContext(reader.status(), file->name());
}

}  // namespace pyrometer::symbolize

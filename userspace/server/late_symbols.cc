#include "userspace/server/late_symbols.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/profile_lines.h"

namespace pyrometer::server {
namespace {

constexpr std::string_view kUnfinished = ".unfinished-";

bool IsBuildId(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// Something to name with: symbols, or debug information (a dwz file has nothing else).
bool HasNames(const elf::ElfFile& file) {
  for (const std::string_view name : {".symtab", ".debug_info", ".zdebug_info"}) {
    const elf::Section* section = file.FindSection(name);
    if (section != nullptr && section->size > 0 && section->has_bytes()) return true;
  }
  return false;
}

Status SyncFolder(const std::string& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return ErrnoError(errno, StrFormat("cannot sync %s", folder));
  return OkStatus();
}

}  // namespace

LateSymbols::LateSymbols(const Options& options) : options_(options) {
  symbolize::Symbolizer::Options symbols;
  symbols.debug_folders = {options.folder};
  symbols.index_cache.folder = options.folder + "/index";
  symbolizer_ = std::make_unique<symbolize::Symbolizer>(std::move(symbols));
}

LateSymbols::~LateSymbols() = default;

StatusOr<std::unique_ptr<LateSymbols>> LateSymbols::Open(const Options& options) {
  RETURN_IF_ERROR(CreateDirectories(options.folder + "/.build-id"));
  std::unique_ptr<LateSymbols> symbols(new LateSymbols(options));
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(options.folder, error)) {
    const std::string name = entry.path().filename();
    std::error_code ignored;  // a file that stays is looked at the next time
    if (name.starts_with(kUnfinished)) std::filesystem::remove(entry.path(), ignored);
  }
  if (error) return UnavailableError(StrFormat("cannot list %s: %s", options.folder, error.message()));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(options.folder + "/.build-id", error)) {
    std::error_code gone;
    const uint64_t bytes = entry.path().extension() == ".debug" ? entry.file_size(gone) : 0;
    const std::string id = entry.path().parent_path().filename().string() + entry.path().stem().string();
    if (bytes > 0 && !gone && IsBuildId(id)) symbols->files_[id] = {.bytes = bytes, .used = 0};
  }
  if (error) return UnavailableError(StrFormat("cannot list %s: %s", options.folder, error.message()));
  return symbols;
}

std::string LateSymbols::PathOf(const std::string& build_id) const {
  return StrFormat("%s/.build-id/%s/%s.debug", options_.folder, build_id.substr(0, 2), build_id.substr(2));
}

bool LateSymbols::Has(const std::string& build_id) const {
  const std::lock_guard lock(mutex_);
  return files_.contains(build_id);
}

std::vector<LateSymbols::File> LateSymbols::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<File> files;
  for (const auto& [id, entry] : files_) files.push_back({.build_id = {id}, .name = "", .bytes = entry.bytes});
  return files;
}

void LateSymbols::MakeRoomLocked(uint64_t bytes, const std::string& keep) {
  uint64_t total = bytes;
  for (const auto& [id, entry] : files_) total += entry.bytes;
  while (total > options_.max_bytes) {
    auto oldest = files_.end();
    for (auto it = files_.begin(); it != files_.end(); ++it) {
      if (it->first != keep && (oldest == files_.end() || it->second.used < oldest->second.used)) oldest = it;
    }
    if (oldest == files_.end()) return;
    ::unlink(PathOf(oldest->first).c_str());
    total -= oldest->second.bytes;
    files_.erase(oldest);
  }
}

StatusOr<std::unique_ptr<LateSymbols::Upload>> LateSymbols::Begin(std::string_view name) {
  uint64_t number;
  {
    const std::lock_guard lock(mutex_);
    number = ++uploads_;
  }
  const std::string path = StrFormat("%s/%s%d-%d", options_.folder, kUnfinished, ::getpid(), number);
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return ErrnoError(errno, StrFormat("cannot create %s", path));
  return std::unique_ptr<Upload>(new Upload(this, ToUtf8(name), path, std::move(fd)));
}

LateSymbols::Upload::~Upload() {
  if (fd_) ::unlink(path_.c_str());
}

Status LateSymbols::Upload::Write(std::string_view bytes) {
  bytes_ += bytes.size();
  if (bytes_ > owner_.options_.max_file_bytes) {
    return ResourceExhaustedError(StrFormat("%s is larger than the %s that a file of symbols may have", name_,
                                            FormatBytes(owner_.options_.max_file_bytes)));
  }
  return WriteAll(fd_.get(), bytes, path_);
}

StatusOr<LateSymbols::File> LateSymbols::Upload::Finish(std::string_view expected_build_id) {
  const StatusOr<elf::ElfFile> elf = elf::ElfFile::Open(path_);
  if (!elf.ok())
    return InvalidArgumentError(StrFormat("%s is no ELF file that can be read: %s", name_, Message(elf.status())));
  const StatusOr<BuildId> id = elf->ReadBuildId();
  if (!id.ok() || id->is_fallback() || !IsBuildId(id->hex)) {
    return InvalidArgumentError(
        StrFormat("%s has no build ID, by which samples could be matched; link it with -Wl,--build-id", name_));
  }
  if (!expected_build_id.empty() && id->hex != expected_build_id) {
    return InvalidArgumentError(StrFormat("%s has the build ID %s, not %s", name_, id->hex, expected_build_id));
  }
  if (!HasNames(*elf)) {
    return InvalidArgumentError(StrFormat(
        "%s is stripped: it has neither .symtab nor debug information; upload the unstripped file or its .debug",
        name_));
  }
  if (::fsync(fd_.get()) != 0) return ErrnoError(errno, StrFormat("cannot sync %s", path_));
  const std::string place = owner_.PathOf(id->hex);
  const std::string folder = std::filesystem::path(place).parent_path();
  RETURN_IF_ERROR(CreateDirectories(folder));
  if (::rename(path_.c_str(), place.c_str()) != 0) return ErrnoError(errno, StrFormat("cannot rename %s", path_));
  fd_.Reset();
  RETURN_IF_ERROR(SyncFolder(folder));
  File file{.build_id = *id, .name = name_, .bytes = bytes_};
  {
    const std::lock_guard lock(owner_.mutex_);
    owner_.MakeRoomLocked(bytes_, id->hex);
    const auto [entry, added] =
        owner_.files_.insert_or_assign(id->hex, Entry{.bytes = bytes_, .used = ++owner_.clock_});
    file.replaced = !added;
    ++owner_.generation_;
  }
  const auto symbols = owner_.symbolizer_->Get(*id, {.path = name_, .root = "", .openers = {}, .image = nullptr});
  file.functions = symbols->index().function_count();
  file.has_lines = symbols->index().has_places();
  return file;
}

void LateSymbols::Want(std::span<const std::string> build_ids) const {
  if (!want_) return;
  for (const std::string& build_id : build_ids) {
    if (IsBuildId(build_id) && !Has(build_id)) want_(build_id);
  }
}

uint64_t LateSymbols::generation() const {
  const std::lock_guard lock(mutex_);
  return files_.empty() ? 0 : generation_;
}

std::vector<LateSymbols::Line> LateSymbols::Find(std::string_view build_id, ElfAddress address, bool has_name) {
  const std::string id(build_id);
  {
    const std::lock_guard lock(mutex_);
    const auto file = files_.find(id);
    if (file == files_.end()) return {};
    file->second.used = ++clock_;
  }
  const symbolize::Symbol symbol =
      symbolizer_->Symbolize({id}, {.path = id, .root = "", .openers = {}, .image = nullptr}, address);
  // What has a name keeps it unless more than another name is known.
  if (!symbol.found() || (has_name && symbol.line == 0 && symbol.inlined.empty())) return {};
  std::vector<Line> lines;
  const auto add = [&](const symbolize::FunctionName& name, const std::shared_ptr<const std::string>& file,
                       uint32_t line) {
    lines.push_back({.name = name.name,
                     .file = file == nullptr ? std::string() : *file,
                     .line = name.start_line != 0 ? name.start_line : line});
  };
  for (const symbolize::InlinedFrame& inlined : symbol.inlined) add(*inlined.function, inlined.file, inlined.line);
  add(*symbol.function, symbol.file, symbol.line);
  return lines;
}

void LateSymbols::Want(const profile::FlameGraph& flame) const {
  std::set<std::string> distinct;
  for (const profile::FlameGraph::Function& function : flame.functions) distinct.insert(function.build_id);
  Want(std::vector<std::string>(distinct.begin(), distinct.end()));
}

void LateSymbols::Name(profile::Profile* profile) {
  {
    const std::lock_guard lock(mutex_);
    if (files_.empty() && !want_) return;
  }
  profile::Dictionary& dictionary = profile->dictionary;
  // By mapping: whether a file is there.
  std::vector<std::string> ids(dictionary.mapping_count());
  std::vector<bool> wanted(dictionary.mapping_count(), false);
  for (profile::MappingId id = 1; id < ids.size(); ++id) {
    std::string build_id(dictionary.string(dictionary.mapping(id).build_id));
    if (!build_id.empty() && Has(build_id)) ids[id] = std::move(build_id);
  }
  const size_t frame_count = dictionary.frame_count();
  std::vector<profile::FrameId> renamed(frame_count);
  bool any = false;
  for (profile::FrameId id = 0; id < frame_count; ++id) {
    renamed[id] = id;
    const profile::Frame& frame = dictionary.frame(id);
    if (frame.kind != profile::FrameKind::kNative) continue;
    if (!frame.lines.empty() && frame.lines.front().line != 0) continue;
    if (ids[frame.mapping].empty()) {
      wanted[frame.mapping] = true;
      continue;
    }
    const std::string& build_id = ids[frame.mapping];
    const symbolize::Symbol symbol = symbolizer_->Symbolize(
        {build_id}, {.path = build_id, .root = "", .openers = {}, .image = nullptr}, frame.address);
    if (!symbol.found() || (!frame.lines.empty() && symbol.line == 0 && symbol.inlined.empty())) continue;
    profile::Frame named = frame;
    symbolize::SetLines(symbol, &dictionary, &named);
    renamed[id] = dictionary.InternFrame(std::move(named));
    any = true;
  }
  for (profile::MappingId id = 1; want_ && id < wanted.size(); ++id) {
    const std::string build_id(dictionary.string(dictionary.mapping(id).build_id));
    if (wanted[id] && IsBuildId(build_id)) want_(build_id);
  }
  if (!any) return;

  const size_t stack_count = dictionary.stack_count();
  std::vector<profile::StackId> stacks(stack_count, profile::kEmptyStack);
  for (profile::StackId id = 1; id < stack_count; ++id) {
    const profile::StackNode node = dictionary.stack(id);
    stacks[id] = dictionary.InternStack(stacks[node.parent], renamed[node.frame]);
  }
  profile::Profile named = profile::CopyHeader(*profile);
  for (size_t i = 0; i < profile->sample_count(); ++i) {
    named.Add(profile->sample(i).labels, stacks[profile->sample(i).stack], profile->values(i));
  }
  named.dictionary = std::move(dictionary);
  *profile = std::move(named);

  const std::lock_guard lock(mutex_);
  for (const std::string& id : ids) {
    if (const auto file = files_.find(id); file != files_.end()) file->second.used = ++clock_;
  }
}

}  // namespace pyrometer::server

#include "userspace/unwind/table_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::unwind {
namespace {

constexpr char kMagic[8] = {'P', 'Y', 'R', 'O', 'U', 'N', 'W', 'D'};
constexpr uint32_t kFormatVersion = 1;
constexpr std::string_view kSuffix = ".unwind";
constexpr uint64_t kMaxFileBytes = 512u << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t builder;
  uint64_t checksum;  // XXH3-64 of all bytes behind this member
  uint32_t rules;
  uint32_t parts;
  uint64_t stats[9];
};
static_assert(sizeof(Header) == 104);
constexpr size_t kChecked = offsetof(Header, rules);

struct PartHeader {
  uint64_t base;
  uint32_t pages;
  uint32_t words;
};
static_assert(sizeof(PartHeader) == 16);

constexpr uint64_t UnwindTable::Stats::*kStats[9] = {
    &UnwindTable::Stats::functions,   &UnwindTable::Stats::rows,       &UnwindTable::Stats::unsupported,
    &UnwindTable::Stats::malformed,   &UnwindTable::Stats::outside,    &UnwindTable::Stats::overlapping,
    &UnwindTable::Stats::synthesized, &UnwindTable::Stats::code_bytes, &UnwindTable::Stats::covered_bytes};

template <typename T>
void Put(const T& value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

Status Damaged(std::string_view what) { return DataLossError(StrFormat("the unwind table file is damaged: %s", what)); }

bool IsValidRule(const UnwindRule& rule) {
  return rule.kind <= PYRO_UNWIND_UNSUPPORTED && rule.reg < PYRO_REGISTERS && rule.fp_saved <= PYRO_SAVED_LOST &&
         rule.bx_saved <= PYRO_SAVED_LOST;
}

// Index ascending and inside, rows ascending within their page, rules that exist.
bool IsValidPart(const UnwindPart& part, size_t rules) {
  const auto words = static_cast<uint32_t>(part.words.size());
  if (part.base.value % (1u << PYRO_UNWIND_PAGE_SHIFT) != 0 || words > PYRO_SEGMENT_WORDS || part.pages == 0 ||
      part.pages > words - 2 || words < 3) {
    return false;
  }
  const uint32_t first_row = part.pages + 2;
  if (part.words[0] != first_row || part.words[part.pages] != words) return false;
  for (uint32_t page = 0; page < part.pages; ++page) {
    const uint32_t begin = part.words[page], end = part.words[page + 1];
    if (begin > end || end > words) return false;
    for (uint32_t row = begin; row < end; ++row) {
      const uint32_t offset = part.words[row] >> 16;
      if (offset >= (1u << PYRO_UNWIND_PAGE_SHIFT) || (row > begin && offset <= part.words[row - 1] >> 16))
        return false;
    }
  }
  for (uint32_t row = part.pages + 1; row < words; ++row) {
    if ((part.words[row] & 0xffffu) >= rules) return false;
  }
  return true;
}

// memcpy(3) takes no null pointer, not even for no bytes.
template <typename T>
void CopyTo(std::vector<T>* to, const char* from) {
  if (!to->empty()) std::memcpy(to->data(), from, to->size() * sizeof(T));
}

}  // namespace

std::string SerializeTable(const UnwindTable& table) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kFormatVersion;
  header.builder = kBuilderVersion;
  header.rules = static_cast<uint32_t>(table.rules.size());
  header.parts = static_cast<uint32_t>(table.parts.size());
  for (size_t i = 0; i < std::size(kStats); ++i) header.stats[i] = table.stats.*kStats[i];
  std::string out;
  out.reserve(sizeof(header) + table.rules.size() * sizeof(UnwindRule) + table.word_count() * 4 +
              table.parts.size() * sizeof(PartHeader));
  Put(header, &out);
  for (const UnwindRule& rule : table.rules) Put(rule, &out);
  for (const UnwindPart& part : table.parts) {
    Put(PartHeader{.base = part.base.value, .pages = part.pages, .words = static_cast<uint32_t>(part.words.size())},
        &out);
    out.append(reinterpret_cast<const char*>(part.words.data()), part.words.size() * sizeof(uint32_t));
  }
  const uint64_t checksum = XXH3_64bits(out.data() + kChecked, out.size() - kChecked);
  std::memcpy(out.data() + offsetof(Header, checksum), &checksum, sizeof(checksum));
  return out;
}

StatusOr<UnwindTable> ParseTable(std::string_view bytes) {
  Header header;
  if (bytes.size() < sizeof(header)) return Damaged("it is shorter than its header");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) return Damaged("it does not begin as one");
  if (header.version != kFormatVersion || header.builder != kBuilderVersion) {
    return FailedPreconditionError(StrFormat("an unwind table file of version %d.%d, not %d.%d", header.version,
                                             header.builder, kFormatVersion, kBuilderVersion));
  }
  if (XXH3_64bits(bytes.data() + kChecked, bytes.size() - kChecked) != header.checksum) {
    return Damaged("its checksum is another");
  }
  UnwindTable table;
  for (size_t i = 0; i < std::size(kStats); ++i) table.stats.*kStats[i] = header.stats[i];
  size_t at = sizeof(header);
  if (header.rules > PYRO_MAX_UNWIND_RULES || (bytes.size() - at) / sizeof(UnwindRule) < header.rules) {
    return Damaged("its rules are cut off");
  }
  table.rules.resize(header.rules);
  CopyTo(&table.rules, bytes.data() + at);
  at += header.rules * sizeof(UnwindRule);
  if (!std::all_of(table.rules.begin(), table.rules.end(), IsValidRule) ||
      (!table.rules.empty() && table.rules[0].kind != PYRO_UNWIND_NONE)) {
    return Damaged("a rule makes no sense");
  }
  uint64_t covered = 0;
  for (uint32_t i = 0; i < header.parts; ++i) {
    PartHeader head;
    if (bytes.size() - at < sizeof(head)) return Damaged("its parts are cut off");
    std::memcpy(&head, bytes.data() + at, sizeof(head));
    at += sizeof(head);
    if ((bytes.size() - at) / sizeof(uint32_t) < head.words) return Damaged("its parts are cut off");
    UnwindPart part;
    part.base = ElfAddress(head.base);
    part.pages = head.pages;
    part.words.resize(head.words);
    CopyTo(&part.words, bytes.data() + at);
    at += size_t{head.words} * sizeof(uint32_t);
    if (!IsValidPart(part, table.rules.size()) || head.base < covered || part.end().value < head.base) {
      return Damaged("a part makes no sense");
    }
    covered = part.end().value;
    table.parts.push_back(std::move(part));
  }
  if (at != bytes.size()) return Damaged("it is longer than its parts");
  return table;
}

TableCache::TableCache(std::string folder, uint64_t max_bytes) : folder_(std::move(folder)), max_bytes_(max_bytes) {
  std::error_code absent;
  if (folder_.empty()) return;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, absent)) {
    if (entry.path().extension() == kSuffix) names_.insert(entry.path().filename());
  }
}

std::string TableCache::NameOf(const BuildId& build_id) {
  if (build_id.hex.size() < 8 || build_id.hex.size() > 128) return "";
  std::string name = build_id.hex;
  std::replace(name.begin(), name.end(), ':', '-');  // "hash:…"
  const auto plain = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-'; };
  if (!std::all_of(name.begin(), name.end(), plain)) return "";
  return name.append(kSuffix);
}

bool TableCache::Has(const BuildId& build_id) const {
  const std::lock_guard lock(mutex_);
  return names_.contains(NameOf(build_id));
}

std::optional<UnwindTable> TableCache::Load(const BuildId& build_id) {
  if (!Has(build_id)) return std::nullopt;
  const std::string path = folder_ + "/" + NameOf(build_id);
  const StatusOr<std::string> bytes = ReadFile(path, kMaxFileBytes);
  if (!bytes.ok()) return std::nullopt;
  StatusOr<UnwindTable> table = ParseTable(*bytes);
  if (!table.ok()) return std::nullopt;
  // "Not read for longest" is told by the time of change: access times are often off.
  (void)utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  return *std::move(table);
}

Status TableCache::Store(const BuildId& build_id, const UnwindTable& table) {
  const std::string name = NameOf(build_id);
  if (folder_.empty() || name.empty()) return OkStatus();
  const std::string bytes = SerializeTable(table);
  if (bytes.size() > max_bytes_ / 2) return OkStatus();  // one file shall not drive out all others
  RETURN_IF_ERROR(CreateDirectories(folder_));
  MakeRoom(bytes.size());
  RETURN_IF_ERROR(WriteFileAtomically(folder_ + "/" + name, bytes));
  const std::lock_guard lock(mutex_);
  names_.insert(name);
  return OkStatus();
}

void TableCache::MakeRoom(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  struct File {
    std::filesystem::file_time_type changed;
    uint64_t size;
    std::filesystem::path path;
  };
  std::vector<File> files;
  uint64_t total = bytes;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    if (entry.path().extension() != kSuffix) continue;
    std::error_code gone;
    File file{entry.last_write_time(gone), entry.file_size(gone), entry.path()};
    if (gone) continue;
    total += file.size;
    files.push_back(std::move(file));
  }
  if (total <= max_bytes_) return;
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.changed < b.changed; });
  for (const File& file : files) {
    if (total <= max_bytes_) return;
    if (!std::filesystem::remove(file.path, error)) continue;
    total -= file.size;
    names_.erase(file.path.filename());
  }
}

}  // namespace pyrometer::unwind

#include "ui-export/formats/format.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ui-export/formats/folded.h"
#include "ui-export/formats/gzip.h"
#include "ui-export/formats/html.h"
#include "ui-export/formats/json_text.h"
#include "ui-export/formats/pprof.h"
#include "ui-export/formats/profile_json.h"
#include "ui-export/formats/speedscope.h"
#include "ui-export/formats/svg.h"
#include "ui-export/formats/viewer_json.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

struct Extension {
  std::string_view text;
  Format format;
};
// Longer ones first.
constexpr Extension kExtensions[] = {
    {".speedscope.json", Format::kSpeedscope},
    {".collapsed", Format::kFolded},
    {".folded", Format::kFolded},
    {".pb.gz", Format::kPprof},
    {".pprof", Format::kPprof},
    {".html", Format::kHtml},
    {".json", Format::kJson},
    {".svg", Format::kSvg},
    {".pb", Format::kPprof},
};
constexpr Format kFormats[] = {Format::kPprof, Format::kFolded, Format::kSpeedscope,
                               Format::kHtml,  Format::kSvg,    Format::kJson};
constexpr std::string_view kExtensionList = ".pb.gz, .pprof, .folded, .collapsed, .speedscope.json, .html, .svg, .json";

// Bytes looked at to tell text from protobuf.
constexpr size_t kSniffBytes = 4096;

bool LooksBinary(std::string_view bytes) {
  const std::string_view head = bytes.substr(0, kSniffBytes);
  return std::any_of(head.begin(), head.end(), [](char c) {
    const unsigned char byte = static_cast<unsigned char>(c);
    return byte < 0x20 && byte != '\n' && byte != '\r' && byte != '\t';
  });
}

StatusOr<Format> SniffPlain(std::string_view bytes, std::string_view path) {
  if (bytes.empty()) return InvalidArgumentError("the file is empty");
  std::string_view text = bytes;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  text.remove_prefix(std::min(text.size(), text.find_first_not_of(" \t\r\n")));
  if (text.starts_with('{') && !LooksBinary(text)) {
    // Both kinds of JSON name themselves near their start.
    const std::string_view head = text.substr(0, kSniffBytes);
    if (head.find(kProfileJsonFormat) != std::string_view::npos) return Format::kJson;
    if (text.find("speedscope.app/file-format-schema") != std::string_view::npos) return Format::kSpeedscope;
    const StatusOr<Format> hint = FormatFromPath(path);
    if (hint.ok() && (*hint == Format::kSpeedscope || *hint == Format::kJson)) return *hint;
    return InvalidArgumentError("JSON, but neither a speedscope file nor a pyrometer-profile");
  }
  if (text.starts_with('<')) {
    return InvalidArgumentError("HTML and SVG are pictures and cannot be read back; use the file they were made from");
  }
  return LooksBinary(bytes) ? Format::kPprof : Format::kFolded;
}

// `bytes` inflated when they are gzip; `storage` then holds them.
StatusOr<std::string_view> Plain(std::string_view bytes, std::string* storage) {
  if (!IsGzip(bytes)) return bytes;
  ASSIGN_OR_RETURN(*storage, Gunzip(bytes, kMaxInputBytes));
  return std::string_view(*storage);
}

StatusOr<profile::Profile> ParsePlain(std::string_view plain, Format format, std::vector<std::string>* notes) {
  switch (format) {
    case Format::kPprof:
      return ReadPprof(plain, notes);
    case Format::kFolded:
      return ReadFolded(plain, notes);
    case Format::kSpeedscope: {
      ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(plain));
      return ReadSpeedscope(document, notes);
    }
    case Format::kJson: {
      ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(plain));
      return ReadProfileJson(document);
    }
    case Format::kHtml:
    case Format::kSvg:
      return InvalidArgumentError(
          "HTML and SVG are pictures and cannot be read back; use the file they were made from");
  }
  return InternalError("unknown format");
}

}  // namespace

std::string_view FormatName(Format format) {
  switch (format) {
    case Format::kPprof:
      return "pprof";
    case Format::kFolded:
      return "folded";
    case Format::kSpeedscope:
      return "speedscope";
    case Format::kHtml:
      return "html";
    case Format::kSvg:
      return "svg";
    case Format::kJson:
      return "json";
  }
  return "unknown";
}

StatusOr<Format> FormatFromName(std::string_view name) {
  std::vector<std::string> names;
  for (const Format format : kFormats) {
    if (FormatName(format) == name) return format;
    names.emplace_back(FormatName(format));
  }
  return InvalidArgumentError(StrFormat("unknown format '%s': choose one of %s", name, Join(names, ", ")));
}

StatusOr<Format> FormatFromPath(std::string_view path) {
  for (const Extension& extension : kExtensions) {
    if (path.ends_with(extension.text)) return extension.format;
  }
  return InvalidArgumentError(
      StrFormat("'%s' does not say its format: end it in one of %s, or pass --format", path, kExtensionList));
}

StatusOr<std::string> Serialize(const profile::Profile& profile, Format format, const WriteOptions& options,
                                std::vector<std::string>* notes) {
  switch (format) {
    case Format::kPprof: {
      ASSIGN_OR_RETURN(const std::string plain, WritePprof(profile, notes));
      return Gzip(plain);
    }
    case Format::kFolded:
      return WriteFolded(profile, options, notes);
    case Format::kSpeedscope:
      return WriteSpeedscope(profile, options.title.empty() ? DefaultTitle(profile) : options.title, notes);
    case Format::kHtml:
      return WriteHtml(profile, options.title);
    case Format::kSvg:
      return WriteSvg(profile, options, notes);
    case Format::kJson:
      return WriteProfileJson(profile, notes);
  }
  return InternalError("unknown format");
}

Status WriteProfile(const profile::Profile& profile, Format format, const std::string& path,
                    const WriteOptions& options, std::vector<std::string>* notes) {
  ASSIGN_OR_RETURN(const std::string bytes, Serialize(profile, format, options, notes));
  if (path == "-") return WriteAll(STDOUT_FILENO, bytes, "standard output");
  return WriteFileAtomically(path, bytes);
}

StatusOr<profile::Profile> Parse(std::string_view bytes, Format format, std::vector<std::string>* notes) {
  std::string storage;
  ASSIGN_OR_RETURN(const std::string_view plain, Plain(bytes, &storage));
  return ParsePlain(plain, format, notes);
}

StatusOr<Format> SniffFormat(std::string_view bytes, std::string_view path) {
  std::string storage;
  ASSIGN_OR_RETURN(const std::string_view plain, Plain(bytes, &storage));
  return SniffPlain(plain, path);
}

StatusOr<profile::Profile> ReadProfile(const std::string& path, std::vector<std::string>* notes) {
  const std::string name = path == "-" ? std::string("standard input") : path;
  std::string bytes;
  if (path == "-") {
    ASSIGN_OR_RETURN(bytes, ReadFd(STDIN_FILENO, name, kMaxInputBytes));
  } else {
    ASSIGN_OR_RETURN(bytes, ReadFile(path, kMaxInputBytes));
  }
  std::string storage;
  const StatusOr<std::string_view> plain = Plain(bytes, &storage);
  if (!plain.ok()) return WithContext(plain.status(), StrFormat("cannot read %s", name));
  const StatusOr<Format> format = SniffPlain(*plain, path);
  if (!format.ok()) return WithContext(format.status(), StrFormat("cannot read %s", name));
  StatusOr<profile::Profile> profile = ParsePlain(*plain, *format, notes);
  if (!profile.ok()) {
    return WithContext(profile.status(), StrFormat("cannot read %s as %s", name, FormatName(*format)));
  }
  return profile;
}

}  // namespace pyrometer::formats

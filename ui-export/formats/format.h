// Reading and writing profiles in the formats of the field. The one header that commands need.
//
//   ASSIGN_OR_RETURN(Format format, FormatFromPath("out.pb.gz"));
//   std::vector<std::string> notes;                       // what the format cannot hold, for the user
//   RETURN_IF_ERROR(WriteProfile(profile, format, "out.pb.gz", {}, &notes));
//   ASSIGN_OR_RETURN(profile::Profile again, ReadProfile("out.pb.gz"));
//
// | format     | extension                | read | holds                                             |
// |------------|--------------------------|------|---------------------------------------------------|
// | pprof      | .pb.gz .pprof            | yes  | all but frame kinds (re-derived) and miss reasons |
// | folded     | .folded .collapsed       | yes  | names, kinds by suffix, one value                 |
// | speedscope | .speedscope.json         | yes  | names, files, lines, values, containers           |
// | json       | .json                    | yes  | everything                                        |
// | html, svg  | .html .svg               | no   | pictures                                          |
//
// Readers take files of strangers: every index is checked, every table has a limit, compressed input
// is inflated to at most kMaxInputBytes. A malformed file gives INVALID_ARGUMENT or DATA_LOSS, one that
// exceeds a limit RESOURCE_EXHAUSTED; never a crash, never a half-read profile.
//
// Threads: pure functions. Cost, measured with one million distinct stacks of 30 frames (-O2, one core of
// a busy machine, JSON read first): writing json 2 s, html and svg 4 s, pprof 4 s, speedscope and folded
// 6 s; reading pprof 15 s, most of it looking up stack nodes. A recorded profile has some 10,000 stacks.
// Input and profile are in memory at the same time: 250 MiB there. Does not promise: that a format gives back what it
// cannot hold; `notes` says so.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

enum class Format {
  kPprof,       // gzip-compressed profile.proto
  kFolded,      // "root;…;leaf count" lines
  kSpeedscope,  // speedscope's JSON file format
  kHtml,        // one self-contained interactive page; written only
  kSvg,         // a flame graph for any picture viewer; written only
  kJson,        // our own, lossless
};

// The name that --format takes: "pprof", "folded", "speedscope", "html", "svg", "json".
std::string_view FormatName(Format format);
// INVALID_ARGUMENT lists the known names.
StatusOr<Format> FormatFromName(std::string_view name);
// By extension, the longest match wins (".speedscope.json" before ".json"). INVALID_ARGUMENT lists the
// known extensions.
StatusOr<Format> FormatFromPath(std::string_view path);

struct WriteOptions {
  // Heading of pictures and pages; "" = made from the profile ("cpu of node n1").
  std::string title;
  // Which value folded and SVG show; unset = the profile's default value.
  std::optional<size_t> value_index;
  // Folded: kernel, JIT and inlined frames end in _[k], _[j], _[i]. Off only for tools that would show it.
  bool annotate_kinds = true;
  // Folded and SVG: these labels of a sample become its first frames ("container.name", "comm"). Unset:
  // folded has none; SVG has the container's name, where the profile holds more than one.
  std::optional<std::vector<std::string>> root_labels;
  // Page and JSON for people: SVG leaves out boxes narrower than this many pixels. Default 0.2.
  double svg_min_width = 0.2;
};

// Largest file content after decompression; the largest whole-fleet pprof files seen are some 100 MiB.
inline constexpr size_t kMaxInputBytes = size_t{1} << 30;
// Largest output. Quadratic growth (deep stacks spelled out per sample) ends here, not in swap.
inline constexpr size_t kMaxOutputBytes = size_t{2} << 30;
// Frames per stack kept on reading; deeper stacks keep their leaf side under "[truncated]". Kernel
// side unwinding stops at 127, Go's runtime at 64; 4096 leaves room for recursive JIT code.
inline constexpr size_t kMaxStackDepth = 4096;

// The bytes of `profile` in `format`. Adds to `notes` (may be null) one sentence for each thing lost.
StatusOr<std::string> Serialize(const profile::Profile& profile, Format format, const WriteOptions& options = {},
                                std::vector<std::string>* notes = nullptr);
// The same into a file, atomically: a full disk leaves no half file. "-" is standard output.
Status WriteProfile(const profile::Profile& profile, Format format, const std::string& path,
                    const WriteOptions& options = {}, std::vector<std::string>* notes = nullptr);

// Reads `bytes`, plain or gzip. Adds to `notes` what could not be taken over.
StatusOr<profile::Profile> Parse(std::string_view bytes, Format format, std::vector<std::string>* notes = nullptr);
// What `bytes` (plain or gzip) look like; `path` decides only where content does not.
StatusOr<Format> SniffFormat(std::string_view bytes, std::string_view path = {});
// Reads a file ("-" is standard input) of whatever format it turns out to be.
StatusOr<profile::Profile> ReadProfile(const std::string& path, std::vector<std::string>* notes = nullptr);

}  // namespace pyrometer::formats

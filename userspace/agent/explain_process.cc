#include "userspace/agent/explain_process.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/miss_reason.h"

namespace pyrometer::agent {
namespace {

constexpr size_t kMaxRecordBytes = 64u << 20;  // of a package manager's file; hostile containers may have larger ones

// Both names of a file where /lib is a link to /usr/lib: package records know one of them.
std::vector<std::string> NamesOf(const std::string& path) {
  std::vector<std::string> names = {path};
  if (path.starts_with("/usr/")) {
    names.push_back(path.substr(4));
  } else {
    names.push_back("/usr" + path);
  }
  return names;
}

bool HasLine(std::string_view text, std::string_view line) {
  for (size_t at = text.find(line); at != std::string_view::npos; at = text.find(line, at + 1)) {
    const size_t end = at + line.size();
    if ((at == 0 || text[at - 1] == '\n') && (end == text.size() || text[end] == '\n')) return true;
  }
  return false;
}

// dpkg: info/PACKAGE.list or info/PACKAGE:ARCH.list, a path a line.
std::optional<std::string> DpkgPackage(const std::string& root, const std::vector<std::string>& paths) {
  std::error_code error;
  std::filesystem::directory_iterator entries(root + "/var/lib/dpkg/info", error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    if (entries->path().extension() != ".list") continue;
    const StatusOr<std::string> text = ReadFile(entries->path().string(), kMaxRecordBytes);
    if (!text.ok()) continue;
    for (const std::string& path : paths) {
      if (!HasLine(*text, path)) continue;
      const std::string stem = entries->path().stem().string();
      return stem.substr(0, stem.find(':'));
    }
  }
  return std::nullopt;
}

// apk: one text; "P:package", then "F:folder" and below it "R:file".
std::optional<std::string> ApkPackage(const std::string& root, const std::vector<std::string>& paths) {
  const StatusOr<std::string> text = ReadFile(root + "/lib/apk/db/installed", kMaxRecordBytes);
  if (!text.ok()) return std::nullopt;
  std::string_view package, folder;
  for (const std::string_view line : Split(*text, '\n')) {
    if (line.starts_with("P:")) package = line.substr(2);
    if (line.starts_with("F:")) folder = line.substr(2);
    if (!line.starts_with("R:")) continue;
    const std::string file = StrFormat("/%s/%s", folder, line.substr(2));
    if (std::find(paths.begin(), paths.end(), file) != paths.end()) return std::string(package);
  }
  return std::nullopt;
}

std::string DescribeUnwinding(const Unwinding::BinaryState& state) {
  switch (state.kind) {
    case PYRO_MAPPING_TABLE:
      return StrFormat("unwind table, %s rows in %s, for %.1f%% of the code", FormatCount(state.stats.rows),
                       FormatBytes(state.bytes),
                       100.0 * static_cast<double>(state.stats.covered_bytes) /
                           static_cast<double>(std::max<uint64_t>(1, state.stats.code_bytes)));
    case PYRO_MAPPING_NO_INFO:
      return "frame pointers: it has no unwind information";
    case PYRO_MAPPING_OVER_LIMIT:
      return "frame pointers: its unwind table has no room; raise --unwind-memory";
    case PYRO_MAPPING_UNREADABLE:
      return StrFormat("frame pointers: %s", state.detail.empty() ? "the file cannot be read" : state.detail);
    case PYRO_MAPPING_PENDING:
      return "its unwind table is still being made";
    default:
      return StrFormat("frame pointers (%d)", static_cast<int>(state.kind));
  }
}

std::string DescribeNames(const symbolize::BinarySymbols& symbols) {
  const symbolize::SymbolOrigin& origin = symbols.origin();
  std::string from;
  const auto add = [&](bool there, std::string_view what) {
    if (there) from += StrFormat("%s%s", from.empty() ? "" : ", ", what);
  };
  add(origin.symbol_table, ".symtab");
  add(origin.debug_file, "a separate debug file");
  add(origin.mini_debug_info, ".gnu_debugdata");
  add(origin.go_functions, "Go's function table");
  add(origin.dynamic_symbols, ".dynsym");
  add(origin.dwarf, "DWARF (lines, inlined functions)");
  if (from.empty()) return std::string(symbolize::MissReasonName(symbols.problem()));
  return StrFormat("%s functions from %s", FormatCount(symbols.index().function_count()), from);
}

// The file's own names are only those that other files link to.
bool KnowsExportedNamesOnly(const symbolize::SymbolOrigin& origin) {
  return !origin.symbol_table && !origin.debug_file && !origin.mini_debug_info && !origin.go_functions;
}

}  // namespace

std::optional<InstalledPackage> FindPackage(const std::string& root, const std::string& path) {
  const std::vector<std::string> paths = NamesOf(path);
  if (const auto name = DpkgPackage(root, paths)) {
    return InstalledPackage{*name, StrFormat("apt install %s-dbgsym (from the distribution's debug archive; some "
                                             "packages call it -dbg)",
                                             *name)};
  }
  if (const auto name = ApkPackage(root, paths)) return InstalledPackage{*name, StrFormat("apk add %s-dbg", *name)};
  return std::nullopt;
}

StatusOr<ProcessExplanation> ExplainProcess(pid_t pid, Node& node) {
  const ProcessKey key{.tgid = static_cast<uint32_t>(pid), .start_time_ns = 0};
  const std::optional<process::ProcessInfo> info = node.processes().Describe(key);
  if (!info || !info->alive) return NotFoundError(StrFormat("no process has the id %d", pid));
  const auto regions = node.processes().Executable(key, 0);
  if (info->kernel_thread || !regions || regions->empty()) {
    return FailedPreconditionError(
        StrFormat("process %d (%s) has no user code: kernel threads have kernel stacks only", pid, ToUtf8(info->comm)));
  }

  ProcessExplanation explained{.pid = key.tgid, .comm = ToUtf8(info->comm), .code = {}};
  std::vector<std::shared_ptr<const process::Binary>> binaries;
  uint64_t generated_bytes = 0, vdso_bytes = 0;
  std::map<const process::Binary*, uint64_t> bytes_of;
  for (const process::ExecutableRegion& region : *regions) {
    const uint64_t bytes = region.end.value - region.start.value;
    if (region.kind == process::MappingKind::kAnonymous) generated_bytes += bytes;
    if (region.kind == process::MappingKind::kVdso) vdso_bytes += bytes;
    if (region.binary == nullptr) continue;
    if (bytes_of[region.binary.get()] == 0) binaries.push_back(region.binary);
    bytes_of[region.binary.get()] += bytes;
  }

  for (const auto& binary : binaries) {
    CodeExplanation code;
    code.name = ToUtf8(binary->path()) + (binary->deleted() ? " (deleted)" : "");
    code.build_id = binary->build_id().hex;
    code.code_bytes = bytes_of[binary.get()];
    if (node.unwinding() == nullptr) {
      code.unwinding = "frame pointers: unwind tables are off";
    } else {
      code.unwinding = DescribeUnwinding(node.unwinding()->Describe(binary));
    }
    const auto symbols = node.naming().SymbolsOf(binary);
    code.names = DescribeNames(*symbols);
    code.debug_file = ToUtf8(symbols->origin().debug_file_name);
    const std::optional<InstalledPackage> package = FindPackage(binary->RootPrefix(), binary->path());
    if (package) code.package = package->name;
    const symbolize::MissReason problem = symbols->problem();
    if (KnowsExportedNamesOnly(symbols->origin()) &&
        (problem == symbolize::MissReason::kNone || problem == symbolize::MissReason::kNoSymbols)) {
      code.missing = StrFormat(
          "%s: %s", problem == symbolize::MissReason::kNone ? "only exported functions have names" : "no names",
          package ? package->debug_remedy : std::string(symbolize::MissRemedy(symbolize::MissReason::kNoSymbols)));
    } else if (!symbols->problem_detail().empty()) {
      code.missing = symbols->problem_detail();
    } else if (problem != symbolize::MissReason::kNone) {
      code.missing = symbolize::MissRemedy(problem);
    } else if (!symbols->origin().dwarf && !symbols->origin().go_functions) {
      code.missing = StrFormat("no lines and inlined functions: %s",
                               package ? package->debug_remedy : "build it with -g, or install its debug package");
    }
    explained.code.push_back(std::move(code));
  }
  if (vdso_bytes > 0) {
    explained.code.push_back({.name = "[vdso]",
                              .build_id = "",
                              .code_bytes = vdso_bytes,
                              .unwinding = "unwind table, from the kernel's image",
                              .names = "the kernel's image",
                              .debug_file = "",
                              .package = "",
                              .missing = ""});
  }
  if (generated_bytes > 0) {
    const symbolize::Symbolizer::JitSource jit = node.naming().symbolizer().DescribeJit(info->key);
    CodeExplanation code{.name = "[generated code]",
                         .build_id = "",
                         .code_bytes = generated_bytes,
                         .unwinding = "frame pointers: generated code",
                         .names = jit.jit_dump   ? "the runtime's jitdump"
                                  : jit.perf_map ? "the runtime's perf map"
                                                 : "none",
                         .debug_file = "",
                         .package = "",
                         .missing = std::string(symbolize::MissRemedy(jit.why))};
    explained.code.push_back(std::move(code));
  }
  std::stable_sort(explained.code.begin(), explained.code.end(),
                   [](const CodeExplanation& a, const CodeExplanation& b) { return a.code_bytes > b.code_bytes; });
  return explained;
}

}  // namespace pyrometer::agent

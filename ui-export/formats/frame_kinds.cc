#include "ui-export/formats/frame_kinds.h"

namespace pyrometer::formats {
namespace {

using profile::FrameKind;

// Lowest address of the kernel's half on every 64-bit architecture that we know.
constexpr uint64_t kKernelHalf = 0xffff'0000'0000'0000;

bool IsPerfMap(std::string_view file) { return BaseName(file).starts_with("perf-") && file.ends_with(".map"); }

}  // namespace

std::string_view BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

bool LooksLikeLibrary(std::string_view file) {
  const std::string_view base = BaseName(file);
  const size_t so = base.find(".so");
  if (so == std::string_view::npos) return false;
  const std::string_view rest = base.substr(so + 3);
  return rest.empty() || rest.front() == '.' || rest.front() == ' ';
}

FrameKind ClassifyFrame(const FrameClues& clues) {
  const std::string_view file = clues.mapping_file;
  if (file.empty()) {
    if (clues.address >= kKernelHalf) return FrameKind::kKernel;
    if (clues.address == 0 && clues.function_name.starts_with(kTruncatedFrame)) return FrameKind::kSynthetic;
    return FrameKind::kUnknown;
  }
  if (file == kJitMapping || file == "//anon" || file.starts_with("[anon") || file.starts_with("anon_inode:") ||
      file.starts_with("/memfd:") || file == "[heap]" || file == "[stack]" || IsPerfMap(file)) {
    return FrameKind::kJit;
  }
  if (file == kInterpretedMapping) return FrameKind::kInterpreted;
  if (file == "[vdso]" || file == "[vsyscall]" || file == "[vvar]" || file == "linux-vdso.so.1") {
    return FrameKind::kNative;
  }
  // perf and others name the kernel "[kernel.kallsyms]_text", modules "[nf_conntrack]", BPF "[bpf]".
  if (file.front() == '[' || clues.address >= kKernelHalf || BaseName(file).starts_with("vmlinux") ||
      file.ends_with(".ko") || file.ends_with(".ko.xz") || file.ends_with(".ko.zst")) {
    return FrameKind::kKernel;
  }
  return FrameKind::kNative;
}

std::string_view PseudoMapping(FrameKind kind) {
  switch (kind) {
    case FrameKind::kKernel:
      return kKernelMapping;
    case FrameKind::kJit:
      return kJitMapping;
    case FrameKind::kInterpreted:
      return kInterpretedMapping;
    case FrameKind::kUnknown:
    case FrameKind::kNative:
    case FrameKind::kSynthetic:
      return {};
  }
  return {};
}

bool IsPseudoMapping(std::string_view file) { return file == kJitMapping || file == kInterpretedMapping; }

}  // namespace pyrometer::formats

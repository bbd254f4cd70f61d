#include "userspace/symbolize/demangle.h"

// libiberty's header declares basename() unless told that the C library does.
#define HAVE_DECL_BASENAME 1
#include <libiberty/demangle.h>

#include <csetjmp>
#include <cstring>

#include "userspace/base/strings.h"

namespace pyrometer::symbolize {
namespace {

// libiberty allows 2,048 components per name and reckons two for each byte.
constexpr size_t kLimitedBytes = DEMANGLE_RECURSION_LIMIT / 2;

// Receives the demangler's output piece by piece. The demangler cannot be told to stop, so the
// callback jumps out of it: it is C without memory of its own in this mode (documented: "does not
// use malloc"), except a buffer for Rust's punycode identifiers, which is lost (< 16 KiB, only for
// a name made to exceed the limit).
struct Output {
  char text[kMaxDemangledBytes];
  size_t used = 0;
  std::jmp_buf full;
};

void Append(const char* piece, size_t bytes, void* opaque) {
  auto* output = static_cast<Output*>(opaque);
  if (bytes == 0) return;  // the piece may then be null
  if (bytes > sizeof(output->text) - output->used) std::longjmp(output->full, 1);
  std::memcpy(output->text + output->used, piece, bytes);
  output->used += bytes;
}

// No object with a destructor may live in here: longjmp skips them.
bool RunDemangler(const char* name, size_t bytes, const int options, Output* output) {
  if (setjmp(output->full) != 0) return false;
  output->used = 0;
  // Rust's back references may refer to themselves: only the demangler's limit on recursion ends that.
  if (rust_demangle_callback(name, options, Append, output) != 0) return true;
  output->used = 0;
  // That limit refuses every C++ name above 1 KiB. C++ recursion consumes input, so length bounds it.
  const int unlimited = bytes > kLimitedBytes ? DMGL_NO_RECURSE_LIMIT : 0;
  return cplus_demangle_v3_callback(name, options | unlimited, Append, output) != 0;
}

bool LooksMangled(std::string_view name) {
  // "_Z" C++ and legacy Rust; "___Z" blocks of clang; "_R" Rust v0.
  return name.starts_with("_Z") || name.starts_with("_R") || name.starts_with("__Z") || name.starts_with("___Z");
}

// ThinLTO makes local functions global as "f.llvm.1234567": a hash of the module, another in each build.
std::string_view WithoutModuleHash(std::string_view name) {
  constexpr std::string_view kMark = ".llvm.";
  const size_t mark = name.rfind(kMark);
  if (mark == std::string_view::npos || mark == 0) return name;
  const std::string_view hash = name.substr(mark + kMark.size());
  const bool digits = !hash.empty() && hash.find_first_not_of("0123456789") == std::string_view::npos;
  return digits ? name.substr(0, mark) : name;
}

}  // namespace

std::string PrintableName(std::string_view text) {
  std::string name = IsUtf8(text) ? std::string(text) : ToUtf8(text);
  for (char& c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return name;
}

std::string Demangle(std::string_view name, DemangleStyle style) {
  name = WithoutModuleHash(name);
  if (!LooksMangled(name) || name.size() > kMaxMangledBytes || name.find('\0') != std::string_view::npos) {
    return PrintableName(name);
  }
  int options = DMGL_ANSI;
  if (style == DemangleStyle::kFull) options |= DMGL_PARAMS;
  const std::string terminated(name);
  // 16 KiB: too much for a stack frame under the demangler's own recursion.
  static thread_local Output output;
  if (!RunDemangler(terminated.c_str(), terminated.size(), options, &output)) return PrintableName(name);
  return PrintableName(std::string_view(output.text, output.used));
}

}  // namespace pyrometer::symbolize

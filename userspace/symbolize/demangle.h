// Mangled names into names for people: C++ (Itanium), Rust (v0 and legacy).
//
//   Demangle("_ZN4shop8CheckoutEi")                       -> "shop::Checkout(int)"
//   Demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE") -> "core::fmt::Write::write_fmt"
//
// Names that are not mangled, those of other schemes (Swift's "$s…", D's "_D…"), and mangled names beyond the limits
// come back as they are. Rust's hashes and crate disambiguators are removed, and so are the module hashes of ThinLTO
// ("f.llvm.123"), which would make each build another function; clones keep their mark ("f() [clone .cold]").
//
// Hostile names are bounded: at most 4 KiB in and 16 KiB out (a few hundred bytes of a C++ name can
// expand to gigabytes), which also bounds time (under 1 ms) and stack (under 1 MiB, measured with
// nests of every recursive construct).
//
// Threads: any. Cost: ~1 µs for a name of 50 bytes. Callers cache (symbolizer.h does).
// Does not promise to tell C++ from Rust's legacy scheme, which is C++'s with a hash at the end.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pyrometer::symbolize {

inline constexpr size_t kMaxMangledBytes = 4096;
inline constexpr size_t kMaxDemangledBytes = 16 << 10;

enum class DemangleStyle {
  kFull,          // "shop::Basket<int>::Total(int)"
  kNoParameters,  // "shop::Basket<int>::Total": overloads become one name
};

std::string Demangle(std::string_view name, DemangleStyle style = DemangleStyle::kFull);

// `text` as well-formed UTF-8 without control characters (each becomes '?'): names come from files
// of strangers and go to terminals, JSON and protobuf.
std::string PrintableName(std::string_view text);

}  // namespace pyrometer::symbolize

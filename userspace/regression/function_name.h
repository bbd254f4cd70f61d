// Names of functions that stay the same from build to build, so that the same function is compared with itself.
//
//   NormalizeFunctionName("int shop::Sum<std::vector<int>>(std::vector<int> const&) [clone .part.0]")  -> "shop::Sum<>"
//   NormalizeFunctionName("std::sort<It, main::{lambda(int, int)#2}>(It, It)")                          ->
//   "std::sort<>" NormalizeFunctionName("memcpy.isra.0.cold")                                                        ->
//   "memcpy" NormalizeModule("/usr/lib/x86_64-linux-gnu/libz.so.1.2.13")                                        ->
//   "libz.so"
//
// Rules, in this order (docs/ci.md tells them to users):
//  1. Clone suffixes go: .part .constprop .isra .cold .hot .unlikely .lto_priv .localalias .llvm .clone .resolver with
//     their numbers, as a suffix or as "[clone …]"; "non-virtual thunk to " and "virtual thunk to " before the name;
//     "@PLT", symbol versions ("@@GLIBC_2.14"), ABI tags ("[abi:cxx11]").
//  2. Parameters, trailing qualifiers and the return type of a template go: overloads are one function, and a new
//  parameter
//     does not make a new one.
//  3. Template arguments become "<>": all instances are one function, whatever they are made for.
//  4. Lambdas lose number and signature: "{lambda}"; also "$_0", "{{closure}}#1" of Rust and ".func1" of Go. Unnamed
//  types
//     become "{unnamed}".
//  5. Names that are addresses ("libfoo.so+0x1234") become "[libfoo.so]".
// What merges too much is merged on both sides: a change is then seen in the merged function, never missed.
//
// Threads: pure functions. Cost: about 0.5 µs for a name of 60 bytes, linear; hostile nesting only costs its length.
#pragma once

#include <string>
#include <string_view>

namespace pyrometer::regression {

std::string NormalizeFunctionName(std::string_view name);

// Base name of a mapping's file without version numbers; kernel modules and "[vdso]" as they are.
std::string NormalizeModule(std::string_view path);

// True for a module that is a shared library, the kernel or the vdso: not the program itself.
bool IsLibraryModule(std::string_view module);

// The class or namespace part of a normalised name, "" when there is none: "shop::Basket::Sum" -> "shop::Basket".
std::string_view ScopeOf(std::string_view normalized_name);

}  // namespace pyrometer::regression

#include "userspace/regression/function_name.h"

#include <gtest/gtest.h>

namespace pyrometer::regression {
namespace {

TEST(FunctionName, WhatVariesFromBuildToBuildGoes) {
  const std::pair<const char*, const char*> kCases[] = {
      {"main", "main"},
      {"memcpy.isra.0.cold", "memcpy"},
      {"parse.constprop.12", "parse"},
      {"parse.part.0 [clone .cold]", "parse"},
      {"int shop::Sum<std::vector<int>>(std::vector<int> const&) [clone .part.0]", "shop::Sum<>"},
      {"shop::Basket::Total(int) const", "shop::Basket::Total"},
      {"(anonymous namespace)::helper(char const*)", "(anonymous)::helper"},
      {"main::{lambda(int, int)#2}::operator()(int, int) const", "main::{lambda}::operator()"},
      {"f(int)::helper()", "f::helper"},
      {"operator<<(std::ostream&, Basket const&)", "operator<<"},
      {"bool operator< <int>(A<int> const&, A<int> const&)", "operator< <>"},
      {"std::vector<int, std::allocator<int> >::push_back(int&&)", "std::vector<>::push_back"},
      {"non-virtual thunk to shop::Basket::Add(int)", "shop::Basket::Add"},
      {"std::__cxx11::to_string[abi:cxx11](int)", "std::__cxx11::to_string"},
      {"memcpy@@GLIBC_2.14", "memcpy"},
      {"malloc@plt", "malloc"},
      {"main.main.func1.2", "main.main.func"},
      {"main.(*Shop).Serve", "main.(*Shop).Serve"},
      {"core::slice::sort::{{closure}}", "core::slice::sort::{closure}"},
      {"<alloc::vec::Vec<u8> as core::fmt::Write>::write_str", "<alloc::vec::Vec<> as core::fmt::Write>::write_str"},
      {"libfoo.so.1+0x1234", "[libfoo.so]"},
      {"[unknown]", "[unknown]"},
      {"", ""},
  };
  for (const auto& [name, expected] : kCases) EXPECT_EQ(NormalizeFunctionName(name), expected) << name;
}

TEST(FunctionName, LambdasOfTwoBuildsAreOne) {
  EXPECT_EQ(NormalizeFunctionName("std::sort<It, main::{lambda(int, int)#2}>(It, It)"),
            NormalizeFunctionName("std::sort<It, main::{lambda(int, int)#7}>(It, It)"));
  EXPECT_EQ(NormalizeFunctionName("run()::$_0::operator()() const"),
            NormalizeFunctionName("run()::$_3::operator()() const"));
}

TEST(FunctionName, HostileNamesEndAndStaySmall) {
  for (const char* part :
       {"<", "(", "{", "[", "operator", "operator<", "a<", "::", " ", "$_", "{lambda", ".part.", "->", "+0x"}) {
    std::string name;
    while (name.size() < 20'000) name += part;
    EXPECT_LE(NormalizeFunctionName(name).size(), 3 * name.size()) << part;
    EXPECT_LE(NormalizeFunctionName("f" + name).size(), 3 * name.size()) << part;
  }
}

TEST(FunctionName, Modules) {
  EXPECT_EQ(NormalizeModule("/usr/lib/x86_64-linux-gnu/libz.so.1.2.13"), "libz.so");
  EXPECT_EQ(NormalizeModule("/lib/libc-2.31.so"), "libc.so");
  EXPECT_EQ(NormalizeModule("/opt/app (deleted)"), "app");
  EXPECT_EQ(NormalizeModule("[vdso]"), "[vdso]");
  EXPECT_TRUE(IsLibraryModule("libz.so"));
  EXPECT_TRUE(IsLibraryModule("[kernel]"));
  EXPECT_FALSE(IsLibraryModule("app"));
}

TEST(FunctionName, Scopes) {
  EXPECT_EQ(ScopeOf("shop::Basket::Sum"), "shop::Basket");
  EXPECT_EQ(ScopeOf("std::vector<>::push_back"), "std::vector<>");
  EXPECT_EQ(ScopeOf("main.main"), "main");
  EXPECT_EQ(ScopeOf("memcpy"), "");
}

}  // namespace
}  // namespace pyrometer::regression

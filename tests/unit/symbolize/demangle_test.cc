#include "userspace/symbolize/demangle.h"

#include <cxxabi.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::symbolize {
namespace {

TEST(DemangleTest, Cpp) {
  EXPECT_EQ(Demangle("_ZN4shop8CheckoutEi"), "shop::Checkout(int)");
  EXPECT_EQ(Demangle("_ZN4shop6BasketIiE5TotalEi"), "shop::Basket<int>::Total(int)");
  EXPECT_EQ(Demangle("_ZL10only_locali"), "only_local(int)");
  EXPECT_EQ(Demangle("_ZNSt6vectorIiSaIiEE9push_backEOi"), "std::vector<int, std::allocator<int> >::push_back(int&&)");
  EXPECT_EQ(Demangle("_Z3foov.cold"), "foo() [clone .cold]");
  EXPECT_EQ(Demangle("_ZN4shop8CheckoutEi", DemangleStyle::kNoParameters), "shop::Checkout");
  EXPECT_EQ(Demangle("_ZN4shop6BasketIiE5TotalEi", DemangleStyle::kNoParameters), "shop::Basket<int>::Total");
}

TEST(DemangleTest, RustWithoutHashes) {
  // Legacy scheme, as rustc made it until 1.95's default.
  EXPECT_EQ(Demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"), "core::fmt::Write::write_fmt");
  EXPECT_EQ(
      Demangle("_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE"),
      "<Test + 'static as foo::Bar<Test>>::bar");
  EXPECT_EQ(Demangle("_ZN5alloc3vec12Vec$LT$T$GT$4push17h0123456789abcdefE"), "alloc::vec::Vec<T>::push");
  // v0.
  EXPECT_EQ(Demangle("_RNvC6_123foo3bar"), "123foo::bar");
  EXPECT_EQ(Demangle("_RNvNtCs1234_7mycrate3foo3bar"), "mycrate::foo::bar");
  EXPECT_EQ(Demangle("_RINvNtC3std3mem8align_ofjdE"), "std::mem::align_of::<usize, f64>");
  EXPECT_EQ(
      Demangle("_RNCINkXs25_NgCsbmNqQUJIY6D_4core5sliceINyB9_4IterhENuNgNoBb_4iter8iterator8Iterator9rpositionNCNgNpB9_"
               "6memchr7memrchrs_0E0Bb_"),
      "<core::slice::Iter<u8> as core::iter::iterator::Iterator>::rposition::<core::slice::memchr::memrchr::"
      "{closure#1}>::{closure#0}");
}

TEST(DemangleTest, OtherNamesStayAsTheyAre) {
  for (const std::string name : {"main", "", "_start", "_Z", "_R", "_Zfoo bar", "_ZN4shop8Check", "$s4main3fooyyF",
                                 "main.(*Server).Serve", "_Random", "_ZN",
                                 // Swift in all its ages, D, OCaml, Haskell, JIT names.
                                 "$s4main3fooyyF", "_$s4main3fooyyF", "$S4main3fooyyF", "_T04main3fooyyF",
                                 "@$s4main3fooyyF", "$e4main3fooyyF", "_D4main3fooFZv", "camlShop__total_42",
                                 "base_GHCziShow_zdfShowInt_info", "LazyCompile:*total /srv/shop.js:3"}) {
    EXPECT_EQ(Demangle(name), name);
  }
  EXPECT_EQ(Demangle(std::string_view("_Z3foov\0x", 9)), "_Z3foov?x");
}

TEST(DemangleTest, HashesOfModulesAreRemoved) {
  EXPECT_EQ(Demangle("_ZL5localv.llvm.1234567890"), "local()");
  EXPECT_EQ(Demangle("local.llvm.42"), "local");
  EXPECT_EQ(Demangle("_ZN5alloc5alloc8box_free17h45f34fb312d568fbE.llvm.17816442430111643393"),
            "alloc::alloc::box_free");
  for (const char* name : {"f.llvm.", "f.llvm.x1", ".llvm.1"}) EXPECT_EQ(Demangle(name), name);
}

// What a demangler of another scheme makes of a hostile name must not be garbage either.
TEST(DemangleTest, SwiftNamesCutAnywhereStayAsTheyAre) {
  const std::string name = "$s4shop8CheckoutC5total3foryAA6BasketV_tYaKF10discountedL_7percentS2i_tF";
  for (size_t n = 0; n <= name.size(); ++n) EXPECT_EQ(Demangle(name.substr(0, n)), name.substr(0, n));
}

TEST(DemangleTest, TextIsMadePrintable) {
  EXPECT_EQ(Demangle("a\x1b[31mb\n"), "a?[31mb?");
  EXPECT_EQ(PrintableName("plain"), "plain");
  EXPECT_TRUE(IsUtf8(Demangle("\xff\xfe")));
  EXPECT_EQ(PrintableName("gr\xc3\xbc\xc3\x9f"
                          "e"),
            "gr\xc3\xbc\xc3\x9f"
            "e");
}

TEST(DemangleTest, AgreesWithTheCompilersOwnDemangler) {
  int compared = 0;
  for (const char* name :
       {"_ZNKSt6localeeqERKS_", "_ZSt4endlIcSt11char_traitsIcEERSt13basic_ostreamIT_T0_ES6_",
        "_ZNSt8__detail9_Map_baseIiSt4pairIKiiESaIS3_ENS_10_Select1stESt8equal_toIiESt4hashIiENS_18_Mod_"
        "range_hashingENS_20_Default_ranged_hashENS_20_Prime_rehash_policyENS_17_Hashtable_traitsILb0ELb0E"
        "Lb1EEELb1EEixERS2_",
        "_ZZ4mainENKUlvE_clEv", "_ZThn16_N1A1fEv", "_ZN9__gnu_cxx17__normal_iteratorIPiSt6vectorIiSaIiEEEppEv"}) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> expected(abi::__cxa_demangle(name, nullptr, nullptr, &status),
                                                               std::free);
    ASSERT_EQ(status, 0) << name;
    EXPECT_EQ(Demangle(name), expected.get());
    ++compared;
  }
  EXPECT_EQ(compared, 6);
}

std::string Repeat(const std::string& text, size_t times) {
  std::string result;
  for (size_t i = 0; i < times; ++i) result += text;
  return result;
}

std::string Substitution(int n) {
  std::string digits;
  if (n > 0) {
    --n;
    do {
      const int digit = n % 36;
      digits.insert(digits.begin(), static_cast<char>(digit < 10 ? '0' + digit : 'A' + digit - 10));
      n /= 36;
    } while (n > 0);
  }
  return "S" + digits + "_";
}

std::vector<std::string> HostileNames() {
  std::string doubling = "_Z1f1aIiiE";
  for (int i = 1; i < 60; ++i) doubling += "S_I" + Substitution(i) + Substitution(i) + "E";
  // Found by fuzzing: a Rust back reference that leads to itself.
  const std::string self_reference =
      "_RNCINkXs25_NgCsbmNqQUJIY6D_4core5sliceINyB4_4IterhENuNgNoBb_4iter8iterator8Iterator9rpositionNCNgNpB9_6memchr"
      "7memrchrs_0E0Bb_";
  std::vector<std::string> names = {doubling, self_reference};
  for (const size_t length : {size_t{900}, kMaxMangledBytes - 100}) {
    names.push_back("_Z1f" + Repeat("P", length) + "i");
    names.push_back("_Z1f" + Repeat("1aI", length / 4) + "i" + Repeat("E", length / 4));
    names.push_back("_Z1fI" + Repeat("1aI", length / 4) + "i" + Repeat("E", length / 4) + "Evv");
    names.push_back("_Z1f" + Repeat("F", length / 2) + "i" + Repeat("E", length / 2));
    names.push_back("_Z1f" + Repeat("Dp", length / 2) + "i");
    names.push_back("_Z1fIX" + Repeat("ng", length / 2) + "Li1EEEvv");
    names.push_back("_Z" + Repeat("Z1fvE", length / 5) + "1f");
    names.push_back("_Z1fIX" + Repeat("L_Z1fIX", length / 13) + "Li1E" + Repeat("EEvvE", length / 13) + "EEvv");
    names.push_back("_R" + Repeat("N", length / 3) + "C1a" + Repeat("1b", length / 3));
    names.push_back("_RIC1a" + Repeat("R", length) + "uE");
    names.push_back("_RINvC1a1f" + Repeat("TT", length / 2) + "E");
    names.push_back("_ZN" + Repeat("2$u", length / 4) + "17h0123456789abcdefE");
  }
  return names;
}

// The essay's bounds, on a thread with exactly 1 MiB of stack.
TEST(DemangleTest, HostileNamesAreBoundedInTimeStackAndOutput) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 1 << 20), 0);
  const auto started = std::chrono::steady_clock::now();
  pthread_t thread;
  size_t longest = 0;
  const auto body = [](void* result) -> void* {
    for (const std::string& name : HostileNames()) {
      *static_cast<size_t*>(result) = std::max(*static_cast<size_t*>(result), Demangle(name).size());
    }
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, body, &longest), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  EXPECT_GT(longest, 0u);
  EXPECT_LE(longest, kMaxDemangledBytes);
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(5));
  pthread_attr_destroy(&attributes);
}

TEST(DemangleTest, LongCppNamesAreDemangledToo) {
  std::string mangled = "_Z1fI", expected = "void f<";
  for (int i = 0; i < 400; ++i) {
    mangled += "4type";
    expected += i == 0 ? "type" : ", type";
  }
  EXPECT_GT(mangled.size(), 1500u);
  EXPECT_EQ(Demangle(mangled + "Evv"), expected + ">()");
}

TEST(DemangleTest, OutputBeyondTheLimitGivesTheMangledName) {
  const std::string name = HostileNames().front();
  EXPECT_EQ(Demangle(name), name);
  EXPECT_EQ(Demangle("_Z1fv"), "f()") << "works again after the jump out of the demangler";
  const std::string overlong = "_Z1f" + std::string(kMaxMangledBytes, 'i');
  EXPECT_EQ(Demangle(overlong), overlong);
}

TEST(DemangleTest, RandomBytesNeverHarm) {
  std::mt19937 random(7);
  const std::string alphabet = "_ZNRIESTKPRSabcdivxjlms0123456789$.LDpFXngC";
  for (int i = 0; i < 20'000; ++i) {
    std::string name = i % 2 == 0 ? "_Z" : "_R";
    const size_t length = random() % 200;
    for (size_t j = 0; j < length; ++j) name += alphabet[random() % alphabet.size()];
    EXPECT_LE(Demangle(name).size(), kMaxDemangledBytes);
  }
}

}  // namespace
}  // namespace pyrometer::symbolize

#include "userspace/profile/dictionary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pyrometer::profile {
namespace {

FrameId NamedFrame(Dictionary& d, std::string_view name) {
  const FunctionId function = d.InternFunction({.name = d.InternString(name)});
  return d.InternFrame({.kind = FrameKind::kNative, .lines = {{.function = function, .line = 3}}});
}

TEST(Dictionary, EqualContentGivesEqualIds) {
  Dictionary d;
  EXPECT_EQ(d.InternString(""), 0u);
  EXPECT_EQ(d.InternString("x"), d.InternString("x"));
  EXPECT_NE(d.InternString("x"), d.InternString("y"));
  EXPECT_EQ(NamedFrame(d, "main"), NamedFrame(d, "main"));
  EXPECT_EQ(d.InternMapping({}), 0u);
  EXPECT_EQ(d.InternLabelSet({}), 0u);
}

TEST(Dictionary, StacksShareTheirCallers) {
  Dictionary d;
  const FrameId main = NamedFrame(d, "main"), a = NamedFrame(d, "a"), b = NamedFrame(d, "b");
  const StackId sa = d.InternStackLeafFirst(std::vector<FrameId>{a, main});
  const StackId sb = d.InternStackLeafFirst(std::vector<FrameId>{b, main});
  EXPECT_EQ(d.stack_count(), 4u);  // empty, main, main;a, main;b
  EXPECT_EQ(d.stack(sa).parent, d.stack(sb).parent);
  EXPECT_LT(d.stack(sa).parent, sa);
  EXPECT_THAT(d.FramesLeafFirst(sa), testing::ElementsAre(a, main));
  EXPECT_EQ(d.Depth(sb), 2u);
}

TEST(Dictionary, UnnamedFramesShowWhereTheyLie) {
  Dictionary d;
  const MappingId mapping = d.InternMapping({.file = d.InternString("/usr/lib/libx.so")});
  EXPECT_EQ(d.FrameName(d.InternFrame({.mapping = mapping, .address = ElfAddress(0x1f)})), "libx.so+0x1f");
  EXPECT_EQ(d.FrameName(d.InternFrame({.kind = FrameKind::kNative})), "[unknown]");
}

TEST(Dictionary, CopiesAreIndependent) {
  Dictionary d;
  d.InternString("x");
  Dictionary copy = d;
  d = Dictionary();
  EXPECT_EQ(copy.InternString("x"), 1u);
  EXPECT_EQ(copy.string(1), "x");
}

TEST(DictionaryMapper, CopiesVeryDeepStacks) {
  Dictionary from, to;
  StackId stack = kEmptyStack;
  for (int i = 0; i < 200'000; ++i) stack = from.InternStack(stack, NamedFrame(from, i % 2 ? "f" : "g"));
  to.InternString("shifts the ids");
  DictionaryMapper mapper(from, &to);
  const StackId there = mapper.Stack(stack);
  EXPECT_EQ(to.Depth(there), 200'000u);
  EXPECT_EQ(to.FrameName(to.stack(there).frame), "f");
  EXPECT_EQ(mapper.Stack(stack), there);
}

}  // namespace
}  // namespace pyrometer::profile

#include "ui-export/formats/pprof.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "proto/pprof/profile.pb.h"
#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/format.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

namespace pb = perftools::profiles;
using profile::FrameKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A small valid message to damage.
pb::Profile Valid() {
  pb::Profile p;
  for (const char* text : {"", "cpu", "nanoseconds", "main", "/bin/app", "key", "value"}) p.add_string_table(text);
  pb::ValueType* type = p.add_sample_type();
  type->set_type(1);
  type->set_unit(2);
  pb::Mapping* mapping = p.add_mapping();
  mapping->set_id(7);
  mapping->set_filename(4);
  pb::Function* function = p.add_function();
  function->set_id(900);
  function->set_name(3);
  pb::Location* location = p.add_location();
  location->set_id(1'000'000'000'000);  // neither dense nor small
  location->set_mapping_id(7);
  location->set_address(0x10);
  location->add_line()->set_function_id(900);
  pb::Sample* sample = p.add_sample();
  sample->add_location_id(1'000'000'000'000);
  sample->add_value(5);
  pb::Label* label = sample->add_label();
  label->set_key(5);
  label->set_str(6);
  return p;
}

StatusOr<profile::Profile> Read(const pb::Profile& p, std::vector<std::string>* notes = nullptr) {
  return ReadPprof(p.SerializeAsString(), notes);
}

TEST(Pprof, ExactBytes) {
  profile::Profile p;
  p.value_types = {{"cpu", "ns"}};
  const profile::FrameId frame = AddFrame(&p, "f", FrameKind::kKernel, "", 0x40);
  p.Add(0, p.dictionary.InternStack(profile::kEmptyStack, frame), {-2});
  const std::string want =
      "0a0408011002"  // sample_type { type: 1 unit: 2 }
      "120f"
      "0a0102"
      "120afeffffffffffffffff01"  // sample { location_id: 2 value: -2 }
      "220a"
      "0802"
      "1001"
      "1840"
      "2202"
      "0802"  // location { id: 2 mapping_id: 1 address: 0x40 line { function_id: 2 } }
      "1a06"
      "0801"
      "2803"
      "3801"  // mapping { id: 1 filename: 3 has_functions }
      "2a06"
      "0802"
      "1004"
      "1804"  // function { id: 2 name: 4 system_name: 4 }
      "7001"  // default_sample_type: 1
      "3200"
      "3203637075"
      "32026e73"  // "", "cpu", "ns"
      "32085b6b65726e656c5d"
      "320166";  // "[kernel]", "f"
  const StatusOr<std::string> bytes = WritePprof(p, nullptr);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(HexEncode(*bytes), want);
}

TEST(Pprof, TheMainBinaryComesFirst) {
  profile::Profile p;
  p.value_types = {{"samples", "count"}};
  std::vector<profile::FrameId> leaf_first;
  for (const char* module : {"[vdso]", "/lib/libc.so.6", "/bin/helper", "/bin/main", "/bin/main"}) {
    leaf_first.push_back(AddFrame(&p, "f", FrameKind::kNative, module, 0x100 + leaf_first.size()));
  }
  p.Add(0, p.dictionary.InternStackLeafFirst(leaf_first), {1});
  pb::Profile out;
  ASSERT_TRUE(out.ParseFromString(*WritePprof(p, nullptr)));
  ASSERT_EQ(out.mapping_size(), 4);
  EXPECT_EQ(out.string_table(static_cast<int>(out.mapping(0).filename())), "/bin/main");
  EXPECT_EQ(out.mapping(0).id(), 1u);
}

TEST(Pprof, MappingFlagsSayWhatIsThere) {
  pb::Profile out;
  ASSERT_TRUE(out.ParseFromString(*WritePprof(ShopProfile(), nullptr)));
  std::map<std::string, const pb::Mapping*> mappings;
  for (const pb::Mapping& mapping : out.mapping()) {
    mappings[out.string_table(static_cast<int>(mapping.filename()))] = &mapping;
  }
  ASSERT_EQ(mappings.size(), 5u);
  EXPECT_TRUE(mappings["/srv/shop"]->has_functions());
  EXPECT_TRUE(mappings["/srv/shop"]->has_line_numbers());
  EXPECT_TRUE(mappings["/srv/shop"]->has_inline_frames());
  EXPECT_TRUE(mappings["[kernel]"]->has_functions());
  EXPECT_FALSE(mappings["[kernel]"]->has_filenames());
  EXPECT_TRUE(mappings["[jit]"]->has_functions());
  EXPECT_FALSE(mappings["/opt/lib/x.so"]->has_functions()) << "so that the client may try to symbolize it";
}

TEST(Pprof, ReadsSparseIdsAndPlainOrGzip) {
  const std::string bytes = Valid().SerializeAsString();
  for (const std::string& input : {bytes, *Serialize(*ReadPprof(bytes, nullptr), Format::kPprof)}) {
    const StatusOr<profile::Profile> p = Parse(input, Format::kPprof);
    ASSERT_TRUE(p.ok()) << p.status();
    EXPECT_THAT(Describe(*p), HasSubstr("{key=\"value\"} main( :0 0:0)@native[/bin/app  0-0+0]0x10 5\n"));
  }
}

TEST(Pprof, ReadsTablesInAnyOrder) {
  // Sample first, strings in the middle, mapping last: legal, since fields may come in any order.
  const pb::Profile all = Valid();
  const auto part = [&](auto&& keep) {
    pb::Profile piece;
    keep(&piece);
    return piece.SerializeAsString();
  };
  const std::string bytes = part([&](pb::Profile* p) { *p->mutable_sample() = all.sample(); }) +
                            part([&](pb::Profile* p) { *p->mutable_location() = all.location(); }) +
                            part([&](pb::Profile* p) { *p->mutable_string_table() = all.string_table(); }) +
                            part([&](pb::Profile* p) { *p->mutable_function() = all.function(); }) +
                            part([&](pb::Profile* p) { *p->mutable_mapping() = all.mapping(); }) +
                            part([&](pb::Profile* p) { *p->mutable_sample_type() = all.sample_type(); });
  const StatusOr<profile::Profile> p = ReadPprof(bytes, nullptr);
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(Describe(*p), Describe(*Read(all)));
}

TEST(Pprof, NumericLabelsBecomeText) {
  pb::Profile in = Valid();
  pb::Label* label = in.mutable_sample(0)->mutable_label(0);
  label->set_str(0);
  label->set_num(-8);
  label->set_num_unit(2);
  std::vector<std::string> notes;
  const StatusOr<profile::Profile> p = Read(in, &notes);
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(p->dictionary.label_set(p->sample(0).labels).Get("key"), "-8 nanoseconds");
  EXPECT_THAT(notes, ElementsAre(HasSubstr("numeric labels")));
}

TEST(Pprof, WithoutADefaultTheLastTypeIsShownFirst) {
  pb::Profile in = Valid();
  *in.add_sample_type() = in.sample_type(0);
  in.mutable_sample_type(1)->set_type(3);
  in.mutable_sample(0)->add_value(1);
  EXPECT_EQ(Read(in)->default_value, 1u);
  in.set_default_sample_type(1);
  EXPECT_EQ(Read(in)->default_value, 0u);
}

TEST(Pprof, BadBytesInNamesAreReplaced) {
  pb::Profile in = Valid();
  in.set_string_table(3, std::string("ma\xffin"));
  const StatusOr<profile::Profile> p = Read(in);
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_THAT(Describe(*p), HasSubstr("ma\xEF\xBF\xBDin"));
}

struct Damage {
  const char* name;
  void (*apply)(pb::Profile*);
  const char* message;
};
class PprofDamage : public testing::TestWithParam<Damage> {};

TEST_P(PprofDamage, IsRefusedWithAReason) {
  pb::Profile in = Valid();
  GetParam().apply(&in);
  const StatusOr<profile::Profile> p = Read(in);
  ASSERT_FALSE(p.ok());
  EXPECT_THAT(std::string(Message(p.status())), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, PprofDamage,
    testing::Values(
        Damage{"NoStrings", [](pb::Profile* p) { p->clear_string_table(); }, "string table"},
        Damage{"FirstString", [](pb::Profile* p) { p->set_string_table(0, "x"); }, "string table"},
        Damage{"NoTypes", [](pb::Profile* p) { p->clear_sample_type(); }, "sample types"},
        Damage{"TypeString", [](pb::Profile* p) { p->mutable_sample_type(0)->set_unit(99); }, "string index 99 of 7"},
        Damage{"NegativeString", [](pb::Profile* p) { p->mutable_function(0)->set_name(-1); }, "string index -1"},
        Damage{"MappingZero", [](pb::Profile* p) { p->mutable_mapping(0)->set_id(0); }, "mapping with id 0"},
        Damage{"MappingTwice", [](pb::Profile* p) { *p->add_mapping() = p->mapping(0); }, "two mappings with id 7"},
        Damage{"MappingGone", [](pb::Profile* p) { p->mutable_location(0)->set_mapping_id(8); }, "mapping 8"},
        Damage{"FunctionTwice", [](pb::Profile* p) { *p->add_function() = p->function(0); }, "two functions"},
        Damage{"FunctionGone", [](pb::Profile* p) { p->clear_function(); }, "function 900"},
        Damage{"LineZero", [](pb::Profile* p) { p->mutable_location(0)->add_line(); }, "function 0"},
        Damage{"LocationZero", [](pb::Profile* p) { p->mutable_location(0)->set_id(0); }, "location with id 0"},
        Damage{"LocationTwice", [](pb::Profile* p) { *p->add_location() = p->location(0); }, "two locations"},
        Damage{"LocationGone", [](pb::Profile* p) { p->mutable_sample(0)->add_location_id(2); }, "location 2"},
        Damage{"Values", [](pb::Profile* p) { p->mutable_sample(0)->add_value(1); }, "2 values"},
        Damage{"LabelString", [](pb::Profile* p) { p->mutable_sample(0)->mutable_label(0)->set_key(1 << 30); },
               "string index 1073741824"},
        Damage{"Comment", [](pb::Profile* p) { p->add_comment(7); }, "string index 7"},
        Damage{"Inlined",
               [](pb::Profile* p) {
                 for (int i = 0; i < 300; ++i) p->mutable_location(0)->add_line()->set_function_id(900);
               },
               "more than 256 functions inlined"}),
    [](const auto& damage) { return damage.param.name; });

TEST(Pprof, DeepStacksKeepTheirLeafSide) {
  pb::Profile in = Valid();
  for (int i = 0; i < 100'000; ++i) in.mutable_sample(0)->add_location_id(1'000'000'000'000);
  std::vector<std::string> notes;
  const StatusOr<profile::Profile> p = Read(in, &notes);
  ASSERT_TRUE(p.ok()) << p.status();
  const std::vector<profile::FrameId> frames = p->dictionary.FramesLeafFirst(p->sample(0).stack);
  ASSERT_EQ(frames.size(), kMaxStackDepth);
  EXPECT_EQ(p->dictionary.FrameName(frames.front()), "main");
  EXPECT_EQ(p->dictionary.FrameName(frames.back()), "[truncated]");
  EXPECT_EQ(p->dictionary.frame(frames.back()).kind, FrameKind::kSynthetic);
  EXPECT_THAT(notes, ElementsAre(HasSubstr("[truncated]")));
}

TEST(Pprof, AbsurdCountsAreRefusedQuickly) {
  // One sample that claims half a million stack frames of 5 MiB.
  pb::Profile in = Valid();
  for (int i = 0; i < 900'000; ++i) in.mutable_sample(0)->add_location_id(1'000'000'000'000);
  EXPECT_EQ(Read(in).status().code(), StatusCode::kResourceExhausted);
  // A length prefix far beyond the end.
  EXPECT_EQ(ReadPprof(std::string_view("\x12\xff\xff\xff\xff\x07\x00", 7), nullptr).status().code(),
            StatusCode::kDataLoss);
  // Comments that all name one large string.
  in = Valid();
  in.add_string_table(std::string(1 << 20, 'x'));
  for (int i = 0; i < 1000; ++i) in.add_comment(7);
  EXPECT_EQ(Read(in).status().code(), StatusCode::kResourceExhausted);
}

TEST(Pprof, KindsAreReDerived) {
  const struct {
    const char* file;
    uint64_t address;
    FrameKind kind;
  } kCases[] = {{"[kernel.kallsyms]_text", 1, FrameKind::kKernel},
                {"/lib/modules/6.1/x.ko", 1, FrameKind::kKernel},
                {"/usr/lib/debug/boot/vmlinux-6.1", 1, FrameKind::kKernel},
                {"", 0xffffffff81000000, FrameKind::kKernel},
                {"[vdso]", 1, FrameKind::kNative},
                {"/tmp/perf-12.map", 1, FrameKind::kJit},
                {"//anon", 1, FrameKind::kJit},
                {"/bin/x", 1, FrameKind::kNative},
                {"", 1, FrameKind::kUnknown}};
  for (const auto& c : kCases) {
    pb::Profile in = Valid();
    in.set_string_table(4, c.file);
    in.mutable_location(0)->set_address(c.address);
    if (*c.file == 0) in.mutable_location(0)->set_mapping_id(0);
    const StatusOr<profile::Profile> p = Read(in);
    ASSERT_TRUE(p.ok()) << p.status();
    EXPECT_EQ(p->dictionary.frame(p->dictionary.stack(p->sample(0).stack).frame).kind, c.kind) << c.file;
  }
}

// Runs a command; its output, or "" when it failed.
std::string Output(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  std::string out;
  char buffer[4096];
  while (pipe != nullptr) {
    const size_t n = fread(buffer, 1, sizeof(buffer), pipe);
    if (n == 0) break;
    out.append(buffer, n);
  }
  const int status = pipe == nullptr ? -1 : pclose(pipe);
  EXPECT_EQ(status, 0) << command << "\n" << out;
  return status == 0 ? out : "";
}

TEST(Pprof, GoToolReadsIt) {
  if (std::system("go version >/dev/null 2>&1") != 0) GTEST_SKIP() << "go is not installed (Debian: golang-go)";
  std::string folder = testing::TempDir() + "pprof_test_XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string file = folder + "/shop.pb.gz";
  ASSERT_TRUE(WriteProfile(ShopProfile(), Format::kPprof, file).ok());
  const std::string go = StrFormat("HOME=%s PPROF_TMPDIR=%s go tool pprof -symbolize=none ", folder, folder);
  const std::string top = Output(go + "-top -nodecount=50 -unit=ns " + file);
  EXPECT_THAT(top, HasSubstr("File: shop\n"));
  EXPECT_THAT(top, HasSubstr("Type: cpu\n"));
  EXPECT_THAT(top, HasSubstr("Duration: 10s"));
  // 54 samples of 100 × 10,101,010 ns, and so on.
  EXPECT_THAT(top, HasSubstr("545454540ns 54.00% 54.00% 545454540ns 54.00%  hot_a(int)"));
  EXPECT_THAT(top, HasSubstr("949494940ns 94.00%  main\n"));
  EXPECT_THAT(top, HasSubstr("std::vector<Item>::push_back (inline)"));
  const std::string raw = Output(go + "-raw " + file);
  EXPECT_THAT(raw, HasSubstr("samples/count cpu/nanoseconds[dflt]"));
  EXPECT_THAT(raw, HasSubstr("container.name:[shop]"));
  EXPECT_THAT(raw, HasSubstr("pyrometer.accounting {\"taken\":102"));
  EXPECT_THAT(raw, HasSubstr("1: 0x0/0x0/0x0 /srv/shop  [FN][FL][LN][IN]"));
  EXPECT_THAT(raw, HasSubstr("/opt/lib/x.so beef01"));
  const std::string tags = Output(go + "-tags " + file);
  EXPECT_THAT(tags, HasSubstr("shop"));
  // What another tool writes comes back the same.
  const std::string rewritten = folder + "/again.pb.gz";
  Output(go + "-proto -output=" + rewritten + " " + file);
  const StatusOr<profile::Profile> again = ReadProfile(rewritten);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->Total(1), ShopProfile().Total(1));
  EXPECT_EQ(again->sample_count(), ShopProfile().sample_count());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace pyrometer::formats

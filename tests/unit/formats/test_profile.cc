#include "tests/unit/formats/test_profile.h"

#include <algorithm>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {

using profile::FrameKind;

profile::FrameId AddFrame(profile::Profile* profile, std::string_view name, FrameKind kind, std::string_view module,
                          uint64_t address, std::string_view file, int64_t line) {
  profile::Dictionary& d = profile->dictionary;
  profile::Frame frame{.kind = kind, .address = ElfAddress(address)};
  if (!module.empty()) frame.mapping = d.InternMapping({.file = d.InternString(module)});
  if (!name.empty()) {
    const profile::FunctionId function =
        d.InternFunction({.name = d.InternString(name), .file = d.InternString(file), .start_line = line});
    frame.lines.push_back({.function = function, .line = line == 0 ? 0 : line + 3});
  }
  return d.InternFrame(std::move(frame));
}

profile::LabelSetId AddLabels(profile::Profile* profile, std::vector<profile::Label> labels) {
  return profile->dictionary.InternLabelSet(profile::LabelSet::MakeLenient(std::move(labels)));
}

profile::Profile ShopProfile() {
  profile::Profile p;
  p.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  p.default_value = 1;
  p.period_type = {"cpu", "nanoseconds"};
  p.period = 10'101'010;
  p.time_ns = 1'763'937'600'000'000'000;  // 2025-11-23 22:40:00 UTC
  p.duration_ns = 10'000'000'000;
  p.comments = {"recorded by a test"};
  p.accounting = {.taken = 102, .delivered = 100, .dropped = {{"ring full", 2}}, .stop_reasons = {{"root", 100}}};
  p.accounting.miss_reasons = {{"no symbols", 1}};
  p.accounting.expected = 103;
  p.accounting.means = {{"unwind tables", 100}};
  p.accounting.frames = 412;
  profile::Dictionary& d = p.dictionary;

  const profile::FrameId start = AddFrame(&p, "_start", FrameKind::kNative, "/srv/shop", 0x1000);
  const profile::FrameId main = AddFrame(&p, "main", FrameKind::kNative, "/srv/shop", 0x1100, "shop.cc", 10);
  const profile::FrameId hot_a = AddFrame(&p, "hot_a(int)", FrameKind::kNative, "/srv/shop", 0x1200, "shop.cc", 20);
  const profile::FrameId malloc = AddFrame(&p, "malloc", FrameKind::kNative, "/usr/lib/libc.so.6", 0x9a0c0);
  const profile::FrameId read = AddFrame(&p, "__x64_sys_read", FrameKind::kKernel, "[kernel]", 0xffffffff81234560);
  const profile::FrameId jit = AddFrame(&p, "js::render", FrameKind::kJit, "", 0x7f0000001000);
  const profile::FrameId stripped = d.InternFrame(
      {.kind = FrameKind::kNative,
       .mapping = d.InternMapping({.build_id = d.InternString("beef01"), .file = d.InternString("/opt/lib/x.so")}),
       .address = ElfAddress(0xabc),
       .miss = d.InternString("no symbols")});
  // std::vector<Item>::push_back inlined into hot_b.
  profile::Frame inlined = d.frame(hot_a);
  inlined.address = ElfAddress(0x1300);
  const auto function = [&d](std::string_view name, std::string_view system_name) {
    return d.InternFunction({.name = d.InternString(name),
                             .system_name = d.InternString(system_name),
                             .file = d.InternString("shop.cc"),
                             .start_line = 30});
  };
  inlined.lines = {
      {.function = function("std::vector<Item>::push_back", "_ZNSt6vectorI4ItemE9push_backEv"), .line = 31},
      {.function = function("hot_b(int)", "_Z5hot_bi"), .line = 33, .column = 7}};
  const profile::FrameId hot_b = d.InternFrame(inlined);

  const profile::LabelSetId shop = AddLabels(&p, {{"container.name", "shop"}, {"comm", "shop"}, {"node", "n1"}});
  const profile::LabelSetId web = AddLabels(&p, {{"container.name", "web"}, {"comm", "node"}, {"node", "n1"}});
  const profile::LabelSetId host = AddLabels(&p, {{"comm", "cron"}, {"node", "n1"}});
  const auto add = [&p](profile::LabelSetId labels, std::vector<profile::FrameId> root_first, int64_t samples) {
    std::reverse(root_first.begin(), root_first.end());
    p.Add(labels, p.dictionary.InternStackLeafFirst(root_first), {samples, samples * p.period});
  };
  add(shop, {start, main, hot_a}, 54);
  add(shop, {start, main, hot_b}, 30);
  add(shop, {start, main, hot_b, malloc}, 6);
  add(shop, {start, main, read}, 4);
  add(web, {jit}, 3);
  add(web, {stripped}, 1);
  add(host, {read}, 2);
  return p;
}

profile::Profile RandomProfile(std::mt19937_64& random) {
  const auto upto = [&random](uint64_t limit) { return random() % limit; };
  profile::Profile p;
  for (uint64_t t = 0; t <= upto(3); ++t)
    p.value_types.push_back({StrFormat("type%d", t), upto(2) ? "count" : "bytes"});
  p.default_value = upto(p.value_types.size());
  p.period_type = {"cpu", "nanoseconds"};
  p.period = static_cast<int64_t>(upto(1'000'000));
  p.time_ns = static_cast<int64_t>(upto(2'000'000'000'000'000'000));
  p.duration_ns = upto(1'000'000'000'000);
  if (upto(2)) p.comments.push_back("ein Kommentar; mit % und \"Zeichen\" <&>\n");
  p.accounting.taken = upto(1000);
  p.accounting.delivered = upto(1000);
  p.accounting.dropped["ring full"] = random();
  const char* const kModules[] = {"/bin/a", "/usr/lib/libb.so.1", "[kernel]", "[vdso]", ""};
  const FrameKind kKinds[] = {FrameKind::kNative, FrameKind::kNative, FrameKind::kKernel, FrameKind::kNative,
                              FrameKind::kJit};
  std::vector<profile::FrameId> frames;
  profile::Dictionary& d = p.dictionary;
  for (int i = 0; i < 30; ++i) {
    const size_t which = upto(std::size(kModules));
    profile::Frame frame{.kind = kKinds[which], .address = ElfAddress(0x1000 + upto(1 << 20))};
    if (*kModules[which] != 0) {
      frame.mapping = d.InternMapping({.build_id = d.InternString(upto(2) ? "cafe" : ""),
                                       .file = d.InternString(kModules[which]),
                                       .start = upto(3) * 4096,
                                       .limit = (upto(3) + 4) * 4096,
                                       .file_offset = upto(2) * 4096});
    }
    for (uint64_t l = 0; l < upto(4); ++l) {
      const profile::StringId name = d.InternString(StrFormat("f%d<a;b>", upto(20)));
      profile::Function function{.name = name, .start_line = static_cast<int64_t>(upto(100))};
      if (upto(2)) function.system_name = d.InternString(StrFormat("_Zf%d", upto(20)));
      if (upto(2)) function.file = d.InternString(StrFormat("src/ü%d.cc", upto(5)));
      frame.lines.push_back({.function = d.InternFunction(function),
                             .line = static_cast<int64_t>(upto(200)),
                             .column = static_cast<int64_t>(upto(80))});
    }
    frames.push_back(d.InternFrame(std::move(frame)));
  }
  std::vector<profile::LabelSetId> labels{0};
  for (int i = 0; i < 4; ++i) {
    labels.push_back(AddLabels(&p, {{"container.name", StrFormat("c\"%d\\", i)}, {"comm", StrFormat("x%d", upto(3))}}));
  }
  for (uint64_t i = 0; i < 5 + upto(60); ++i) {
    std::vector<profile::FrameId> stack;
    for (uint64_t depth = upto(12); depth > 0; --depth) stack.push_back(frames[upto(frames.size())]);
    std::vector<int64_t> values;
    for (size_t t = 0; t < p.value_types.size(); ++t) values.push_back(1 + static_cast<int64_t>(upto(1'000'000)));
    p.Add(labels[upto(labels.size())], d.InternStackLeafFirst(stack), values);
  }
  return p;
}

namespace {

std::string DescribeFrame(const profile::Dictionary& d, profile::FrameId id, const DescribeOptions& options) {
  const profile::Frame& frame = d.frame(id);
  std::string out;
  for (size_t l = frame.lines.size(); l > 0; --l) {
    const profile::Line& line = frame.lines[l - 1];
    const profile::Function& function = d.function(line.function);
    if (!out.empty()) out += '>';
    out += d.string(function.name);
    if (options.places) {
      out += StrFormat("(%s %s:%d %d:%d)", d.string(function.system_name), d.string(function.file), function.start_line,
                       line.line, line.column);
    }
  }
  if (frame.lines.empty()) out = d.FrameName(id);
  if (options.places) {
    const profile::Mapping& mapping = d.mapping(frame.mapping);
    out +=
        StrFormat("@%s[%s %s %x-%x+%x]0x%x", FrameKindName(frame.kind), d.string(mapping.file),
                  d.string(mapping.build_id), mapping.start, mapping.limit, mapping.file_offset, frame.address.value);
  }
  if (options.miss && frame.miss != 0) out += StrFormat("!%s", d.string(frame.miss));
  return out;
}

std::string DescribeCounts(const std::map<std::string, uint64_t>& counts) {
  std::string out;
  for (const auto& [name, count] : counts) out += StrFormat(" %s=%d", name, count);
  return out;
}

}  // namespace

std::string Describe(const profile::Profile& p, const DescribeOptions& options) {
  const profile::Dictionary& d = p.dictionary;
  std::string out = "types";
  for (const profile::ValueType& type : p.value_types) out += StrFormat(" %s/%s", type.type, type.unit);
  out += StrFormat(" default %d\nperiod %d %s/%s\ntime %d + %d\n", p.default_value, p.period, p.period_type.type,
                   p.period_type.unit, p.time_ns, p.duration_ns);
  for (const std::string& comment : p.comments) out += StrFormat("comment %s\n", comment);
  const profile::Accounting& a = p.accounting;
  out += StrFormat("expected %d taken %d delivered %d dropped%s stops%s misses%s means%s frames %d\n", a.expected,
                   a.taken, a.delivered, DescribeCounts(a.dropped), DescribeCounts(a.stop_reasons),
                   DescribeCounts(a.miss_reasons), DescribeCounts(a.means), a.frames);
  std::map<std::string, std::vector<int64_t>> lines;
  for (size_t i = 0; i < p.sample_count(); ++i) {
    std::string key = d.label_set(p.sample(i).labels).ToString();
    std::vector<profile::FrameId> frames = d.FramesLeafFirst(p.sample(i).stack);
    for (size_t f = frames.size(); f > 0; --f) {
      key += f == frames.size() ? " " : ";";
      key += DescribeFrame(d, frames[f - 1], options);
    }
    std::vector<int64_t>& values = lines[key];
    values.resize(p.value_types.size());
    for (size_t t = 0; t < values.size(); ++t) values[t] += p.values(i)[t];
  }
  for (const auto& [key, values] : lines) {
    out += key;
    for (const int64_t value : values) out += StrFormat(" %d", value);
    out += '\n';
  }
  return out;
}

std::string GoldenPath(const std::string& name) { return "tests/golden/formats/" + name; }

std::string ReadGolden(const std::string& name) {
  StatusOr<std::string> content = ReadFile(GoldenPath(name));
  return content.ok() ? *content : "(no such golden file)";
}

}  // namespace pyrometer::formats

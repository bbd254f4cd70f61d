#include "userspace/cli/render.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "userspace/base/strings.h"
#include "userspace/cli/terminal.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/query/flame_tree.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kBarColumns = 12;
constexpr size_t kMostIndent = 40;  // deeper levels are shown at this indent with their depth in front

std::string_view BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::string Reasons(const std::map<std::string, uint64_t>& counts) {
  std::vector<std::pair<std::string, uint64_t>> sorted(counts.begin(), counts.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string out;
  for (const auto& [reason, count] : sorted) {
    if (count == 0) continue;
    if (!out.empty()) out += ", ";
    out += StrFormat("%s %s", reason, FormatCount(count));
  }
  return out;
}

uint64_t Sum(const std::map<std::string, uint64_t>& counts) {
  uint64_t sum = 0;
  for (const auto& [name, count] : counts) sum += count;
  return sum;
}

// "99.5%"; never "100.0%" of what is not all.
std::string Share(uint64_t part, uint64_t all) {
  const double percent = 100.0 * static_cast<double>(part) / static_cast<double>(std::max<uint64_t>(1, all));
  if (part < all && percent >= 99.95) return "99.9%";
  if (part > 0 && percent < 0.05) return "<0.1%";
  return StrFormat("%.1f%%", percent);
}

// "unwind tables 93.1%, frame pointers: generated code 6.9%", the largest first.
std::string Shares(const std::map<std::string, uint64_t>& counts, uint64_t all) {
  std::vector<std::pair<std::string, uint64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string out;
  for (const auto& [name, count] : sorted) {
    if (count == 0) continue;
    if (!out.empty()) out += ", ";
    out += StrFormat("%s %s", name, Share(count, all));
  }
  return out;
}

// How many user stacks reach the outermost frame, and why the others do not.
std::string RenderStops(const std::map<std::string, uint64_t>& stop_reasons) {
  std::map<std::string, uint64_t> early;
  uint64_t whole = 0;
  for (const auto& [reason, count] : stop_reasons) {
    if (kernel::IsWholeStop(reason)) {
      whole += count;
    } else {
      early[reason] += count;
    }
  }
  const uint64_t all = whole + Sum(early);
  if (all == 0) return "";
  std::string out = StrFormat("stacks: %s whole", Share(whole, all));
  if (const std::string reasons = Reasons(early); !reasons.empty()) out += StrFormat("; cut short: %s", reasons);
  return out + "\n";
}

std::string GroupName(const profile::LabelSet& labels) {
  const std::string_view container = labels.Get(profile::kLabelContainerName);
  if (!container.empty()) return StrFormat("container %s", container);
  const std::string_view service = labels.Get(profile::kLabelService);
  return StrFormat("%s (outside containers)", service.empty() ? "host" : service);
}

}  // namespace

const std::string& DefaultUnit(const profile::Profile& profile) {
  return profile.value_types[profile.default_value].unit;
}

std::string RenderSummary(const profile::Profile& profile) {
  const auto total = static_cast<double>(profile.Total(profile.default_value));
  std::string out =
      StrFormat("%s: %s", profile.value_types[profile.default_value].type, FormatValue(total, DefaultUnit(profile)));
  if (profile.default_value != 0) {
    out += StrFormat(" in %s %s", FormatCount(static_cast<uint64_t>(std::max<int64_t>(0, profile.Total(0)))),
                     profile.value_types[0].type);
  }
  if (profile.duration_ns > 0) {
    out += StrFormat(" over %s", FormatDurationNs(profile.duration_ns));
    if (DefaultUnit(profile) == "nanoseconds" && profile.value_types[profile.default_value].type == "cpu") {
      out += StrFormat(" (%.2f cores)", total / static_cast<double>(profile.duration_ns));
    }
  }
  out += "\n";
  const profile::Accounting& accounting = profile.accounting;
  if (accounting.taken > 0) {
    out += StrFormat("samples: %s taken", FormatCount(accounting.taken));
    if (accounting.expected > 0) {
      out += StrFormat(" of %s expected from CPU time (%s)", FormatCount(accounting.expected),
                       Share(accounting.taken, accounting.expected));
    }
    out += StrFormat(", %s delivered", FormatCount(accounting.delivered));
    if (accounting.DroppedTotal() > 0) out += StrFormat(", dropped: %s", Reasons(accounting.dropped));
    out += "\n";
  }
  out += RenderStops(accounting.stop_reasons);
  if (const uint64_t all = Sum(accounting.means); all > 0) {
    out += StrFormat("unwound by %s\n", Shares(accounting.means, all));
  }
  if (const std::string misses = Reasons(accounting.miss_reasons); !misses.empty()) {
    out += "frames without a name: ";
    if (accounting.frames > 0) {
      out += StrFormat("%s of %s: ", Share(Sum(accounting.miss_reasons), accounting.frames),
                       FormatCount(accounting.frames));
    }
    out += misses + "\n";
  }
  for (const std::string& comment : profile.comments) out += StrFormat("note: %s\n", comment);
  return out;
}

std::string RenderTop(const profile::TopTable& top, const std::string& unit) {
  if (top.rows.empty()) return "no samples\n";
  Table table({{"self", Table::Align::kRight},
               {"", Table::Align::kRight},
               {"total", Table::Align::kRight},
               {"", Table::Align::kRight},
               {"function"},
               {"in"}});
  for (const profile::FunctionCost& row : top.rows) {
    table.AddRow({FormatValue(static_cast<double>(row.self), unit), StrFormat("%.1f%%", row.self_percent),
                  FormatValue(static_cast<double>(row.total), unit), StrFormat("%.1f%%", row.total_percent),
                  CutToWidth(row.name, 80), std::string(BaseName(row.module))});
  }
  return table.ToString();
}

std::string RenderTopPerContainer(const profile::Profile& profile, size_t limit, query::TopOrder order) {
  // Regroup by what a container is called, whatever other labels the samples carry.
  profile::Profile grouped;
  grouped.value_types = profile.value_types;
  grouped.default_value = profile.default_value;
  profile::DictionaryMapper mapper(profile.dictionary, &grouped.dictionary);
  std::map<profile::LabelSetId, int64_t> cost;
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const profile::LabelSet& labels = profile.dictionary.label_set(profile.sample(i).labels);
    const profile::LabelSetId group = grouped.dictionary.InternLabelSet(
        labels.Only({std::string(profile::kLabelContainerName), std::string(profile::kLabelService)}));
    grouped.Add(group, mapper.Stack(profile.sample(i).stack), profile.values(i));
    cost[group] += profile.values(i)[profile.default_value];
  }
  std::vector<std::pair<profile::LabelSetId, int64_t>> groups(cost.begin(), cost.end());
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  const auto total = static_cast<double>(profile.Total(profile.default_value));
  std::string out;
  for (const auto& [group, value] : groups) {
    if (!out.empty()) out += "\n";
    out += StrFormat("%s: %s, %s of all\n", GroupName(grouped.dictionary.label_set(group)),
                     FormatValue(static_cast<double>(value), DefaultUnit(profile)),
                     Percent(static_cast<double>(value), total));
    out += RenderTop(query::TopFunctions(profile::Slice(grouped, group), limit, order), DefaultUnit(profile));
  }
  return out.empty() ? "no samples\n" : out;
}

std::string RenderFlame(const profile::Profile& profile) {
  const query::FlameTree tree = query::BuildFlameTree(profile, profile.default_value);
  const auto whole = static_cast<double>(tree.total[0]);
  if (whole <= 0) return "no samples\n";
  const size_t width = TerminalWidth();
  std::string out;
  for (size_t i = 0; i < tree.size(); ++i) {
    const auto total = static_cast<double>(tree.total[i]);
    std::string name = ToUtf8(tree.names[tree.name[i]]);
    for (char& c : name) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    if (tree.depth[i] > kMostIndent) name = StrFormat("(%d) %s", tree.depth[i], name);
    const std::string indent(std::min<size_t>(tree.depth[i], kMostIndent), ' ');
    std::string line = StrFormat("%s %6s  %s%s", Bar(total / whole, kBarColumns), Percent(total, whole), indent, name);
    if (tree.kind[i] == query::FlameNodeKind::kKernel) line += " [kernel]";
    if (tree.self[i] > 0 && tree.self[i] != tree.total[i]) {
      line += StrFormat("  (self %s)", Percent(static_cast<double>(tree.self[i]), whole));
    }
    out += (StdoutIsTerminal() ? CutToWidth(line, width) : line) + "\n";
  }
  return out;
}

std::string TopJson(const profile::TopTable& top, const std::string& unit) {
  nlohmann::ordered_json out;
  out["unit"] = unit;
  out["total"] = top.total;
  out["functions"] = nlohmann::json::array();
  for (const profile::FunctionCost& row : top.rows) {
    out["functions"].push_back({{"name", row.name},
                                {"module", row.module},
                                {"file", row.file},
                                {"kind", std::string(profile::FrameKindName(row.kind))},
                                {"self", row.self},
                                {"total", row.total},
                                {"selfPercent", row.self_percent},
                                {"totalPercent", row.total_percent}});
  }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace pyrometer::cli

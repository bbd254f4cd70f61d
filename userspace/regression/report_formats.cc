// Renderings of a report. JSON first; the rest choose from it.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_replace.h"
#include "userspace/base/strings.h"
#include "userspace/base/utc.h"
#include "userspace/base/version.h"
#include "userspace/regression/report.h"

namespace pyrometer::regression {
namespace {

using nlohmann::json;

constexpr size_t kMaxAnnotations = 10;  // GitHub shows no more for one step
constexpr std::string_view kRule = "slower-function";
// A comment bot finds its own comment by this and replaces it.
constexpr std::string_view kMarker = "<!-- pyrometer ci -->";

std::string Dump(const json& value) { return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n"; }

// JSON has no infinity; null says "not known".
json Figure(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }
json Range(const Interval& interval) { return json::array({Figure(interval.low), Figure(interval.high)}); }

json ToJson(const Effect& effect) {
  return {{"baseline_samples", Figure(effect.baseline_count)},
          {"candidate_samples", Figure(effect.candidate_count)},
          {"baseline_share", Figure(effect.baseline_share)},
          {"excess_share", Figure(effect.excess)},
          {"excess_share_interval", Range(effect.excess_interval)},
          {"ratio", Figure(effect.ratio)},
          {"ratio_interval", Range(effect.ratio_interval)},
          {"p_slower", Figure(effect.p)},
          {"p_faster", Figure(effect.p_faster)},
          {"detectable_share", Figure(effect.detectable_share)},
          {"new", effect.is_new},
          {"vanished", effect.vanished}};
}

json ToJson(const ReportFunction& function) {
  json result = {{"name", function.name}, {"module", function.module}};
  if (!function.file.empty()) result["file"] = function.file;
  if (function.line > 0) result["line"] = function.line;
  return result;
}

std::string_view RelationName(ChangeRelation relation) {
  switch (relation) {
    case ChangeRelation::kNone:
      return "none";
    case ChangeRelation::kSameFile:
      return "same file";
    case ChangeRelation::kCalledByChanged:
      return "called by changed";
    case ChangeRelation::kCallsChanged:
      return "calls changed";
    case ChangeRelation::kItself:
      return "itself";
  }
  return "none";
}

json ToJson(const std::vector<ReportFinding>& findings) {
  json list = json::array();
  for (const ReportFinding& finding : findings) {
    json item = {{"counted", finding.inclusive ? "inclusive" : "exclusive"}, {"effect", ToJson(finding.effect)}};
    // null: the whole program.
    item["function"] = finding.function.name.empty() ? json(nullptr) : ToJson(finding.function);
    item["message"] = Sentence(finding);
    item["callers"] = json::array();
    for (const ReportFinding::Caller& caller : finding.callers) {
      item["callers"].push_back({{"function", ToJson(caller.function)}, {"excess_share", Figure(caller.excess)}});
    }
    item["moved_from"] = json::array();
    for (const ReportFunction& from : finding.moved_from) item["moved_from"].push_back(ToJson(from));
    if (finding.change != ChangeRelation::kNone) {
      item["change"] = {{"relation", RelationName(finding.change)}, {"message", finding.change_text}};
    }
    if (!finding.benchmark.empty()) item["benchmark"] = finding.benchmark;
    list.push_back(std::move(item));
  }
  return list;
}

json TotalJson(const Effect& effect) {
  json total = ToJson(effect);
  total["tested"] = effect.tested;
  return total;
}

json InstructionsJson(const Effect& effect) {
  return {{"baseline", Figure(effect.baseline_count)},
          {"candidate", Figure(effect.candidate_count)},
          {"ratio", Figure(effect.ratio)},
          {"ratio_interval", Range(effect.ratio_interval)}};
}

json ToJson(const BenchmarkReport& benchmark) {
  return {{"name", benchmark.name},
          {"decision", DecisionName(benchmark.decision)},
          {"reason", benchmark.reason},
          {"remedy", benchmark.remedy},
          {"runs", {{"baseline", benchmark.baseline_runs}, {"candidate", benchmark.candidate_runs}}},
          {"total_cpu", TotalJson(benchmark.total)},
          {"real_time_ns", {{"baseline", benchmark.baseline_real_ns}, {"candidate", benchmark.candidate_real_ns}}},
          {"detectable_share", Figure(benchmark.detectable_share)}};
}

std::string Json(const Report& report) {
  json file = {{"format", "pyrometer-ci-report"},
               {"version", 1},
               {"decision", DecisionName(report.decision)},
               {"reason", report.reason},
               {"remedy", report.remedy},
               {"baseline", report.baseline},
               {"candidate", report.candidate},
               {"how", report.how},
               {"started_ns", report.started_ns},
               {"wall_ns", report.wall_ns},
               {"runs", {{"baseline", report.baseline_runs}, {"candidate", report.candidate_runs}}},
               {"run_cpu_ns", {{"baseline", report.baseline_cpu_ns}, {"candidate", report.candidate_cpu_ns}}},
               {"samples", report.samples},
               {"lost_samples", report.lost_samples},
               {"alpha", report.alpha},
               {"level", report.level},
               {"min_effect_share", report.min_effect},
               {"seed", report.seed},
               {"detectable_share", Figure(report.detectable_share)},
               {"columns_tested", report.functions_tested},
               {"total_cpu", TotalJson(report.total)},
               {"instructions", report.instructions.tested ? InstructionsJson(report.instructions) : json(nullptr)},
               {"findings", ToJson(report.findings)},
               {"findings_left_out", report.findings_left_out},
               {"moved", ToJson(report.moved)},
               {"faster", ToJson(report.faster)}};
  if (!report.layout.empty()) {
    file["layout"] = ToJson(report.layout);
    file["layout_reason"] = report.layout_reason;
  }
  if (!report.benchmarks.empty()) {
    file["benchmarks"] = json::array();
    for (const BenchmarkReport& benchmark : report.benchmarks) file["benchmarks"].push_back(ToJson(benchmark));
    file["only_in"] = {{"baseline", report.only_in_baseline}, {"candidate", report.only_in_candidate}};
  }
  return Dump(file);
}

// U+FFFD: a character that could not be shown.
constexpr const char* kReplacement = "\xEF\xBF\xBD";

// A reason or remedy as the sentence it is. What begins with a name ("scan's part", "base.pyro holds") keeps it.
std::string AsSentence(std::string text) {
  const size_t word = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz");
  if (word != 0 && word != std::string::npos && text[word] == ' ') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text + ".";
}

std::string MarkdownText(std::string_view text) {
  // Overrides and isolates of the direction of writing would turn the rest of the line around (UAX #9).
  const std::string utf8 = absl::StrReplaceAll(ToUtf8(text), {{"\u202a", kReplacement},
                                                              {"\u202b", kReplacement},
                                                              {"\u202c", kReplacement},
                                                              {"\u202d", kReplacement},
                                                              {"\u202e", kReplacement},
                                                              {"\u2066", kReplacement},
                                                              {"\u2067", kReplacement},
                                                              {"\u2068", kReplacement},
                                                              {"\u2069", kReplacement}});
  std::string out;
  for (const char c : utf8) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += ' ';
      continue;
    }
    if (c == '<') {
      out += "&lt;";
      continue;
    }
    if (std::string_view("\\`*_{}[]()#+!|>~@$").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string RangeText(const Interval& interval, double scale, double offset) {
  const auto figure = [&](double value) {
    return std::isfinite(value) ? StrFormat("%+.1f", scale * (value - offset)) : std::string("∞");
  };
  return figure(interval.low) + " … " + figure(interval.high) + " %";
}

std::string MarkdownTable(const std::vector<ReportFinding>& findings) {
  std::string out =
      "| function | change | 95 % interval | of the total | p | callers |\n|---|---:|---:|---:|---:|---|\n";
  for (const ReportFinding& finding : findings) {
    const Effect& effect = finding.effect;
    std::string name = finding.function.name.empty() ? "the whole program" : MarkdownText(finding.function.name);
    if (!finding.benchmark.empty()) name = MarkdownText(finding.benchmark) + ": " + name;
    if (!finding.function.module.empty()) name += " (" + MarkdownText(finding.function.module) + ")";
    if (finding.inclusive) name += ", with what it calls";
    std::string callers;
    for (const ReportFinding::Caller& caller : finding.callers) {
      callers += (callers.empty() ? "" : ", ") + MarkdownText(caller.function.name);
    }
    if (!finding.change_text.empty()) callers += (callers.empty() ? "" : "; ") + MarkdownText(finding.change_text);
    out += StrFormat("| %s | %s | %s | %+.2f %% | %.2g | %s |\n", name,
                     effect.is_new     ? std::string("new")
                     : effect.vanished ? std::string("gone")
                                       : StrFormat("%+.1f %%", 100 * (effect.ratio - 1)),
                     effect.is_new || effect.vanished ? std::string() : RangeText(effect.ratio_interval, 100, 1),
                     100 * effect.excess, effect.excess < 0 ? effect.p_faster : effect.p, callers);
  }
  return out;
}

std::string Seen(const Report& report) {
  if (!std::isfinite(report.detectable_share)) return "Too few samples to see a change of any size.";
  return StrFormat("A slowdown of one function by %.2f %% of the total would have been seen.",
                   100 * report.detectable_share);
}

std::string Markdown(const Report& report) {
  std::string out(kMarker);
  const char* heading = report.decision == Decision::kPass         ? "No regression"
                        : report.decision == Decision::kRegression ? "Performance regression"
                                                                   : "Performance: could not decide";
  out += StrFormat("\n### %s\n\n%s", heading, MarkdownText(AsSentence(report.reason)));
  if (!report.remedy.empty()) out += " " + MarkdownText(AsSentence(report.remedy));
  out += "\n\n";
  if (!report.findings.empty()) out += MarkdownTable(report.findings) + "\n";
  if (report.findings_left_out > 0) out += StrFormat("%d more are not listed.\n\n", report.findings_left_out);
  if (!report.layout.empty()) {
    out += StrFormat("Slower, but %s:\n\n%s\n", MarkdownText(report.layout_reason), MarkdownTable(report.layout));
  }
  if (!report.moved.empty()) {
    out += "Moved, not slower:\n\n";
    for (const ReportFinding& finding : report.moved) {
      std::string from;
      for (const ReportFunction& function : finding.moved_from) {
        from += (from.empty() ? "" : ", ") + MarkdownText(function.name);
      }
      out += StrFormat("- %s, from %s\n", MarkdownText(finding.function.name), from);
    }
    out += "\n";
  }
  if (!report.faster.empty())
    out += "<details><summary>Faster</summary>\n\n" + MarkdownTable(report.faster) + "\n</details>\n\n";
  if (!report.benchmarks.empty()) {
    out += "| benchmark | | CPU time per iteration | 95 % interval |\n|---|---|---:|---:|\n";
    for (const BenchmarkReport& benchmark : report.benchmarks) {
      out += StrFormat("| %s | %s | %+.1f %% | %s |\n", MarkdownText(benchmark.name), DecisionName(benchmark.decision),
                       100 * (benchmark.total.ratio - 1), RangeText(benchmark.total.ratio_interval, 100, 1));
    }
    out += "\n";
  }
  for (const auto& [names, side] :
       {std::pair{&report.only_in_baseline, "baseline"}, {&report.only_in_candidate, "candidate"}}) {
    if (!names->empty()) out += StrFormat("Only the %s has %s.\n\n", side, MarkdownText(Join(*names, ", ")));
  }
  out += Seen(report);
  if (report.total.tested) {
    out += StrFormat(" Total CPU time: %+.1f %% (%s).", 100 * (report.total.ratio - 1),
                     RangeText(report.total.ratio_interval, 100, 1));
  }
  if (report.instructions.tested) {
    out += StrFormat(" Instructions: %+.2f %%.", 100 * (report.instructions.ratio - 1));
  }
  out += StrFormat(" %d + %d runs, %s samples, %s.\n", report.baseline_runs, report.candidate_runs,
                   FormatCount(report.samples), MarkdownText(report.how));
  return out;
}

std::string XmlText(std::string_view text) {
  // U+FFFE and U+FFFF are UTF-8 and no characters of XML.
  const std::string utf8 =
      absl::StrReplaceAll(ToUtf8(text), {{"\xEF\xBF\xBE", kReplacement}, {"\xEF\xBF\xBF", kReplacement}});
  std::string out;
  for (const char c : utf8) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

// One test case per finding, one for the check itself. Readers differ in what they insist on: this has all that the
// schema of Ant's JUnit task requires, in its order, and nothing that Jenkins' does not know. Ant's wants a host, and
// "localhost" where none is known: runs do not say where they were made.
std::string JUnit(const Report& report) {
  const bool undecided = report.decision == Decision::kUndecided;
  const std::string seconds = StrFormat("%.3f", static_cast<double>(report.wall_ns) / 1e9);
  std::string out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  out += StrFormat(
      "<testsuites><testsuite id=\"0\" package=\"pyrometer\" name=\"pyrometer ci\" tests=\"%d\" failures=\"%d\" "
      "errors=\"%d\" skipped=\"0\" time=\"%s\" timestamp=\"%s\" hostname=\"localhost\">\n  <properties>\n",
      report.findings.size() + 1, report.findings.size(), undecided ? 1 : 0, seconds,
      FormatUtc(report.started_ns, "%Y-%m-%dT%H:%M:%S"));
  for (const auto& [name, value] : {std::pair<const char*, std::string>{"baseline", report.baseline},
                                    {"candidate", report.candidate},
                                    {"seed", std::to_string(report.seed)}}) {
    out += StrFormat("    <property name=\"%s\" value=\"%s\"/>\n", name, XmlText(value));
  }
  out += "  </properties>\n";
  // The runs' time is the check's; each finding comes from the same runs.
  out += StrFormat("  <testcase classname=\"pyrometer.ci\" name=\"the check can decide\" time=\"%s\">", seconds);
  if (undecided) {
    out += StrFormat("<error type=\"undecided\" message=\"%s\">%s</error>", XmlText(report.reason),
                     XmlText(report.remedy));
  }
  out += "</testcase>\n";
  for (const ReportFinding& finding : report.findings) {
    std::string name = finding.function.name.empty() ? "the whole program" : finding.function.name;
    // Two functions of one name in two libraries are two cases.
    if (!finding.function.module.empty()) name += StrFormat(" (%s)", finding.function.module);
    if (!finding.benchmark.empty()) name = finding.benchmark + ": " + name;
    const std::string where = finding.function.file.empty()
                                  ? finding.function.module
                                  : StrFormat("%s:%d", finding.function.file, std::max(1, finding.function.line));
    out += StrFormat(
        "  <testcase classname=\"pyrometer.ci\" name=\"%s is not slower\" time=\"0\"><failure type=\"regression\" "
        "message=\"%s\">%s"
        "</failure></testcase>\n",
        XmlText(name), XmlText(Sentence(finding)), XmlText(where));
  }
  out += StrFormat("  <system-out>%s %s</system-out>\n  <system-err></system-err>\n",
                   XmlText(AsSentence(report.reason)), XmlText(Seen(report)));
  out += "</testsuite></testsuites>\n";
  return out;
}

// A path as a URI reference (RFC 3986): what is not allowed in one is written as %XX.
std::string UriText(std::string_view path) {
  std::string out;
  for (const char c : ToUtf8(path)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       (c != '\0' && std::string_view("/._~-+@=,").find(c) != std::string_view::npos);
    out += plain ? std::string(1, c) : StrFormat("%%%02X", static_cast<int>(static_cast<unsigned char>(c)));
  }
  return out;
}

json SarifResult(const ReportFinding& finding) {
  json result = {{"ruleId", kRule}, {"level", "error"}, {"message", {{"text", Sentence(finding)}}}};
  json location = json::object();
  if (!finding.function.name.empty()) {
    location["logicalLocations"] = json::array({{{"fullyQualifiedName", finding.function.name}, {"kind", "function"}}});
  }
  if (!finding.function.file.empty()) {
    location["physicalLocation"] = {{"artifactLocation", {{"uri", UriText(finding.function.file)}}},
                                    {"region", {{"startLine", std::max(1, finding.function.line)}}}};
  }
  if (!location.empty()) result["locations"] = json::array({location});
  return result;
}

std::string Sarif(const Report& report) {
  json results = json::array();
  for (const ReportFinding& finding : report.findings) results.push_back(SarifResult(finding));
  const json rule = {{"id", kRule},
                     {"shortDescription", {{"text", "A function takes more CPU time than in the baseline"}}},
                     {"defaultConfiguration", {{"level", "error"}}}};
  const json driver = {{"name", "pyrometer"}, {"version", kVersion}, {"rules", json::array({rule})}};
  json run = {{"tool", {{"driver", driver}}}, {"results", results}};
  // What could not be decided is no result; the run says so.
  json invocation = {{"executionSuccessful", report.decision != Decision::kUndecided}};
  if (report.decision == Decision::kUndecided) {
    invocation["toolExecutionNotifications"] =
        json::array({{{"level", "warning"}, {"message", {{"text", report.reason + "; " + report.remedy}}}}});
  }
  run["invocations"] = json::array({invocation});
  return Dump({{"$schema", "https://json.schemastore.org/sarif-2.1.0.json"},
               {"version", "2.1.0"},
               {"runs", json::array({run})}});
}

// FNV-1a: GitLab knows a finding again from one pipeline to the next by it.
std::string Fingerprint(const ReportFinding& finding) {
  uint64_t hash = 0xCBF29CE484222325u;
  std::string known = finding.function.module + '\0' + finding.function.name;
  if (!finding.benchmark.empty()) known += '\0' + finding.benchmark;
  for (const char c : known) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  }
  return StrFormat("%016x", hash);
}

std::string CodeQuality(const Report& report) {
  json list = json::array();
  for (const ReportFinding& finding : report.findings) {
    const std::string path = finding.function.file.empty() ? finding.function.module : finding.function.file;
    list.push_back(
        {{"description", Sentence(finding)},
         {"check_name", kRule},
         {"fingerprint", Fingerprint(finding)},
         {"severity", "major"},
         {"location",
          {{"path", path.empty() ? "program" : path}, {"lines", {{"begin", std::max(1, finding.function.line)}}}}}});
  }
  return Dump(list);
}

// Of workflow commands: what would end the command is written as %XX.
std::string WorkflowText(std::string_view text, bool property) {
  std::string out;
  for (const char c : ToUtf8(text)) {
    const bool special = c == '%' || c == '\r' || c == '\n' || (property && (c == ':' || c == ','));
    out += special ? StrFormat("%%%02X", static_cast<int>(c)) : std::string(1, c);
  }
  return out;
}

}  // namespace

StatusOr<ReportFormat> ReportFormatFor(std::string_view path) {
  if (path.ends_with(".codequality.json")) return ReportFormat::kCodeQuality;
  if (path.ends_with(".json")) return ReportFormat::kJson;
  if (path.ends_with(".md")) return ReportFormat::kMarkdown;
  if (path.ends_with(".xml")) return ReportFormat::kJUnit;
  if (path.ends_with(".sarif")) return ReportFormat::kSarif;
  if (path.ends_with(".html")) return ReportFormat::kHtml;
  return InvalidArgumentError(
      StrFormat("%s: the extension says the format of a report; known are .json, .md, .html, .xml (JUnit), .sarif, "
                ".codequality.json",
                path));
}

std::string RenderReport(const Report& report, ReportFormat format) {
  switch (format) {
    case ReportFormat::kJson:
      return Json(report);
    case ReportFormat::kMarkdown:
      return Markdown(report);
    case ReportFormat::kJUnit:
      return JUnit(report);
    case ReportFormat::kSarif:
      return Sarif(report);
    case ReportFormat::kCodeQuality:
      return CodeQuality(report);
    case ReportFormat::kHtml:
      return RenderHtml(report);
  }
  return "";
}

std::string GitHubAnnotations(const Report& report) {
  std::string out;
  const bool layout = report.findings.empty();
  const std::vector<ReportFinding>& findings = layout ? report.layout : report.findings;
  for (size_t i = 0; i < std::min(kMaxAnnotations, findings.size()); ++i) {
    const ReportFinding& finding = findings[i];
    std::string properties = layout ? "title=Suspected layout effect" : "title=Performance regression";
    if (!finding.function.file.empty()) {
      properties +=
          StrFormat(",file=%s,line=%d", WorkflowText(finding.function.file, true), std::max(1, finding.function.line));
    }
    out += (layout ? "::warning " : "::error ") + properties + "::" + WorkflowText(Sentence(finding), false) + "\n";
  }
  return out;
}

}  // namespace pyrometer::regression

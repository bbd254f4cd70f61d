// The report as one HTML page.
#include <cmath>
#include <nlohmann/json.hpp>

#include "userspace/base/strings.h"
#include "userspace/regression/report.h"
#include "userspace/regression/report_page.h"

namespace pyrometer::regression {
namespace {

using nlohmann::json;

// Shares to a thousandth of what a pixel shows.
double Rounded(double value) { return std::round(value * 1e7) / 1e7; }

json ToJson(const FlameDiff& flame) {
  json functions = json::array(), nodes = json::array();
  for (const FlameDiff::Function& f : flame.functions) {
    functions.push_back(
        {f.name, f.module, f.p_slower, f.p_faster, f.own_p_slower, f.own_p_faster, Rounded(f.own_excess)});
  }
  for (const FlameDiff::Node& node : flame.nodes) {
    nodes.push_back({node.parent, node.function, Rounded(node.baseline), Rounded(node.candidate)});
  }
  return {{"title", flame.title}, {"functions", functions}, {"nodes", nodes}, {"left_out", flame.left_out}};
}

// Within <script> nothing but "</" and "<!--" is special; no "<" at all is simpler to be sure of. JSON has it in
// strings only.
std::string WithoutMarkup(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string RenderHtml(const Report& report) {
  json flames = json::array();
  for (const FlameDiff& flame : report.flames) flames.push_back(ToJson(flame));
  const std::string data = "{\"report\":" + RenderReport(report, ReportFormat::kJson) +
                           ",\"flames\":" + flames.dump(-1, ' ', false, json::error_handler_t::replace) + "}";
  std::string page(kReportPageHead);
  page += WithoutMarkup(data);
  page += kReportPageTail;
  return page;
}

}  // namespace pyrometer::regression

#include "ui-export/formats/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <functional>

#include "ui-export/formats/call_tree.h"
#include "ui-export/formats/frame_kinds.h"
#include "ui-export/formats/svg_script.h"
#include "ui-export/formats/viewer_json.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

using profile::FrameKind;

// Pixels. Row and text size are those of a terminal: small enough for deep stacks, still readable.
constexpr double kWidth = 1200;
constexpr double kMargin = 12;
constexpr double kFramesWidth = kWidth - 2 * kMargin;
constexpr double kFramesTop = 84;
constexpr double kRowHeight = 18;
constexpr double kBoxHeight = 17;
constexpr double kFontSize = 11;
constexpr double kCharWidth = 6.63;  // of a monospaced font at 11 px: 0.602 em in the common ones
constexpr double kTextInset = 4;
constexpr double kGap = 0.5;
constexpr double kMinWidthWithGap = 1.5;
constexpr size_t kMinTextChars = 3;
// Rows drawn; a viewer's patience and some viewers' largest picture (32,767 px) end near here.
constexpr size_t kMaxRows = 1500;

// What executed, as people tell it apart: colours and legend.
enum class Look { kProgram, kLibrary, kKernel, kJit, kInterpreted, kOther };
struct Style {
  std::string_view name;
  int hue;         // degrees
  int saturation;  // percent
  int lightness;   // percent
};
constexpr std::array<Style, 6> kStyles = {{
    {"program", 40, 88, 70},
    {"library", 150, 38, 72},
    {"kernel", 10, 78, 74},
    {"JIT", 205, 62, 76},
    {"interpreter", 268, 52, 81},
    {"other", 220, 10, 86},
}};

Look LookOf(const CallTreeFrame& frame) {
  switch (frame.kind) {
    case FrameKind::kNative:
      return LooksLikeLibrary(frame.module) || frame.module.starts_with('[') ? Look::kLibrary : Look::kProgram;
    case FrameKind::kKernel:
      return Look::kKernel;
    case FrameKind::kJit:
      return Look::kJit;
    case FrameKind::kInterpreted:
      return Look::kInterpreted;
    case FrameKind::kUnknown:
      // Imported without kinds: names are all there is, and they are mostly the program's.
      return frame.name.starts_with('[') ? Look::kOther : Look::kProgram;
    case FrameKind::kSynthetic:
      return Look::kOther;
  }
  return Look::kOther;
}

std::string HslHex(double hue, double saturation, double lightness) {
  // Plain RGB: several viewers and converters do not know hsl().
  const double a = saturation * std::min(lightness, 1 - lightness);
  const auto channel = [&](double n) {
    const double k = std::fmod(n + hue / 30, 12);
    const double value = lightness - a * std::max(-1.0, std::min({k - 3, 9 - k, 1.0}));
    return static_cast<unsigned>(std::lround(value * 255));
  };
  return StrFormat("#%02x%02x%02x", channel(0), channel(8), channel(4));
}

// Neighbours differ a little, the same name is the same everywhere (FNV-1a: stable over builds).
std::string Colour(Look look, std::string_view name) {
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  const Style& style = kStyles[static_cast<size_t>(look)];
  const bool grey = look == Look::kOther;
  const double hue = style.hue + (grey ? 0 : static_cast<double>(hash % 17) - 8);
  const double lightness = style.lightness + static_cast<double>(hash / 17 % 9) - 4;
  return HslHex(hue < 0 ? hue + 360 : hue, style.saturation / 100.0, lightness / 100.0);
}

std::string XmlEscape(std::string_view text) {
  std::string out;
  for (const char c : text) {
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
      case '\n':
        out += "&#10;";
        break;
      default:
        // XML has no way to write other control characters.
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

// At most `chars` characters (not bytes) of UTF-8 text, "…" where it was cut.
std::string Clip(std::string_view text, size_t chars) {
  size_t count = 0;
  size_t cut = text.size();
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;
    ++count;
    if (count == chars) cut = i;
    if (count > chars) return std::string(text.substr(0, cut)) + "…";
  }
  return std::string(text);
}

std::string UtcTime(int64_t time_ns) {
  const time_t seconds = static_cast<time_t>(time_ns / 1'000'000'000);
  struct tm parts {};
  if (gmtime_r(&seconds, &parts) == nullptr) return {};
  std::array<char, 40> text{};
  const size_t length = strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return {text.data(), length};
}

class SvgWriter {
 public:
  SvgWriter(const profile::Profile& profile, const WriteOptions& options, size_t value_index, CallTree tree)
      : profile_(profile),
        options_(options),
        type_(profile.value_types[value_index]),
        tree_(std::move(tree)),
        self_(tree_.SelfValues(profile, value_index)) {
    for (int64_t& value : self_) {
      negative_ |= value < 0;
      value = std::max<int64_t>(value, 0);
    }
    total_ = tree_.TotalValues(self_);
  }

  StatusOr<std::string> Write(std::vector<std::string>* notes) {
    std::string boxes;
    RETURN_IF_ERROR(DrawBoxes(&boxes));
    const double height = kFramesTop + static_cast<double>(rows_) * kRowHeight + kMargin;
    std::string out = StrFormat(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"%.0f\" height=\"%.0f\" "
        "viewBox=\"0 0 %.0f %.0f\" tabindex=\"0\">\n"
        "<style>\n"
        "text{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:%.0fpx;fill:#22262e}\n"
        ".title{font-family:system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;font-size:17px;"
        "font-weight:600}\n"
        ".note{font-family:system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;font-size:12px;"
        "fill:#5b6472}\n"
        ".button{cursor:pointer;fill:#0b5cad}\n"
        ".f{cursor:pointer}\n"
        ".f:hover rect{stroke:#22262e;stroke-width:1}\n"
        ".f text{pointer-events:none}\n"
        "</style>\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fdfdfb\"/>\n",
        kWidth, height, kWidth, height, kFontSize);
    DrawHeader(&out);
    out += StrFormat("<g id=\"frames\" data-left=\"%.2f\" data-width=\"%.2f\" data-char=\"%.2f\">\n", kMargin,
                     kFramesWidth, kCharWidth);
    out += boxes;
    out += "</g>\n<script type=\"text/javascript\"><![CDATA[";
    out += kSvgScript;
    out += "]]></script>\n</svg>\n";
    if (notes != nullptr) AppendNotes(notes);
    return out;
  }

 private:
  double Share(int64_t value) const {
    return total_[0] == 0 ? 0 : static_cast<double>(value) / static_cast<double>(total_[0]);
  }

  Status DrawBoxes(std::string* out) {
    const std::vector<std::vector<uint32_t>> children = tree_.SortedChildren();
    struct Step {
      uint32_t node;
      double x;
      size_t row;
    };
    std::vector<Step> steps{{0, kMargin, 0}};
    while (!steps.empty()) {
      const Step step = steps.back();
      steps.pop_back();
      const double width = step.node == 0 ? kFramesWidth : Share(total_[step.node]) * kFramesWidth;
      if (width < options_.svg_min_width) {
        if (total_[step.node] > 0) ++hidden_;
        continue;
      }
      if (step.row >= kMaxRows) {
        cut_rows_ = true;
        continue;
      }
      rows_ = std::max(rows_, step.row + 1);
      DrawBox(out, step.node, step.x, width, step.row);
      if (out->size() > kMaxOutputBytes) {
        return ResourceExhaustedError(StrFormat("the picture would exceed %s", FormatBytes(kMaxOutputBytes)));
      }
      double x = step.x;
      for (const uint32_t child : children[step.node]) {
        steps.push_back({child, x, step.row + 1});
        x += Share(total_[child]) * kFramesWidth;
      }
    }
    return OkStatus();
  }

  void DrawBox(std::string* out, uint32_t node, double x, double width, size_t row) {
    const CallTreeFrame& frame = tree_.frame_of(node);
    const std::string name = ToUtf8(frame.name);
    const double y = kFramesTop + static_cast<double>(row) * kRowHeight;
    *out += "<g class=\"f\"><title>";
    *out += XmlEscape(Tip(node, frame, name));
    *out += StrFormat("</title><rect x=\"%.2f\" y=\"%.0f\" ", x, y);
    // The gap between neighbours comes off the right edge, but never leaves nothing; zooming needs the true width.
    if (width > kMinWidthWithGap) {
      *out += StrFormat("width=\"%.2f\" data-w=\"%.2f\"", width - kGap, width);
    } else {
      *out += StrFormat("width=\"%.2f\"", width);
    }
    *out += StrFormat(" height=\"%.0f\" rx=\"1.5\" fill=\"%s\"/>", kBoxHeight, Colour(LookOf(frame), name));
    const double room = (width - 6) / kCharWidth;
    if (room >= static_cast<double>(kMinTextChars)) {
      *out += StrFormat("<text x=\"%.2f\" y=\"%.1f\">", x + kTextInset, y + 12.5);
      *out += XmlEscape(Clip(name, static_cast<size_t>(room)));
      *out += "</text>";
    }
    *out += "</g>\n";
  }

  std::string Tip(uint32_t node, const CallTreeFrame& frame, std::string_view name) const {
    std::string tip(name);
    std::string where = node == 0 ? std::string() : ToUtf8(frame.module);
    if (!frame.file.empty()) {
      if (!where.empty()) where += " · ";
      where += ToUtf8(frame.file);
      if (frame.line > 0) where += StrFormat(":%d", frame.line);
    }
    if (frame.inlined) where += where.empty() ? "inlined" : " · inlined";
    if (!where.empty()) tip += "\n" + where;
    tip += StrFormat("\n%s total (%.2f %%), %s self (%.2f %%)", FormatValue(total_[node], type_.unit),
                     100 * Share(total_[node]), FormatValue(self_[node], type_.unit), 100 * Share(self_[node]));
    return tip;
  }

  void DrawHeader(std::string* out) const {
    const std::string title = options_.title.empty() ? DefaultTitle(profile_) : options_.title;
    *out += StrFormat("<text class=\"title\" x=\"%.0f\" y=\"26\">%s</text>\n", kMargin, XmlEscape(ToUtf8(title)));
    std::string facts = FormatValue(total_[0], type_.unit) + " " + type_.type;
    if (profile_.duration_ns > 0) facts += " over " + FormatDurationNs(profile_.duration_ns);
    if (profile_.time_ns > 0) facts += " from " + UtcTime(profile_.time_ns);
    if (profile_.accounting.taken > 0) {
      facts += StrFormat(" · %s samples taken, %s dropped", FormatCount(profile_.accounting.taken),
                         FormatCount(profile_.accounting.DroppedTotal()));
    }
    *out += StrFormat("<text class=\"note\" x=\"%.0f\" y=\"46\">%s</text>\n", kMargin, XmlEscape(ToUtf8(facts)));
    *out += StrFormat(
        "<text id=\"find\" class=\"note button\" x=\"%.0f\" y=\"26\" text-anchor=\"end\" "
        "display=\"none\">Search</text>\n"
        "<text id=\"reset\" class=\"note button\" x=\"%.0f\" y=\"26\" text-anchor=\"end\" display=\"none\">Reset "
        "zoom</text>\n"
        "<text id=\"status\" class=\"note\" x=\"%.0f\" y=\"46\" text-anchor=\"end\"></text>\n",
        kWidth - kMargin, kWidth - kMargin - 60, kWidth - kMargin);
    DrawLegend(out);
  }

  // Where the time ended, by what executed.
  void DrawLegend(std::string* out) const {
    std::array<int64_t, kStyles.size()> sums{};
    for (uint32_t node = 0; node < self_.size(); ++node) {
      sums[static_cast<size_t>(LookOf(tree_.frame_of(node)))] += self_[node];
    }
    double x = kMargin;
    for (size_t look = 0; look < kStyles.size(); ++look) {
      if (sums[look] == 0) continue;
      const Style& style = kStyles[look];
      const std::string label = StrFormat("%s %.1f %%", style.name, 100 * Share(sums[look]));
      *out += StrFormat("<rect x=\"%.1f\" y=\"58\" width=\"11\" height=\"11\" rx=\"2\" fill=\"%s\"/>", x,
                        HslHex(style.hue, style.saturation / 100.0, style.lightness / 100.0));
      *out += StrFormat("<text class=\"note\" x=\"%.1f\" y=\"68\">%s</text>\n", x + 17, label);
      constexpr double kLegendCharWidth = 6.6;
      x += 17 + static_cast<double>(label.size()) * kLegendCharWidth + 14;
    }
  }

  void AppendNotes(std::vector<std::string>* notes) const {
    if (hidden_ > 0) notes->push_back(StrFormat("%d boxes too narrow to see are not in the picture", hidden_));
    if (negative_) notes->push_back("negative values are drawn as nothing");
    if (cut_rows_) notes->push_back(StrFormat("stacks are drawn down to %d frames", kMaxRows));
    if (tree_.truncated()) notes->push_back("too many distinct stacks: the deepest count for their callers");
  }

  const profile::Profile& profile_;
  const WriteOptions& options_;
  const profile::ValueType& type_;
  const CallTree tree_;
  std::vector<int64_t> self_;
  std::vector<int64_t> total_;
  size_t rows_ = 0;
  size_t hidden_ = 0;
  bool negative_ = false;
  bool cut_rows_ = false;
};

}  // namespace

std::string FormatValue(int64_t value, std::string_view unit) {
  const uint64_t magnitude = value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string text = unit == "nanoseconds" ? FormatDurationNs(magnitude)
                     : unit == "bytes"     ? FormatBytes(magnitude)
                                           : FormatCount(magnitude);
  return value < 0 ? "-" + text : text;
}

StatusOr<std::string> WriteSvg(const profile::Profile& profile, const WriteOptions& options,
                               std::vector<std::string>* notes) {
  const size_t value_index = options.value_index.value_or(profile.default_value);
  if (value_index >= profile.value_types.size()) {
    return InvalidArgumentError(StrFormat("the profile has no value %d to draw", value_index));
  }
  std::vector<std::string> roots = options.root_labels.value_or(std::vector<std::string>{});
  if (!options.root_labels && LabelValues(profile, profile::kLabelContainerName).size() > 1) {
    roots.emplace_back(profile::kLabelContainerName);
  }
  return SvgWriter(profile, options, value_index, BuildCallTree(profile, roots)).Write(notes);
}

}  // namespace pyrometer::formats

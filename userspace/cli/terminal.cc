#include "userspace/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "userspace/base/strings.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kPlainWidth = 100;
constexpr size_t kLeastLastColumn = 16;  // a name cut shorter than this says nothing

bool IsContinuationByte(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

int FailWith(const Status& status, int code) {
  std::fprintf(stderr, "pyrometer: %.*s\n", static_cast<int>(Message(status).size()), Message(status).data());
  return code;
}

}  // namespace

bool StdoutIsTerminal() { return ::isatty(STDOUT_FILENO) == 1; }

size_t TerminalWidth() {
  winsize size{};
  if (StdoutIsTerminal() && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
  return kPlainWidth;
}

int Fail(const Status& status) { return FailWith(status, kExitFailed); }
int FailUsage(const Status& status) { return FailWith(status, kExitUsage); }
int FailQuery(const Status& status) {
  return FailWith(status, status.code() == StatusCode::kInvalidArgument ? kExitUsage : kExitFailed);
}

size_t DisplayWidth(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuationByte(c); }));
}

std::string CutToWidth(std::string_view text, size_t width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  if (width == 0) return "";
  size_t bytes = 0;
  for (size_t columns = 0; bytes < text.size(); ++bytes) {
    if (!IsContinuationByte(text[bytes]) && ++columns == width) break;
  }
  return std::string(text.substr(0, bytes)) + "…";
}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  // A control character in a name would move the cursor or worse.
  for (std::string& cell : cells) {
    cell = ToUtf8(cell);
    for (char& c : cell) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
  }
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(DisplayWidth(column.title));
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }
  size_t before_last = 0;
  for (size_t i = 0; i + 1 < widths.size(); ++i) before_last += widths[i] + 2;
  const size_t room = TerminalWidth();
  if (StdoutIsTerminal()) {
    widths.back() = std::min(widths.back(), std::max(kLeastLastColumn, room > before_last ? room - before_last : 0));
  }
  std::string out;
  const auto add_line = [&](const auto& cell_at) {
    std::string line;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string cell = CutToWidth(cell_at(i), widths[i]);
      const std::string padding(widths[i] - DisplayWidth(cell), ' ');
      if (i > 0) line += "  ";
      line += columns_[i].align == Align::kRight ? padding + cell : cell + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  add_line([&](size_t i) { return columns_[i].title; });
  for (const auto& row : rows_) add_line([&](size_t i) { return row[i]; });
  return out;
}

std::string Sparkline(const std::vector<double>& values) {
  static constexpr const char* kLevels[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const double largest = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  std::string out;
  for (const double value : values) {
    const double level = largest > 0 ? value / largest * 7 : 0;
    out += kLevels[static_cast<size_t>(std::clamp(std::lround(level), 0L, 7L))];
  }
  return out;
}

std::string Bar(double share, size_t width) {
  static constexpr const char* kEighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const size_t eighths = static_cast<size_t>(std::lround(std::clamp(share, 0.0, 1.0) * static_cast<double>(width * 8)));
  std::string out;
  for (size_t i = 0; i < width; ++i) {
    const size_t filled = std::min<size_t>(8, eighths > i * 8 ? eighths - i * 8 : 0);
    out += filled == 8 ? "█" : kEighths[filled];
  }
  return out;
}

std::string Percent(double part, double whole) { return StrFormat("%.1f%%", whole > 0 ? part / whole * 100 : 0.0); }

std::string FormatValue(double value, std::string_view unit) {
  const auto whole = static_cast<uint64_t>(std::max(0.0, value));
  if (unit == "nanoseconds") return FormatDurationNs(whole);
  if (unit == "bytes") return FormatBytes(whole);
  return FormatCount(whole);
}

void Progress::Update(double share, std::string_view detail) {
  if (::isatty(STDERR_FILENO) != 1) return;
  std::fprintf(stderr, "\r\033[K%s %s %s", what_.c_str(), Bar(share, 30).c_str(), std::string(detail).c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::Clear() {
  if (!drawn_) return;
  std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace pyrometer::cli

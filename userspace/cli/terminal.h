// What commands print: tables, progress, errors. Colour and progress bars only on a terminal, plain
// lines elsewhere; width from the terminal, 100 columns elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::cli {

// Exit codes: a contract (docs/man/pyrometer.1).
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitRegression = 3;  // `ci`: something became slower
inline constexpr int kExitUndecided = 4;   // `ci`: too little data to say

bool StdoutIsTerminal();
size_t TerminalWidth();

// "pyrometer: <message>" on stderr; returns kExitFailed.
int Fail(const Status& status);
// The same for input that the command line got wrong; returns kExitUsage.
int FailUsage(const Status& status);
// kExitUsage for a malformed selector or flag value, else kExitFailed.
int FailQuery(const Status& status);

// Columns padded to their widest cell; numbers right-aligned by the caller's choice. The last
// column is cut to the terminal's width.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  std::string ToString() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Columns that `text` (UTF-8) takes on a terminal, one per code point (our texts hold no wide ones).
size_t DisplayWidth(std::string_view text);
// At most `width` columns, the cut marked by "…".
std::string CutToWidth(std::string_view text, size_t width);
// One of ▁▂▃▄▅▆▇█ per value, scaled to the largest.
std::string Sparkline(const std::vector<double>& values);
// A bar of `width` columns filled by `share` of 0…1, in eighths.
std::string Bar(double share, size_t width);
// "12.3%"
std::string Percent(double part, double whole);
// A value in its unit: nanoseconds as a duration, bytes as bytes, else a count.
std::string FormatValue(double value, std::string_view unit);

// One line that is rewritten on a terminal; elsewhere nothing until Finish.
class Progress {
 public:
  // Draws to stderr.
  explicit Progress(std::string what) : what_(std::move(what)) {}
  ~Progress() { Clear(); }
  void Update(double share, std::string_view detail);
  void Clear();

 private:
  const std::string what_;
  bool drawn_ = false;
};

}  // namespace pyrometer::cli

// `pyrometer net`: how far away the network is and what goes wrong on the way, per container and peer.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/cli/command.h"
#include "userspace/cli/connection.h"
#include "userspace/cli/terminal.h"
#include "userspace/profile/batch.h"
#include "userspace/query/peers.h"
#include "userspace/query/selector.h"

namespace pyrometer::cli {
namespace {

using query::PeerRow;
using query::PeerSource;

constexpr size_t kDefaultRows = 20;
// Windows of the agents arrive every 10 s; looking more often shows a new one sooner.
constexpr std::chrono::seconds kWatchInterval{2};

struct NetFlags {
  std::string selector;
  std::shared_ptr<ConnectionFlags> connection;
  std::shared_ptr<RangeFlags> range;
  std::vector<std::string> by;
  std::string sort = "rtt";
  size_t rows = kDefaultRows;
  bool json = false;
  bool watch = false;
};

// What --sort names; rows with the largest come first.
struct Order {
  const char* name;
  uint64_t (*key)(const PeerRow& row);
};
constexpr Order kOrders[] = {
    {"rtt", [](const PeerRow& row) { return row.rtt.empty() ? 0 : row.rtt.Quantile(0.99); }},
    {"retransmits", [](const PeerRow& row) { return PeerRow::Total(row.retransmits); }},
    {"bytes", [](const PeerRow& row) { return row.bytes_sent + row.bytes_received; }},
    {"connections", [](const PeerRow& row) { return row.opened + row.found + row.connect_failures; }},
};

StatusOr<std::vector<PeerRow>> Fetch(rpc::QueryApi& store, const NetFlags& flags, query::Selector selector) {
  ASSIGN_OR_RETURN(const Range range, ResolveRange(*flags.range));
  std::vector<std::string> by = flags.by;
  if (by.empty()) {
    by = query::DefaultPeerLabels();
    by.emplace_back(profile::kLabelLocalPort);
  }
  PeerSource source;
  source.histograms = [&](std::string_view type,
                          const PeerSource::Labels& labels) -> StatusOr<std::vector<PeerSource::LabelledHistogram>> {
    selector.type = type;
    ASSIGN_OR_RETURN(std::vector<rpc::LabelledHistogram> rows, store.Histograms({.query = selector.ToString(),
                                                                                 .from_ns = range.from_ns,
                                                                                 .to_ns = range.to_ns,
                                                                                 .by = labels,
                                                                                 .tenant = ""}));
    std::vector<PeerSource::LabelledHistogram> out;
    for (rpc::LabelledHistogram& row : rows) out.push_back({std::move(row.labels), std::move(row.histogram)});
    return out;
  };
  source.sums = [&](std::string_view type,
                    const PeerSource::Labels& labels) -> StatusOr<std::vector<PeerSource::LabelledSum>> {
    selector.type = type;
    ASSIGN_OR_RETURN(const rpc::TimeSeriesReply reply, store.TimeSeries({.query = selector.ToString(),
                                                                         .from_ns = range.from_ns,
                                                                         .to_ns = range.to_ns,
                                                                         .step_ns = 0,
                                                                         .by = labels,
                                                                         .tenant = ""}));
    std::vector<PeerSource::LabelledSum> out;
    for (const rpc::TimeSeriesRow& row : reply.series) {
      for (const double value : row.values) out.push_back({row.labels, static_cast<uint64_t>(value)});
    }
    return out;
  };
  ASSIGN_OR_RETURN(std::vector<PeerRow> rows, query::Peers(source, by));
  const auto* order =
      std::find_if(std::begin(kOrders), std::end(kOrders), [&](const Order& one) { return flags.sort == one.name; });
  std::stable_sort(rows.begin(), rows.end(),
                   [&](const PeerRow& a, const PeerRow& b) { return order->key(a) > order->key(b); });
  return rows;
}

std::string Duration(const profile::Histogram& histogram, double q) {
  return histogram.empty() ? "-" : FormatDurationNs(histogram.Quantile(q));
}

// "12 (rto 9, tlp 3)"
std::string Causes(const std::map<std::string, uint64_t>& values) {
  const uint64_t total = PeerRow::Total(values);
  if (total == 0) return "0";
  std::string causes;
  for (const auto& [cause, value] : values) {
    causes += StrFormat("%s%s %s", causes.empty() ? "" : ", ", cause, FormatCount(value));
  }
  return StrFormat("%s (%s)", FormatCount(total), causes);
}

// "network 71%, receiver 20%": what a tenth of the time or more went to, and the largest in any case.
std::string Limits(const std::map<std::string, uint64_t>& limited_ns) {
  std::vector<std::pair<uint64_t, std::string>> parts;
  for (const auto& [cause, ns] : limited_ns) parts.emplace_back(ns, cause);
  std::sort(parts.rbegin(), parts.rend());
  const double total = static_cast<double>(PeerRow::Total(limited_ns));
  std::string text;
  for (const auto& [ns, cause] : parts) {
    const double share = static_cast<double>(ns) / total;
    if (!text.empty() && share < 0.1) break;
    text += StrFormat("%s%s %.0f%%", text.empty() ? "" : ", ", cause, 100 * share);
  }
  return text;
}

// Who, and with whom: "shop" and "-> 10.0.0.7:5432", or "<- 10.0.0.9 on 8080".
std::pair<std::string, std::string> Ends(const PeerRow& row, bool grouped) {
  if (grouped) return {row.labels.ToString(), ""};
  std::string who(row.labels.Get(profile::kLabelContainerName));
  if (who.empty()) who = row.labels.Get(profile::kLabelService);
  if (who.empty()) who = row.labels.Get(profile::kLabelNode);
  const std::string peer(row.labels.Get(profile::kLabelPeer));
  const std::string_view direction = row.labels.Get(profile::kLabelDirection);
  if (direction == "out") return {who, "-> " + peer};
  if (direction == "in") return {who, StrFormat("<- %s on %s", peer, row.labels.Get(profile::kLabelLocalPort))};
  return {who, peer};
}

std::string TableText(const std::vector<PeerRow>& rows, const NetFlags& flags) {
  using Align = Table::Align;
  const bool grouped = !flags.by.empty();
  std::vector<Table::Column> columns = {{grouped ? "labels" : "container"}};
  if (!grouped) columns.push_back({"peer"});
  for (const char* title : {"rtt p50", "p99", "min", "variation", "connect", "sent", "received", "open", "opened",
                            "failed", "resets", "zero windows"}) {
    columns.push_back({title, Align::kRight});
  }
  columns.push_back({"retransmits"});
  columns.push_back({"limited by"});
  Table table(columns);
  const size_t shown = flags.rows == 0 ? rows.size() : std::min(flags.rows, rows.size());
  for (size_t i = 0; i < shown; ++i) {
    const PeerRow& row = rows[i];
    auto [who, peer] = Ends(row, grouped);
    std::vector<std::string> cells = {std::move(who)};
    if (!grouped) cells.push_back(std::move(peer));
    // A range may begin after a connection did.
    const uint64_t begun = row.opened + row.found;
    cells.insert(
        cells.end(),
        {Duration(row.rtt, 0.5), Duration(row.rtt, 0.99), Duration(row.min_rtt, 0), Duration(row.rtt_variation, 0.5),
         Duration(row.connect, 0.5), FormatValue(static_cast<double>(row.bytes_sent), "bytes"),
         FormatValue(static_cast<double>(row.bytes_received), "bytes"),
         begun >= row.closed ? FormatCount(begun - row.closed) : "-", FormatCount(row.opened),
         FormatCount(row.connect_failures), FormatCount(PeerRow::Total(row.resets)),
         FormatCount(PeerRow::Total(row.zero_windows)), Causes(row.retransmits), Limits(row.limited_ns)});
    table.AddRow(std::move(cells));
  }
  std::string text = table.ToString();
  if (shown < rows.size()) {
    text += StrFormat("%s more; -n 0 shows all\n", FormatCount(rows.size() - shown));
  }
  return text;
}

std::string JsonText(const std::vector<PeerRow>& rows, size_t limit) {
  const auto quantile = [](const profile::Histogram& histogram, double q) {
    return histogram.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(histogram.Quantile(q));
  };
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const PeerRow& row : rows) {
    if (limit != 0 && list.size() == limit) break;
    nlohmann::ordered_json labels = nlohmann::ordered_json::object();
    for (const profile::Label& label : row.labels.labels()) labels[label.name] = label.value;
    list.push_back({{"labels", std::move(labels)},
                    {"rttP50Ns", quantile(row.rtt, 0.50)},
                    {"rttP95Ns", quantile(row.rtt, 0.95)},
                    {"rttP99Ns", quantile(row.rtt, 0.99)},
                    {"minRttNs", quantile(row.min_rtt, 0)},
                    {"rttVariationP50Ns", quantile(row.rtt_variation, 0.50)},
                    {"connectP50Ns", quantile(row.connect, 0.50)},
                    {"samples", row.rtt.count()},
                    {"retransmits", PeerRow::Total(row.retransmits)},
                    {"retransmitsByCause", row.retransmits},
                    {"resets", row.resets},
                    {"zeroWindows", row.zero_windows},
                    {"limitedNs", row.limited_ns},
                    {"bytesSent", row.bytes_sent},
                    {"bytesReceived", row.bytes_received},
                    {"connections", row.opened},
                    {"connectionsFound", row.found},
                    {"connectionsClosed", row.closed},
                    {"connectFailures", row.connect_failures}});
  }
  return list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int RunNet(const NetFlags& flags) {
  const auto selector = query::ParseSelector(flags.selector.empty() ? "{}" : flags.selector, profile::kTypeTcpRtt);
  if (!selector.ok()) return FailQuery(selector.status());
  if (const auto range = ResolveRange(*flags.range); !range.ok()) return FailUsage(range.status());
  const auto store = Connect(*flags.connection);
  if (!store.ok()) return Fail(store.status());
  while (true) {
    const auto rows = Fetch(**store, flags, *selector);
    if (!rows.ok()) return FailQuery(rows.status());
    if (rows->empty() && !flags.watch) {
      return Fail(NotFoundError(
          StrFormat("no TCP traffic matches %s from %s to %s; the first window arrives some 10 s after a start",
                    flags.selector.empty() ? "{}" : flags.selector, flags.range->from, flags.range->to)));
    }
    const std::string text = flags.json ? JsonText(*rows, flags.rows) : TableText(*rows, flags);
    // Home, and clear to the end: the terminal keeps what was above.
    if (flags.watch && StdoutIsTerminal()) std::printf("\x1b[H\x1b[J");
    std::printf("%s", text.c_str());
    if (!flags.watch) return kExitDone;
    if (std::fflush(stdout) != 0) return kExitDone;  // the reader has gone, which ends a watch
    std::this_thread::sleep_for(kWatchInterval);
  }
}

}  // namespace

void AddNetCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "net", "TCP per container and peer: round-trip times, retransmits and their causes",
                 "pyrometer net '{container.name=\"shop\"}' --from -5m --watch");
  auto flags = std::make_shared<NetFlags>();
  command->add_option("SELECTOR", flags->selector,
                      "Whose: {container.name=\"shop\",node=~\"eu-.*\"} (default: everybody's)");
  flags->connection = AddConnectionFlags(command);
  flags->range = AddRangeFlags(command);
  command->add_option("--by", flags->by, "One row for each value of these labels: container.name,peer")
      ->delimiter(',')
      ->type_name("LABEL,…")
      ->allow_extra_args(false);
  std::vector<std::string> orders;
  for (const Order& order : kOrders) orders.emplace_back(order.name);
  command->add_option("--sort", flags->sort, "Largest first: rtt (p99, the default), retransmits, bytes or connections")
      ->check(CLI::IsMember(orders))
      ->type_name("COLUMN");
  command->add_option("-n,--rows", flags->rows, "Rows shown (default 20, 0 = all)")->type_name("N");
  command->add_flag("--watch", flags->watch, "Ask again every 2 s, until interrupted");
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([&invocation, flags] { invocation.run = [flags] { return RunNet(*flags); }; });
}

}  // namespace pyrometer::cli

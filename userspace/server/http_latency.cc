// Calls about durations: system calls and the network.
#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "ui-export/formats/viewer_json.h"
#include "userspace/base/strings.h"
#include "userspace/profile/batch.h"
#include "userspace/query/peers.h"
#include "userspace/query/sub_second.h"
#include "userspace/server/http_api.h"
#include "userspace/server/profile_types.h"

namespace pyrometer::server {
namespace {

constexpr uint64_t kMaxExemplars = 10'000;

// Restart codes that system calls return inside the kernel; strerrorname_np knows the public ones only.
struct KernelErrno {
  int number;
  const char* name;
};
constexpr KernelErrno kKernelErrnos[] = {
    {512, "ERESTARTSYS"}, {513, "ERESTARTNOINTR"}, {514, "ERESTARTNOHAND"}, {516, "ERESTART_RESTARTBLOCK"}};

std::string ErrnoName(int number) {
  if (const char* name = strerrorname_np(number); name != nullptr && number != 0) return name;
  for (const KernelErrno& known : kKernelErrnos) {
    if (known.number == number) return known.name;
  }
  return StrFormat("errno %d", number);
}

// [[low, high, count], …]; high is exclusive.
OrderedJson BucketsJson(const profile::Histogram& histogram) {
  OrderedJson buckets = OrderedJson::array();
  for (const profile::Histogram::Bucket& bucket : histogram.buckets()) {
    const uint64_t high = profile::BucketUpperBound(bucket.index);
    buckets.push_back({Number(profile::BucketLowerBound(bucket.index)), Number(high == UINT64_MAX ? high : high + 1),
                       Number(bucket.count)});
  }
  return buckets;
}

OrderedJson QuantileOrNull(const profile::Histogram& histogram, double q) {
  return histogram.empty() ? OrderedJson(nullptr) : Number(histogram.Quantile(q));
}

Status CheckHistogramType(const query::Selector& selector) {
  if (TypeInfo(selector.type).kind == TypeKind::kHistogram) return OkStatus();
  return InvalidArgumentError(
      StrFormat("%s is no histogram; those are syscall_latency, syscall_open, run_queue_latency, tcp_rtt, tcp_min_rtt, "
                "tcp_rtt_variation and tcp_connect",
                selector.type));
}

}  // namespace

StatusOr<HttpReply> GetHistograms(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeSyscallLatency));
  RETURN_IF_ERROR(CheckHistogramType(selector));
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const uint64_t latest, request.Uint("latest", 0, 1));
  ASSIGN_OR_RETURN(std::vector<query::HistogramRow> rows,
                   latest != 0 ? context.engine->LatestHistograms(selector, range, request.List("by"))
                               : context.engine->Histograms(selector, range, request.List("by")));
  std::stable_sort(rows.begin(), rows.end(), [](const query::HistogramRow& a, const query::HistogramRow& b) {
    return a.histogram.sum() > b.histogram.sum();
  });
  OrderedJson list = OrderedJson::array();
  for (const query::HistogramRow& row : rows) {
    const profile::Histogram& histogram = row.histogram;
    OrderedJson errors = OrderedJson::object();
    for (const auto& [number, calls] : row.errors) errors[ErrnoName(number)] = Number(calls);
    list.push_back({{"labels", LabelsJson(row.labels)},
                    {"count", Number(histogram.count())},
                    {"sum", Number(histogram.sum())},
                    {"max", Number(histogram.max())},
                    {"p50", Number(histogram.Quantile(0.50))},
                    {"p95", Number(histogram.Quantile(0.95))},
                    {"p99", Number(histogram.Quantile(0.99))},
                    {"mean", histogram.Mean()},
                    {"errors", std::move(errors)},
                    {"buckets", BucketsJson(histogram)},
                    {"exemplars", Number(row.exemplars)}});
  }
  return JsonReply({{"unit", std::string(TypeInfo(selector.type).unit)}, {"histograms", std::move(list)}});
}

namespace {

StatusOr<HttpReply> SubSecondMap(const ApiContext& context, const HttpRequest& request,
                                 const query::Selector& selector) {
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const uint64_t step_ns, request.Duration("step", kNsPerSecond));
  ASSIGN_OR_RETURN(const uint64_t cell_ns, request.Duration("cell", 20 * kNsPerMs));
  ASSIGN_OR_RETURN(const query::SubSecondMap map, query::SubSecond(*context.engine, selector, range, step_ns, cell_ns));
  OrderedJson columns = OrderedJson::array();
  for (const query::SubSecondMap::Column& column : map.columns) {
    columns.push_back({{"t", ToMs(column.time_ns)}, {"cells", column.cells}});
  }
  return JsonReply({{"stepNs", Number(step_ns)},
                    {"cellNs", Number(cell_ns)},
                    {"samples", Number(map.samples)},
                    {"timed", Number(map.timed)},
                    {"columns", std::move(columns)}});
}

}  // namespace

StatusOr<HttpReply> GetHeatmap(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeSyscallLatency));
  if (TypeInfo(selector.type).kind == TypeKind::kProfile) return SubSecondMap(context, request, selector);
  RETURN_IF_ERROR(CheckHistogramType(selector));
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const uint64_t step_ns, request.Duration("step", kDefaultStepNs));
  if (step_ns == 0) return InvalidArgumentError("step: expected a duration above 0, for example 10s");
  ASSIGN_OR_RETURN(const std::vector<query::HistogramSeriesRow> rows,
                   context.engine->HistogramSeries(selector, range, step_ns, {}));
  OrderedJson columns = OrderedJson::array();
  for (const query::HistogramSeriesRow& row : rows) {
    for (const query::HistogramStep& step : row.steps) {
      columns.push_back({{"t", ToMs(step.time_ns)}, {"buckets", BucketsJson(step.histogram)}});
    }
  }
  return JsonReply({{"stepNs", Number(step_ns)}, {"columns", std::move(columns)}});
}

StatusOr<HttpReply> GetExemplars(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeSyscallLatency));
  RETURN_IF_ERROR(CheckHistogramType(selector));
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const uint64_t min_ns, request.Uint("minNs", 0, UINT64_MAX));
  ASSIGN_OR_RETURN(const uint64_t max_ns, request.Uint("maxNs", UINT64_MAX, UINT64_MAX));
  ASSIGN_OR_RETURN(const uint64_t limit, request.Uint("limit", 100, kMaxExemplars));
  const std::string_view kind = request.Param("kind");
  if (!kind.empty() && kind != "slow" && kind != "drawn") {
    return InvalidArgumentError("kind: expected slow, the slowest calls, or drawn, those drawn among all calls");
  }
  ASSIGN_OR_RETURN(
      const query::ExemplarResult result,
      context.engine->ExemplarProfile(selector, range, min_ns, max_ns == 0 ? UINT64_MAX : max_ns,
                                      kind == "drawn" ? query::ExemplarKind::kDrawn : query::ExemplarKind::kSlow));
  const profile::Dictionary& dictionary = result.profile.dictionary;
  OrderedJson list = OrderedJson::array();
  for (const query::ExemplarRow& row : result.exemplars) {
    if (list.size() == limit) break;
    OrderedJson split = OrderedJson::object();
    for (const profile::TimePart& part : row.split) split[part.cause] = Number(part.ns);
    OrderedJson waker = nullptr;
    if (row.waker.wait_ns != 0) {
      waker = {{"comm", row.waker.comm},
               {"tid", row.waker.tid},
               {"cause", row.waker.cause},
               {"waitNs", Number(row.waker.wait_ns)},
               {"frames", query::StackNames(dictionary, row.waker.stack)}};
    }
    list.push_back({{"timeMs", ToMs(row.time_ns)},
                    {"durationNs", Number(row.value)},
                    {"comm", row.comm},
                    {"tid", row.tid},
                    {"call", row.call},
                    {"weight", Number(row.weight)},
                    {"slow", !row.typical},
                    {"splitNs", std::move(split)},
                    {"waker", std::move(waker)},
                    {"labels", LabelsJson(row.labels)},
                    {"frames", query::StackNames(dictionary, row.stack)}});
  }
  // The flame graph is large and already text: put in as it is.
  std::string body = "{\"exemplars\":" + list.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) +
                     ",\"flame\":" + formats::ViewerJson(result.profile, selector.ToString()) + "}";
  return TextReply(200, "application/json", std::move(body));
}

StatusOr<HttpReply> GetPeers(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(query::Selector selector, ReadSelector(request, profile::kTypeTcpRtt));
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  std::vector<std::string> by = request.List("by");
  if (by.empty()) by = query::DefaultPeerLabels();
  // The conditions hold for every kind of number; the type of the query chooses none.
  query::PeerSource source;
  source.histograms =
      [&](std::string_view type,
          const std::vector<std::string>& labels) -> StatusOr<std::vector<query::PeerSource::LabelledHistogram>> {
    selector.type = type;
    ASSIGN_OR_RETURN(std::vector<query::HistogramRow> rows, context.engine->Histograms(selector, range, labels));
    std::vector<query::PeerSource::LabelledHistogram> out;
    for (query::HistogramRow& row : rows) out.push_back({std::move(row.labels), std::move(row.histogram)});
    return out;
  };
  source.sums = [&](std::string_view type,
                    const std::vector<std::string>& labels) -> StatusOr<std::vector<query::PeerSource::LabelledSum>> {
    selector.type = type;
    ASSIGN_OR_RETURN(const std::vector<query::TimeSeriesRow> rows,
                     context.engine->TimeSeries(selector, range, 0, labels));
    std::vector<query::PeerSource::LabelledSum> out;
    for (const query::TimeSeriesRow& row : rows) {
      for (const query::SeriesPoint& point : row.points) out.push_back({row.labels, point.value});
    }
    return out;
  };
  ASSIGN_OR_RETURN(std::vector<query::PeerRow> peers, query::Peers(source, by));
  std::stable_sort(peers.begin(), peers.end(),
                   [](const query::PeerRow& a, const query::PeerRow& b) { return a.rtt.count() > b.rtt.count(); });
  const auto by_cause = [](const std::map<std::string, uint64_t>& values) {
    OrderedJson object = OrderedJson::object();
    for (const auto& [cause, value] : values) object[cause] = Number(value);
    return object;
  };
  OrderedJson list = OrderedJson::array();
  for (const query::PeerRow& peer : peers) {
    list.push_back({{"labels", LabelsJson(peer.labels)},
                    {"rttP50Ns", QuantileOrNull(peer.rtt, 0.50)},
                    {"rttP95Ns", QuantileOrNull(peer.rtt, 0.95)},
                    {"rttP99Ns", QuantileOrNull(peer.rtt, 0.99)},
                    {"minRttNs", QuantileOrNull(peer.min_rtt, 0)},
                    {"rttVariationP50Ns", QuantileOrNull(peer.rtt_variation, 0.50)},
                    {"connectP50Ns", QuantileOrNull(peer.connect, 0.50)},
                    {"samples", Number(peer.rtt.count())},
                    {"retransmits", Number(query::PeerRow::Total(peer.retransmits))},
                    {"retransmitsByCause", by_cause(peer.retransmits)},
                    {"resets", by_cause(peer.resets)},
                    {"zeroWindows", by_cause(peer.zero_windows)},
                    {"limitedNs", by_cause(peer.limited_ns)},
                    {"bytesSent", Number(peer.bytes_sent)},
                    {"bytesReceived", Number(peer.bytes_received)},
                    {"connections", Number(peer.opened)},
                    {"connectionsFound", Number(peer.found)},
                    {"connectionsClosed", Number(peer.closed)},
                    {"connectFailures", Number(peer.connect_failures)}});
  }
  return JsonReply({{"peers", std::move(list)}});
}

}  // namespace pyrometer::server

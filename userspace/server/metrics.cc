// The store's own counters, and totals of what agents measured, as Prometheus text (exposition format 0.0.4).
#include <string>

#include "userspace/base/process_usage.h"
#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/server/http_api.h"

namespace pyrometer::server {
namespace {

class MetricsText {
 public:
  void Family(std::string_view name, std::string_view type, std::string_view help) {
    text_ += StrFormat("# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
  }
  void Value(std::string_view name_and_labels, uint64_t value) {
    text_ += StrFormat("%s %d\n", name_and_labels, value);
  }
  void Seconds(std::string_view name, uint64_t ns) {
    text_ += StrFormat("%s %.9f\n", name, static_cast<double>(ns) / static_cast<double>(kNsPerSecond));
  }
  void Single(std::string_view name, std::string_view type, std::string_view help, uint64_t value) {
    Family(name, type, help);
    Value(name, value);
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace

StatusOr<HttpReply> GetMetrics(const ApiContext& context, const HttpRequest&) {
  RETURN_IF_ERROR(context.grant.RequireAll("metrics"));
  ASSIGN_OR_RETURN(const store::StoreStats stats, context.engine->reader().Stats());
  const Counters& counters = *context.counters;
  MetricsText out;
  out.Family("pyrometer_build_info", "gauge", "Always 1; the label tells the version.");
  out.Value(StrFormat("pyrometer_build_info{version=\"%s\"}", kVersion), 1);
  out.Family("pyrometer_start_time_seconds", "gauge", "Unix time of the start.");
  out.Seconds("pyrometer_start_time_seconds", static_cast<uint64_t>(context.started_ns));
  out.Family("pyrometer_batches_total", "counter", "Batches of agents since the start, by what became of them.");
  out.Value("pyrometer_batches_total{result=\"accepted\"}", counters.batches_accepted);
  out.Value("pyrometer_batches_total{result=\"duplicate\"}", counters.batches_duplicate);
  out.Value("pyrometer_batches_total{result=\"rejected\"}", counters.batches_rejected);
  out.Value("pyrometer_batches_total{result=\"failed\"}", counters.batches_failed);
  out.Family("pyrometer_append_seconds_total", "counter", "Time spent making batches durable.");
  out.Seconds("pyrometer_append_seconds_total", counters.append_ns);
  out.Single("pyrometer_agents_online", "gauge", "Agents connected now.", context.registry->online_count());
  out.Single("pyrometer_agent_connections_total", "counter", "Connections of agents since the start.",
             counters.agents_connected);
  out.Single("pyrometer_sessions_running", "gauge", "Sessions that have not ended.", context.sessions->running_count());
  out.Single("pyrometer_sessions_started_total", "counter", "Sessions since the start.",
             context.sessions->started_count());
  out.Family("pyrometer_http_replies_total", "counter", "Replies of the HTTP API and page since the start.");
  for (size_t hundreds = 2; hundreds < counters.http_replies.size(); ++hundreds) {
    out.Value(StrFormat("pyrometer_http_replies_total{code=\"%dxx\"}", hundreds), counters.http_replies[hundreds]);
  }
  out.Family("pyrometer_http_seconds_total", "counter", "Time spent answering HTTP requests.");
  out.Seconds("pyrometer_http_seconds_total", counters.http_ns);
  out.Single("pyrometer_store_disk_bytes", "gauge", "Files of the data folder.", stats.disk_bytes);
  out.Single("pyrometer_store_memory_bytes", "gauge", "Caches, write buffers and tries in memory.", stats.memory_bytes);
  out.Single("pyrometer_resident_bytes", "gauge", "Memory of this process.", ResidentBytes());
  out.Single("pyrometer_memory_trims_total", "counter", "Times that free pages were given back because of --memory.",
             context.memory_watch->trims());
  out.Single("pyrometer_memory_caches_dropped_total", "counter", "Times that caches were emptied because of --memory.",
             context.memory_watch->let_go());
  out.Single("pyrometer_store_series", "gauge", "Live series.", stats.series);
  out.Single("pyrometer_store_tries", "gauge", "Stack tries of services; a large service has several.", stats.tries);
  out.Single("pyrometer_store_stacks", "gauge", "Distinct stacks of all services.", stats.stacks);
  out.Single("pyrometer_store_frames", "gauge", "Distinct frames.", stats.frames);
  out.Single("pyrometer_store_strings", "gauge", "Distinct strings.", stats.strings);
  out.Single("pyrometer_store_agents", "gauge", "Agents ever seen.", stats.agents);
  out.Single("pyrometer_store_batches_total", "counter", "Batches applied, all time.", stats.batches);
  out.Single("pyrometer_store_samples_total", "counter", "Samples applied, all time.", stats.samples);
  out.Single("pyrometer_store_folded_samples_total", "counter",
             "Samples counted under the stack limit of their tenant.", stats.folded_samples);
  out.Single("pyrometer_store_duplicate_batches_total", "counter", "Resends recognised since the start.",
             stats.duplicates);
  out.Single("pyrometer_store_fresh_points", "gauge", "Points that housekeeping has not taken up yet.",
             stats.fresh_points);
  out.Single("pyrometer_store_syncs_total", "counter", "Syncs of the log since the start.", stats.syncs);
  out.Single("pyrometer_store_write_errors_total", "counter", "Writes refused by disk or database since the start.",
             stats.write_errors);
  out.Single("pyrometer_store_sequence_gaps_total", "counter",
             "Batches that agents dropped before they could be delivered.", stats.gaps);
  return TextReply(200, "text/plain; version=0.0.4; charset=utf-8", out.Take() + context.totals->Text());
}

}  // namespace pyrometer::server

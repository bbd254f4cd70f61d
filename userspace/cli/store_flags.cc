#include "userspace/cli/store_flags.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/credentials.h"
#include "userspace/store/clickhouse/url.h"

namespace pyrometer::cli {
namespace {

constexpr uint64_t kMinMemory = 64u << 20;
constexpr uint64_t kMaxDefaultMemory = 2ull << 30;
// Of --memory: questions a quarter, tables of the agents' streams an eighth, the store what is left.
constexpr uint64_t kQueryShare = 4;
constexpr uint64_t kStreamShare = 8;

StatusOr<uint64_t> ParseNumber(std::string_view text) {
  if (const auto number = ParseUint64(text)) return *number;
  return InvalidArgumentError(StrFormat("'%s' is not a number", text));
}

StatusOr<uint64_t> ParseSize(std::string_view text) {
  std::string input(text);
  try {
    input = CLI::AsSizeValue(false)(input).empty() ? input : "";
  } catch (const CLI::Error&) {
    input.clear();
  }
  if (const auto number = ParseUint64(input)) return *number;
  return InvalidArgumentError(StrFormat("'%s' is not a size; write 500000, 64MiB or 2GiB", text));
}

// Names of the limits that a tenant may have of its own, and how they are read.
struct LimitName {
  std::string_view name;
  StatusOr<uint64_t> (*parse)(std::string_view text);
  uint64_t store::TenantLimits::*member;
  std::string StoreFlags::*flag;
};
constexpr LimitName kLimits[] = {
    {"retention", ParseDuration, &store::TenantLimits::retention_ns, &StoreFlags::retention},
    {"retention-rollups", ParseDuration, &store::TenantLimits::rollup_retention_ns, &StoreFlags::retention_rollups},
    {"retention-offsets", ParseDuration, &store::TenantLimits::offsets_retention_ns, &StoreFlags::retention_offsets},
    {"retention-bytes", ParseSize, &store::TenantLimits::retention_bytes, &StoreFlags::retention_bytes},
    {"max-series", ParseNumber, &store::TenantLimits::max_series, &StoreFlags::max_series},
    {"max-stacks", ParseNumber, &store::TenantLimits::max_nodes, &StoreFlags::max_stacks},
    {"max-names", ParseSize, &store::TenantLimits::max_name_bytes, &StoreFlags::max_names},
    {"max-rate", ParseSize, &store::TenantLimits::max_bytes_per_s, &StoreFlags::max_rate},
};

Status ApplyOverride(const std::string& text, store::StoreOptions* options) {
  const size_t colon = text.find(':');
  const size_t equals = text.find('=', colon == std::string::npos ? 0 : colon);
  if (colon == std::string::npos || equals == std::string::npos) {
    return InvalidArgumentError(
        StrFormat("--limit %s: write TENANT:NAME=VALUE, for example team-a:max-series=5000", text));
  }
  const std::string tenant = text.substr(0, colon);
  const std::string name = text.substr(colon + 1, equals - colon - 1);
  if (!store::IsTenantName(tenant))
    return InvalidArgumentError(StrFormat("--limit %s: '%s' is no tenant name", text, tenant));
  for (const LimitName& limit : kLimits) {
    if (limit.name != name) continue;
    const StatusOr<uint64_t> value = limit.parse(std::string_view(text).substr(equals + 1));
    if (!value.ok()) return WithContext(value.status(), StrFormat("--limit %s", text));
    options->tenant_limits.try_emplace(tenant, options->limits).first->second.*limit.member = *value;
    return OkStatus();
  }
  std::vector<std::string> known;
  for (const LimitName& limit : kLimits) known.emplace_back(limit.name);
  return InvalidArgumentError(StrFormat("--limit %s: no limit '%s'; known are %s", text, name, Join(known, ", ")));
}

}  // namespace

void AddStoreFlags(CLI::App* command, StoreFlags& flags) {
  const auto text = [&](const char* name, std::string& value, const char* help, const char* type) {
    command->add_option(name, value, help)->type_name(type);
  };
  text(
      "--backend", flags.backend,
      "Keep profiles in ClickHouse: clickhouse://host:port[,host:port...]/database[?cluster=NAME] (default: in --data)",
      "URL");
  text("--http", flags.server.http_address, "Where the page and the HTTP API listen (default 127.0.0.1:7070)",
       "HOST:PORT");
  text("--grpc", flags.server.grpc_address, "Where agents and commands connect (default 127.0.0.1:7071)", "HOST:PORT");
  text("--retention", flags.retention, "How long profiles are kept (default 30d, 0 = for ever)", "TIME");
  text("--retention-bytes", flags.retention_bytes,
       "Bytes of profiles kept per tenant, oldest hours go first (default 0 = any)", "BYTES");
  text("--retention-rollups", flags.retention_rollups,
       "How long sums per hour and day are kept (default 400d, 0 = for ever)", "TIME");
  text("--retention-offsets", flags.retention_offsets,
       "How long the milliseconds of samples are kept (default 1d, 0 = not at all)", "TIME");
  command
      ->add_option("--memory", flags.memory_bytes, "Memory budget (default: a quarter of the machine's, 64MiB to 2GiB)")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(kMinMemory, uint64_t{1} << 50))
      ->type_name("BYTES");
  text("--max-series", flags.max_series, "Series per tenant; more are counted together, visibly (default 1000000)",
       "N");
  text("--max-stacks", flags.max_stacks,
       "New stack nodes per tenant and day; deeper frames are folded, visibly (default 16777216)", "N");
  text("--max-names", flags.max_names, "Bytes of function names per tenant, folded likewise (default 1GiB)", "BYTES");
  text("--max-rate", flags.max_rate, "Bytes a second per tenant; agents keep the rest for later (default 0 = any)",
       "BYTES");
  command->add_option("--max-tenants", flags.max_tenants, "Tenants that may exist (default 10000)")->type_name("N");
  command
      ->add_option("--limit", flags.limits,
                   "One of the limits above for one tenant, as team-a:max-series=5000; may repeat")
      ->allow_extra_args(false)
      ->type_name("TENANT:NAME=VALUE");
  text("--query-timeout", flags.query_timeout, "Time one question may take (default 30s)", "TIME");
  command
      ->add_option("--query-memory", flags.query_memory_bytes,
                   "Memory of all questions together, one may take half (default: a quarter of --memory)")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("BYTES");
  text("--tls-cert", flags.server.tls_cert_file, "Certificate (PEM); needed off loopback", "FILE");
  text("--tls-key", flags.server.tls_key_file, "Its private key (PEM)", "FILE");
  text("--tls-client-ca", flags.server.client_ca_file, "Agents must show a certificate of this authority (PEM)",
       "FILE");
  command
      ->add_option(
          "--debuginfod", flags.server.debuginfod,
          "Server to ask for debug files of binaries without names or lines; may repeat (default: none is asked)")
      ->type_name("URL");
  text("--token-file", flags.token_file, "Every call must carry this file's token; needed off loopback", "FILE");
  command
      ->add_option("--tenant-token", flags.tenant_tokens,
                   "File with a token that opens one tenant and nothing else; may repeat. Needs --token-file")
      ->allow_extra_args(false)
      ->type_name("TENANT:FILE");
}

uint64_t DefaultStoreMemory() {
  const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return kMinMemory;
  return std::clamp(static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes) / 4, kMinMemory,
                    kMaxDefaultMemory);
}

StatusOr<StoreSettings> ResolveStoreFlags(const StoreFlags& flags) {
  StoreSettings settings;
  if (!flags.backend.empty()) RETURN_IF_ERROR(store::clickhouse::ParseUrl(flags.backend).status());
  for (const LimitName& limit : kLimits) {
    const StatusOr<uint64_t> value = limit.parse(flags.*limit.flag);
    if (!value.ok()) return WithContext(value.status(), StrFormat("--%s", limit.name));
    settings.store.limits.*limit.member = *value;
  }
  for (const std::string& text : flags.limits) RETURN_IF_ERROR(ApplyOverride(text, &settings.store));
  settings.store.max_tenants = flags.max_tenants;
  settings.backend = flags.backend;

  const uint64_t memory = flags.memory_bytes == 0 ? DefaultStoreMemory() : flags.memory_bytes;
  const uint64_t streams = memory / kStreamShare;
  const uint64_t questions = flags.query_memory_bytes == 0 ? memory / kQueryShare : flags.query_memory_bytes;
  settings.store.memory_budget_bytes = memory - std::min(memory / 2, streams + questions);
  settings.server = flags.server;
  settings.server.stream_memory_bytes = streams;
  settings.server.memory_bytes = memory;
  settings.server.query_memory_bytes = questions;
  const StatusOr<uint64_t> timeout = ParseDuration(flags.query_timeout);
  if (!timeout.ok()) return WithContext(timeout.status(), "--query-timeout");
  if (*timeout == 0) return InvalidArgumentError("--query-timeout: a question needs some time");
  settings.server.query_timeout_ns = *timeout;
  if (!flags.token_file.empty()) {
    ASSIGN_OR_RETURN(settings.server.token, rpc::ReadTokenFile(flags.token_file));
  }
  for (const std::string& text : flags.tenant_tokens) {
    const size_t colon = text.find(':');
    const std::string tenant = text.substr(0, colon);
    if (colon == std::string::npos || !store::IsTenantName(tenant)) {
      return InvalidArgumentError(
          StrFormat("--tenant-token %s: write TENANT:FILE, for example team-a:/etc/pyrometer/team-a.token", text));
    }
    ASSIGN_OR_RETURN(std::string token, rpc::ReadTokenFile(text.substr(colon + 1)));
    if (token == settings.server.token) {
      return InvalidArgumentError(
          StrFormat("--tenant-token %s: this is the token of --token-file, which opens all", text));
    }
    for (const rpc::TenantToken& other : settings.server.tenant_tokens) {
      if (other.token == token && other.tenant != tenant) {
        return InvalidArgumentError(
            StrFormat("--tenant-token %s: this is the token of tenant '%s' already", text, other.tenant));
      }
    }
    settings.server.tenant_tokens.push_back({tenant, std::move(token)});
  }
  return settings;
}

}  // namespace pyrometer::cli

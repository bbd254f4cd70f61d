// The flags that `pyrometer up` and `pyrometer store` share: where the store listens, what it keeps, what it may take.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/server/server.h"
#include "userspace/store/store.h"

namespace pyrometer::cli {

struct StoreFlags {
  std::string data;
  std::string backend;  // clickhouse://…; "" = the folder
  server::Options server;
  std::string token_file;
  uint64_t memory_bytes = 0;  // 0 = DefaultStoreMemory()
  // As given: texts, so that one parser serves a flag and its override for a tenant.
  std::string retention = "30d", retention_rollups = "400d", retention_offsets = "1d", retention_bytes = "0";
  std::string max_series = "1000000", max_stacks = "16777216", max_names = "1GiB", max_rate = "0";
  std::vector<std::string> limits;         // TENANT:NAME=VALUE
  std::vector<std::string> tenant_tokens;  // TENANT:FILE
  uint32_t max_tenants = 10'000;
  std::string query_timeout = "30s";
  uint64_t query_memory_bytes = 0;  // 0 = a quarter of --memory
};

// `flags` must outlive the command.
void AddStoreFlags(CLI::App* command, StoreFlags& flags);

// A quarter of the machine's memory, at least 64 MiB and at most 2 GiB.
uint64_t DefaultStoreMemory();

// Both shares of --memory: the store's and what questions and streams take. INVALID_ARGUMENT names the flag.
struct StoreSettings {
  std::string backend;  // as StoreFlags
  store::StoreOptions store;
  server::Options server;
};
StatusOr<StoreSettings> ResolveStoreFlags(const StoreFlags& flags);

}  // namespace pyrometer::cli

// ClickHouse's HTTP interface of one server: statements out, rows back, both compressed.
//
//   HttpClient client(url, url.servers[0]);
//   ASSIGN_OR_RETURN(std::string rows, client.Select("SELECT … FORMAT RowBinary", {}, budget));
//   RETURN_IF_ERROR(client.Insert("INSERT INTO … FORMAT RowBinary", bytes, {{"query_id", id}}, timeout_ns));
//
// Errors: UNAVAILABLE (cannot be reached, closed the connection, is overloaded, read-only), DEADLINE_EXCEEDED,
// CANCELLED (nobody waits any more), PERMISSION_DENIED (user, password), RESOURCE_EXHAUSTED (its memory or disk, the
// question's), NOT_FOUND (no such table or database), FAILED_PRECONDITION (a certificate that is not to be trusted, a
// partition too large to be dropped), INVALID_ARGUMENT (no such file of authorities), INTERNAL with the server's words
// else. After any error of an insert it may have been applied all the same.
//
// Threads: all methods from any; each call has a connection of its own, kept for the next one. An insert never shares
// one: a connection that dies would make the HTTP library send the rows again.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/clickhouse/url.h"
#include "userspace/store/read_budget.h"

namespace pyrometer::store::clickhouse {

using Settings = std::vector<std::pair<std::string, std::string>>;

class HttpClient {
 public:
  HttpClient(const Url& url, Address address);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // The whole answer, charged to the budget (may be null) while it grows; the caller releases nothing.
  StatusOr<std::string> Select(std::string_view sql, const Settings& settings, ReadBudget* budget,
                               uint64_t timeout_ns) const;
  // A statement without rows to send or to read.
  Status Execute(std::string_view sql, const Settings& settings, uint64_t timeout_ns) const;
  // `may_send`, if any, is asked when the rows are packed and the next thing is to send them; its error is the
  // insert's.
  Status Insert(std::string_view sql, std::string_view rows, const Settings& settings, uint64_t timeout_ns,
                const std::function<Status()>& may_send = nullptr) const;

  const Address& address() const { return address_; }

 private:
  struct Call;
  Status Run(Call* call) const;
  Status FromCurl(int code, std::string_view details) const;
  void* Take() const;
  void Give(void* handle) const;

  const Url url_;
  const Address address_;
  mutable std::mutex mutex_;
  mutable std::vector<void*> idle_;  // CURL*
};

}  // namespace pyrometer::store::clickhouse

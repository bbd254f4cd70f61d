#include "userspace/store/clickhouse/http.h"

#include <curl/curl.h>
#include <zlib.h>

#include <algorithm>
#include <memory>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"

namespace pyrometer::store::clickhouse {
namespace {

constexpr long kConnectTimeoutMs = 3000;
constexpr size_t kMaxIdle = 16;
constexpr size_t kMaxErrorBytes = 1000;
// Sums come as columns of small numbers: the fastest level takes most of what there is.
constexpr int kGzipLevel = 1;
// zlib: gzip header.
constexpr int kGzipWindowBits = 15 + 16;

struct CurlGlobal {
  CurlGlobal() { curl_global_init(CURL_GLOBAL_DEFAULT); }
};

StatusOr<std::string> Gzip(std::string_view bytes) {
  z_stream stream = {};
  if (deflateInit2(&stream, kGzipLevel, Z_DEFLATED, kGzipWindowBits, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    return InternalError("zlib does not start");
  }
  std::string out(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  if (result != Z_STREAM_END) return InternalError("zlib does not finish");
  return out;
}

// ClickHouse's error codes that ask for something else than a report of a bug.
Status FromServer(const Address& address, std::string_view text) {
  // "Code: 60, e.displayText() = DB::Exception: …", "Code: 60. DB::Exception: …"
  uint64_t code = 0;
  if (text.starts_with("Code: ")) {
    const size_t end = text.find_first_not_of("0123456789", 6);
    code = ParseUint64(text.substr(6, end == std::string_view::npos ? end : end - 6)).value_or(0);
  }
  const std::string message =
      StrFormat("ClickHouse %s: %s", address.Text(), ToUtf8(StripWhitespace(text.substr(0, kMaxErrorBytes))));
  switch (code) {
    case 60:  // UNKNOWN_TABLE
    case 81:  // UNKNOWN_DATABASE
      return NotFoundError(message);
    case 359:  // TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT
      return FailedPreconditionError(message);
    case 159:  // TIMEOUT_EXCEEDED
    case 160:  // TOO_SLOW
      return DeadlineExceededError(message);
    case 192:  // UNKNOWN_USER
    case 193:  // WRONG_PASSWORD
    case 194:  // REQUIRED_PASSWORD
    case 195:  // IP_ADDRESS_NOT_ALLOWED
    case 291:  // DATABASE_ACCESS_DENIED
    case 497:  // ACCESS_DENIED
    case 516:  // AUTHENTICATION_FAILED
      return PermissionDeniedError(message);
    case 241:  // MEMORY_LIMIT_EXCEEDED
    case 243:  // NOT_ENOUGH_SPACE
      return ResourceExhaustedError(message);
    case 32:   // ATTEMPT_TO_READ_AFTER_EOF: a server beside it went away
    case 202:  // TOO_MANY_SIMULTANEOUS_QUERIES
    case 209:  // SOCKET_TIMEOUT
    case 210:  // NETWORK_ERROR
    case 225:  // NO_ZOOKEEPER
    case 236:  // ABORTED: shutting down
    case 242:  // TABLE_IS_READ_ONLY
    case 252:  // TOO_MANY_PARTS
    case 279:  // ALL_CONNECTION_TRIES_FAILED
    case 285:  // TOO_FEW_LIVE_REPLICAS
    case 286:  // UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    case 439:  // CANNOT_SCHEDULE_TASK: it has no thread left
    case 319:  // UNKNOWN_STATUS_OF_INSERT
    case 999:  // KEEPER_EXCEPTION
      return UnavailableError(message);
    default:
      return InternalError(message);
  }
}

std::string Encode(CURL* handle, std::string_view text) {
  const std::unique_ptr<char, decltype(&curl_free)> escaped(
      curl_easy_escape(handle, text.data(), static_cast<int>(text.size())), &curl_free);
  return escaped == nullptr ? "" : escaped.get();
}

}  // namespace

struct HttpClient::Call {
  std::string_view sql;
  std::string_view rows;  // of an insert; its statement then stands in the URL
  bool is_insert = false;
  const Settings* settings = nullptr;
  const std::function<Status()>* may_send = nullptr;
  ReadBudget* budget = nullptr;
  uint64_t timeout_ns = 0;
  std::string answer;
  Status failed = OkStatus();  // why it was broken off here
};

HttpClient::HttpClient(const Url& url, Address address) : url_(url), address_(std::move(address)) {
  static const CurlGlobal global;
}

HttpClient::~HttpClient() {
  for (void* handle : idle_) curl_easy_cleanup(handle);
}

void* HttpClient::Take() const {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return curl_easy_init();
  void* handle = idle_.back();
  idle_.pop_back();
  return handle;
}

void HttpClient::Give(void* handle) const {
  {
    const std::lock_guard lock(mutex_);
    if (idle_.size() < kMaxIdle) {
      idle_.push_back(handle);
      return;
    }
  }
  curl_easy_cleanup(handle);
}

Status HttpClient::Run(Call* call) const {
  CURL* handle = Take();
  if (handle == nullptr) return InternalError("libcurl does not start");
  std::string url = StrFormat("%s://%s/?database=%s", url_.tls ? "https" : "http", address_.Text(), "system");
  if (call->is_insert) url += "&query=" + Encode(handle, call->sql);
  for (const auto& [name, value] : *call->settings) url += "&" + name + "=" + Encode(handle, value);
  std::string compressed;
  if (call->is_insert) {
    auto made = Gzip(call->rows);
    if (!made.ok()) {
      Give(handle);
      return made.status();
    }
    compressed = *std::move(made);
    if (call->may_send != nullptr && *call->may_send != nullptr) {
      if (Status may = (*call->may_send)(); !may.ok()) {
        Give(handle);
        return may;
      }
    }
  }
  const std::string_view body = call->is_insert ? std::string_view(compressed) : call->sql;

  curl_slist* headers = curl_slist_append(nullptr, "Expect:");
  if (call->is_insert) headers = curl_slist_append(headers, "Content-Encoding: gzip");
  if (!url_.user.empty()) headers = curl_slist_append(headers, ("X-ClickHouse-User: " + url_.user).c_str());
  if (!url_.password.empty()) headers = curl_slist_append(headers, ("X-ClickHouse-Key: " + url_.password).c_str());
  const auto write = +[](char* data, size_t size, size_t count, void* argument) -> size_t {
    auto* running = static_cast<Call*>(argument);
    running->failed = Charge(running->budget, size * count);
    if (!running->failed.ok()) return 0;
    running->answer.append(data, size * count);
    return size * count;
  };
  const auto progress = +[](void* argument, curl_off_t, curl_off_t, curl_off_t, curl_off_t) -> int {
    auto* running = static_cast<Call*>(argument);
    running->failed = Check(running->budget);
    return running->failed.ok() ? 0 : 1;
  };
  curl_easy_reset(handle);
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_PROXY, "");
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle, CURLOPT_POST, 1L);
  curl_easy_setopt(handle, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<uint64_t>(1, call->timeout_ns / kNsPerMs)));
  curl_easy_setopt(handle, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, write);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, call);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, progress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, call);
  if (!call->is_insert) curl_easy_setopt(handle, CURLOPT_ACCEPT_ENCODING, "gzip");
  if (call->is_insert) {
    curl_easy_setopt(handle, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(handle, CURLOPT_FORBID_REUSE, 1L);
  }
  curl_easy_setopt(handle, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!url_.ca_file.empty()) {
    // That authority and no other.
    curl_easy_setopt(handle, CURLOPT_CAINFO, url_.ca_file.c_str());
    curl_easy_setopt(handle, CURLOPT_CAPATH, static_cast<char*>(nullptr));
  }
  char details[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, details);
  const CURLcode code = curl_easy_perform(handle);
  long http_status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &http_status);
  // Stays 0 when the connection, its TLS handshake included, did not come about: kConnectTimeoutMs ended that.
  curl_off_t connected_us = 0;
  curl_easy_getinfo(handle, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
  curl_slist_free_all(headers);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, static_cast<char*>(nullptr));
  Give(handle);

  if (!call->failed.ok()) return call->failed;
  if (code == CURLE_OPERATION_TIMEDOUT && connected_us != 0) {
    return UnavailableError(
        StrFormat("ClickHouse %s did not answer within %s", address_.Text(), FormatDurationNs(call->timeout_ns)));
  }
  if (code != CURLE_OK) return FromCurl(code, details);
  if (http_status != 200) return FromServer(address_, call->answer);
  return OkStatus();
}

Status HttpClient::FromCurl(int code, std::string_view details) const {
  const std::string what =
      StrFormat("ClickHouse %s: %s", address_.Text(),
                details.empty() ? curl_easy_strerror(static_cast<CURLcode>(code)) : ToUtf8(details));
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
      // Another server, or one in between: trying again does not help, and nothing was sent.
      return FailedPreconditionError(StrFormat(
          "%s: its certificate must be for the name in --backend (%s) and signed by an authority in %s", what,
          address_.host,
          url_.ca_file.empty() ? "the system's list; name another with ca-file=FILE" : "ca-file=" + url_.ca_file));
    case CURLE_SSL_CACERT_BADFILE:
      return InvalidArgumentError(StrFormat("%s: ca-file is to name a file with certificates in PEM", what));
    case CURLE_SSL_CONNECT_ERROR:
      return UnavailableError(StrFormat("%s; with tls=1 the port is that of its HTTPS interface (<https_port>)", what));
    default: {
      const bool closed = code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR;
      return UnavailableError(StrFormat("%s; is it running, and is this the port of its %s interface?%s", what,
                                        url_.tls ? "HTTPS" : "HTTP",
                                        closed && !url_.tls ? " That of HTTPS needs tls=1" : ""));
    }
  }
}

StatusOr<std::string> HttpClient::Select(std::string_view sql, const Settings& settings, ReadBudget* budget,
                                         uint64_t timeout_ns) const {
  Settings all = settings;
  all.emplace_back("enable_http_compression", "1");
  all.emplace_back("http_zlib_compression_level", "1");
  // Otherwise an error half-way would stand among the rows.
  all.emplace_back("wait_end_of_query", "1");
  Call call{.sql = sql, .settings = &all, .budget = budget, .timeout_ns = timeout_ns};
  RETURN_IF_ERROR(Run(&call));
  return std::move(call.answer);
}

Status HttpClient::Execute(std::string_view sql, const Settings& settings, uint64_t timeout_ns) const {
  Call call{.sql = sql, .settings = &settings, .timeout_ns = timeout_ns};
  return Run(&call);
}

Status HttpClient::Insert(std::string_view sql, std::string_view rows, const Settings& settings, uint64_t timeout_ns,
                          const std::function<Status()>& may_send) const {
  Call call{.sql = sql,
            .rows = rows,
            .is_insert = true,
            .settings = &settings,
            .may_send = &may_send,
            .timeout_ns = timeout_ns};
  return Run(&call);
}

}  // namespace pyrometer::store::clickhouse

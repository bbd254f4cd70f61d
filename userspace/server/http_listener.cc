#include "userspace/server/http_listener.h"

#include <fcntl.h>
#include <httplib.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "ui-export/formats/gzip.h"
#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

constexpr size_t kMaxQueued = 256;
constexpr time_t kSocketTimeoutS = 10;
// Below this gzip saves less than a packet.
constexpr size_t kMinGzipBytes = 1024;

// 'unsafe-inline' for styles only: the page positions boxes by style attributes.
constexpr char kContentSecurityPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Threads on demand up to a limit; when all are busy jobs wait, and when too many wait, the caller (the accepting
// thread) does.
class BoundedPool : public httplib::TaskQueue {
 public:
  explicit BoundedPool(size_t max_threads) : max_threads_(std::max<size_t>(1, max_threads)) {}

  void enqueue(std::function<void()> job) override {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [this] { return jobs_.size() < kMaxQueued || stopping_; });
    jobs_.push_back(std::move(job));
    if (idle_ < jobs_.size() && threads_.size() < max_threads_) {
      threads_.emplace_back([this] { Work(); });
    }
    work_.notify_one();
  }

  void shutdown() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void Work() {
    pthread_setname_np(pthread_self(), "pyro-http-w");
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      work_.wait(lock, [this] { return !jobs_.empty() || stopping_; });
      --idle_;
      if (jobs_.empty()) return;  // stopping
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      room_.notify_one();
      lock.unlock();
      job();
      lock.lock();
    }
  }

  const size_t max_threads_;
  std::mutex mutex_;  // guards the rest
  std::condition_variable work_, room_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool stopping_ = false;
};

bool AcceptsGzip(std::string_view accept) {
  for (const std::string_view part : Split(accept, ',')) {
    const std::vector<std::string_view> pieces = Split(part, ';');
    const std::string name = Lower(StripWhitespace(pieces[0]));
    if (name != "gzip" && name != "*") continue;
    bool refused = false;
    for (size_t i = 1; i < pieces.size(); ++i) {
      std::string quality = Lower(StripWhitespace(pieces[i]));
      if (!quality.starts_with("q=")) continue;
      quality.erase(0, 2);
      refused = quality.find_first_not_of("0.") == std::string::npos;
    }
    return !refused;
  }
  return false;
}

// "https://host:1" and "host:1" name the same place?
bool SameOrigin(std::string_view origin, std::string_view host) {
  const size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && Lower(origin.substr(scheme + 3)) == Lower(host);
}

HttpRequest ToRequest(const httplib::Request& from) {
  HttpRequest request;
  request.method = from.method;
  request.path = from.path;
  for (const auto& [name, value] : from.params) request.params.try_emplace(name, value);
  for (const auto& [name, value] : from.headers) request.headers.try_emplace(Lower(name), value);
  return request;
}

class HttplibListener : public HttpListener {
 public:
  HttplibListener(const Options& options, Handler handler)
      : options_(options), handler_(std::move(handler)), loopback_(rpc::IsLoopbackHost(options.address.host)) {}
  ~HttplibListener() override { Shutdown(); }

  Status Run() {
    RETURN_IF_ERROR(rpc::CheckCanListen(options_.address, "HTTP", "--http"));
    if (options_.tls_cert_file.empty()) {
      server_ = std::make_unique<httplib::Server>();
    } else {
      server_ = std::make_unique<httplib::SSLServer>(options_.tls_cert_file.c_str(), options_.tls_key_file.c_str());
      if (!server_->is_valid()) {
        return InvalidArgumentError(
            StrFormat("%s and %s: no usable certificate and key", options_.tls_cert_file, options_.tls_key_file));
      }
    }
    server_->new_task_queue = [this] { return new BoundedPool(options_.max_threads); };  // httplib deletes it
    server_->set_keep_alive_max_count(1);
    server_->set_read_timeout(kSocketTimeoutS);
    server_->set_write_timeout(kSocketTimeoutS);
    server_->set_payload_max_length(options_.max_body_bytes);
    server_->set_tcp_nodelay(true);
    // The library's own default would let two stores share one port.
    server_->set_socket_options([](int socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
      fcntl(socket, F_SETFD, FD_CLOEXEC);
    });
    // Everything but POST is answered before routing: patterns are of no use to us. POST reads its body first.
    server_->set_pre_routing_handler([this](const httplib::Request& from, httplib::Response& to) {
      if (from.method == "POST") return httplib::Server::HandlerResponse::Unhandled;
      Answer(ToRequest(from), &to);
      return httplib::Server::HandlerResponse::Handled;
    });
    server_->Post(
        ".*", [this](const httplib::Request& from, httplib::Response& to, const httplib::ContentReader& read) {
          HttpRequest request = ToRequest(from);
          if (from.is_multipart_form_data()) {
            Send(request, ErrorReply(400, "invalid_argument", "expected JSON, not a form"), &to);
            return;
          }
          const bool whole = read([&](const char* data, size_t size) {
            request.body.append(data, size);
            return request.body.size() <= options_.max_body_bytes;
          });
          if (!whole) {
            Send(request,
                 ErrorReply(
                     413, "resource_exhausted",
                     StrFormat("the body is cut short or over the limit of %s", FormatBytes(options_.max_body_bytes))),
                 &to);
            return;
          }
          Answer(std::move(request), &to);
        });
    // What the library refuses by itself (malformed, too long) has no body of ours yet.
    server_->set_error_handler([this](const httplib::Request& from, httplib::Response& to) {
      if (to.content_provider_ || !to.body.empty()) return;
      const int status = to.status;
      Send(ToRequest(from),
           status == 413
               ? ErrorReply(413, "resource_exhausted",
                            StrFormat("the body is over the limit of %s", FormatBytes(options_.max_body_bytes)))
           : status == 414 ? ErrorReply(414, "resource_exhausted", "the address is longer than 8 KiB")
           : status == 404 ? ErrorReply(405, "unimplemented", "only GET, POST and DELETE are served")
                           : ErrorReply(status < 400 ? 400 : status, "invalid_argument", "not a proper HTTP request"),
           &to);
    });
    server_->set_exception_handler([this](const httplib::Request& from, httplib::Response& to, std::exception_ptr) {
      Send(ToRequest(from), ErrorReply(500, "internal", "the store ran out of memory or met a bug"), &to);
    });

    const std::string host = options_.address.host.empty() ? "0.0.0.0" : options_.address.host;
    const int port = options_.address.port;
    const int bound = port == 0 ? server_->bind_to_any_port(host) : (server_->bind_to_port(host, port) ? port : -1);
    if (bound <= 0) {
      return UnavailableError(
          StrFormat("cannot listen on %s for HTTP (flag --http)", rpc::AddressText(host, options_.address.port)));
    }
    port_ = static_cast<uint16_t>(bound);
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "pyro-http");
      server_->listen_after_bind();
      ended_ = true;
    });
    // stop() before the loop runs would be lost.
    while (!server_->is_running() && !ended_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return OkStatus();
  }

  uint16_t port() const override { return port_; }

  void Shutdown() override {
    if (!thread_.joinable()) return;
    server_->stop();
    thread_.join();
  }

 private:
  void Answer(HttpRequest request, httplib::Response* to) {
    const std::string_view host = request.Header("host");
    if (loopback_ && !IsLoopbackHostHeader(host)) {
      Send(request,
           ErrorReply(403, "permission_denied",
                      StrFormat("'%s' does not name this machine's loopback: open the page by http://localhost:%d",
                                ToUtf8(host), port_)),
           to);
      return;
    }
    if (request.method != "GET" && request.method != "HEAD") {
      const std::string_view origin = request.Header("origin");
      if (!origin.empty() && !SameOrigin(origin, host)) {
        Send(request, ErrorReply(403, "permission_denied", "requests of other sites' pages are not served"), to);
        return;
      }
    }
    Send(request, handler_(request), to);
  }

  static void Send(const HttpRequest& request, HttpReply reply, httplib::Response* to) {
    // A plain 200 stays unset: the library then chooses between it and 206 for range requests.
    if (reply.status != 200) to->status = reply.status;
    const auto set_default = [&](const char* name, const char* value) {
      for (const auto& [have, unused] : reply.headers) {
        if (have == name) return;
      }
      to->set_header(name, value);
    };
    for (const auto& [name, value] : reply.headers) to->set_header(name, value);
    set_default("Cache-Control", "no-store");
    set_default("Content-Security-Policy", kContentSecurityPolicy);
    set_default("X-Content-Type-Options", "nosniff");
    set_default("Referrer-Policy", "no-referrer");
    set_default("X-Frame-Options", "DENY");
    set_default("Cross-Origin-Resource-Policy", "same-origin");
    if (reply.compressible) {
      set_default("Vary", "Accept-Encoding");
      if (reply.body->size() >= kMinGzipBytes && AcceptsGzip(request.Header("accept-encoding"))) {
        StatusOr<std::string> packed = formats::Gzip(*reply.body);
        if (packed.ok()) {
          reply.body = std::make_shared<const std::string>(*std::move(packed));
          to->set_header("Content-Encoding", "gzip");
        }
      }
    }
    if (reply.body->empty()) {
      if (reply.status != 304) to->set_content("", reply.content_type);
      return;
    }
    // A provider, not set_content: the library would compress that once more, by brotli at its slowest.
    to->set_content_provider(reply.body->size(), reply.content_type,
                             [body = reply.body](size_t offset, size_t length, httplib::DataSink& sink) {
                               return sink.write(body->data() + offset, std::min(length, body->size() - offset));
                             });
  }

  const Options options_;
  const Handler handler_;
  const bool loopback_;
  std::unique_ptr<httplib::Server> server_;
  uint16_t port_ = 0;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace

bool IsLoopbackHostHeader(std::string_view header) {
  std::string host = Lower(StripWhitespace(header));
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    if (end == std::string::npos) return false;
    const std::string_view rest = std::string_view(host).substr(end + 1);
    if (!rest.empty() && (!rest.starts_with(':') || !ParseUint64(rest.substr(1)))) return false;
    return host.substr(1, end - 1) == "::1";
  }
  const size_t colon = host.find(':');
  if (colon != std::string::npos) {
    if (!ParseUint64(std::string_view(host).substr(colon + 1))) return false;
    host.resize(colon);
  }
  return rpc::IsLoopbackHost(host);
}

StatusOr<std::unique_ptr<HttpListener>> HttpListener::Start(const Options& options, Handler handler) {
  auto listener = std::make_unique<HttplibListener>(options, std::move(handler));
  RETURN_IF_ERROR(listener->Run());
  return std::unique_ptr<HttpListener>(std::move(listener));
}

}  // namespace pyrometer::server

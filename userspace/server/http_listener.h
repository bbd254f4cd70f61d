// HTTP on a socket (cpp-httplib underneath): turns requests into HttpRequest and back, with the limits and
// headers that every reply has. What to answer is decided elsewhere.
//
//   ASSIGN_OR_RETURN(auto listener, HttpListener::Start(options, [](const HttpRequest& r) { return Answer(r); }));
//   listener->port();
//
// Security: a loopback listener answers only requests whose Host is a loopback name (a page of a stranger that
// makes its own name point to 127.0.0.1 gets 403); requests that change something must come from the page's own
// origin; replies carry a strict Content-Security-Policy and are never sniffed or framed.
// Limits: 8 KiB of request line and headers each, `max_body_bytes`, `max_threads` requests at a time and
// kMaxQueued waiting (then new connections wait in the kernel); 10 s without a byte ends a connection. One request per
// connection: an idle browser holds no thread.
//
// Threads: "pyro-http" accepts; workers are made on demand and call the handler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "userspace/base/status.h"
#include "userspace/rpc/address.h"
#include "userspace/server/http_message.h"

namespace pyrometer::server {

class HttpListener {
 public:
  struct Options {
    rpc::HostPort address;      // port 0 = any free one
    std::string tls_cert_file;  // PEM; with tls_key_file: HTTPS
    std::string tls_key_file;   // PEM
    size_t max_threads = 64;
    size_t max_body_bytes = 1u << 20;
  };
  using Handler = std::function<HttpReply(const HttpRequest&)>;

  // UNAVAILABLE when the port is taken.
  static StatusOr<std::unique_ptr<HttpListener>> Start(const Options& options, Handler handler);
  virtual ~HttpListener() = default;

  virtual uint16_t port() const = 0;
  // Waits for requests that run. Idempotent.
  virtual void Shutdown() = 0;
};

// "127.0.0.1:7070" -> true. With or without port, brackets and case.
bool IsLoopbackHostHeader(std::string_view host_header);

}  // namespace pyrometer::server

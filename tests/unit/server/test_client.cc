#include "tests/unit/server/test_client.h"

#include <arpa/inet.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <memory>

namespace pyrometer::server {
namespace {

template <typename Client>
TestReply AskBy(Client& client, const TestRequest& request) {
  client.set_decompress(false);
  client.set_read_timeout(30);
  httplib::Request out;
  out.method = request.method;
  out.path = request.path;
  out.body = request.body;
  for (const auto& [name, value] : request.headers) out.set_header(name, value);
  const httplib::Result result = client.send(out);
  TestReply reply;
  if (!result) return reply;
  reply.status = result->status;
  reply.body = result->body;
  for (const auto& [name, value] : result->headers) {
    std::string lower;
    for (const char c : name) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    reply.headers.emplace(lower, value);
  }
  return reply;
}

}  // namespace

TestReply Ask(uint16_t port, const TestRequest& request) {
  if (request.ca_file.empty()) {
    httplib::Client client("127.0.0.1", port);
    client.set_url_encode(false);
    return AskBy(client, request);
  }
  httplib::SSLClient client("localhost", port);
  client.set_url_encode(false);
  client.set_ca_cert_path(request.ca_file.c_str());
  client.enable_server_certificate_verification(true);
  return AskBy(client, request);
}

std::string AskRaw(uint16_t port, const std::string& bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  std::string reply;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<size_t>(n);
    }
    char buffer[4096];
    for (ssize_t n = 0; (n = read(fd, buffer, sizeof(buffer))) > 0;) reply.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return reply;
}

std::string Encode(const std::string& text) {
  static const char* kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || c == '-' || c == '_' || c == '.') {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

}  // namespace pyrometer::server

#include "userspace/server/tls_check.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <memory>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

constexpr size_t kMaxPemBytes = 1u << 20;

std::string Reason() {
  const unsigned long error = ERR_peek_last_error();
  const char* text = error == 0 ? nullptr : ERR_reason_error_string(error);
  ERR_clear_error();
  return text == nullptr ? "unknown" : text;
}

}  // namespace

Status CheckTlsFiles(const std::string& cert_file, const std::string& key_file, const std::string& client_ca_file) {
  for (const std::string& path : {cert_file, key_file, client_ca_file}) {
    if (!path.empty()) RETURN_IF_ERROR(ReadFile(path, kMaxPemBytes).status());
  }
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (context == nullptr) return InternalError(StrFormat("OpenSSL: %s", Reason()));
  if (SSL_CTX_use_certificate_chain_file(context.get(), cert_file.c_str()) != 1) {
    return InvalidArgumentError(StrFormat("%s is no PEM certificate (%s)", cert_file, Reason()));
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return InvalidArgumentError(
        StrFormat("%s is no PEM private key without a passphrase that fits %s (%s)", key_file, cert_file, Reason()));
  }
  if (!client_ca_file.empty() && SSL_CTX_load_verify_file(context.get(), client_ca_file.c_str()) != 1) {
    return InvalidArgumentError(
        StrFormat("%s holds no PEM certificate of an authority (%s)", client_ca_file, Reason()));
  }
  return OkStatus();
}

}  // namespace pyrometer::server

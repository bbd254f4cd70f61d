#include "userspace/rpc/grpc_status.h"

#include <grpc/support/log.h>

#include <cstdlib>
#include <mutex>

#include "userspace/base/strings.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

// Messages travel in HTTP/2 headers, of which peers accept 8 KiB.
constexpr size_t kMaxMessageText = 4096;

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The codes of absl and gRPC are the same numbers.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), WireText(Message(status), kMaxMessageText));
}

Status FromGrpc(const grpc::Status& status, const grpc::ClientContext& context, const std::string& target) {
  if (status.ok()) return OkStatus();
  const std::string text = ToUtf8(status.error_message());
  const bool answered = context.GetServerTrailingMetadata().contains(kAnsweredKey);
  const auto code = static_cast<StatusCode>(status.error_code());
  if (answered) return Status(code, text);
  switch (code) {
    case StatusCode::kDeadlineExceeded:
      return DeadlineExceededError(StrFormat("the store at %s did not answer in time", target));
    case StatusCode::kCancelled:
      return CancelledError(StrFormat("the connection to the store at %s was ended", target));
    case StatusCode::kUnimplemented:
      return FailedPreconditionError(StrFormat(
          "a gRPC server answers at %s, but it is no pyrometer store or one of another version (%s)", target, text));
    case StatusCode::kResourceExhausted:
      return ResourceExhaustedError(StrFormat("%s (store at %s)", text, target));
    default:
      break;
  }
  if (Contains(text, "http1.x") || Contains(text, "HTTP/1") || Contains(text, "status: 400") ||
      Contains(text, "HTTP status code 400") || Contains(text, "status: 404")) {
    return UnavailableError(
        StrFormat("%s is an HTTP port, perhaps that of the page; commands and agents need the gRPC port, by default "
                  "7071 beside 7070 of the page",
                  target));
  }
  if (Contains(text, "SSL") || Contains(text, "TLS") || Contains(text, "handshake") || Contains(text, "Handshake") ||
      Contains(text, "certificate")) {
    return UnavailableError(StrFormat(
        "no TLS connection to %s: check that the store speaks TLS, that the CA file is the one that signed its "
        "certificate, and that the certificate names this host (%s)",
        target, text));
  }
  return UnavailableError(StrFormat(
      "no store answers at %s: is `pyrometer up` or `pyrometer store` running there, and does it speak TLS exactly if "
      "you ask for it? (%s)",
      target, text));
}

void AddToken(grpc::ClientContext* context, const std::string& token, const std::string& tenant) {
  if (!tenant.empty()) context->AddMetadata(kTenantKey, tenant);
  if (!token.empty()) context->AddMetadata("authorization", "Bearer " + token);
}

void SilenceGrpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    SilenceProtobuf();
    if (std::getenv("GRPC_VERBOSITY") == nullptr && std::getenv("GRPC_TRACE") == nullptr) {
      gpr_set_log_function([](gpr_log_func_args*) {});
    }
  });
}

}  // namespace pyrometer::rpc

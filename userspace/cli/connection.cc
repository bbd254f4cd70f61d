#include "userspace/cli/connection.h"

#include <cstdlib>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"

namespace pyrometer::cli {

std::shared_ptr<ConnectionFlags> AddConnectionFlags(CLI::App* command) {
  auto flags = std::make_shared<ConnectionFlags>();
  command->add_option("--store", flags->store, "Address of the store (default 127.0.0.1:7071)")->type_name("HOST:PORT");
  command->add_option("--token-file", flags->token_file, "File with the token (default: $PYROMETER_TOKEN)")
      ->type_name("FILE");
  command->add_option("--tenant", flags->credentials.tenant, "Whose data, where the store keeps several apart")
      ->type_name("NAME");
  command->add_flag("--tls", flags->credentials.tls, "Use TLS (implied by the next three)");
  command->add_option("--tls-ca", flags->credentials.ca_file, "Authority that signed the store's certificate (PEM)")
      ->type_name("FILE");
  command
      ->add_option("--tls-cert", flags->credentials.cert_file, "Client certificate (PEM), where the store asks for one")
      ->type_name("FILE");
  command->add_option("--tls-key", flags->credentials.key_file, "Its private key (PEM)")->type_name("FILE");
  return flags;
}

StatusOr<rpc::Credentials> LoadCredentials(const ConnectionFlags& flags) {
  rpc::Credentials credentials = flags.credentials;
  if (!flags.token_file.empty()) {
    ASSIGN_OR_RETURN(credentials.token, rpc::ReadTokenFile(flags.token_file));
  } else if (const char* token = std::getenv("PYROMETER_TOKEN"); token != nullptr) {
    credentials.token = token;
  }
  return credentials;
}

StatusOr<std::unique_ptr<rpc::QueryClient>> Connect(const ConnectionFlags& flags) {
  ASSIGN_OR_RETURN(const rpc::Credentials credentials, LoadCredentials(flags));
  return rpc::QueryClient::Connect(flags.store, credentials);
}

std::shared_ptr<RangeFlags> AddRangeFlags(CLI::App* command) {
  auto flags = std::make_shared<RangeFlags>();
  command
      ->add_option("--from", flags->from, "Start: -15m (default), Unix seconds or milliseconds, 2026-01-31T12:00:00Z")
      ->type_name("TIME");
  command->add_option("--to", flags->to, "End, exclusive (default now)")->type_name("TIME");
  return flags;
}

StatusOr<Range> ResolveRange(const RangeFlags& flags) {
  const int64_t now_ns = UnixNowNs();
  auto from = ParseTime(flags.from, now_ns);
  if (!from.ok()) return WithContext(from.status(), "--from");
  auto to = ParseTime(flags.to, now_ns);
  if (!to.ok()) return WithContext(to.status(), "--to");
  if (*from >= *to) {
    return InvalidArgumentError(StrFormat("--from %s is not before --to %s", flags.from, flags.to));
  }
  return Range{*from, *to};
}

}  // namespace pyrometer::cli

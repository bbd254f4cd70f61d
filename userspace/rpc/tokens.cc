#include "userspace/rpc/tokens.h"

#include "userspace/base/strings.h"

namespace pyrometer::rpc {

StatusOr<std::string> Grant::TenantFor(std::string_view asked) const {
  if (all()) return std::string(asked);
  if (asked.empty() || asked == *tenant_) return *tenant_;
  return PermissionDeniedError(
      StrFormat("this token is of tenant '%s' and does not open '%s'", *tenant_, ToUtf8(asked)));
}

Status Grant::RequireAll(std::string_view what) const {
  if (all()) return OkStatus();
  return PermissionDeniedError(
      StrFormat("%s concern all tenants: that needs the store's own token, not that of tenant '%s'", what, *tenant_));
}

TokenTable TokenTable::Of(const std::string& for_all, const std::vector<TenantToken>& of_tenants) {
  TokenTable table;
  if (!for_all.empty()) table.entries_.push_back({for_all, Grant::All()});
  for (const TenantToken& one : of_tenants) table.entries_.push_back({one.token, Grant::OneTenant(one.tenant)});
  return table;
}

StatusOr<Grant> TokenTable::Check(const std::vector<std::string_view>& authorization) const {
  if (entries_.empty()) return Grant::All();
  constexpr std::string_view kScheme = "Bearer ";
  for (const std::string_view value : authorization) {
    if (!value.starts_with(kScheme)) continue;
    // All are looked at: how long it takes tells nothing.
    const Entry* found = nullptr;
    for (const Entry& entry : entries_) {
      if (EqualSecrets(value.substr(kScheme.size()), entry.token)) found = &entry;
    }
    if (found != nullptr) return found->grant;
  }
  return UnauthenticatedError(authorization.empty()
                                  ? "this store asks for a token: pass --token-file FILE"
                                  : "this store knows another token: check the file given by --token-file");
}

bool EqualSecrets(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const char other = b.empty() ? '\0' : b[i % b.size()];
    difference |= static_cast<unsigned char>(a[i] ^ other);
  }
  return difference == 0;
}

}  // namespace pyrometer::rpc

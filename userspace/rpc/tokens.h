// Bearer tokens and what each is good for: everything, or one tenant.
//
//   const TokenTable tokens = TokenTable::Of("…", {{"red", "…"}});
//   ASSIGN_OR_RETURN(const Grant grant, tokens.Check(header));                  // UNAUTHENTICATED
//   ASSIGN_OR_RETURN(const std::string tenant, grant.TenantFor(asked));         // PERMISSION_DENIED
//
// Without any token nothing is asked and everything is granted. Threads: pure once filled. Cost: one comparison per
// token, whose time does not tell where they differ.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::rpc {

// What a caller may do.
class Grant {
 public:
  static Grant All() { return Grant(std::nullopt); }
  static Grant OneTenant(std::string tenant) { return Grant(std::move(tenant)); }

  bool all() const { return !tenant_.has_value(); }
  // The tenant that is meant by `asked` ("" = none named: the token's own, else the default one).
  StatusOr<std::string> TenantFor(std::string_view asked) const;
  // What concerns all tenants: PERMISSION_DENIED, naming `what`, for a token of one.
  Status RequireAll(std::string_view what) const;
  bool MaySee(std::string_view tenant) const { return all() || *tenant_ == tenant; }

 private:
  explicit Grant(std::optional<std::string> tenant) : tenant_(std::move(tenant)) {}
  std::optional<std::string> tenant_;
};

struct TenantToken {
  std::string tenant;
  std::string token;
};

class TokenTable {
 public:
  TokenTable() = default;
  // `for_all`: "" = none.
  static TokenTable Of(const std::string& for_all, const std::vector<TenantToken>& of_tenants);

  bool empty() const { return entries_.empty(); }
  // `authorization`: values of that header, "Bearer TOKEN". UNAUTHENTICATED says what to do.
  StatusOr<Grant> Check(const std::vector<std::string_view>& authorization) const;

 private:
  struct Entry {
    std::string token;
    Grant grant;
  };
  std::vector<Entry> entries_;
};

// True when equal; the time taken does not tell where they differ.
bool EqualSecrets(std::string_view a, std::string_view b);

}  // namespace pyrometer::rpc

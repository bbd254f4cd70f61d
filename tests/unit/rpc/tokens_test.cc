#include "userspace/rpc/tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pyrometer::rpc {
namespace {

using ::testing::HasSubstr;

TEST(TokenTable, WithoutTokensNothingIsAsked) {
  const TokenTable none;
  EXPECT_TRUE(none.empty());
  const StatusOr<Grant> grant = none.Check({});
  ASSERT_TRUE(grant.ok());
  EXPECT_TRUE(grant->all());
  EXPECT_EQ(grant->TenantFor("red").value(), "red");
  EXPECT_EQ(grant->TenantFor("").value(), "");
}

TEST(TokenTable, ATokenOfATenantOpensThatTenantOnly) {
  const TokenTable table = TokenTable::Of("everything", {{"red", "r3d"}, {"red", "second"}, {"blue", "b1ue"}});
  EXPECT_FALSE(table.empty());
  for (const char* token : {"Bearer r3d", "Bearer second"}) {
    const StatusOr<Grant> red = table.Check({token});
    ASSERT_TRUE(red.ok()) << token;
    EXPECT_FALSE(red->all());
    EXPECT_EQ(red->TenantFor("").value(), "red") << "what is not named is its own";
    EXPECT_EQ(red->TenantFor("red").value(), "red");
    const Status other = red->TenantFor("blue").status();
    EXPECT_EQ(other.code(), StatusCode::kPermissionDenied);
    EXPECT_THAT(std::string(Message(other)), HasSubstr("of tenant 'red' and does not open 'blue'"));
    EXPECT_TRUE(red->MaySee("red"));
    EXPECT_FALSE(red->MaySee(""));
    EXPECT_EQ(red->RequireAll("symbols").code(), StatusCode::kPermissionDenied);
  }
  const StatusOr<Grant> all = table.Check({"Bearer everything"});
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->TenantFor("blue").value(), "blue");
  EXPECT_EQ(all->TenantFor("").value(), "");
  EXPECT_TRUE(all->RequireAll("symbols").ok());
}

TEST(TokenTable, EverythingElseIsRefused) {
  const TokenTable table = TokenTable::Of("everything", {{"red", "r3d"}});
  for (const std::vector<std::string_view>& values :
       {std::vector<std::string_view>{}, {"Bearer "}, {"Bearer r3"}, {"Bearer r3dd"}, {"r3d"}, {"Basic r3d"}}) {
    EXPECT_EQ(table.Check(values).status().code(), StatusCode::kUnauthenticated);
  }
  EXPECT_TRUE(table.Check({"Basic x", "Bearer r3d"}).ok());
}

}  // namespace
}  // namespace pyrometer::rpc

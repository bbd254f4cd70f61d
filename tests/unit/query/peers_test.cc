#include "userspace/query/peers.h"

#include <gmock/gmock.h>

#include "userspace/profile/batch.h"

namespace pyrometer::query {
namespace {

using profile::LabelSet;

const LabelSet kShop = LabelSet().With("container.name", "shop").With("peer", "10.0.0.7:5432");
const LabelSet kBank = LabelSet().With("container.name", "bank").With("peer", "10.0.0.7:5432");

struct Asked {
  std::string type;
  PeerSource::Labels by;
};

// Answers a few types, nothing for the others, and remembers what it was asked.
PeerSource Source(std::vector<Asked>* asked) {
  PeerSource source;
  source.histograms = [asked](std::string_view type,
                              const PeerSource::Labels& by) -> StatusOr<std::vector<PeerSource::LabelledHistogram>> {
    asked->push_back({std::string(type), by});
    profile::Histogram histogram;
    histogram.Record(1000, 3);
    if (type == profile::kTypeTcpRtt) return std::vector<PeerSource::LabelledHistogram>{{kShop, histogram}};
    return std::vector<PeerSource::LabelledHistogram>();
  };
  source.sums = [asked](std::string_view type,
                        const PeerSource::Labels& by) -> StatusOr<std::vector<PeerSource::LabelledSum>> {
    asked->push_back({std::string(type), by});
    if (type == profile::kTypeTcpConnections) return std::vector<PeerSource::LabelledSum>{{kBank, 5}, {kShop, 2}};
    if (type == profile::kTypeTcpRetransmits) {
      return std::vector<PeerSource::LabelledSum>{
          {kShop.With("cause", "rto"), 4}, {kShop.With("cause", "tlp"), 1}, {kBank, 7}};
    }
    return std::vector<PeerSource::LabelledSum>();
  };
  return source;
}

TEST(Peers, JoinsKindsByLabels) {
  std::vector<Asked> asked;
  const auto rows = Peers(Source(&asked), {"container.name", "peer"});
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 2u);
  const PeerRow& bank = (*rows)[0];
  const PeerRow& shop = (*rows)[1];
  EXPECT_EQ(bank.labels, kBank);
  EXPECT_TRUE(bank.rtt.empty());
  EXPECT_EQ(bank.opened, 5u);
  // Without a cause, as agents stored it before there were any.
  EXPECT_EQ(bank.retransmits, (std::map<std::string, uint64_t>{{"other", 7}}));
  EXPECT_EQ(shop.labels, kShop);
  EXPECT_EQ(shop.rtt.count(), 3u);
  EXPECT_EQ(shop.opened, 2u);
  EXPECT_EQ(shop.retransmits, (std::map<std::string, uint64_t>{{"rto", 4}, {"tlp", 1}}));
  EXPECT_EQ(PeerRow::Total(shop.retransmits), 5u);
  for (const Asked& one : asked) {
    const bool by_cause = one.by.back() == "cause";
    EXPECT_EQ(by_cause, one.type == profile::kTypeTcpRetransmits || one.type == profile::kTypeTcpResets ||
                            one.type == profile::kTypeTcpZeroWindows || one.type == profile::kTypeTcpLimited)
        << one.type;
  }
}

TEST(Peers, RefusesToSplitByCause) {
  std::vector<Asked> asked;
  EXPECT_EQ(Peers(Source(&asked), {"peer", "cause"}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(asked.empty());
}

TEST(Peers, PassesOnWhatFailed) {
  std::vector<Asked> asked;
  PeerSource source = Source(&asked);
  source.sums = [](std::string_view, const PeerSource::Labels&) -> StatusOr<std::vector<PeerSource::LabelledSum>> {
    return UnavailableError("gone");
  };
  EXPECT_EQ(Peers(source, {"peer"}).status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace pyrometer::query

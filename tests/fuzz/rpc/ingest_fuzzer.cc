// What an agent says on its stream: messages one after the other, each with two bytes of length. Batches go through the
// stream's tables and the store's own check, as they would before anything is written; what passes both can be sent
// again by a store that plays the agent. Hello, status and session messages are read too.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/check.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/store/validate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  rpc::StreamDecoder in_place("agent", "node"), copied("agent", "node");
  store::CheckedDefinitions checked;
  uint64_t generation = in_place.generation();
  while (rest.size() > 2) {
    const size_t length =
        static_cast<size_t>(static_cast<unsigned char>(rest[0])) << 8 | static_cast<unsigned char>(rest[1]);
    const std::string_view bytes = rest.substr(2, length);
    rest.remove_prefix(std::min(rest.size(), 2 + length));
    v1::AgentMessage message;
    if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return 0;
    if (message.has_hello()) (void)rpc::ReadHello(message.hello());
    if (message.has_status()) (void)rpc::ReadNodeStatus(message.status());
    if (message.has_session()) (void)rpc::ReadSessionUpdate(message.session());
    if (!message.has_batch()) continue;
    const StatusOr<rpc::DecodedBatch> decoded = in_place.DecodeInPlace(message.batch());
    const StatusOr<profile::Batch> copy = copied.Decode(message.batch());
    CHECK(decoded.ok() == copy.ok());
    if (!decoded.ok()) return 0;  // the stream ends
    if (generation != in_place.generation()) checked = {};
    generation = in_place.generation();
    const profile::BatchView view = in_place.View(*decoded);
    CHECK(copy->profiles.size() == decoded->profiles.size());
    constexpr int64_t kNow = 1'700'000'000'000'000'000;
    if (!store::ValidateBatch(view, &checked, kNow).ok()) continue;
    // The spool's form.
    const StatusOr<std::string> spooled = rpc::SerializeBatch(*copy);
    if (!spooled.ok()) continue;
    const StatusOr<profile::Batch> again = rpc::ParseBatch(*spooled);
    CHECK(again.ok());
    CHECK(again->sequence == copy->sequence);
    CHECK(again->profiles.size() == copy->profiles.size());
    CHECK(again->histograms.size() == copy->histograms.size());
    CHECK(again->counters.size() == copy->counters.size());
  }
  return 0;
}

// What the TCP probe summed up since it was last asked, per container and peer, as points of a batch. Internal to
// agent/.
#pragma once

#include <cstdint>

#include "userspace/agent/batch_builder.h"
#include "userspace/agent/node.h"
#include "userspace/base/status.h"
#include "userspace/kernel/tcp_latency.h"

namespace pyrometer::agent {

// Drains the probe. On an error what was read until then is in the batch.
Status AddTcpSums(kernel::TcpLatency& probe, Node& node, int64_t start_ns, uint64_t duration_ns, BatchBuilder& builder);

}  // namespace pyrometer::agent

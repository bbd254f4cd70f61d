// Tables of functions on the wire, in pieces. Inside this room only.
//
//   RETURN_IF_ERROR(EncodeTop(reply, sink));      // store
//   RETURN_IF_ERROR(decoder.Add(chunk)); …        // client
//   ASSIGN_OR_RETURN(MergeTopReply reply, decoder.Finish());
//
// Threads: none shared.
#pragma once

#include <functional>

#include "userspace/base/status.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/types.h"

namespace pyrometer::v1 {
class TopChunk;
}  // namespace pyrometer::v1

namespace pyrometer::rpc {

// Stops at the first error of `sink`.
Status EncodeTop(const MergeTopReply& reply, const std::function<Status(const v1::TopChunk&)>& sink,
                 size_t chunk_bytes = kProfileChunkBytes);

class TopDecoder {
 public:
  // INVALID_ARGUMENT: malformed.
  Status Add(const v1::TopChunk& chunk);
  // After the last chunk. INVALID_ARGUMENT when there was none.
  StatusOr<MergeTopReply> Finish();

 private:
  MergeTopReply reply_;
  bool has_header_ = false;
  size_t rows_ = 0;
};

}  // namespace pyrometer::rpc

// Batches and profiles on the wire (docs/formats/wire.md).
//
//   StreamEncoder encoder;                       // agent: one per stream
//   RETURN_IF_ERROR(encoder.Encode(batch, &message));
//   StreamDecoder decoder("agent-1", "node-1");  // store: one per stream
//   ASSIGN_OR_RETURN(profile::Batch batch, decoder.Decode(message));
//
//   std::string bytes = SerializeBatch(batch);   // spool: self-contained
//   ASSIGN_OR_RETURN(profile::Batch batch, ParseBatch(bytes));
//
// An encoder interns by content over the whole stream and sends each definition once; when its tables
// grow beyond the kSoftMax… limits it starts new ones (Batch.reset_tables). Only what a
// batch's points refer to is sent. Text that is not UTF-8 is repaired (U+FFFD): protobuf refuses it.
//
// A decoder trusts nothing: every id, column length and limit is checked before use, and a bad
// message leaves it unusable (the stream's tables may be half extended), so the stream has to end.
//
// Threads: none shared. Cost: an encoder takes 0.4 µs of CPU per definition that a batch refers to, 0.7 µs when it is
// new; a decoder 10 ns per sample and 50 ns per new definition. Tables take what profile::Dictionary says at the
// sender's end, a third of that at the receiver's (stream_tables.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/profile/profile.h"

namespace pyrometer::v1 {
class Batch;
class ProfileChunk;
}  // namespace pyrometer::v1

namespace pyrometer::rpc {

// Limits of what a decoder accepts. Encoders cut or refuse what is larger.
inline constexpr size_t kMaxStringBytes = 64u << 10;  // longest demangled C++ names seen: some 40 KiB
inline constexpr size_t kMaxStackDepth = 8192;        // unwinders stop at 127…1024, imports at 4096
inline constexpr size_t kMaxLinesPerFrame = 1024;     // inlined calls at one address; seen: 60
inline constexpr size_t kMaxCommBytes = 256;          // the kernel's are 15
inline constexpr size_t kMaxCallBytes = 1024;         // of an exemplar
inline constexpr size_t kMaxTimeParts = 32;           // of an exemplar
inline constexpr size_t kMaxPointsPerBatch = 1u << 20;
inline constexpr size_t kMaxTableEntries = 4u << 20;        // of each table of a stream
inline constexpr size_t kMaxTableBytes = 256u << 20;        // strings of a stream
inline constexpr size_t kMaxSeriesLabelBytes = 128u << 20;  // label text of all series of a stream
// Beyond these an encoder starts new tables.
inline constexpr size_t kSoftMaxStacks = 1u << 20;
inline constexpr size_t kSoftMaxSeries = 100'000;
inline constexpr size_t kSoftMaxTableBytes = 64u << 20;

class StreamEncoder {
 public:
  StreamEncoder();
  ~StreamEncoder();
  StreamEncoder(StreamEncoder&&) noexcept;

  // Replaces `*message`. INVALID_ARGUMENT when the batch can never be sent (larger than
  // kMaxMessageBytes, stacks too deep); the encoder stays usable: skip the message and go on.
  Status Encode(const profile::Batch& batch, v1::Batch* message);
  // The receiver's wish (Welcome.max_table_bytes): new tables before they take more at its end. 0 = only the soft
  // limits.
  void set_max_table_bytes(uint64_t bytes) { max_table_bytes_ = bytes; }

 private:
  struct Tables;
  std::unique_ptr<Tables> tables_;
  uint64_t max_table_bytes_ = 0;
};

class StreamTables;

// A batch as it came: its points, and views of the stream's tables.
struct DecodedBatch {
  uint64_t sequence = 0;
  std::vector<profile::ProfilePoint> profiles;
  std::vector<profile::HistogramPoint> histograms;
  std::vector<profile::CounterPoint> counters;
};

class StreamDecoder {
 public:
  StreamDecoder(std::string agent_id, std::string node, std::string tenant = "");
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;

  // INVALID_ARGUMENT for anything malformed or over a limit; the decoder must not be used after.
  StatusOr<DecodedBatch> DecodeInPlace(const v1::Batch& message);
  // `decoded`, seen whole; valid until the next batch.
  profile::BatchView View(const DecodedBatch& decoded) const;
  // The same as a batch of its own.
  StatusOr<profile::Batch> Decode(const v1::Batch& message);

  // Rises when the agent starts new tables: what was made of the old ones means nothing any more.
  uint64_t generation() const { return generation_; }
  // What the tables take.
  uint64_t bytes() const;

 private:
  struct Tables;
  std::string agent_id_;
  std::string node_;
  std::string tenant_;
  std::unique_ptr<Tables> tables_;
  uint64_t generation_ = 1;
  bool broken_ = false;
};

// A batch on its own, with agent id and node. Fails as Encode does.
StatusOr<std::string> SerializeBatch(const profile::Batch& batch);
// INVALID_ARGUMENT when malformed.
StatusOr<profile::Batch> ParseBatch(std::string_view bytes);

// A profile in messages of about `chunk_bytes`; stops at the first error of `sink`.
inline constexpr size_t kProfileChunkBytes = 1u << 20;
Status EncodeProfile(const profile::Profile& profile, const std::function<Status(const v1::ProfileChunk&)>& sink,
                     size_t chunk_bytes = kProfileChunkBytes);

class ProfileDecoder {
 public:
  ProfileDecoder();
  ~ProfileDecoder();

  // INVALID_ARGUMENT as StreamDecoder.
  Status Add(const v1::ProfileChunk& chunk);
  // After the last chunk. INVALID_ARGUMENT when there was none.
  StatusOr<profile::Profile> Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pyrometer::rpc

#include "userspace/rpc/ingest_service.h"

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/base/thread.h"
#include "userspace/base/version.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/grpc_status.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

constexpr size_t kMaxIdBytes = 256;
// An agent says Hello at once; whoever does not is not one.
constexpr auto kHelloTimeout = std::chrono::seconds(10);
// Replies that wait for an agent to read; acknowledgements are a few bytes each.
constexpr size_t kMaxWaitingReplies = 10'000;
// A message object keeps its memory for the next; only small ones are worth that.
constexpr size_t kKeepMessageBytes = 256u << 10;
// The least that a stream's tables need to be of use, and the most that they are worth.
constexpr uint64_t kMinTableShare = 64u << 10;
constexpr uint64_t kMaxTableShare = 64u << 20;
// An agent that heeds its share stays below it; one of an older version does not know it.
constexpr uint64_t kTableShareTolerance = 4;

}  // namespace

StatusOr<Grant> Authorizer::Check(grpc::ServerContextBase* context) const {
  context->AddTrailingMetadata(kAnsweredKey, std::string(kVersion));
  std::vector<std::string_view> values;
  const auto range = context->client_metadata().equal_range("authorization");
  for (auto entry = range.first; entry != range.second; ++entry) {
    values.emplace_back(entry->second.data(), entry->second.size());
  }
  return tokens_.Check(values);
}

// One agent's stream. gRPC calls the On… methods, one at a time per kind; the pool calls Work; others write. It lives
// until OnDone and as long as somebody holds it.
class IngestService::AgentStream : public grpc::ServerBidiReactor<v1::AgentMessage, v1::StoreMessage>,
                                   public AgentConnection,
                                   public std::enable_shared_from_this<AgentStream> {
 public:
  AgentStream(IngestService* service, grpc::CallbackServerContext* context) : service_(*service), context_(context) {}

  // Keeps itself alive until OnDone.
  void Begin(std::shared_ptr<AgentStream> self) {
    self_ = std::move(self);
    StatusOr<Grant> grant = service_.authorizer_.Check(context_);
    if (!grant.ok()) {
      End(grant.status());
      return;
    }
    grant_ = *std::move(grant);
    if (!service_.Register(this)) {
      End(service_.closing_
              ? UnavailableError("the store is closing")
              : ResourceExhaustedError(StrFormat("%d agents are connected, the store's limit", service_.max_streams_)));
      return;
    }
    hello_alarm_.Set(std::chrono::system_clock::now() + kHelloTimeout,
                     [weak = std::weak_ptr<AgentStream>(self_)](bool fired) {
                       const std::shared_ptr<AgentStream> stream = weak.lock();
                       if (fired && stream != nullptr) stream->End(DeadlineExceededError("no Hello came"), true);
                     });
    StartRead(&message_);
  }

  // ---- AgentConnection ----
  Status StartSession(const SessionSpec& spec) override {
    v1::StoreMessage message;
    WriteSessionSpec(spec, message.mutable_start_session()->mutable_spec());
    return Write(std::move(message));
  }
  Status StopSession(const std::string& id) override {
    v1::StoreMessage message;
    message.mutable_stop_session()->set_id(ToUtf8(id));
    return Write(std::move(message));
  }
  void Cancel() override {
    const std::lock_guard lock(mutex_);
    if (!done_) context_->TryCancel();
  }

  // ---- gRPC ----
  void OnReadDone(bool ok) override {
    if (!ok) {  // the agent has said all that it wanted to
      End(OkStatus());
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      working_ = true;
    }
    service_.Enqueue(shared_from_this());
  }
  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    waiting_.pop_front();
    if (!ok) waiting_.clear();
    WriteNext();
  }
  void OnCancel() override { End(CancelledError("cancelled")); }
  void OnDone() override {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    hello_alarm_.Cancel();
    service_.Unregister(this);
    if (connected_) service_.handler_.Disconnected(*this);
    service_.table_bytes_ -= counted_bytes_;
    self_.reset();  // perhaps the end of this object
  }

  // ---- the pool ----
  void Work() {
    const Status status = Handle();
    // Large; not needed until the next one.
    if (message_.ByteSizeLong() > kKeepMessageBytes) {
      message_ = v1::AgentMessage();
    }
    if (!status.ok()) End(status);
    const std::lock_guard lock(mutex_);
    working_ = false;
    if (ending_) {
      WriteNext();
    } else {
      StartRead(&message_);
    }
  }

 private:
  Status Handle() {
    if (!connected_) return HandleHello();
    switch (message_.body_case()) {
      case v1::AgentMessage::kBatch:
        return HandleBatch();
      case v1::AgentMessage::kSession:
        service_.handler_.SessionUpdated(*this, ReadSessionUpdate(message_.session()));
        return OkStatus();
      case v1::AgentMessage::kStatus:
        service_.handler_.StatusUpdated(*this, ReadNodeStatus(message_.status()));
        return OkStatus();
      case v1::AgentMessage::kHello:
        return InvalidArgumentError("a second Hello on one stream");
      case v1::AgentMessage::BODY_NOT_SET:
        break;  // of a newer agent: nothing that we must know
    }
    return OkStatus();
  }

  Status HandleHello() {
    hello_alarm_.Cancel();
    if (!message_.has_hello()) return InvalidArgumentError("the first message is no Hello");
    const v1::Hello& wire = message_.hello();
    RETURN_IF_ERROR(CheckAgentProtocol(wire.protocol(), WireText(wire.version(), 64)));
    if (wire.agent_id().empty() || wire.agent_id().size() > kMaxIdBytes || wire.node().empty() ||
        wire.node().size() > kMaxIdBytes || wire.tenant().size() > kMaxIdBytes) {
      return InvalidArgumentError(
          StrFormat("agent id, node name and tenant must have 1 to %d bytes each", kMaxIdBytes));
    }
    Hello hello = ReadHello(wire);
    ASSIGN_OR_RETURN(hello.tenant, grant_.TenantFor(hello.tenant));
    decoder_ = std::make_unique<StreamDecoder>(hello.agent_id, hello.node, hello.tenant);
    ASSIGN_OR_RETURN(const Welcome welcome, service_.handler_.Connected(hello, shared_from_this()));
    connected_ = true;
    v1::StoreMessage reply;
    reply.mutable_welcome()->set_protocol(kProtocolVersion);
    reply.mutable_welcome()->set_version(WireText(welcome.version, kMaxIdBytes));
    reply.mutable_welcome()->set_last_sequence(welcome.last_sequence);
    reply.mutable_welcome()->set_max_table_bytes(service_.TableShare());
    return Write(std::move(reply));
  }

  Status HandleBatch() {
    const uint64_t sequence = message_.batch().sequence();
    const uint64_t generation = decoder_->generation();
    const StatusOr<DecodedBatch> batch = decoder_->DecodeInPlace(message_.batch());
    if (!batch.ok()) {
      service_.handler_.Malformed(*this, batch.status());
      RETURN_IF_ERROR(WriteReject(sequence, batch.status()));
      return WithContext(batch.status(), StrFormat("batch %d", sequence));
    }
    // Not needed while the store writes.
    if (message_.ByteSizeLong() > kKeepMessageBytes) message_ = v1::AgentMessage();
    if (decoder_->generation() != generation) {
      stream_state.reset();
      stream_state_bytes = 0;
    }
    const StatusOr<Ack> ack = service_.handler_.Received(*this, decoder_->View(*batch));
    if (!ack.ok()) {
      if (ack.status().code() != StatusCode::kInvalidArgument) return ack.status();
      return WriteReject(sequence, ack.status());
    }
    v1::StoreMessage reply;
    reply.mutable_ack()->set_sequence(ack->sequence);
    reply.mutable_ack()->set_duplicate(ack->duplicate);
    if (!ack->notice.empty()) reply.mutable_ack()->set_notice(WireText(ack->notice, 4096));
    RETURN_IF_ERROR(Write(std::move(reply)));
    return CheckTables();
  }

  Status CheckTables() {
    const uint64_t bytes = decoder_->bytes() + stream_state_bytes;
    service_.table_bytes_ += bytes - counted_bytes_;
    counted_bytes_ = bytes;
    if (service_.table_bytes_ <= service_.stream_memory_bytes_) return OkStatus();
    if (bytes <= kTableShareTolerance * service_.TableShare()) return OkStatus();
    return UnavailableError(
        StrFormat("the tables of this stream take %s, of all streams %s, their limit is %s (of --memory): connect "
                  "again with new ones",
                  FormatBytes(bytes), FormatBytes(service_.table_bytes_), FormatBytes(service_.stream_memory_bytes_)));
  }

  Status WriteReject(uint64_t sequence, const Status& why) {
    v1::StoreMessage reply;
    reply.mutable_reject()->set_sequence(sequence);
    reply.mutable_reject()->set_message(WireText(Message(why), 4096));
    return Write(std::move(reply));
  }

  Status Write(v1::StoreMessage message) {
    const std::lock_guard lock(mutex_);
    if (ending_) return UnavailableError("the agent's connection is over");
    if (waiting_.size() >= kMaxWaitingReplies) {
      context_->TryCancel();
      return UnavailableError("the agent does not read what the store answers");
    }
    waiting_.push_back(std::move(message));
    WriteNext();
    return OkStatus();
  }

  // With the lock. What was written before the end still goes out, then the end.
  void WriteNext() {
    if (writing_ || finished_) return;
    if (!waiting_.empty()) {
      writing_ = true;
      StartWrite(&waiting_.front());
      return;
    }
    // Nobody may learn of the end while the handler has still to do with this stream.
    if (ending_ && !working_) {
      finished_ = true;
      Finish(ToGrpc(end_));
    }
  }

  // The first reason counts.
  void End(const Status& status, bool only_before_hello = false) {
    const std::lock_guard lock(mutex_);
    if (ending_ || (only_before_hello && connected_)) return;
    ending_ = true;
    end_ = status;
    WriteNext();
  }

  IngestService& service_;
  grpc::CallbackServerContext* const context_;
  Grant grant_ = Grant::OneTenant("");  // until the token was looked at
  std::shared_ptr<AgentStream> self_;
  grpc::Alarm hello_alarm_;
  // Of the thread that works on the message.
  v1::AgentMessage message_;
  std::unique_ptr<StreamDecoder> decoder_;
  std::atomic<bool> connected_{false};
  uint64_t counted_bytes_ = 0;

  std::mutex mutex_;  // guards the rest
  std::deque<v1::StoreMessage> waiting_;
  bool writing_ = false;
  bool ending_ = false;
  bool finished_ = false;
  bool done_ = false;
  bool working_ = false;  // on a message, or about to
  Status end_;
};

IngestService::IngestService(const Authorizer* authorizer, IngestHandler* handler, const GrpcServer::Options& options)
    : authorizer_(*authorizer),
      handler_(*handler),
      max_streams_(options.max_streams),
      stream_memory_bytes_(options.stream_memory_bytes) {
  for (int i = 0; i < options.ingest_threads; ++i) threads_.emplace_back([this] { Work(); });
}

IngestService::~IngestService() { StopThreads(); }

grpc::ServerBidiReactor<v1::AgentMessage, v1::StoreMessage>* IngestService::Stream(
    grpc::CallbackServerContext* context) {
  auto stream = std::make_shared<AgentStream>(this, context);
  AgentStream* raw = stream.get();
  raw->Begin(std::move(stream));
  return raw;
}

void IngestService::Enqueue(std::shared_ptr<AgentStream> stream) {
  {
    const std::lock_guard lock(mutex_);
    ready_.push_back(std::move(stream));
  }
  changed_.notify_one();
}

void IngestService::Work() {
  // Agents have spools, people who ask have none: and what came in has to be summed up as fast as it comes.
  NameThisThread("pyro-ingest", 2);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
    if (ready_.empty()) return;
    std::shared_ptr<AgentStream> stream = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    stream->Work();
    stream.reset();
    lock.lock();
  }
}

uint64_t IngestService::TableShare() {
  size_t streams = 0;
  {
    const std::lock_guard lock(mutex_);
    streams = streams_.size();
  }
  // Half of an equal share: the others may come yet.
  const uint64_t share = stream_memory_bytes_ / (2 * std::max<size_t>(streams, 8));
  return std::clamp(share, kMinTableShare, kMaxTableShare);
}

bool IngestService::Register(AgentStream* stream) {
  const std::lock_guard lock(mutex_);
  if (closing_ || streams_.size() >= static_cast<size_t>(max_streams_)) return false;
  streams_.insert(stream);
  return true;
}

void IngestService::Unregister(AgentStream* stream) {
  const std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

void IngestService::CancelAll() {
  std::vector<AgentStream*> streams;
  const std::lock_guard lock(mutex_);
  closing_ = true;
  for (AgentStream* stream : streams_) stream->Cancel();
}

void IngestService::StopThreads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace pyrometer::rpc

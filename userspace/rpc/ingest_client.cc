#include "userspace/rpc/ingest_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>
#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/grpc_status.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {

using Clock = std::chrono::steady_clock;

// Two threads: "pyro-ingest" reads and calls back; "pyro-ingest-w" (watchdog) cancels a call that is
// stuck, because gRPC's blocking writes know no deadline of their own.
struct IngestClient::Impl {
  Options options;
  Callbacks callbacks;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Ingest::Stub> stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AgentMessage, v1::StoreMessage>> stream;
  Welcome welcome;

  std::mutex write_mutex;  // one Write at a time; guards the encoder
  StreamEncoder encoder;

  std::mutex mutex;  // guards the rest
  std::condition_variable changed;
  bool welcomed = false;
  bool over = false;     // the reader has ended and `end` is final
  bool closing = false;  // by Close
  bool stop_watchdog = false;
  Status end;                                 // why it ended
  Status cancelled_for;                       // why the watchdog cancelled; OK = it did not
  std::optional<Clock::time_point> deadline;  // of the write or connect that is under way
  uint64_t timeout_ns = 0;                    // that deadline came from
  std::thread reader;
  std::thread watchdog;

  void ReadLoop();
  void WatchLoop();
  Status ReadWelcome();
  void Dispatch(const v1::StoreMessage& message);
  Status Write(const v1::AgentMessage& message);  // write_mutex is held
  void SetDeadline(std::optional<uint64_t> ns_from_now);
};

void IngestClient::Impl::SetDeadline(std::optional<uint64_t> ns_from_now) {
  {
    std::lock_guard lock(mutex);
    deadline.reset();
    if (ns_from_now) {
      deadline = Clock::now() + std::chrono::nanoseconds(*ns_from_now);
      timeout_ns = *ns_from_now;
    }
  }
  changed.notify_all();
}

void IngestClient::Impl::WatchLoop() {
  pthread_setname_np(pthread_self(), "pyro-ingest-w");
  std::unique_lock lock(mutex);
  while (!stop_watchdog) {
    if (!deadline) {
      changed.wait(lock);
    } else if (Clock::now() < *deadline) {
      // A copy: wait_until reads its argument again after the lock was given up.
      const Clock::time_point until = *deadline;
      changed.wait_until(lock, until);
    } else {
      cancelled_for = DeadlineExceededError(
          StrFormat("the store at %s did not answer for %s", options.target, FormatDurationNs(timeout_ns)));
      deadline.reset();
      context.TryCancel();
    }
  }
}

Status IngestClient::Impl::ReadWelcome() {
  v1::StoreMessage message;
  if (!stream->Read(&message)) return OkStatus();  // Finish says why
  if (!message.has_welcome()) {
    return FailedPreconditionError(StrFormat("%s answers in another protocol", options.target));
  }
  const v1::Welcome& wire = message.welcome();
  RETURN_IF_ERROR(CheckStoreProtocol(wire.protocol(), WireText(wire.version(), 64), options.target));
  std::lock_guard lock(mutex);
  welcome = {.version = WireText(wire.version(), 64),
             .last_sequence = wire.last_sequence(),
             .max_table_bytes = wire.max_table_bytes()};
  welcomed = true;
  deadline.reset();
  changed.notify_all();
  return OkStatus();
}

void IngestClient::Impl::ReadLoop() {
  pthread_setname_np(pthread_self(), "pyro-ingest");
  Status own = ReadWelcome();
  if (!own.ok()) context.TryCancel();
  v1::StoreMessage message;
  while (stream->Read(&message)) {
    if (own.ok()) Dispatch(message);
  }
  const grpc::Status finished = stream->Finish();
  Status result = FromGrpc(finished, context, options.target);
  if (result.ok()) {
    result = UnavailableError(StrFormat("the store at %s ended the connection", options.target));
  }
  bool tell = false;
  {
    std::lock_guard lock(mutex);
    if (!own.ok()) {
      result = own;
    } else if (closing) {
      result = CancelledError("the connection was closed");
    } else if (!cancelled_for.ok()) {
      result = cancelled_for;
    }
    end = result;
    over = true;
    tell = welcomed && !closing;
  }
  changed.notify_all();
  if (tell && callbacks.closed) callbacks.closed(result);
}

void IngestClient::Impl::Dispatch(const v1::StoreMessage& message) {
  {
    std::lock_guard lock(mutex);
    if (closing) return;
  }
  switch (message.body_case()) {
    case v1::StoreMessage::kAck:
      if (callbacks.ack) {
        callbacks.ack({.sequence = message.ack().sequence(),
                       .duplicate = message.ack().duplicate(),
                       .notice = message.ack().notice()});
      }
      return;
    case v1::StoreMessage::kReject:
      if (callbacks.reject) callbacks.reject(message.reject().sequence(), message.reject().message());
      return;
    case v1::StoreMessage::kStartSession:
      if (callbacks.start_session) callbacks.start_session(ReadSessionSpec(message.start_session().spec()));
      return;
    case v1::StoreMessage::kStopSession:
      if (callbacks.stop_session) callbacks.stop_session(message.stop_session().id());
      return;
    case v1::StoreMessage::kWelcome:
    case v1::StoreMessage::BODY_NOT_SET:
      return;  // of a newer store: nothing that we must know
  }
}

Status IngestClient::Impl::Write(const v1::AgentMessage& message) {
  {
    std::lock_guard lock(mutex);
    if (over) return end;
    if (closing) return CancelledError("the connection was closed");
  }
  SetDeadline(options.send_timeout_ns);
  const bool written = stream->Write(message);
  SetDeadline(std::nullopt);
  if (written) return OkStatus();
  // The call is over; the reader is about to learn why. From its own callbacks nobody can wait for it.
  std::unique_lock lock(mutex);
  if (std::this_thread::get_id() != reader.get_id()) {
    changed.wait_for(lock, std::chrono::seconds(5), [this] { return over || closing; });
  }
  if (over) return end;
  if (closing) return CancelledError("the connection was closed");
  return UnavailableError(StrFormat("the connection to the store at %s is over", options.target));
}

IngestClient::IngestClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
IngestClient::~IngestClient() { Close(); }

StatusOr<std::unique_ptr<IngestClient>> IngestClient::Connect(std::shared_ptr<grpc::Channel> channel, Options options,
                                                              const Hello& hello, Callbacks callbacks) {
  SilenceGrpc();
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  impl->callbacks = std::move(callbacks);
  impl->channel = std::move(channel);
  impl->stub = v1::Ingest::NewStub(impl->channel);
  AddToken(&impl->context, impl->options.token);
  impl->SetDeadline(impl->options.connect_timeout_ns);
  std::unique_ptr<IngestClient> client(new IngestClient(std::move(impl)));
  Impl& state = *client->impl_;
  state.watchdog = std::thread([&state] { state.WatchLoop(); });
  state.stream = state.stub->Stream(&state.context);
  {
    std::lock_guard write_lock(state.write_mutex);
    v1::AgentMessage message;
    WriteHello(hello, message.mutable_hello());
    // A failure shows in the reader's Finish, with its reason.
    state.stream->Write(message);
  }
  std::unique_lock lock(state.mutex);
  state.reader = std::thread([&state] { state.ReadLoop(); });
  state.changed.wait(lock, [&state] { return state.welcomed || state.over; });
  if (state.welcomed) {
    const uint64_t max_table_bytes = state.welcome.max_table_bytes;
    lock.unlock();
    std::lock_guard write_lock(state.write_mutex);
    state.encoder.set_max_table_bytes(max_table_bytes);
    return client;
  }
  return state.end;
}

StatusOr<std::unique_ptr<IngestClient>> IngestClient::Connect(const std::string& target, const Credentials& credentials,
                                                              const Hello& hello, Callbacks callbacks) {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, Dial(target, credentials));
  Hello mine = hello;
  if (mine.tenant.empty()) mine.tenant = credentials.tenant;
  return Connect(std::move(channel), {.token = credentials.token, .target = target}, mine, std::move(callbacks));
}

const Welcome& IngestClient::welcome() const { return impl_->welcome; }

Status IngestClient::Send(const profile::Batch& batch) {
  std::lock_guard write_lock(impl_->write_mutex);
  v1::AgentMessage message;
  RETURN_IF_ERROR(impl_->encoder.Encode(batch, message.mutable_batch()));
  return impl_->Write(message);
}

Status IngestClient::SendStatus(const NodeStatus& status) {
  std::lock_guard write_lock(impl_->write_mutex);
  v1::AgentMessage message;
  WriteNodeStatus(status, message.mutable_status());
  return impl_->Write(message);
}

Status IngestClient::SendSession(const SessionUpdate& update) {
  std::lock_guard write_lock(impl_->write_mutex);
  v1::AgentMessage message;
  WriteSessionUpdate(update, message.mutable_session());
  return impl_->Write(message);
}

Status IngestClient::status() const {
  std::lock_guard lock(impl_->mutex);
  if (impl_->over) return impl_->end;
  return impl_->closing ? CancelledError("the connection was closed") : OkStatus();
}

void IngestClient::Close() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->closing = true;
    impl_->stop_watchdog = true;
  }
  impl_->changed.notify_all();
  impl_->context.TryCancel();
  if (impl_->reader.joinable()) impl_->reader.join();
  if (impl_->watchdog.joinable()) impl_->watchdog.join();
}

}  // namespace pyrometer::rpc

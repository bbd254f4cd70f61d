#include "tests/bench/load_stream.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <condition_variable>
#include <mutex>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/grpc_status.h"

namespace pyrometer::bench {

class LoadStream::Reactor : public grpc::ClientBidiReactor<v1::AgentMessage, v1::StoreMessage> {
 public:
  Reactor(std::shared_ptr<grpc::Channel> channel, const rpc::Hello& hello, Listener* listener)
      : channel_(std::move(channel)), stub_(v1::Ingest::NewStub(channel_)), listener_(*listener) {
    rpc::WriteHello(hello, out_.mutable_hello());
    stub_->async()->Stream(&context_, this);
    AddHold();  // for writes from outside of the callbacks
    StartWrite(&out_);
    StartRead(&in_);
    StartCall();
  }

  Status Send(const profile::Batch& batch) {
    RETURN_IF_ERROR(encoder_.Encode(batch, out_.mutable_batch()));
    const std::lock_guard lock(mutex_);
    if (!let_go_) StartWrite(&out_);
    return OkStatus();
  }
  void Cancel() {
    context_.TryCancel();
    Finish();
    const std::shared_ptr<End> end = end_;
    std::unique_lock lock(end->mutex);
    end->changed.wait(lock, [&] { return end->is_over; });
  }
  void Finish() {
    const std::lock_guard lock(mutex_);
    if (let_go_) return;
    let_go_ = true;
    StartWritesDone();
    RemoveHold();
  }

  void OnWriteDone(bool ok) override {
    // A batch is large, and most agents wait most of the time.
    out_ = v1::AgentMessage();
    if (ok) listener_.Written();  // else OnDone says why
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      const std::lock_guard lock(mutex_);
      if (!let_go_) RemoveHold();
      let_go_ = true;
      return;
    }
    switch (in_.body_case()) {
      case v1::StoreMessage::kWelcome:
        problem_ = rpc::CheckStoreProtocol(in_.welcome().protocol(), in_.welcome().version(), "the address given");
        if (!problem_.ok()) {
          context_.TryCancel();
          break;
        }
        encoder_.set_max_table_bytes(in_.welcome().max_table_bytes());
        listener_.Welcomed({.version = in_.welcome().version(),
                            .last_sequence = in_.welcome().last_sequence(),
                            .max_table_bytes = in_.welcome().max_table_bytes()});
        break;
      case v1::StoreMessage::kAck:
        listener_.Acknowledged(in_.ack().sequence());
        break;
      case v1::StoreMessage::kReject:
        problem_ = InvalidArgumentError(
            StrFormat("the store refuses batch %d: %s", in_.reject().sequence(), in_.reject().message()));
        context_.TryCancel();
        break;
      default:
        break;
    }
    StartRead(&in_);
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<End> end = end_;
    listener_.Ended(problem_.ok() ? rpc::FromGrpc(status, context_, "the address given") : problem_);
    const std::lock_guard lock(end->mutex);
    end->is_over = true;
    end->changed.notify_all();  // perhaps the end of this object
  }

 private:
  // Outlives the reactor, whose last callback may still be returning.
  struct End {
    std::mutex mutex;
    std::condition_variable changed;
    bool is_over = false;
  };
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Ingest::Stub> stub_;
  Listener& listener_;
  grpc::ClientContext context_;
  rpc::StreamEncoder encoder_;  // of the sender; set up before its first batch
  v1::AgentMessage out_;
  v1::StoreMessage in_;
  const std::shared_ptr<End> end_ = std::make_shared<End>();
  Status problem_ = OkStatus();  // why it was broken off here
  std::mutex mutex_;
  bool let_go_ = false;  // no more writes
};

LoadStream::LoadStream(std::shared_ptr<grpc::Channel> channel, const rpc::Hello& hello, Listener* listener)
    : reactor_(std::make_unique<Reactor>(std::move(channel), hello, listener)) {}
LoadStream::~LoadStream() { reactor_->Cancel(); }
Status LoadStream::Send(const profile::Batch& batch) { return reactor_->Send(batch); }
void LoadStream::Finish() { reactor_->Finish(); }

}  // namespace pyrometer::bench

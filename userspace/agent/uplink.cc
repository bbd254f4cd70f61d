#include "userspace/agent/uplink.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"

namespace pyrometer::agent {
namespace {

constexpr uint64_t kFirstPauseNs = 1 * kNsPerSecond;
constexpr uint64_t kLongestPauseNs = 30 * kNsPerSecond;
constexpr uint64_t kNoticeIntervalNs = 600 * kNsPerSecond;
// Sent and not acknowledged at a time. One sync of the store takes milliseconds; a spool of hours drains
// at the speed of the disk, not of the round trip.
constexpr uint64_t kMostInFlight = 16;

}  // namespace

std::unique_ptr<Uplink> Uplink::Start(Options options, Spool* spool, Handlers handlers) {
  std::unique_ptr<Uplink> uplink(new Uplink(std::move(options), spool, std::move(handlers)));
  uplink->thread_ = std::thread([u = uplink.get()] {
    ::pthread_setname_np(::pthread_self(), "pyro-uplink");
    u->Loop();
  });
  return uplink;
}

Uplink::Uplink(Options options, Spool* spool, Handlers handlers)
    : options_(std::move(options)), spool_(*spool), handlers_(std::move(handlers)) {}

Uplink::~Uplink() { Stop(); }

void Uplink::Notify() {
  const std::lock_guard lock(mutex_);
  wake_ = true;
  changed_.notify_all();
}

void Uplink::SendSession(const rpc::SessionUpdate& update) {
  const std::lock_guard lock(mutex_);
  session_updates_.push_back(update);
  wake_ = true;
  changed_.notify_all();
}

void Uplink::SendStatus() {
  const std::lock_guard lock(mutex_);
  status_changed_ = true;
  wake_ = true;
  changed_.notify_all();
}

bool Uplink::Flush(uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                           [&] { return spool_.counters().pending_batches == 0; });
}

void Uplink::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

Uplink::Counters Uplink::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

void Uplink::Loop() {
  std::minstd_rand random(std::random_device{}());
  uint64_t pause_ns = kFirstPauseNs;
  bool told = false;
  while (true) {
    const uint64_t started_ns = MonotonicNowNs();
    const Status status = RunConnection();
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    const bool was_connected = counters_.connected;
    counters_.connected = false;
    const std::string problem(Message(status));
    const bool news = was_connected || !told || problem != counters_.last_problem;
    counters_.last_problem = problem;
    told = true;
    if (news && handlers_.log) {
      lock.unlock();
      handlers_.log(StrFormat("%s; batches are kept in the spool and sent when it is back", problem));
      lock.lock();
    }
    // A connection that held for a while earns a quick retry.
    if (was_connected && MonotonicNowNs() - started_ns > kLongestPauseNs) pause_ns = kFirstPauseNs;
    // Jitter: a thousand agents must not come back to a restarted store in the same second.
    const uint64_t jittered = pause_ns / 2 + random() % pause_ns;
    changed_.wait_for(lock, std::chrono::nanoseconds(jittered), [&] { return stopping_; });
    if (stopping_) return;
    pause_ns = std::min(kLongestPauseNs, pause_ns * 2);
  }
}

void Uplink::Reject(uint64_t samples, const std::string& message) {
  {
    const std::lock_guard lock(mutex_);
    ++counters_.rejected_batches;
    counters_.rejected_samples += samples;
    counters_.last_problem = message;
  }
  if (handlers_.log) handlers_.log(StrFormat("%s; its %d samples are lost and counted", message, samples));
}

void Uplink::Notice(const std::string& notice) {
  counters_.last_problem = notice;
  const uint64_t now_ns = MonotonicNowNs();
  if (handlers_.log == nullptr || now_ns < next_notice_ns_) return;
  next_notice_ns_ = now_ns + kNoticeIntervalNs;
  handlers_.log(StrFormat("the store says: %s", notice));
}

Status Uplink::SendBatch(rpc::IngestClient& client, uint64_t sequence) {
  const auto reject = [&](const Status& why, uint64_t samples) {
    Reject(samples, StrFormat("batch %d cannot be sent: %s", sequence, Message(why)));
  };
  const auto bytes = spool_.Read(sequence);
  if (bytes.status().code() == StatusCode::kDataLoss || bytes.status().code() == StatusCode::kNotFound) {
    return OkStatus();  // set aside and counted by the spool; later ones go on
  }
  RETURN_IF_ERROR(bytes.status());
  auto batch = rpc::ParseBatch(*bytes);
  if (!batch.ok()) {
    reject(batch.status(), spool_.SamplesOf(sequence));
    return OkStatus();
  }
  const Status sent = client.Send(*batch);
  if (sent.code() == StatusCode::kInvalidArgument) {
    reject(sent, batch->SampleTotal());
    return OkStatus();
  }
  return sent;
}

Status Uplink::RunConnection() {
  rpc::Hello hello;
  hello.agent_id = spool_.agent_id();
  hello.node = options_.node;
  if (handlers_.status) hello.status = handlers_.status();

  uint64_t acknowledged = 0;  // guarded by mutex_
  rpc::IngestClient::Callbacks callbacks;
  callbacks.ack = [&](const rpc::Ack& ack) {
    const Status status = spool_.Acknowledge(ack.sequence);
    const std::lock_guard lock(mutex_);
    acknowledged = std::max(acknowledged, ack.sequence);
    ++counters_.acknowledged_batches;
    if (!status.ok()) counters_.last_problem = std::string(Message(status));
    if (!ack.notice.empty()) Notice(ack.notice);
    wake_ = true;
    changed_.notify_all();
  };
  callbacks.reject = [&](uint64_t sequence, const std::string& message) {
    // It counts as handled: sending it again would be refused again.
    const uint64_t samples = spool_.SamplesOf(sequence);
    (void)spool_.Acknowledge(sequence);
    Reject(samples, StrFormat("the store refused batch %d: %s", sequence, message));
    const std::lock_guard lock(mutex_);
    acknowledged = std::max(acknowledged, sequence);
    wake_ = true;
    changed_.notify_all();
  };
  callbacks.start_session = handlers_.start_session;
  callbacks.stop_session = handlers_.stop_session;
  callbacks.closed = [&](const Status& status) {
    const std::lock_guard lock(mutex_);
    closed_ = status;
    wake_ = true;
    changed_.notify_all();
  };
  {
    const std::lock_guard lock(mutex_);
    closed_ = OkStatus();
  }

  std::unique_ptr<rpc::IngestClient> client;
  if (options_.channel != nullptr) {
    ASSIGN_OR_RETURN(client, rpc::IngestClient::Connect(options_.channel,
                                                        {.token = options_.credentials.token, .target = options_.store},
                                                        hello, callbacks));
  } else {
    ASSIGN_OR_RETURN(client, rpc::IngestClient::Connect(options_.store, options_.credentials, hello, callbacks));
  }
  const uint64_t known = client->welcome().last_sequence;
  RETURN_IF_ERROR(spool_.Acknowledge(known));
  {
    const std::lock_guard lock(mutex_);
    counters_.connected = true;
    counters_.last_problem.clear();
    acknowledged = std::max(acknowledged, known);
    changed_.notify_all();
  }
  if (handlers_.log) handlers_.log(StrFormat("connected to the store at %s", options_.store));

  uint64_t sent = known;
  while (true) {
    std::unique_lock lock(mutex_);
    if (stopping_) break;
    RETURN_IF_ERROR(closed_);
    const bool room = sent < acknowledged + kMostInFlight || sent == known;
    if (status_changed_) {
      status_changed_ = false;
      lock.unlock();
      if (handlers_.status) RETURN_IF_ERROR(client->SendStatus(handlers_.status()));
      continue;
    }
    if (!session_updates_.empty()) {
      const rpc::SessionUpdate update = session_updates_.front();
      lock.unlock();
      RETURN_IF_ERROR(client->SendSession(update));
      lock.lock();
      session_updates_.pop_front();
      continue;
    }
    const auto next = room ? spool_.NextPending(sent) : std::nullopt;
    if (!next) {
      changed_.wait(lock, [&] { return wake_ || stopping_; });
      wake_ = false;
      continue;
    }
    lock.unlock();
    RETURN_IF_ERROR(SendBatch(*client, *next));
    sent = *next;
  }
  client->Close();
  return OkStatus();
}

}  // namespace pyrometer::agent

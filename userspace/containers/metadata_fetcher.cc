#include "userspace/containers/metadata_fetcher.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "userspace/base/clock.h"

namespace pyrometer::containers {
namespace {

constexpr uint64_t kFirstRetryNs = 200 * kNsPerMs;
constexpr uint64_t kMinBackoffNs = kNsPerSecond;
constexpr uint64_t kMaxBackoffNs = 60 * kNsPerSecond;
constexpr uint64_t kIdleNs = 60 * kNsPerSecond;  // longest sleep

}  // namespace

void MetadataFetcher::Start() {
  thread_ = std::thread([this] { Run(); });
}

void MetadataFetcher::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MetadataFetcher::AddClient(std::unique_ptr<RuntimeClient> client) {
  auto added = std::make_shared<Client>();
  added->state.name = client->name();
  added->runtime = std::move(client);
  std::lock_guard lock(mutex_);
  const std::shared_ptr<Client> client_added = added;
  const auto place = std::find_if(clients_.begin(), clients_.end(),
                                  [&](const auto& other) { return other->runtime->rank() > added->runtime->rank(); });
  clients_.insert(place, std::move(added));
  for (auto& [id, container] : containers_) {
    if (!client_added->runtime->MayKnow(container.identity)) continue;
    if (container.request.state == MetadataState::kKnown) {
      container.upgrade = client_added->runtime->rank() == 0;
      container.next_ns = 0;
      continue;
    }
    container.request.state = MetadataState::kPending;
    container.attempts = 0;
    container.tries = 0;
    container.next_ns = 0;
  }
  changed_.notify_all();
}

bool MetadataFetcher::AnyMayKnow(const ContainerIdentity& identity) const {
  return std::any_of(clients_.begin(), clients_.end(),
                     [&](const auto& client) { return client->runtime->MayKnow(identity); });
}

MetadataFetcher::Request MetadataFetcher::Want(const ContainerIdentity& identity) {
  std::lock_guard lock(mutex_);
  const auto it = containers_.find(identity.container_id);
  if (it != containers_.end()) return it->second.request;
  if (containers_.size() >= kMaxContainers) return {};
  Container& container = containers_[identity.container_id];
  container.identity = identity;
  if (AnyMayKnow(identity)) {
    container.request.state = MetadataState::kPending;
    changed_.notify_all();
  }
  return container.request;
}

void MetadataFetcher::KeepOnly(const std::unordered_set<std::string>& container_ids) {
  std::lock_guard lock(mutex_);
  std::erase_if(containers_, [&](const auto& entry) { return !container_ids.contains(entry.first); });
}

void MetadataFetcher::RetryNow() {
  std::lock_guard lock(mutex_);
  for (const auto& client : clients_) client->retry_ns = 0;
  for (auto& [id, container] : containers_) {
    if (container.request.state == MetadataState::kPending) {
      container.next_ns = 0;
      container.tries = 0;
    }
  }
  changed_.notify_all();
}

bool MetadataFetcher::WaitIdle(uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] {
    return !asking_ && std::all_of(containers_.begin(), containers_.end(), [](const auto& entry) {
      return entry.second.request.state != MetadataState::kPending || entry.second.tries > 0;
    });
  });
}

size_t MetadataFetcher::pending() const {
  std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count_if(containers_.begin(), containers_.end(), [](const auto& entry) {
    return entry.second.request.state == MetadataState::kPending;
  }));
}

std::vector<ContainerIndex::ClientState> MetadataFetcher::clients() const {
  std::lock_guard lock(mutex_);
  std::vector<ContainerIndex::ClientState> states;
  for (const auto& client : clients_) states.push_back(client->state);
  return states;
}

void MetadataFetcher::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const uint64_t now_ns = MonotonicNowNs();
    uint64_t next_ns = now_ns + kIdleNs;
    const Container* due = nullptr;
    for (const auto& [id, container] : containers_) {
      if (container.request.state != MetadataState::kPending && !container.upgrade) continue;
      if (container.next_ns <= now_ns) {
        due = &container;
        break;
      }
      next_ns = std::min(next_ns, container.next_ns);
    }
    if (due == nullptr) {
      changed_.wait_for(lock, std::chrono::nanoseconds(next_ns - now_ns));
      continue;
    }
    const ContainerIdentity identity = due->identity;
    asking_ = true;
    lock.unlock();
    Ask(identity);
    lock.lock();
    asking_ = false;
    changed_.notify_all();
  }
}

void MetadataFetcher::Ask(const ContainerIdentity& identity) {
  std::vector<std::shared_ptr<Client>> clients;
  {
    std::lock_guard lock(mutex_);
    clients = clients_;
  }
  Request answer{.state = MetadataState::kPending};
  bool somebody_away = false;
  bool from_files = false;
  uint64_t first_back_ns = std::numeric_limits<uint64_t>::max();
  for (const auto& client : clients) {
    if (!client->runtime->MayKnow(identity)) continue;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
      if (client->retry_ns > MonotonicNowNs()) {
        somebody_away = true;
        first_back_ns = std::min(first_back_ns, client->retry_ns);
        continue;
      }
    }
    StatusOr<ContainerMetadata> metadata = client->runtime->Inspect(identity);
    const bool answered = metadata.ok() || metadata.status().code() == StatusCode::kNotFound;
    std::lock_guard lock(mutex_);
    client->state.last = metadata.status();
    if (answered) {
      ++client->state.answers;
      client->backoff_ns = 0;
      client->retry_ns = 0;
    } else {
      ++client->state.failures;
      client->backoff_ns = std::clamp(2 * client->backoff_ns, kMinBackoffNs, kMaxBackoffNs);
      client->retry_ns = MonotonicNowNs() + client->backoff_ns;
      somebody_away = true;
      first_back_ns = std::min(first_back_ns, client->retry_ns);
    }
    if (metadata.ok()) {
      answer = {MetadataState::kKnown, *std::move(metadata)};
      Sanitize(answer.metadata);
      from_files = client->runtime->rank() > 0;
      break;
    }
  }

  {
    std::lock_guard lock(mutex_);
    const auto it = containers_.find(identity.container_id);
    if (it == containers_.end()) return;
    Container& container = it->second;
    ++container.tries;
    container.upgrade = from_files && somebody_away;
    if (container.upgrade) container.next_ns = first_back_ns;
    // Asked again for something better, and nobody knew any more: what was known stays.
    if (answer.state == MetadataState::kPending && container.request.state == MetadataState::kKnown) {
      container.upgrade = somebody_away;
      container.next_ns = first_back_ns;
      return;
    }
    if (answer.state == MetadataState::kPending) {
      if (somebody_away) {
        container.next_ns = first_back_ns;
      } else if (++container.attempts >= kMaxAttempts) {
        answer.state = MetadataState::kNotFound;
      } else {
        uint64_t wait_ns = kFirstRetryNs;
        for (int i = 1; i < container.attempts; ++i) wait_ns *= 3;
        container.next_ns = MonotonicNowNs() + wait_ns;
      }
    }
    container.request = answer;
  }
  if (answer.state != MetadataState::kPending) callback_(identity.container_id, answer.state, answer.metadata);
}

}  // namespace pyrometer::containers

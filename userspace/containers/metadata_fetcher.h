// Asks the runtimes for containers' metadata, on a thread of its own, and remembers the answers.
//
//   MetadataFetcher fetcher([](const std::string& id, MetadataState state, const ContainerMetadata& m) { … });
//   fetcher.AddClient(MakeDockerClient({}));  fetcher.Start();
//   fetcher.Want(identity);      // what is known now; the callback comes with the answer
//
// The thread exists because a runtime's socket may block for its whole deadline (dockerd under load does). A
// container that was just made is often not known to its runtime yet: asked again after 0.2 s, growing threefold,
// kMaxAttempts times. A client that does not answer is left alone for 1 s, doubling to 60 s; containers that wait
// for it stay pending.
//
// Threads: all methods from any; the callback comes from the fetching thread without any lock held.
// Bound: what KeepOnly left, at most kMaxContainers.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "userspace/containers/container_index.h"
#include "userspace/containers/runtime_client.h"

namespace pyrometer::containers {

class MetadataFetcher {
 public:
  using Callback =
      std::function<void(const std::string& container_id, MetadataState state, const ContainerMetadata& metadata)>;
  struct Request {
    MetadataState state = MetadataState::kNotNeeded;
    ContainerMetadata metadata;
  };
  static constexpr size_t kMaxContainers = 65'536;
  static constexpr int kMaxAttempts = 6;  // over about 70 s

  explicit MetadataFetcher(Callback callback) : callback_(std::move(callback)) {}
  ~MetadataFetcher() { Stop(); }

  void Start();
  void Stop();
  void AddClient(std::unique_ptr<RuntimeClient> client);

  Request Want(const ContainerIdentity& identity);
  // Forgets all other containers.
  void KeepOnly(const std::unordered_set<std::string>& container_ids);
  // Everything pending is due now, whatever the back-off.
  void RetryNow();
  // Waits until every pending container was asked for at least once and nothing is being asked; false at the time
  // limit. Containers that wait for a client that is away do not count.
  bool WaitIdle(uint64_t timeout_ns);

  size_t pending() const;
  std::vector<ContainerIndex::ClientState> clients() const;

 private:
  struct Client {
    std::unique_ptr<RuntimeClient> runtime;
    uint64_t retry_ns = 0;    // not asked before
    uint64_t backoff_ns = 0;  // 0: it answered the last time
    ContainerIndex::ClientState state;
  };
  struct Container {
    ContainerIdentity identity;
    Request request;
    bool upgrade = false;  // known from files while the runtime was away: ask that again at next_ns
    int attempts = 0;      // answered with "not known"
    uint64_t next_ns = 0;  // when to ask
    uint64_t tries = 0;    // rounds over the clients, whatever came of them
  };

  void Run();
  void Ask(const ContainerIdentity& identity);
  bool AnyMayKnow(const ContainerIdentity& identity) const;

  const Callback callback_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Client>> clients_;
  std::unordered_map<std::string, Container> containers_;
  bool asking_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace pyrometer::containers

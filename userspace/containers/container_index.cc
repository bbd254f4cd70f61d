#include "userspace/containers/container_index.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/containers/cgroup_hierarchy.h"
#include "userspace/containers/cgroup_watcher.h"
#include "userspace/containers/container_probe.h"
#include "userspace/containers/metadata_fetcher.h"

namespace pyrometer::containers {
namespace {

constexpr size_t kProbePids = 8;       // processes looked at in a cgroup
constexpr uint32_t kEagerProbes = 20;  // one each kEagerProbeNs: a runtime needs about 0.1 s from mkdir to pivot_root
constexpr uint64_t kEagerProbeNs = 100 * kNsPerMs;
constexpr uint32_t kSteadyProbes = 60;  // up to here one each refresh, then each kLateProbeNs
constexpr uint64_t kLateProbeNs = 30 * kNsPerSecond;
constexpr uint64_t kReconcileNs = 60 * kNsPerSecond;  // a full walk although inotify works: trust, but verify
constexpr size_t kMinIdPrefix = 4;
constexpr size_t kMaxSuggestions = 5;
constexpr uint64_t kFindTimeoutNs = 2 * kNsPerSecond;

using InfoPtr = std::shared_ptr<const ContainerInfo>;

// One hierarchy and what we know of its cgroups.
struct Side {
  struct Entry {
    InfoPtr info;
    ContainerIdentity parsed;    // what the path alone told
    bool undecided = false;      // the probe has not found a container (yet)
    uint32_t probes = 0;         // asked so often
    uint64_t next_probe_ns = 0;  //
  };

  Side(std::string mount, bool is_v1) : v1(is_v1), hierarchy(std::move(mount)) {}

  const bool v1;
  const CgroupHierarchy hierarchy;
  std::unordered_map<uint64_t, Entry> by_id;
  std::unordered_map<std::string, uint64_t> by_path;  // cgroups that exist
  std::unordered_set<uint64_t> undecided;             // ids whose entry is
  std::unordered_set<uint64_t> unresolved;            // ids that lead nowhere; bounded with the removed ones
  uint64_t last_walk_ns = 0;
  std::unique_ptr<CgroupWatcher> watcher;  // of the watching thread only
};

std::string ParentPath(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

// The path begins in a unit of systemd's (or is the root): never below a container of plain runc.
bool BelongsToSystemd(std::string_view path) {
  const std::string_view first = path.substr(1, path.find('/', 1) - 1);
  return first.empty() || first.ends_with(".slice") || first.ends_with(".scope") || first.ends_with(".service");
}

// Levenshtein, for "did you mean"; names are at most kMaxNameBytes.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

class Index : public ContainerIndex {
 public:
  explicit Index(const Options& options)
      : options_(options),
        probe_({.proc_root = options.proc_root, .state_roots = options.runtime_state_roots}),
        wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        fetcher_([this](const std::string& container_id, MetadataState state, const ContainerMetadata& metadata) {
          OnMetadata(container_id, state, metadata);
        }) {
    auto unresolved = std::make_shared<ContainerInfo>();
    unresolved->labels = {{"service", "unknown"}};
    if (!options.node.empty()) unresolved->labels.insert(unresolved->labels.begin(), {"node", options.node});
    unresolved_ = std::move(unresolved);
  }

  ~Index() override {
    stopping_ = true;
    Wake();
    if (thread_.joinable()) thread_.join();
    fetcher_.Stop();
  }

  Status Init() {
    CgroupMounts mounts;
    if (options_.cgroup_v2_mount.empty() && options_.cgroup_v1_mount.empty()) {
      ASSIGN_OR_RETURN(mounts, FindCgroupMounts(options_.v1_controller));
    } else {
      mounts.v2_mount = options_.cgroup_v2_mount;
      mounts.v1_mount = options_.cgroup_v1_mount;
    }
    if (!mounts.v2_mount.empty()) sides_.push_back(std::make_unique<Side>(mounts.v2_mount, false));
    if (!mounts.v1_mount.empty()) sides_.push_back(std::make_unique<Side>(mounts.v1_mount, true));
    for (const auto& side : sides_) {
      if (options_.use_inotify) {
        side->watcher = std::make_unique<CgroupWatcher>(
            &side->hierarchy,
            CgroupWatcher::Callbacks{
                .added = [this, raw = side.get()](const std::string& path, CgroupId id) { Learn(*raw, path, id); },
                .removed = [this, raw = side.get()](const std::string& path) { MarkRemoved(*raw, path); }});
        side->watcher->WatchAll(options_.max_cgroups);
      } else {
        Walk(*side);
      }
    }
    UpdateWatchState();
    fetcher_.Start();
    thread_ = std::thread([this] { Run(); });
    return OkStatus();
  }

  void AddClient(std::unique_ptr<RuntimeClient> client) override {
    fetcher_.AddClient(std::move(client));
    // What no client could know before, this one may. Once per container: all its cgroups say the same at any time.
    std::unique_lock lock(mutex_);
    std::unordered_map<std::string, MetadataFetcher::Request> known;
    for (const auto& side : sides_) {
      for (auto& [id, entry] : side->by_id) {
        if (!entry.info->is_container() || entry.info->metadata_state == MetadataState::kKnown) continue;
        const auto [request, first] = known.try_emplace(entry.info->identity.container_id);
        if (first) request->second = fetcher_.Want(entry.info->identity);
        auto info = std::make_shared<ContainerInfo>(*entry.info);
        SetMetadata(request->second, info.get());
        entry.info = std::move(info);
      }
    }
  }

  InfoPtr Lookup(CgroupId v2, CgroupId v1) override {
    InfoPtr best;
    for (const auto& side : sides_) {
      const CgroupId id = side->v1 ? v1 : v2;
      if (id.value == 0) continue;
      InfoPtr info = LookupIn(*side, id);
      if (info->is_container()) return info;
      // The root of cgroup2 says nothing on hosts whose cgroups are in v1.
      const bool better = !best || (!best->resolved && info->resolved) || (best->cgroup_path == "/" && info->resolved);
      if (better) best = std::move(info);
    }
    return best ? best : unresolved_;
  }

  StatusOr<std::vector<ContainerMatch>> FindByName(std::string_view name) override {
    if (name.empty()) return InvalidArgumentError("a container's name or id is needed, not an empty text");
    // Also when the name is known: a cgroup made below it a moment ago belongs to the answer.
    for (const auto& side : sides_) Walk(*side);
    ProbeUndecided(true);
    StatusOr<std::vector<ContainerMatch>> found = Match(name);
    if (found.ok() || found.status().code() != StatusCode::kNotFound) return found;
    fetcher_.RetryNow();
    WaitForMetadata(kFindTimeoutNs);
    return Match(name);
  }

  StatusOr<ContainerMatch> FindByCgroupPath(std::string_view path) override {
    for (const auto& side : sides_) Walk(*side);
    ContainerMatch match;
    std::shared_lock lock(mutex_);
    for (const auto& side : sides_) {
      std::string wanted(path);
      if (wanted.starts_with(side->hierarchy.mount_point()))
        wanted = wanted.substr(side->hierarchy.mount_point().size());
      while (wanted.size() > 1 && wanted.ends_with('/')) wanted.pop_back();
      if (wanted.empty()) wanted = "/";
      const auto it = side->by_path.find(wanted);
      if (it == side->by_path.end()) continue;
      if (!match.info) match.info = side->by_id.at(it->second).info;
      const std::string below = wanted == "/" ? "/" : wanted + "/";
      for (const auto& [other, id] : side->by_path) {
        if (other == wanted || other.starts_with(below)) (side->v1 ? match.v1_ids : match.v2_ids).emplace_back(id);
      }
    }
    if (!match.info) return NotFoundError(StrFormat("no cgroup %s; paths are those of /proc/PID/cgroup", path));
    return match;
  }

  std::vector<ContainerMatch> List() const override {
    std::map<std::string, ContainerMatch> by_container = Group();
    std::vector<ContainerMatch> list;
    for (auto& [id, match] : by_container) list.push_back(std::move(match));
    std::sort(list.begin(), list.end(), [](const ContainerMatch& a, const ContainerMatch& b) {
      return std::tie(a.info->name, a.info->identity.container_id) <
             std::tie(b.info->name, b.info->identity.container_id);
    });
    return list;
  }

  bool WaitForMetadata(uint64_t timeout_ns) override { return fetcher_.WaitIdle(timeout_ns); }

  Counters counters() const override {
    Counters counters = {.unresolved = unresolved_count_,
                         .over_limit = over_limit_,
                         .walks = walks_,
                         .inotify = inotify_works_,
                         .handles = !sides_.empty() && sides_[0]->hierarchy.has_handles()};
    counters.pending_metadata = fetcher_.pending();
    counters.containers = Group().size();
    std::shared_lock lock(mutex_);
    for (const auto& side : sides_) counters.cgroups += side->by_id.size();
    counters.removed = removed_.size();
    return counters;
  }

  std::vector<ClientState> clients() const override { return fetcher_.clients(); }

 private:
  // ---- learning ----------------------------------------------------------------------------------------------

  InfoPtr LookupIn(Side& side, CgroupId id) {
    {
      std::shared_lock lock(mutex_);
      const auto it = side.by_id.find(id.value);
      if (it != side.by_id.end()) return it->second.info;
      if (side.unresolved.contains(id.value)) return unresolved_;
    }
    if (std::optional<std::string> path = side.hierarchy.PathOf(id)) return Learn(side, *path, id);
    if (!side.hierarchy.has_handles()) {
      bool walk = false;
      {
        std::unique_lock lock(mutex_);
        walk = MonotonicNowNs() - side.last_walk_ns >= options_.refresh_ns;
      }
      if (walk) {
        Walk(side);
        std::shared_lock lock(mutex_);
        const auto it = side.by_id.find(id.value);
        if (it != side.by_id.end()) return it->second.info;
      }
    }
    std::unique_lock lock(mutex_);
    ++unresolved_count_;
    // Cleared each refresh: the id is then looked up once more.
    if (side.unresolved.size() < options_.max_removed) side.unresolved.insert(id.value);
    return unresolved_;
  }

  // Takes in the cgroup `id` at `path`. Called from the watching thread, walks and lookups.
  InfoPtr Learn(Side& side, const std::string& path, CgroupId id) {
    {
      std::shared_lock lock(mutex_);
      const auto it = side.by_id.find(id.value);
      if (it != side.by_id.end()) return it->second.info;
    }
    Side::Entry entry;
    entry.parsed = ParseCgroupPath(path);
    ContainerIdentity identity = entry.parsed;
    // A folder or unit below somebody's own top folder may lie in a container of plain runc.
    if (!entry.parsed.certain || (entry.parsed.is_host() && !BelongsToSystemd(path))) {
      entry.undecided = true;
      identity = Decide(side, path, entry);
    }
    std::unique_lock lock(mutex_);
    const auto again = side.by_id.find(id.value);
    if (again != side.by_id.end()) {
      return again->second.info;  // another thread was faster
    }
    std::shared_ptr<ContainerInfo> info = MakeInfo(side, path, id, identity);
    if (!MakeRoom()) {
      ++over_limit_;
      return info;
    }
    AskFor(*info);
    entry.info = info;
    // A path that now has another id: the old cgroup was removed and its event is still to come.
    if (const auto old = side.by_path.find(path); old != side.by_path.end() && old->second != id.value) {
      MarkRemovedLocked(side, path);
    }
    side.unresolved.erase(id.value);
    side.by_path[path] = id.value;
    const bool undecided = entry.undecided;
    if (undecided) side.undecided.insert(id.value);
    side.by_id[id.value] = std::move(entry);
    lock.unlock();
    if (undecided && !eager_.exchange(true)) Wake();
    return info;
  }

  // What an uncertain path is, as far as can be told now.
  ContainerIdentity Decide(const Side& side, const std::string& path, Side::Entry& entry) {
    ++entry.probes;
    const uint64_t wait_ns = entry.probes < kEagerProbes    ? std::min(kEagerProbeNs, options_.refresh_ns)
                             : entry.probes < kSteadyProbes ? options_.refresh_ns
                                                            : kLateProbeNs;
    entry.next_probe_ns = MonotonicNowNs() + wait_ns;
    {
      // Below a container's cgroup is the same container.
      std::shared_lock lock(mutex_);
      for (std::string parent = ParentPath(path); parent != "/"; parent = ParentPath(parent)) {
        const auto it = side.by_path.find(parent);
        if (it == side.by_path.end()) continue;
        const InfoPtr& info = side.by_id.at(it->second).info;
        if (!info->is_container()) continue;
        entry.undecided = false;
        ContainerIdentity identity = info->identity;
        identity.unit = entry.parsed.unit;
        return identity;
      }
    }
    if (entry.parsed.is_host()) return entry.parsed;
    const ProbeResult result = probe_.Decide(entry.parsed, side.hierarchy.Processes(path, kProbePids));
    if (result.verdict == ProbeVerdict::kContainer) {
      entry.undecided = false;
      ContainerIdentity identity = entry.parsed;
      identity.runtime = result.runtime;
      identity.certain = true;
      return identity;
    }
    ContainerIdentity host;
    host.slice = entry.parsed.slice;
    host.user_id = entry.parsed.user_id;
    return host;
  }

  // Asks the probe again about cgroups that were no containers so far.
  void ProbeUndecided(bool all) {
    const uint64_t now_ns = MonotonicNowNs();
    eager_ = false;
    for (const auto& side : sides_) {
      std::vector<std::pair<std::string, uint64_t>> due;
      {
        std::shared_lock lock(mutex_);
        for (uint64_t id : side->undecided) {
          const Side::Entry& entry = side->by_id.at(id);
          if (entry.probes < kEagerProbes) eager_ = true;
          if (all || entry.next_probe_ns <= now_ns) due.emplace_back(entry.info->cgroup_path, id);
        }
      }
      std::sort(due.begin(), due.end());  // parents first: their verdict holds for what is below
      for (const auto& [path, id] : due) {
        Side::Entry copy;
        {
          std::shared_lock lock(mutex_);
          const auto it = side->by_id.find(id);
          if (it == side->by_id.end()) continue;
          copy = it->second;
        }
        const ContainerIdentity identity = Decide(*side, path, copy);
        std::unique_lock lock(mutex_);
        const auto it = side->by_id.find(id);
        if (it == side->by_id.end() || it->second.info->removed) continue;
        it->second.probes = copy.probes;
        it->second.next_probe_ns = copy.next_probe_ns;
        if (copy.undecided) continue;
        it->second.undecided = false;
        side->undecided.erase(id);
        const std::shared_ptr<ContainerInfo> info = MakeInfo(*side, path, CgroupId(id), identity);
        AskFor(*info);
        it->second.info = info;
      }
    }
  }

  std::shared_ptr<ContainerInfo> MakeInfo(const Side& side, const std::string& path, CgroupId id,
                                          const ContainerIdentity& identity) const {
    auto info = std::make_shared<ContainerInfo>();
    info->resolved = true;
    info->cgroup_id = id;
    info->v1 = side.v1;
    info->cgroup_path = path;
    info->identity = identity;
    Dress(*info);
    return info;
  }

  // Fills in what is known of a container, and has the rest asked for. Under mutex_, exclusively: so an answer comes
  // to OnMetadata after what Want told, and nobody sees a container nothing was asked about yet.
  void AskFor(ContainerInfo& info) {
    if (info.is_container()) SetMetadata(fetcher_.Want(info.identity), &info);
  }

  void SetMetadata(const MetadataFetcher::Request& request, ContainerInfo* info) const {
    info->metadata_state = request.state;
    info->metadata = request.metadata;
    Dress(*info);
  }

  void Dress(ContainerInfo& info) const {
    const ContainerMetadata* metadata = info.metadata_state == MetadataState::kKnown ? &info.metadata : nullptr;
    info.name = ContainerName(info.identity, metadata);
    info.labels = LabelsFor(info.identity, metadata, options_.node, options_.labels);
  }

  void MarkRemoved(Side& side, const std::string& path) {
    // The event may be late, and the name taken again by a new cgroup (a container restarted).
    const std::optional<CgroupId> now = side.hierarchy.IdOf(path);
    std::unique_lock lock(mutex_);
    const auto it = side.by_path.find(path);
    if (it != side.by_path.end() && (!now || now->value != it->second)) MarkRemovedLocked(side, path);
  }

  void MarkRemovedLocked(Side& side, const std::string& path) {
    const auto it = side.by_path.find(path);
    if (it == side.by_path.end()) return;
    Side::Entry& entry = side.by_id.at(it->second);
    auto info = std::make_shared<ContainerInfo>(*entry.info);
    info->removed = true;
    entry.info = std::move(info);
    entry.undecided = false;
    side.undecided.erase(it->second);
    removed_.push_back({MonotonicNowNs(), &side, it->second});
    side.by_path.erase(it);
  }

  bool MakeRoom() {
    size_t total = 0;
    for (const auto& side : sides_) total += side->by_id.size();
    if (total < options_.max_cgroups) return true;
    if (removed_.empty()) return false;
    ForgetOldest();
    return true;
  }

  void ForgetOldest() {
    const Removed& oldest = removed_.front();
    oldest.side->by_id.erase(oldest.id);
    removed_.pop_front();
  }

  // A full look at one hierarchy: what is new, what is gone.
  void Walk(Side& side) {
    ++walks_;
    std::unordered_set<uint64_t> seen;
    side.hierarchy.Walk(options_.max_cgroups, [&](const std::string& path, CgroupId id) {
      seen.insert(id.value);
      Learn(side, path, id);
    });
    std::vector<std::string> missing;
    {
      std::unique_lock lock(mutex_);
      side.last_walk_ns = MonotonicNowNs();
      for (const auto& [path, id] : side.by_path) {
        if (!seen.contains(id)) missing.push_back(path);
      }
    }
    for (const std::string& path : missing) MarkRemoved(side, path);
  }

  // ---- metadata ----------------------------------------------------------------------------------------------

  void OnMetadata(const std::string& container_id, MetadataState state, const ContainerMetadata& metadata) {
    std::unique_lock lock(mutex_);
    for (const auto& side : sides_) {
      for (auto& [id, entry] : side->by_id) {
        if (entry.info->identity.container_id != container_id || !entry.info->is_container()) continue;
        if (entry.info->metadata_state == state && entry.info->metadata == metadata) continue;
        auto info = std::make_shared<ContainerInfo>(*entry.info);
        SetMetadata({state, metadata}, info.get());
        entry.info = std::move(info);
      }
    }
  }

  // ---- searching ---------------------------------------------------------------------------------------------

  std::map<std::string, ContainerMatch> Group() const {
    std::map<std::string, ContainerMatch> groups;
    std::shared_lock lock(mutex_);
    for (const auto& side : sides_) {
      for (const auto& [path, id] : side->by_path) {
        const InfoPtr& info = side->by_id.at(id).info;
        if (!info->is_container()) continue;
        ContainerMatch& match = groups[info->identity.container_id];
        (side->v1 ? match.v1_ids : match.v2_ids).emplace_back(id);
        const bool topmost =
            !match.info || (match.info->v1 == side->v1 && path.size() < match.info->cgroup_path.size());
        if (topmost) match.info = info;
      }
    }
    for (auto& [container_id, match] : groups) {
      std::sort(match.v1_ids.begin(), match.v1_ids.end());
      std::sort(match.v2_ids.begin(), match.v2_ids.end());
    }
    return groups;
  }

  StatusOr<std::vector<ContainerMatch>> Match(std::string_view name) const {
    std::vector<ContainerMatch> all = List();
    std::vector<ContainerMatch> named;
    std::vector<ContainerMatch> by_id;
    for (ContainerMatch& match : all) {
      const ContainerInfo& info = *match.info;
      const ContainerMetadata& metadata = info.metadata;
      const bool by_pod = !metadata.pod_name.empty() &&
                          (name == metadata.pod_name || name == metadata.pod_namespace + "/" + metadata.pod_name ||
                           name == metadata.pod_namespace + "/" + metadata.pod_name + "/" + info.name);
      if (info.name == name || info.identity.container_id == name || by_pod) {
        named.push_back(match);
      } else if (name.size() >= kMinIdPrefix && info.identity.container_id.starts_with(name)) {
        by_id.push_back(match);
      }
    }
    if (!named.empty()) return named;
    if (by_id.size() == 1) return by_id;
    if (by_id.size() > 1) {
      return InvalidArgumentError(StrFormat("%d containers have an id that begins with %s (%s, %s, …); give more of it",
                                            by_id.size(), name, by_id[0].info->identity.container_id,
                                            by_id[1].info->identity.container_id));
    }
    if (all.empty()) return NotFoundError(StrFormat("no container %s: no container runs on this machine", name));
    std::sort(all.begin(), all.end(), [&](const ContainerMatch& a, const ContainerMatch& b) {
      return std::pair(EditDistance(a.info->name, name), a.info->name) <
             std::pair(EditDistance(b.info->name, name), b.info->name);
    });
    std::vector<std::string> names;
    for (const ContainerMatch& match : all) {
      if (std::find(names.begin(), names.end(), match.info->name) == names.end()) names.push_back(match.info->name);
      if (names.size() == kMaxSuggestions) break;
    }
    return NotFoundError(
        StrFormat("no container %s; running: %s%s", name, Join(names, ", "), all.size() > names.size() ? ", …" : ""));
  }

  // ---- the watching thread -----------------------------------------------------------------------------------

  void Wake() {
    const uint64_t one = 1;
    if (::write(wake_fd_.get(), &one, sizeof one) < 0) return;  // the counter is full: it is awake
  }

  void UpdateWatchState() {
    bool works = true;
    for (const auto& side : sides_) works = works && side->watcher && side->watcher->complete();
    inotify_works_ = works;
  }

  void Run() {
    uint64_t next_refresh_ns = MonotonicNowNs() + options_.refresh_ns;
    uint64_t next_reconcile_ns = MonotonicNowNs() + kReconcileNs;
    while (!stopping_) {
      std::vector<pollfd> fds = {{.fd = wake_fd_.get(), .events = POLLIN, .revents = 0}};
      for (const auto& side : sides_) {
        if (side->watcher && side->watcher->fd() >= 0) fds.push_back({side->watcher->fd(), POLLIN, 0});
      }
      const uint64_t now_ns = MonotonicNowNs();
      uint64_t wait_ns = next_refresh_ns > now_ns ? next_refresh_ns - now_ns : 0;
      if (eager_) wait_ns = std::min(wait_ns, kEagerProbeNs);
      ::poll(fds.data(), fds.size(), static_cast<int>((wait_ns + kNsPerMs - 1) / kNsPerMs));
      if (stopping_) return;
      uint64_t wakes = 0;
      if (::read(wake_fd_.get(), &wakes, sizeof wakes) < 0) wakes = 0;  // nobody woke us
      for (const auto& side : sides_) {
        if (side->watcher) side->watcher->Drain();
      }
      if (eager_) ProbeUndecided(false);
      if (MonotonicNowNs() < next_refresh_ns) continue;
      next_refresh_ns = MonotonicNowNs() + options_.refresh_ns;

      const bool reconcile = MonotonicNowNs() >= next_reconcile_ns;
      if (reconcile) next_reconcile_ns = MonotonicNowNs() + kReconcileNs;
      for (const auto& side : sides_) {
        if (side->watcher && !side->watcher->complete() && reconcile) side->watcher->WatchAll(options_.max_cgroups);
        if (reconcile || !side->watcher || !side->watcher->complete()) Walk(*side);
      }
      UpdateWatchState();
      ProbeUndecided(false);
      Expire();
    }
  }

  void Expire() {
    {
      std::unique_lock lock(mutex_);
      for (const auto& side : sides_) side->unresolved.clear();
      const uint64_t now_ns = MonotonicNowNs();
      while (!removed_.empty() && (removed_.size() > options_.max_removed ||
                                   now_ns - removed_.front().when_ns > options_.removed_grace_ns)) {
        ForgetOldest();
      }
    }
    // What no cgroup here has, nobody needs to be asked about.
    std::unordered_set<std::string> known;
    std::shared_lock lock(mutex_);  // until the end: one that came in between would never be asked about again
    for (const auto& side : sides_) {
      for (const auto& [id, entry] : side->by_id) {
        if (entry.info->is_container()) known.insert(entry.info->identity.container_id);
      }
    }
    fetcher_.KeepOnly(known);
  }

  struct Removed {
    uint64_t when_ns;
    Side* side;
    uint64_t id;
  };

  const Options options_;
  const ContainerProbe probe_;
  InfoPtr unresolved_;
  const UniqueFd wake_fd_;
  std::vector<std::unique_ptr<Side>> sides_;  // cgroup2 first; fixed after Init

  mutable std::shared_mutex mutex_;  // guards the maps of the sides, and removed_
  std::deque<Removed> removed_;      // oldest first
  std::atomic<uint64_t> unresolved_count_ = 0;
  std::atomic<uint64_t> over_limit_ = 0;
  std::atomic<uint64_t> walks_ = 0;
  std::atomic<bool> inotify_works_ = false;
  std::atomic<bool> eager_ = false;  // a fresh cgroup waits for its verdict
  std::atomic<bool> stopping_ = false;

  // Declared last, stopped first: both call back into the above.
  MetadataFetcher fetcher_;
  std::thread thread_;
};

}  // namespace

StatusOr<std::unique_ptr<ContainerIndex>> ContainerIndex::Start(const Options& options) {
  auto index = std::make_unique<Index>(options);
  RETURN_IF_ERROR(index->Init());
  return std::unique_ptr<ContainerIndex>(std::move(index));
}

}  // namespace pyrometer::containers

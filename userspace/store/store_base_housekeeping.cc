// What housekeeping of every kind of store asks of it.
#include <algorithm>
#include <utility>

#include "userspace/store/codec.h"
#include "userspace/store/store_base.h"
#include "userspace/store/trie.h"

namespace pyrometer::store {
namespace {

// An hour is left alone while points for it keep coming (an agent that empties its spool).
constexpr int64_t kQuietNs = 60 * static_cast<int64_t>(kNsPerSecond);

}  // namespace

std::vector<StoreBase::DueHour> StoreBase::DueHours(int64_t now_ns, uint64_t busy_bytes) {
  std::vector<DueHour> due;
  const std::lock_guard lock(commit_mutex_);
  for (const auto& [place, fresh] : fresh_) {
    const bool is_busy = busy_bytes != 0 && fresh.bytes >= busy_bytes;
    const bool is_over = HourStart(place.first) + kHourNs + static_cast<int64_t>(kHourGraceNs) <= now_ns;
    const bool is_quiet = now_ns - fresh.arrived_ns >= kQuietNs || now_ns < fresh.arrived_ns;
    if (is_busy || (is_over && is_quiet)) due.emplace_back(place, fresh);
  }
  return due;
}

void StoreBase::NoteHousekept(int64_t now_ns) {
  uint32_t until = HourOf(std::max<int64_t>(0, now_ns - static_cast<int64_t>(kHourGraceNs)));
  const std::lock_guard lock(commit_mutex_);
  if (!fresh_.empty()) until = std::min(until, fresh_.begin()->first.first);
  counters_.housekept_until_hour = until;
  const std::lock_guard state_lock(state_mutex_);
  durable_counters_.housekept_until_hour = until;
}

StatusOr<StoreBase::LateFrames> StoreBase::ReadLateFrames() const {
  LateFrames late;
  RETURN_IF_ERROR(
      database_->Scan(Family::kMeta, "D", "E", [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        late.keys.emplace_back(key);
        Decoder in(value);
        while (in.ok() && !in.done()) late.frames.push_back(in.Varint32());
        if (!in.ok()) return DataLossError("damaged list of frames with new names");
        return true;
      }));
  std::sort(late.frames.begin(), late.frames.end());
  return late;
}

Status StoreBase::ForTriesThatShow(const std::vector<FrameKeyId>& frames,
                                   const std::function<Status(TrieId)>& visit) const {
  TrieId tries = 0;
  {
    const std::lock_guard lock(state_mutex_);
    tries = static_cast<TrieId>(tenant_of_trie_.size());
  }
  for (TrieId trie = 1; trie < tries; ++trie) {
    bool shows = false;
    {
      StackTrie loaded;
      RETURN_IF_ERROR(LoadTrie(trie, &loaded));
      for (NodeId node = 1; node < loaded.size() && !shows; ++node) {
        shows = std::binary_search(frames.begin(), frames.end(), loaded.frame(node));
      }
    }
    if (shows) RETURN_IF_ERROR(visit(trie));
  }
  return OkStatus();
}

}  // namespace pyrometer::store

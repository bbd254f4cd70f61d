#include "userspace/server/debuginfod.h"

#include <httplib.h>

#include <algorithm>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

constexpr int kConnectSeconds = 10;
constexpr int kReadSeconds = 60;  // between two pieces; some servers unpack the package first

struct Place {
  std::string server;  // scheme, host, port
  std::string prefix;  // path without its last '/'
};

Place Parse(const std::string& url) {
  const size_t host = url.find("://") + 3;
  const size_t path = url.find('/', host);
  if (path == std::string::npos) return {url, ""};
  std::string prefix = url.substr(path);
  while (prefix.ends_with('/')) prefix.pop_back();
  return {url.substr(0, path), prefix};
}

}  // namespace

Status CheckDebuginfodUrl(const std::string& url) {
  const bool scheme = url.starts_with("http://") || url.starts_with("https://");
  const size_t host = scheme ? url.find("://") + 3 : 0;
  const bool plain = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 127; });
  if (!scheme || !plain || host == url.size() || url[host] == '/' || url.find_first_of("?#") != std::string::npos) {
    return InvalidArgumentError(
        StrFormat("'%s' is no address of a debuginfod server; it looks like https://debuginfod.debian.net", url));
  }
  return OkStatus();
}

Debuginfod::Debuginfod(Options options) : options_(std::move(options)), thread_([this] { Loop(); }) {}

Debuginfod::~Debuginfod() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Debuginfod::Want(const std::string& build_id) {
  const std::lock_guard lock(mutex_);
  if (queue_.size() >= options_.max_waiting || queued_.contains(build_id)) return;
  if (const auto before = not_before_.find(build_id); before != not_before_.end()) {
    if (MonotonicNowNs() < before->second) return;
    not_before_.erase(before);
  }
  queue_.push_back(build_id);
  queued_.insert(build_id);
  changed_.notify_all();
}

Debuginfod::Counters Debuginfod::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

void Debuginfod::Loop() {
  while (true) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const std::string build_id = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    const Outcome outcome = Fetch(build_id);
    lock.lock();
    queued_.erase(build_id);
    if (outcome == Outcome::kFetched) {
      ++counters_.fetched;
      continue;
    }
    ++(outcome == Outcome::kAbsent ? counters_.absent : counters_.failed);
    if (not_before_.size() >= options_.max_waiting) not_before_.erase(not_before_.begin());
    not_before_[build_id] = MonotonicNowNs() + options_.retry_ns;
  }
}

Debuginfod::Outcome Debuginfod::Fetch(const std::string& build_id) {
  Outcome outcome = Outcome::kAbsent;
  for (const std::string& url : options_.urls) {
    const Outcome here = FetchFrom(url, build_id);
    if (here == Outcome::kFetched || stop_) return here;
    if (here == Outcome::kFailed) outcome = here;
  }
  return outcome;
}

Debuginfod::Outcome Debuginfod::FetchFrom(const std::string& url, const std::string& build_id) {
  const auto problem = [&](std::string_view what) {
    if (options_.log) options_.log(StrFormat("debuginfod %s, build ID %s: %s", url, build_id, what));
    return Outcome::kFailed;
  };
  auto upload = options_.into->Begin(build_id);
  if (!upload.ok()) return problem(Message(upload.status()));
  const Place place = Parse(url);
  httplib::Client client(place.server);
  client.set_follow_location(true);
  client.set_connection_timeout(kConnectSeconds);
  client.set_read_timeout(kReadSeconds);
  Status written;
  int code = 0;
  const auto result = client.Get(
      StrFormat("%s/buildid/%s/debuginfo", place.prefix, build_id).c_str(),
      [&](const httplib::Response& response) {
        code = response.status;
        return code == 200 || (code >= 300 && code < 400);
      },
      [&](const char* data, size_t size) {
        if (code == 200) written = (*upload)->Write({data, size});
        return written.ok() && !stop_;
      });
  if (code == 404) return Outcome::kAbsent;
  if (!written.ok()) return problem(Message(written));
  if (!result || code != 200) {
    return problem(code != 0 && code != 200 ? StrFormat("it answered %d", code) : httplib::to_string(result.error()));
  }
  const StatusOr<LateSymbols::File> file = (*upload)->Finish(build_id);
  if (!file.ok()) return problem(Message(file.status()));
  if (options_.log)
    options_.log(StrFormat("debuginfod %s: %s for build ID %s", url, FormatBytes(file->bytes), build_id));
  return Outcome::kFetched;
}

}  // namespace pyrometer::server

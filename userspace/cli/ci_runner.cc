#include "userspace/cli/ci_runner.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/cli/scratch_file.h"
#include "userspace/kernel/cpu_sampler.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kMaxOutputBytes = 16u << 20;
constexpr size_t kLinesShown = 20;

// User and system time of all children that ended and were waited for, theirs included.
uint64_t ChildrenCpuNs() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  const auto ns = [](const timeval& t) {
    return static_cast<uint64_t>(t.tv_sec) * kNsPerSecond + static_cast<uint64_t>(t.tv_usec) * 1000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

std::string LastLines(const std::string& path) {
  const auto text = ReadFile(path, kMaxOutputBytes);
  if (!text.ok()) return std::string(Message(text.status()));
  std::vector<std::string_view> lines = Split(StripWhitespace(*text), '\n');
  const size_t from = lines.size() - std::min(lines.size(), kLinesShown);
  std::string out;
  for (size_t i = from; i < lines.size(); ++i) out += "\n  " + ToUtf8(lines[i]);
  return out;
}

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status))
    return StrFormat("was ended by signal %d (%s)", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  return StrFormat("ended with exit code %d", WEXITSTATUS(status));
}

}  // namespace

std::string ShellQuoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("_@%+=:,./-").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

const std::atomic<bool>* CatchStopSignals() {
  static std::atomic<bool> stop_requested{false};
  struct sigaction action {};
  action.sa_handler = [](int) { stop_requested = true; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  return &stop_requested;
}

CiRunner::CiRunner(Options options) : options_(std::move(options)), recorder_(options_.cache_folder) {}

Status CiRunner::Run(const std::string& command, regression::Side side, uint32_t block, regression::RunSet* runs,
                     const After& after) {
  ASSIGN_OR_RETURN(const ScratchFile output, ScratchFile::Make());
  agent::RecordOptions options;
  // $0 and $1 keep the line and the file out of the shell's syntax.
  options.command = {"/bin/sh", "-c", "exec >\"$0\" 2>&1 </dev/null; eval \"$1\"", output.path(), command};
  options.frequency_hz = options_.frequency_hz;
  if (options.frequency_hz == 0) {
    options.frequency_hz = std::min(kCiFrequencyHz, kernel::MaxSampleRate());
    options.frequency_without_bpf_hz = std::min(kCiFrequencyWithoutBpfHz, kernel::MaxSampleRate());
  }
  options.stop = options_.stop;
  options.instructions = true;

  regression::RunFacts facts;
  facts.started_ns = UnixNowNs();
  const uint64_t started_ns = MonotonicNowNs(), cpu_before_ns = ChildrenCpuNs();
  ASSIGN_OR_RETURN(agent::Recording recording, recorder_.Record(options));
  facts.wall_ns = MonotonicNowNs() - started_ns;
  facts.cpu_ns = ChildrenCpuNs() - cpu_before_ns;
  facts.instructions = recording.instructions.value_or(0);
  // That a machine has no counter is told by the report; what else kept it from counting is worth a note.
  if (const Status& why = recording.instructions.status(); !why.ok() && why.code() != StatusCode::kFailedPrecondition) {
    recording.notes.push_back(StrFormat("instructions are not known: %s", Message(why)));
  }
  facts.lost_samples = recording.profile.accounting.DroppedTotal();
  for (const std::string& note : recording.notes) {
    if (std::find(notes_.begin(), notes_.end(), note) == notes_.end()) notes_.push_back(note);
  }
  if (options_.stop != nullptr && options_.stop->load()) return CancelledError("interrupted; nothing was decided");
  if (!recording.command_status) return InternalError("the command's end was not seen");
  if (*recording.command_status != 0) {
    return FailedPreconditionError(StrFormat("`%s` %s; a check needs commands that succeed. Its output ends with:%s",
                                             command, HowItEnded(*recording.command_status), LastLines(output.path())));
  }
  if (runs == nullptr) return OkStatus();
  const profile::Dictionary& dictionary = recording.profile.dictionary;
  for (profile::MappingId id = 1; id < dictionary.mapping_count(); ++id) {
    files_[static_cast<size_t>(side)].emplace(dictionary.string(dictionary.mapping(id).file));
  }
  regression::RunOrigin& origin = runs->origin(side);
  origin.command = command;
  origin.how = recording.how;
  origin.frequency_hz = recording.frequency_hz;
  origin.machine = regression::ThisMachine();
  if (after) RETURN_IF_ERROR(after(&recording.profile, &facts, origin));
  runs->Add(side, block, std::move(facts), recording.profile, /*value_index=*/0);
  return OkStatus();
}

}  // namespace pyrometer::cli

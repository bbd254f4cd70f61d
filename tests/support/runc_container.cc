#include "tests/support/runc_container.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "tests/support/run_program.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::test_support {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

Status CopyFile(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::create_directories(fs::path(to).parent_path(), error);
  if (!error) fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (error) return ErrnoError(error.value(), StrFormat("cannot copy %s to %s", from, to));
  return OkStatus();
}

json Namespaces(const RuncOptions& options) {
  json namespaces = json::array({{{"type", "pid"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "mount"}}});
  if (!options.network_namespace.empty()) {
    namespaces.push_back({{"type", "network"}, {"path", options.network_namespace}});
  } else if (!options.host_network) {
    namespaces.push_back({{"type", "network"}});
  }
  return namespaces;
}

json Spec(const RuncOptions& options) {
  json mounts = json::array({
      {{"destination", "/proc"}, {"type", "proc"}, {"source", "proc"}},
      {{"destination", "/dev"}, {"type", "tmpfs"}, {"source", "tmpfs"}, {"options", {"nosuid", "mode=755"}}},
      {{"destination", "/tmp"}, {"type", "tmpfs"}, {"source", "tmpfs"}, {"options", {"nosuid", "mode=1777"}}},
  });
  for (const auto& [host, inside] : options.bind_mounts) {
    mounts.push_back({{"destination", inside}, {"type", "bind"}, {"source", host}, {"options", {"rbind", "rw"}}});
  }
  json environment = json::array({"PATH=/bin", "LD_LIBRARY_PATH=/lib:/usr/lib:/usr/lib/x86_64-linux-gnu"});
  for (const std::string& entry : options.environment) environment.push_back(entry);
  std::vector<std::string> arguments = options.arguments;
  if (arguments.empty()) arguments = {"/bin/sleep", "600"};
  json linux_part = {{"namespaces", Namespaces(options)}};
  if (!options.cgroup_path.empty()) linux_part["cgroupsPath"] = options.cgroup_path;
  return {{"ociVersion", "1.0.2"},
          {"process",
           {{"terminal", false},
            {"user", {{"uid", 0}, {"gid", 0}}},
            {"args", arguments},
            {"env", environment},
            {"cwd", "/"},
            {"noNewPrivileges", true}}},
          {"root", {{"path", "rootfs"}, {"readonly", false}}},
          {"hostname", "pyrometer-test"},
          {"mounts", mounts},
          {"linux", linux_part}};
}

// The "0::" line of /proc/PID/cgroup.
std::string Cgroup2PathOf(pid_t pid) {
  StatusOr<std::string> text = ReadFile(StrFormat("/proc/%d/cgroup", pid));
  if (!text.ok()) return "";
  for (std::string_view line : Split(*text, '\n')) {
    if (line.starts_with("0::")) return std::string(line.substr(3));
  }
  return "";
}

}  // namespace

std::string Cgroup2MountPoint() {
  StatusOr<std::string> text = ReadFile("/proc/self/mountinfo");
  if (!text.ok()) return "";
  for (std::string_view line : Split(*text, '\n')) {
    const size_t separator = line.find(" - cgroup2 ");
    if (separator == std::string_view::npos) continue;
    const std::vector<std::string_view> fields = Split(line.substr(0, separator), ' ');
    if (fields.size() > 4) return std::string(fields[4]);
  }
  return "";
}

Status MakeRootfs(const std::string& rootfs, const std::vector<std::string>& binaries) {
  for (const char* folder : {"/bin", "/lib", "/lib64", "/proc", "/dev", "/tmp", "/etc", "/usr/lib"}) {
    RETURN_IF_ERROR(CreateDirectories(rootfs + folder));
  }
  RETURN_IF_ERROR(CopyFile("/bin/busybox", rootfs + "/bin/busybox"));
  for (const char* applet : {"sh", "sleep", "cat", "true", "echo", "dd", "nc", "ls", "mkdir", "rm", "kill", "yes"}) {
    if (::symlink("busybox", StrFormat("%s/bin/%s", rootfs, applet).c_str()) != 0 && errno != EEXIST) {
      return ErrnoError(errno, StrFormat("cannot link %s", applet));
    }
  }
  for (const std::string& binary : binaries) {
    RETURN_IF_ERROR(CopyFile(binary, rootfs + "/bin/" + fs::path(binary).filename().string()));
    // ldd fails for static programs, which need nothing.
    const ProgramResult ldd = RunProgram({"ldd", binary});
    if (ldd.exit_code != 0) continue;
    for (std::string_view line : Split(ldd.output, '\n')) {
      const size_t slash = line.find('/');
      if (slash == std::string_view::npos) continue;
      const std::string library(line.substr(slash, line.find(' ', slash) - slash));
      RETURN_IF_ERROR(CopyFile(fs::canonical(library).string(), rootfs + library));
    }
  }
  return OkStatus();
}

std::optional<std::string> RuncContainer::WhyNot() {
  if (::geteuid() != 0) return "needs root to run containers";
  if (!HaveProgram("runc")) return "runc is not installed";
  if (::access("/bin/busybox", X_OK) != 0) return "/bin/busybox (package busybox-static) is not installed";
  if (Cgroup2MountPoint().empty()) return "no cgroup2 hierarchy is mounted";
  return std::nullopt;
}

std::vector<std::string> RuncContainer::Runc(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), {"runc", "--root", runtime_root_});
  return arguments;
}

StatusOr<RuncContainer> RuncContainer::Start(const RuncOptions& options) {
  if (options.name.empty()) return InvalidArgumentError("a container needs a name");
  char scratch[] = "/tmp/pyrometer-runc-XXXXXX";
  if (::mkdtemp(scratch) == nullptr) return ErrnoError(errno, "cannot make a scratch folder");

  RuncContainer container;
  container.name_ = options.name;
  container.scratch_ = scratch;
  container.runtime_root_ = options.runtime_root.empty() ? container.scratch_ + "/state" : options.runtime_root;
  // From here on, leaving early runs the destructor, which removes whatever exists.
  RETURN_IF_ERROR(MakeRootfs(container.rootfs(), options.binaries));
  for (const auto& [host, inside] : options.files) RETURN_IF_ERROR(CopyFile(host, container.rootfs() + inside));
  RETURN_IF_ERROR(WriteFileAtomically(container.scratch_ + "/config.json", Spec(options).dump(1)));

  const std::string pid_file = container.scratch_ + "/pid";
  const std::string output_file = container.scratch_ + "/output";
  const ProgramResult run = RunProgram(
      container.Runc({"run", "--detach", "--bundle", container.scratch_, "--pid-file", pid_file, options.name}),
      {.output_file = output_file});
  if (run.exit_code != 0) {
    return InternalError(
        StrFormat("runc run %s failed (%d): %s %s", options.name, run.exit_code, run.output, container.Output()));
  }
  ASSIGN_OR_RETURN(const std::string pid_text, ReadFile(pid_file));
  const std::optional<uint64_t> pid = ParseUint64(StripWhitespace(pid_text));
  if (!pid) return InternalError(StrFormat("runc wrote a strange pid file: %s", pid_text));
  container.pid_ = static_cast<pid_t>(*pid);

  container.cgroup_path_ = Cgroup2PathOf(container.pid_);
  container.cgroup_folder_ = Cgroup2MountPoint() + container.cgroup_path_;
  struct stat info;
  if (container.cgroup_path_.empty() || ::stat(container.cgroup_folder_.c_str(), &info) != 0) {
    return InternalError(StrFormat("container %s ended at once: %s", options.name, container.Output()));
  }
  container.cgroup_id_ = CgroupId(info.st_ino);
  return container;
}

RuncContainer::RuncContainer(RuncContainer&& other) noexcept { *this = std::move(other); }

RuncContainer& RuncContainer::operator=(RuncContainer&& other) noexcept {
  if (this != &other) {
    if (Status status = Stop(); !status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    name_ = std::move(other.name_);
    scratch_ = std::exchange(other.scratch_, "");
    runtime_root_ = std::move(other.runtime_root_);
    pid_ = other.pid_;
    cgroup_path_ = std::move(other.cgroup_path_);
    cgroup_folder_ = std::move(other.cgroup_folder_);
    cgroup_id_ = other.cgroup_id_;
  }
  return *this;
}

RuncContainer::~RuncContainer() {
  if (Status status = Stop(); !status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
}

std::string RuncContainer::Output() const { return ReadFile(scratch_ + "/output").value_or(""); }

Status RuncContainer::WaitUntilExited(uint64_t timeout_ns) {
  const uint64_t deadline = MonotonicNowNs() + timeout_ns;
  while (::kill(pid_, 0) == 0) {
    // An ended init whose parent has not reaped it yet still takes signals.
    const std::string stat = ReadFile(StrFormat("/proc/%d/stat", pid_)).value_or("");
    const size_t paren = stat.rfind(')');
    if (paren != std::string::npos && paren + 2 < stat.size() && stat[paren + 2] == 'Z') return OkStatus();
    if (MonotonicNowNs() > deadline) return DeadlineExceededError(StrFormat("container %s still runs", name_));
    ::usleep(5000);
  }
  return OkStatus();
}

Status RuncContainer::Stop() {
  if (scratch_.empty()) return OkStatus();
  Status status;
  const ProgramResult removed = RunProgram(Runc({"delete", "--force", name_}));
  if (removed.exit_code != 0 && removed.output.find("does not exist") == std::string::npos) {
    status = InternalError(StrFormat("runc delete %s failed: %s", name_, removed.output));
  }
  std::error_code error;
  fs::remove_all(scratch_, error);
  if (error && status.ok()) status = ErrnoError(error.value(), StrFormat("cannot remove %s", scratch_));
  scratch_.clear();
  return status;
}

}  // namespace pyrometer::test_support

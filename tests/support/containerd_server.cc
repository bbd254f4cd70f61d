#include "tests/support/containerd_server.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "tests/support/run_program.h"
#include "tests/support/runc_container.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::test_support {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kStartTimeoutNs = 20 * kNsPerSecond;

// Only what differs from containerd's defaults.
std::string Config(const std::string& scratch) {
  return StrFormat(
      "version = 2\n"
      "root = '%s/root'\n"
      "state = '%s/state'\n"
      "[grpc]\n"
      "  address = '%s/c.sock'\n"
      "[plugins.'io.containerd.grpc.v1.cri']\n"
      "  sandbox_image = 'localhost/pause:1'\n"
      "  restrict_oom_score_adj = true\n"  // lowering it needs CAP_SYS_RESOURCE
      "  disable_apparmor = true\n"
      "  tolerate_missing_hugetlb_controller = true\n"
      "  disable_hugetlb_controller = true\n"
      "[plugins.'io.containerd.internal.v1.opt']\n"
      "  path = '%s/opt'\n",
      scratch, scratch, scratch, scratch);
}

Status Failed(const std::string& what, const ProgramResult& result) {
  return InternalError(StrFormat("%s failed (%d): %s", what, result.exit_code, result.output));
}

// Moves `file` into the blob store under its digest.
StatusOr<json> PutBlob(const std::string& folder, const std::string& file, const std::string& media_type) {
  const ProgramResult sum = RunProgram({"sha256sum", file});
  if (sum.exit_code != 0 || sum.output.size() < 64) return Failed("sha256sum", sum);
  const std::string digest = sum.output.substr(0, 64);
  const auto size = fs::file_size(file);
  fs::rename(file, StrFormat("%s/blobs/sha256/%s", folder, digest));
  return json{{"mediaType", media_type}, {"digest", "sha256:" + digest}, {"size", size}};
}

}  // namespace

Status WriteOciArchive(const std::string& rootfs, const std::string& reference, const std::vector<std::string>& command,
                       const std::string& path) {
  char scratch[] = "/tmp/pyrometer-oci-XXXXXX";
  if (::mkdtemp(scratch) == nullptr) return ErrnoError(errno, "cannot make a scratch folder");
  const std::string folder = scratch;
  const auto build = [&]() -> Status {
    RETURN_IF_ERROR(CreateDirectories(folder + "/blobs/sha256"));
    const ProgramResult layer = RunProgram({"tar", "--numeric-owner", "-C", rootfs, "-cf", folder + "/layer", "."});
    if (layer.exit_code != 0) return Failed("tar", layer);
    ASSIGN_OR_RETURN(const json layer_blob,
                     PutBlob(folder, folder + "/layer", "application/vnd.oci.image.layer.v1.tar"));
    const json config = {{"architecture", "amd64"},
                         {"os", "linux"},
                         {"config", {{"Env", {"PATH=/bin"}}, {"Cmd", command}}},
                         {"rootfs", {{"type", "layers"}, {"diff_ids", {layer_blob["digest"]}}}}};
    RETURN_IF_ERROR(WriteFileAtomically(folder + "/config", config.dump()));
    ASSIGN_OR_RETURN(const json config_blob,
                     PutBlob(folder, folder + "/config", "application/vnd.oci.image.config.v1+json"));
    const std::string manifest_type = "application/vnd.oci.image.manifest.v1+json";
    const json manifest = {{"schemaVersion", 2},
                           {"mediaType", manifest_type},
                           {"config", config_blob},
                           {"layers", json::array({layer_blob})}};
    RETURN_IF_ERROR(WriteFileAtomically(folder + "/manifest", manifest.dump()));
    ASSIGN_OR_RETURN(json manifest_blob, PutBlob(folder, folder + "/manifest", manifest_type));
    manifest_blob["annotations"] = {{"io.containerd.image.name", reference},
                                    {"org.opencontainers.image.ref.name", reference.substr(reference.rfind(':') + 1)}};
    manifest_blob["platform"] = {{"architecture", "amd64"}, {"os", "linux"}};
    RETURN_IF_ERROR(WriteFileAtomically(
        folder + "/index.json", json{{"schemaVersion", 2}, {"manifests", json::array({manifest_blob})}}.dump()));
    RETURN_IF_ERROR(WriteFileAtomically(folder + "/oci-layout", R"({"imageLayoutVersion":"1.0.0"})"));
    const ProgramResult archive = RunProgram({"tar", "-C", folder, "-cf", path, "oci-layout", "index.json", "blobs"});
    return archive.exit_code == 0 ? OkStatus() : Failed("tar", archive);
  };
  const Status status = build();
  std::error_code error;
  fs::remove_all(folder, error);
  return status;
}

std::optional<std::string> ContainerdServer::WhyNot() {
  if (auto why = RuncContainer::WhyNot()) return why;
  for (const char* program : {"containerd", "ctr", "tar", "sha256sum"}) {
    if (!HaveProgram(program)) return StrFormat("%s is not installed", program);
  }
  return std::nullopt;
}

StatusOr<std::unique_ptr<ContainerdServer>> ContainerdServer::Start() {
  char scratch[] = "/tmp/pyrometer-ctd-XXXXXX";
  if (::mkdtemp(scratch) == nullptr) return ErrnoError(errno, "cannot make a scratch folder");
  std::unique_ptr<ContainerdServer> server(new ContainerdServer());
  server->scratch_ = scratch;
  RETURN_IF_ERROR(WriteFileAtomically(server->scratch_ + "/config.toml", Config(server->scratch_)));

  const std::string config = server->scratch_ + "/config.toml";
  const std::string log = server->scratch_ + "/log";
  UniqueFd log_fd(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  server->pid_ = ::fork();
  if (server->pid_ == 0) {
    ::setsid();  // a Ctrl-C at the test must not reach it before we clean up
    ::dup2(log_fd.get(), 1);
    ::dup2(log_fd.get(), 2);
    ::execlp("containerd", "containerd", "-c", config.c_str(), nullptr);
    ::_exit(127);
  }
  if (server->pid_ < 0) return ErrnoError(errno, "cannot fork");

  const uint64_t deadline = MonotonicNowNs() + kStartTimeoutNs;
  while (RunProgram({"ctr", "-a", server->socket_path(), "version"}, {.timeout_ns = 3 * kNsPerSecond}).exit_code != 0) {
    if (::waitpid(server->pid_, nullptr, WNOHANG) == server->pid_) {
      server->pid_ = 0;
      return InternalError(StrFormat("containerd ended at once: %s", server->Log()));
    }
    if (MonotonicNowNs() > deadline) return DeadlineExceededError("containerd does not answer: " + server->Log());
    ::usleep(50'000);
  }
  RETURN_IF_ERROR(server->ImportImage("localhost/pause:1", {"/bin/sleep", "100000"}));
  return server;
}

StatusOr<std::string> ContainerdServer::Ctr(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"ctr", "-a", socket_path(), "-n", "k8s.io"});
  const ProgramResult result = RunProgram(arguments, {.timeout_ns = 60 * kNsPerSecond});
  if (result.exit_code != 0) return Failed(Join(arguments, " "), result);
  return result.output;
}

Status ContainerdServer::ImportImage(const std::string& reference, const std::vector<std::string>& command) {
  const std::string rootfs = scratch_ + "/image-rootfs";
  RETURN_IF_ERROR(MakeRootfs(rootfs, {}));
  const std::string archive = scratch_ + "/image.tar";
  RETURN_IF_ERROR(WriteOciArchive(rootfs, reference, command, archive));
  const StatusOr<std::string> imported = Ctr({"images", "import", archive});
  ::unlink(archive.c_str());
  return imported.status();
}

std::string ContainerdServer::Log() const {
  const std::string log = ReadFile(scratch_ + "/log").value_or("");
  return log.size() > 4000 ? log.substr(log.size() - 4000) : log;
}

ContainerdServer::~ContainerdServer() {
  if (pid_ > 0) {
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  // Overlay and shm mounts of sandboxes, deepest last in the list.
  const std::string mounts = ReadFile("/proc/self/mountinfo").value_or("");
  const std::vector<std::string_view> lines = Split(mounts, '\n');
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    const std::vector<std::string_view> fields = Split(*line, ' ');
    if (fields.size() < 5 || !fields[4].starts_with(scratch_ + "/")) continue;
    ::umount2(std::string(fields[4]).c_str(), MNT_DETACH);
  }
  std::error_code error;
  fs::remove_all(scratch_, error);
  if (error) std::fprintf(stderr, "cannot remove %s: %s\n", scratch_.c_str(), error.message().c_str());
}

}  // namespace pyrometer::test_support

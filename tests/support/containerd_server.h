// A private containerd for tests: own folders, own socket, CRI switched on, images made on the spot, no registry.
//
//   if (auto why = ContainerdServer::WhyNot()) GTEST_SKIP() << *why;
//   auto containerd = ContainerdServer::Start();
//   containerd->ImportImage("localhost/peer:1", {"/bin/sleep", "600"});
//   grpc::CreateChannel("unix:" + containerd->socket_path(), …);
//
// "localhost/pause:1" is imported at start, for pod sandboxes. The destructor ends the daemon and unmounts and
// removes everything below its folder; pods and containers must be removed before. Needs root, containerd, runc,
// busybox-static, tar. Cost: about 1 s to start.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::test_support {

class ContainerdServer {
 public:
  static std::optional<std::string> WhyNot();
  static StatusOr<std::unique_ptr<ContainerdServer>> Start();
  ~ContainerdServer();

  std::string socket_path() const { return scratch_ + "/c.sock"; }
  const std::string& scratch() const { return scratch_; }
  // A one-layer image of busybox (runc_container.h's root file system) that runs `command`.
  Status ImportImage(const std::string& reference, const std::vector<std::string>& command);
  // ctr with our socket; the output, or the error with the output.
  StatusOr<std::string> Ctr(std::vector<std::string> arguments);
  std::string Log() const;

 private:
  ContainerdServer() = default;

  std::string scratch_;
  pid_t pid_ = 0;
};

// Writes an OCI image archive of `rootfs` to `path`, with tar and sha256sum only.
Status WriteOciArchive(const std::string& rootfs, const std::string& reference, const std::vector<std::string>& command,
                       const std::string& path);

}  // namespace pyrometer::test_support

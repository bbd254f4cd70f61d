// Finds the separate debug file of a stripped binary.
//
//   StatusOr<elf::ElfFile> debug = FindDebugFile(query, {"/usr/lib/debug"});
//
// Looked for in the binary's own root first (a container may carry its debug packages), then in
// ours, each time: <debug>/.build-id/ab/cdef….debug; then, by `.gnu_debuglink`, beside the binary,
// in .debug/ beside it, and under <debug>/<folder of the binary>.
// A file found by build ID must carry that build ID; one found by link must carry the binary's build
// ID or, where one of the two has none, the link's checksum.
//
// Threads: any. Cost: 4 failing opens (~10 µs) when there is nothing; a checksum reads the whole
// debug file (~1 ms per MiB). Does not ask the network.
// Trust: a container can hold a debug file with wrong names under a true build ID; the answer is
// then wrong for that build ID on this node, until evicted. Give an empty `root` where that matters.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::symbolize {

struct DebugFileQuery {
  BuildId build_id;                    // empty or fallback: not searched by it
  std::string path;                    // of the binary, in its root
  std::string root;                    // of the process; empty = ours only
  std::optional<elf::DebugLink> link;  // from the binary
};

// Larger debug files are not checksummed, so not found by link alone [libwebkit's: 2.4 GiB].
inline constexpr uint64_t kMaxChecksumBytes = 4ull << 30;

// NOT_FOUND lists nothing: the usual case is that no debug package is installed.
StatusOr<elf::ElfFile> FindDebugFile(const DebugFileQuery& query, const std::vector<std::string>& debug_folders);

}  // namespace pyrometer::symbolize

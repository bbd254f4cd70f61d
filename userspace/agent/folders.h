// Where this program keeps what it keeps. Threads: any.
#pragma once

#include <string>

namespace pyrometer::agent {

// "/var/lib/pyrometer" for root, else "$XDG_STATE_HOME/pyrometer" or "~/.local/state/pyrometer".
std::string DefaultStateFolder();
// "/var/cache/pyrometer" for root, else "$XDG_CACHE_HOME/pyrometer" or "~/.cache/pyrometer". What is in there can be
// made again.
std::string DefaultCacheFolder();

}  // namespace pyrometer::agent

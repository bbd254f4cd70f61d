#include "userspace/base/thread.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

namespace pyrometer {

void NameThisThread(const char* name, int nicer_by) {
  (void)::pthread_setname_np(::pthread_self(), name);
  if (nicer_by <= 0) return;
  // The group leader's: this thread may have been started by one that is nicer already.
  const int process_nice = ::getpriority(PRIO_PROCESS, static_cast<id_t>(::getpid()));
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), std::min(process_nice + nicer_by, 19));
}

}  // namespace pyrometer

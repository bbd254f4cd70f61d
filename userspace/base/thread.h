// Our own threads, by name and out of the way of what is measured.
//
//   std::thread([&] { NameThisThread("pyro-unwind", 5); BuildLoop(); });
//
// The name is what ps -L and top show (at most 15 bytes, pthread_setname_np(3)). `nicer_by` is added to the nice value
// that the process was started with: on Linux each thread has one of its own. Not being allowed to is no error.
#pragma once

namespace pyrometer {

void NameThisThread(const char* name, int nicer_by = 0);

}  // namespace pyrometer

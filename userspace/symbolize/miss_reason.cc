#include "userspace/symbolize/miss_reason.h"

namespace pyrometer::symbolize {

std::string_view MissReasonName(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "";
    case MissReason::kNoMapping:
      return "no mapping";
    case MissReason::kFileGone:
      return "file gone";
    case MissReason::kNoPermission:
      return "no permission";
    case MissReason::kNotElf:
      return "not an ELF file";
    case MissReason::kUnsupportedElf:
      return "unsupported ELF file";
    case MissReason::kBuildIdMismatch:
      return "file replaced";
    case MissReason::kNoSymbols:
      return "no symbols";
    case MissReason::kOutsideSymbols:
      return "outside symbols";
    case MissReason::kKernelHidden:
      return "kernel symbols hidden";
    case MissReason::kKernelUnknown:
      return "unknown kernel address";
    case MissReason::kPerfMapAbsent:
      return "no perf map";
    case MissReason::kPerfMapRefused:
      return "perf map refused";
    case MissReason::kJitUnknown:
      return "not in perf map";
    case MissReason::kLimitReached:
      return "limit reached";
    case MissReason::kReadFailed:
      return "read failed";
  }
  return "";
}

std::string_view MissRemedy(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "";
    case MissReason::kNoMapping:
      return "the mapping was made and removed between two looks at the process; start the agent before the process";
    case MissReason::kFileGone:
      return "the process ended before its file was opened; run the agent continuously, it holds the files it has seen";
    case MissReason::kNoPermission:
      return "run as root, or grant CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
    case MissReason::kNotElf:
      return "the mapped file is not a program; if it is code made at run time, let the runtime write a perf map";
    case MissReason::kUnsupportedElf:
      return "only little-endian ELF files are read";
    case MissReason::kBuildIdMismatch:
      return "the file was replaced (an upgrade?); restart the process so that it runs the file on disk";
    case MissReason::kNoSymbols:
      return "install the debug package of this binary (NAME-dbgsym, NAME-debuginfo), or build it without -s";
    case MissReason::kOutsideSymbols:
      return "install the debug package of this binary: its own symbol table covers only exported functions";
    case MissReason::kKernelHidden:
      return "run as root with CAP_SYSLOG, or: sysctl kernel.kptr_restrict=0";
    case MissReason::kKernelUnknown:
      return "a kernel module or BPF program was unloaded before its symbols were read";
    case MissReason::kPerfMapAbsent:
      return "let the runtime write a perf map: java -XX:+PreserveFramePointer with a perf-map agent, "
             "node --perf-basic-prof, PYTHONPERFSUPPORT=1";
    case MissReason::kPerfMapRefused:
      return "/tmp/perf-PID.map must be a regular file owned by the process's user or root";
    case MissReason::kJitUnknown:
      return "the runtime has not written this function to its perf map (yet)";
    case MissReason::kLimitReached:
      return "raise the symbol cache's size";
    case MissReason::kReadFailed:
      return "the file could not be read, or changed meanwhile; see the agent's log";
  }
  return "";
}

}  // namespace pyrometer::symbolize

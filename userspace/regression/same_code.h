// Is the code of two binaries the same but for where it lies? Then what differs between their runs is no function's own
// doing: an effect of layout (alignment, cache sets, branch predictors), or of what they were given to do.
//
//   ASSIGN_OR_RETURN(const CodeComparison compared, CompareCode(before, after));
//   if (compared.same) …
//
// Same means: the same functions by name, each of the same bytes, where a byte may differ only within a 32-bit
// displacement that leads to the same place in both: the same function, the same offset in the same object, the same
// import, or equal text. And the same objects by name, each holding the same; and of data without a name the same
// amount of each byte and each address, in whatever order. It is conservative: what it does not understand (a table of
// relative jumps in another order) differs. Bytes that are equal are not looked behind: a call that reaches another
// function at the very distance of the former one goes unnoticed.
//
// x86-64, with a symbol table. Threads: pure. Cost: reads code and data once; about a second per 50 MiB.
#pragma once

#include <map>
#include <string>

#include "userspace/base/status.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::regression {

struct CodeComparison {
  bool same = false;
  std::string difference;  // the first; "" when the same: "scan differs", "parse is in one of them only", "data differ"
  // By name, as in the symbol table: is the code the same in both? Of several of one name all must be; one that only
  // one side has is not.
  std::map<std::string, bool> functions;
  bool objects_same = false;  // each object by name that both have holds the same
};

// FAILED_PRECONDITION for other machines than x86-64 and for files without a symbol table.
StatusOr<CodeComparison> CompareCode(const elf::ElfFile& before, const elf::ElfFile& after);

}  // namespace pyrometer::regression

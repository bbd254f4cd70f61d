// Files of a data folder that are not the database's, in backups: symbols that were uploaded (server/late_symbols.h).
// Inside this room only.
//
//   ASSIGN_OR_RETURN(SideFiles saved, SaveSideFiles(data, backups));          // saved.name goes with the backup
//   RETURN_IF_ERROR(RestoreSideFiles(backups, saved.name, new_data));
//
// In the folder of backups: `files/<sum>` holds a content, once for all backups that have it; sums are XXH3 of 128 bits
// in hex. What one backup has is a list, itself such a content: a line "<sum> <bytes> <mtime ns> <path>\n" per file,
// sorted by path. So a backup is known by the sum of its list, and every byte of it is checked on the way back.
//
// A file is never changed in place (uploads are renamed into their place), so one of equal path, size and time as in
// the backup before is not read again. Files that go away meanwhile are left out. Not promised: to remove contents that
// no backup names any more.
#pragma once

#include <cstdint>
#include <string>

#include "userspace/base/status.h"

namespace pyrometer::store {

struct SideFiles {
  std::string name;    // sum of the list; "" = there are no files
  uint64_t bytes = 0;  // of all of them
};

// What is below `data`/symbols/.build-id. `before`: the name that the backup before had, or "".
StatusOr<SideFiles> SaveSideFiles(const std::string& data, const std::string& backups, const std::string& before);
// Reads everything that the list names. DATA_LOSS when a byte of it is not as it was saved.
StatusOr<SideFiles> CheckSideFiles(const std::string& backups, const std::string& name);
// Puts them below `data`. DATA_LOSS as above.
Status RestoreSideFiles(const std::string& backups, const std::string& name, const std::string& data);

}  // namespace pyrometer::store

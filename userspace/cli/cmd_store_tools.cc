// pyrometer store fsck|backup|restore: what is done to a data folder while no store runs on it.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "userspace/agent/folders.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/base/utc.h"
#include "userspace/cli/command.h"
#include "userspace/cli/terminal.h"
#include "userspace/store/store.h"

namespace pyrometer::cli {
namespace {

using Json = nlohmann::ordered_json;

struct ToolFlags {
  std::string data;
  std::string folder;  // of backups
  uint32_t id = 0;
  bool list = false;
  bool json = false;

  std::string Data() const { return data.empty() ? agent::DefaultStateFolder() + "/store" : data; }
};

void AddDataFlag(CLI::App* command, ToolFlags* flags) {
  command->add_option("--data", flags->data, "Folder for data (default /var/lib/pyrometer/store for root)")
      ->type_name("DIR");
}

void PrintJson(const Json& json) {
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

int RunFsck(const ToolFlags& flags) {
  const std::string data = flags.Data();
  const StatusOr<store::FsckReport> report = store::Fsck(data);
  if (!report.ok()) return Fail(report.status());
  if (flags.json) {
    Json problems = Json::array();
    for (const store::FsckProblem& problem : report->problems) {
      problems.push_back({{"place", problem.place}, {"what", problem.what}, {"affects", problem.affects}});
    }
    PrintJson({{"data", data},
               {"files", report->files},
               {"records", report->records},
               {"samples", report->samples},
               {"problems", report->problem_count},
               {"listed", problems}});
  } else {
    for (const store::FsckProblem& problem : report->problems) {
      std::printf("%s: %s\n  affects: %s\n", problem.place.c_str(), problem.what.c_str(), problem.affects.c_str());
    }
    std::printf("%s: %s files, %s records, %s samples: %s\n", data.c_str(), FormatCount(report->files).c_str(),
                FormatCount(report->records).c_str(), FormatCount(report->samples).c_str(),
                report->problem_count == 0
                    ? "no problem found"
                    : (FormatCount(report->problem_count) + " problems; `pyrometer store restore` "
                                                            "brings back a backup")
                          .c_str());
  }
  return report->problem_count == 0 ? kExitDone : kExitFailed;
}

std::string Describe(const store::BackupInfo& backup) {
  return StrFormat("backup %d of %s, %s", backup.id, FormatUtc(backup.time_ns, "%Y-%m-%d %H:%M:%S UTC"),
                   FormatBytes(backup.bytes));
}

int RunBackup(const ToolFlags& flags) {
  store::StoreOptions options;
  options.create_if_missing = false;
  auto store = store::Store::Open(flags.Data(), std::move(options));
  if (!store.ok()) return Fail(store.status());
  const StatusOr<store::BackupInfo> made = (*store)->Backup(flags.folder);
  if (!made.ok()) return Fail(made.status());
  std::printf("%s in %s\n", Describe(*made).c_str(), flags.folder.c_str());
  return kExitDone;
}

int RunRestore(const ToolFlags& flags) {
  if (flags.list) {
    const StatusOr<std::vector<store::BackupInfo>> backups = store::ListBackups(flags.folder, true);
    if (!backups.ok()) return Fail(backups.status());
    for (const store::BackupInfo& backup : *backups) std::printf("%s\n", Describe(backup).c_str());
    return kExitDone;
  }
  const std::string data = flags.Data();
  const StatusOr<store::BackupInfo> restored = store::RestoreBackup(flags.folder, flags.id, data);
  if (!restored.ok()) return Fail(restored.status());
  std::printf("%s is in %s\n", Describe(*restored).c_str(), data.c_str());
  return kExitDone;
}

}  // namespace

void AddStoreTools(CLI::App& store, Invocation& invocation) {
  store.require_subcommand(0, 1);

  CLI::App* fsck =
      AddCommand(store, "fsck", "Read everything in a data folder and say what is damaged and whom it affects",
                 "pyrometer store fsck --data /srv/pyrometer");
  auto checked = std::make_shared<ToolFlags>();
  AddDataFlag(fsck, checked.get());
  fsck->add_flag("--json", checked->json, "Print JSON");
  fsck->callback([&invocation, checked] { invocation.run = [checked] { return RunFsck(*checked); }; });

  CLI::App* backup =
      AddCommand(store, "backup", "Back up the data folder of a store that does not run (one that runs: --backup)",
                 "pyrometer store backup --data /srv/pyrometer --to /mnt/backup");
  auto saved = std::make_shared<ToolFlags>();
  AddDataFlag(backup, saved.get());
  backup->add_option("--to", saved->folder, "Folder of backups; files that it has are not copied again")
      ->required()
      ->type_name("DIR");
  backup->callback([&invocation, saved] { invocation.run = [saved] { return RunBackup(*saved); }; });

  CLI::App* restore = AddCommand(store, "restore", "Put a backup into an empty data folder, every file checked",
                                 "pyrometer store restore --from /mnt/backup --data /srv/pyrometer");
  auto restored = std::make_shared<ToolFlags>();
  AddDataFlag(restore, restored.get());
  restore->add_option("--from", restored->folder, "Folder of backups")->required()->type_name("DIR");
  restore->add_option("--id", restored->id, "Which backup (default: the newest)")->type_name("N");
  restore->add_flag("--list", restored->list, "Only check and list the backups");
  restore->callback([&invocation, restored] { invocation.run = [restored] { return RunRestore(*restored); }; });
}

}  // namespace pyrometer::cli

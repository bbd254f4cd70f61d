#include "userspace/base/status.h"

#include "absl/strings/str_cat.h"

namespace pyrometer {
namespace {
absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }
}  // namespace

Status InvalidArgumentError(std::string_view message) { return absl::InvalidArgumentError(View(message)); }
Status NotFoundError(std::string_view message) { return absl::NotFoundError(View(message)); }
Status AlreadyExistsError(std::string_view message) { return absl::AlreadyExistsError(View(message)); }
Status PermissionDeniedError(std::string_view message) { return absl::PermissionDeniedError(View(message)); }
Status UnauthenticatedError(std::string_view message) { return absl::UnauthenticatedError(View(message)); }
Status ResourceExhaustedError(std::string_view message) { return absl::ResourceExhaustedError(View(message)); }
Status FailedPreconditionError(std::string_view message) { return absl::FailedPreconditionError(View(message)); }
Status UnavailableError(std::string_view message) { return absl::UnavailableError(View(message)); }
Status DeadlineExceededError(std::string_view message) { return absl::DeadlineExceededError(View(message)); }
Status UnimplementedError(std::string_view message) { return absl::UnimplementedError(View(message)); }
Status DataLossError(std::string_view message) { return absl::DataLossError(View(message)); }
Status OutOfRangeError(std::string_view message) { return absl::OutOfRangeError(View(message)); }
Status CancelledError(std::string_view message) { return absl::CancelledError(View(message)); }
Status InternalError(std::string_view message) { return absl::InternalError(View(message)); }

Status ErrnoError(int error_number, std::string_view message) {
  return absl::ErrnoToStatus(error_number, View(message));
}

Status WithContext(const Status& status, std::string_view context) {
  if (status.ok()) return status;
  return Status(status.code(), absl::StrCat(View(context), ": ", status.message()));
}

}  // namespace pyrometer

// Errors. The only door to absl::Status in this project.
//
//   StatusOr<Config> ReadConfig(const std::string& path);
//
//   Status Start() {
//     ASSIGN_OR_RETURN(Config config, ReadConfig(path));
//     RETURN_IF_ERROR(Validate(config));
//     return OkStatus();
//   }
//
// A message is for the user: it says what happened and what to do next
// ("cannot listen on 127.0.0.1:7070: address already in use; pass --http with
// another port"). Library code returns a Status and does not log; an expected
// miss (unknown symbol, truncated stack) is a value with a reason, not a Status;
// a bug is a CHECK.
//
// Debian's absl keeps its own string_view, to which std::string_view does not
// convert: hence the factories here take std::string_view. Use StrFormat or
// StrCat from base/strings.h to build messages.
//
// Cost: an OK status is one word, no allocation. Threads: values, no sharing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pyrometer {

using absl::Status;
using absl::StatusCode;
template <typename T>
using StatusOr = absl::StatusOr<T>;

inline Status OkStatus() { return absl::OkStatus(); }

// The caller gave something malformed. CLI exit code 2 when it came from the command line.
Status InvalidArgumentError(std::string_view message);
// The named thing does not exist (file, container, node, session).
Status NotFoundError(std::string_view message);
Status AlreadyExistsError(std::string_view message);
// The privileges at hand do not suffice; the message names what is missing and the remedy.
Status PermissionDeniedError(std::string_view message);
// No or a wrong token.
Status UnauthenticatedError(std::string_view message);
// A limit was reached (disk, memory, quota); the message names limit, value and flag.
Status ResourceExhaustedError(std::string_view message);
// The system is not in a state for this (format too new, feature absent in this kernel).
Status FailedPreconditionError(std::string_view message);
// A peer is away; trying again may help.
Status UnavailableError(std::string_view message);
Status DeadlineExceededError(std::string_view message);
Status UnimplementedError(std::string_view message);
// Bytes at rest or on the wire are corrupt.
Status DataLossError(std::string_view message);
Status OutOfRangeError(std::string_view message);
Status CancelledError(std::string_view message);
Status InternalError(std::string_view message);

// "<message>: <strerror(error_number)>", with the code that fits the errno.
Status ErrnoError(int error_number, std::string_view message);

// `status` with "<context>: " before its message; OK stays OK.
Status WithContext(const Status& status, std::string_view context);

// The message as std::string_view (absl's own view type does not convert).
inline std::string_view Message(const Status& status) { return {status.message().data(), status.message().size()}; }

}  // namespace pyrometer

#define PYROMETER_CONCAT_INNER(a, b) a##b
#define PYROMETER_CONCAT(a, b) PYROMETER_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expression` is not OK.
#define RETURN_IF_ERROR(expression)                                                        \
  do {                                                                                     \
    if (::pyrometer::Status status_macro_value = (expression); !status_macro_value.ok()) { \
      return status_macro_value;                                                           \
    }                                                                                      \
  } while (false)

// ASSIGN_OR_RETURN(auto value, MakeValue()); returns the error otherwise.
#define ASSIGN_OR_RETURN(declaration, expression) \
  PYROMETER_ASSIGN_OR_RETURN(PYROMETER_CONCAT(status_or_value_, __LINE__), declaration, expression)
#define PYROMETER_ASSIGN_OR_RETURN(temporary, declaration, expression) \
  auto temporary = (expression);                                       \
  if (!temporary.ok()) return std::move(temporary).status();           \
  declaration = *std::move(temporary)

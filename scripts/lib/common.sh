# Shared by the scripts of this folder; to be sourced by bash, not run.
# Sets `root` (the top of the working tree). Progress goes to standard output as short lines, what
# the tools print goes to a log that is shown only when something fails.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s\n' "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Seconds or minutes since `$1` (a value of $SECONDS), for people.
elapsed() {
  local seconds=$((SECONDS - $1))
  if ((seconds < 90)); then printf '%d s' "$seconds"; else printf '%d min %02d s' $((seconds / 60)) $((seconds % 60)); fi
}

# logged LOG LABEL COMMAND…: runs COMMAND with its output appended to LOG, prints LABEL and the time
# taken; on failure shows the end of LOG and ends the script.
logged() {
  local log=$1 label=$2 started=$SECONDS
  shift 2
  if [ -t 1 ]; then printf '%s …' "$label"; fi
  if ! "$@" >>"$log" 2>&1 </dev/null; then
    if [ -t 1 ]; then printf '\r\033[K'; fi
    say "$label: failed. The last lines of $log:"
    tail -n 40 "$log"
    exit 1
  fi
  if [ -t 1 ]; then printf '\r\033[K'; fi
  say "$label: $(elapsed "$started")"
}

# Compilers that run at a time: one per CPU, but not more than memory allows (files that use gRPC
# were seen to take 0.9 GB each).
build_jobs() {
  local cpus memory_kb
  cpus=$(nproc)
  memory_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
  local fit=$((memory_kb / 1000000))
  if ((fit < 1)); then fit=1; fi
  if ((cpus < fit)); then printf '%d' "$cpus"; else printf '%d' "$fit"; fi
}

# configure_and_build LOG PRESET TARGET…
configure_and_build() {
  local log=$1 preset=$2 started=$SECONDS status=0 shown=0
  shift 2
  (cd "$root" && logged "$log" "configure ($preset)" cmake --preset "$preset") || exit 1
  local targets=()
  for target in "$@"; do targets+=(--target "$target"); done
  # Ninja's "[12/345]" becomes one moving line on a terminal and a line per tenth elsewhere.
  {
    NINJA_STATUS='[%f/%t] ' cmake --build "$root/build/$preset" --parallel "$(build_jobs)" "${targets[@]}" 2>&1 </dev/null ||
      echo "$?" >"$root/build/$preset/build.failed"
  } | tee -a "$log" | while IFS= read -r line; do
    [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
    if [ -t 1 ]; then
      printf '\r\033[Kbuild: %d of %d steps' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
    elif ((BASH_REMATCH[1] * 10 / BASH_REMATCH[2] > shown)); then
      shown=$((BASH_REMATCH[1] * 10 / BASH_REMATCH[2]))
      say "build: ${BASH_REMATCH[1]} of ${BASH_REMATCH[2]} steps"
    fi
  done
  if [ -t 1 ]; then printf '\r\033[K'; fi
  if [ -e "$root/build/$preset/build.failed" ]; then
    rm -f "$root/build/$preset/build.failed"
    say "build ($preset): failed. The last lines of $log:"
    tail -n 60 "$log"
    exit 1
  fi
  say "build ($preset): $(elapsed "$started")"
}

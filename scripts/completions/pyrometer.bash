# bash completion of pyrometer. Install as /usr/share/bash-completion/completions/pyrometer, or source it.
_pyrometer() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]:-} flags=
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W "up agent store record session top flame series net export syscalls waits convert ci symbols doctor --help --version" -- "$current")
    return
  fi
  case $previous in
    -o | --output | --token-file | --tls-ca | --tls-cert | --tls-key | --tls-client-ca)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    --data | --spool | --cache | --backup | --to | --from)
      mapfile -t COMPREPLY < <(compgen -d -- "$current")
      return
      ;;
    --format)
      mapfile -t COMPREPLY < <(compgen -W "pprof folded speedscope html svg json" -- "$current")
      return
      ;;
    --probes)
      if [ "${COMP_WORDS[1]}" = session ]; then
        mapfile -t COMPREPLY < <(compgen -W "cpu waits cpu,waits" -- "$current")
        return
      fi
      mapfile -t COMPREPLY < <(compgen -W "cpu syscalls tcp waits cpu,syscalls,tcp cpu,syscalls,tcp,waits" -- "$current")
      return
      ;;
    --pid)
      mapfile -t COMPREPLY < <(cd /proc && compgen -G "${current}[0-9]*")
      return
      ;;
  esac
  if [ "$command" = session ]; then
    if ((COMP_CWORD == 2)); then
      mapfile -t COMPREPLY < <(compgen -W "start list stop --help" -- "$current")
      return
    fi
    command="session ${COMP_WORDS[2]}"
  fi
  if [ "$command" = symbols ]; then
    if ((COMP_CWORD == 2)); then
      mapfile -t COMPREPLY < <(compgen -W "upload --help" -- "$current")
      return
    fi
    command="symbols ${COMP_WORDS[2]}"
  fi
  if [ "$command" = store ]; then
    if ((COMP_CWORD == 2)) && [[ $current != -* ]]; then
      mapfile -t COMPREPLY < <(compgen -W "fsck backup restore" -- "$current")
      return
    fi
    case ${COMP_WORDS[2]} in fsck | backup | restore) command="store ${COMP_WORDS[2]}" ;; esac
  fi
  if [ "$command" = ci ]; then
    if ((COMP_CWORD == 2)); then
      mapfile -t COMPREPLY < <(compgen -W "run record compare check --help" -- "$current")
      return
    fi
    command="ci ${COMP_WORDS[2]}"
  fi
  case $command in
    up)
      flags="--data -F --frequency --probes --node --spool --spool-size --cpu-budget --syscall-budget --unwind-memory --cache \
        --backend --http --grpc --retention --retention-bytes --retention-rollups --retention-offsets --memory --debuginfod --max-series --max-stacks --max-names --max-rate \
        --max-tenants --limit --query-timeout --query-memory --tls-cert --tls-key --tls-client-ca --token-file --tenant-token --help"
      ;;
    agent)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key -F --frequency --probes --node --spool \
        --spool-size --cpu-budget --syscall-budget --unwind-memory --cache --help"
      ;;
    store)
      flags="--data --backend --http --grpc --retention --retention-bytes --retention-rollups --retention-offsets --memory --debuginfod --max-series --max-stacks --max-names --max-rate \
        --max-tenants --limit --query-timeout --query-memory --backup --backup-every \
        --tls-cert --tls-key --tls-client-ca --token-file --tenant-token --help"
      ;;
    "store fsck")
      flags="--data --json --help"
      ;;
    "store backup")
      flags="--data --to --help"
      ;;
    "store restore")
      flags="--data --from --id --list --help"
      ;;
    record)
      flags="--all --pid --container --cgroup -d --duration -F --frequency --probes --top -o --output --format \
        --help"
      ;;
    top)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to --by -n --rows --total --json \
        --help"
      ;;
    flame)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to --by --min-percent -o --output \
        --format --help"
      ;;
    series)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to --by --step --json --help"
      ;;
    net)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to --by --sort -n --rows --watch \
        --json --help"
      ;;
    export)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to --by -o --output --format --help"
      ;;
    syscalls)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to -n --rows --watch --json \
        --examples --typical --help"
      ;;
    waits)
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to -n --rows --watch --json \
        --wakers --min-percent --help"
      ;;
    convert)
      flags="--format --help"
      ;;
    doctor)
      flags="--json --pid --help"
      ;;
    "symbols upload")
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --help"
      ;;
    "session start")
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --node --all --pid --container --cgroup -d \
        --duration -F --frequency --probes --top --json -o --output --format --help"
      ;;
    "session list")
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --json --help"
      ;;
    "ci run")
      flags="--baseline --candidate -n --pairs --benchmark -F --frequency --warm-up --alpha --min-effect --seed -o --output \
        --diff --source-root --json --github --help"
      ;;
    "ci record")
      flags="-o --output -n --runs -F --frequency --warm-up --push --service --commit --branch \
        --store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --help"
      ;;
    "ci compare")
      flags="--baseline-selector --store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to \
        --alpha --min-effect --seed -o --output --diff --source-root --json --github --help"
      ;;
    "ci check")
      flags="--history --store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --from --to --alpha --min-effect --seed --json --help"
      ;;
    "session stop")
      flags="--store --token-file --tenant --tls --tls-ca --tls-cert --tls-key --help"
      ;;
  esac
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
  elif [ "$command" = convert ] || [ "$command" = "ci compare" ]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -F _pyrometer pyrometer

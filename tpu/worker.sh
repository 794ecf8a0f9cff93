#!/usr/bin/env bash
# What happens on a worker; setup.sh puts it there, and the other scripts call it through ssh.
#
# usage: worker.sh install EXTRAS         make .venv with what constraints.txt pins
#        worker.sh devices COUNT HOSTS    jax must see COUNT TPU devices; HOSTS is one or several
#        worker.sh idle                   status 1 where a run is going on
#        worker.sh start SECONDS ARG...   start `python -m glm_jax.train ARG...`, detached
#        worker.sh status LINES           say whether it runs, and the end of its log
#        worker.sh outcome WORKDIR        how the run stands, and the last step that it has saved
#        worker.sh follow LINES           show the log until the run ends
#        worker.sh stop SECONDS           SIGTERM, then wait for the end
#
# ~/glm_jax_run holds lock (locked as long as the run lives, so a stale pid deceives nobody), pid,
# status (the exit status of the run that ended last), stopping (SIGTERM was sent) and log.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
state=$HOME/glm_jax_run
host=$(hostname)
mkdir -p "$state"

say() { printf '%s: %s\n' "$host" "$*"; }

# TPU machines boot Ubuntu 22.04, whose Python 3.10 is too old; uv brings its own 3.12.
install() {
  local python
  if [[ ! -x .venv/bin/python ]]; then
    for python in python3.12 python3.11 none; do
      "$python" -c 'import ensurepip, venv' 2>/dev/null && break
    done
    if [[ $python != none ]]; then
      "$python" -m venv .venv
    else
      [[ -x $HOME/.local/bin/uv ]] || curl -LsSf https://astral.sh/uv/install.sh | sh
      "$HOME/.local/bin/uv" venv --quiet --seed --python 3.12 .venv
    fi
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".[$1]"
  say "installed glm_jax[$1]"
}

devices() {
  .venv/bin/python - "$@" <<'PYTHON' | sed "s/^/$host: /"
import sys

import jax

count, hosts = sys.argv[1:]
if hosts == "several":
    jax.distributed.initialize()
backend, found = jax.default_backend(), jax.device_count()
print(f"{found} {backend} devices, {jax.local_device_count()} of them here; jax {jax.__version__}")
sys.exit((backend, found) != ("tpu", int(count)))
PYTHON
}

running() { [[ -e $state/lock ]] && ! flock --nonblock "$state/lock" true; }

# The pid is written a moment after the lock is taken.
pid() {
  local tries
  for tries in 1 2 3 4 5; do
    [[ ! -s $state/pid ]] || break
    sleep "0.$tries"
  done
  cat "$state/pid"
}

idle() {
  if running; then
    say "a run is going on, pid $(pid)" >&2
    return 1
  fi
}

start() {
  local seconds=$1 end
  shift
  exec 9>>"$state/lock"
  flock --nonblock 9 || { say "a run is going on" >&2 && return 1; }
  [[ -x .venv/bin/python ]] || { say "is not set up" >&2 && return 1; }
  rm -f "$state/pid" "$state/status" "$state/stopping"
  setsid bash tpu/worker.sh hold "$@" </dev/null >>"$state/log" 2>&1 &
  exec 9>&-
  end=$((SECONDS + seconds))
  while ((SECONDS < end)) && running; do sleep 0.2; done
  status 5
  running || [[ -e $state/status && $(cat "$state/status") == 0 ]]
}

# The run itself and, around it, what notes its end; both have the lock from start().
hold() {
  local result=0
  printf '== %s: python -m glm_jax.train %s\n' "$(date -u '+%F %T')" "$*"
  PYTHONUNBUFFERED=1 TQDM_MININTERVAL=10 .venv/bin/python -m glm_jax.train "$@" &
  echo "$!" >"$state/pid"
  wait "$!" || result=$?
  echo "$result" >"$state/status"
}

status() {
  if running; then
    say "running, pid $(pid)"
  elif [[ -e $state/status ]]; then
    say "not running; the last run ended with status $(cat "$state/status")"
  else
    say "not running"
  fi
  # Of a progress bar, only its last state.
  [[ ! -e $state/log ]] || tail -n "$1" "$state/log" | sed "s/\r*$//; s/.*\r//; s/^/$host| /"
}

# outcome=running, stopped (by stop.sh), none or the run's exit status; newest=a complete checkpoint
# on this worker's disks. Read by run.sh.
outcome() {
  local file step newest=0 outcome=none
  for file in "$1"/checkpoints/*/manifest.json; do
    step=$(basename "$(dirname "$file")")
    [[ ! -e $file || ! $step =~ ^[0-9]+$ ]] || ((step <= newest)) || newest=$step
  done
  if running; then
    outcome=running
  elif [[ -e $state/stopping ]]; then
    outcome=stopped
  elif [[ -e $state/status ]]; then
    outcome=$(cat "$state/status")
  fi
  say "outcome=$outcome newest=$newest"
}

follow() {
  local seen
  [[ -e $state/log ]] || touch "$state/log"
  seen=$(wc -c <"$state/log")
  status "$1"
  if running; then
    tail -c "+$((seen + 1))" --pid="$(pid)" -F "$state/log" 2>/dev/null | stdbuf -oL tr '\r' '\n'
    # The run's process is gone; how it ended is noted a moment later, and the lock is free then.
    flock --wait 2 "$state/lock" true || true
    status 0
  fi
}

# A second SIGTERM would end the run before it has saved, so there is never one.
stop() {
  local end=$((SECONDS + $1))
  if running && [[ ! -e $state/stopping ]]; then
    touch "$state/stopping"
    kill -TERM "$(pid)" 2>/dev/null || true
  fi
  while running; do
    ((SECONDS < end)) || { say "still running, pid $(pid), after $1 seconds" >&2 && return 1; }
    sleep 0.2
  done
  status 2
}

"$@"

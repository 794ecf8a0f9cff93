# shellcheck shell=bash disable=SC2034  # the scripts use what is set here
# What the scripts of this folder share; sourced, not run.
#
# A script names itself and its options in the comment it begins with, which is its --help, and
# ends with status 0 (done), 1 (failed) or 2 (a mistake in its arguments), saying why in one
# sentence on standard error.
#
# A dry run prints the commands instead of running them, quoted as one would type them:
#
#   gcloud compute tpus tpu-vm ssh glm --worker=all --command='ls -l' --zone=us-west4-a

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=accelerators.sh
. "$root/tpu/accelerators.sh"

name=${TPU_NAME:-}
zone=${ZONE:-}
project=${PROJECT_ID:-}
accelerator=${ACCELERATOR_TYPE:-}
dry_run=0

say() { printf '%s\n' "$*"; }

# Ends for what the user can mend in the arguments.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Ends for what went wrong out there.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The comment that the calling script begins with.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# words=(the arguments, --option=value taken apart); what follows -- stays as it is.
words=()
split_options() {
  while (($#)); do
    case $1 in
      --) words+=("$@") && return ;;
      --*=*) words+=("${1%%=*}" "${1#*=}") ;;
      *) words+=("$1") ;;
    esac
    shift
  done
}

# value=what stands behind an option.
value=
take() {
  (($# > 1)) && [[ -n $2 && $2 != --* ]] || die "$1 needs a value"
  value=$2
}

whole_number() { [[ $2 =~ ^[0-9]+$ ]] || die "$1 takes a whole number; got '$2'"; }

# The options that all scripts have; taken=how many words were used.
taken=
common_option() {
  taken=2
  case $1 in
    --name) take "$@" && name=$value ;;
    --zone) take "$@" && zone=$value ;;
    --project) take "$@" && project=$value ;;
    --dry-run) dry_run=1 taken=1 ;;
    --help | -h) usage && exit 0 ;;
    *) die "unknown argument '$1'; see $(basename "$0") --help" ;;
  esac
}

check_common() {
  [[ -n $name ]] || die "--name (or TPU_NAME) is missing: the name of the slice"
  [[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
    die "--name takes lowercase letters, digits and hyphens, a letter first; got '$name'"
  [[ -n $zone ]] || die "--zone (or ZONE) is missing: a zone with TPUs, such as us-west4-a"
  [[ $zone =~ ^[a-z][-a-z0-9]+$ ]] || die "--zone takes a zone such as us-west4-a; got '$zone'"
  ((dry_run)) || command -v gcloud >/dev/null ||
    fail "gcloud is not installed here; see https://cloud.google.com/sdk/docs/install"
}

# A word as one types it in a shell.
quote() {
  local mark="'\\''"
  case $1 in
    '' | *[!A-Za-z0-9_./:=@%+,-]*) printf "'%s'" "${1//\'/$mark}" ;;
    *) printf '%s' "$1" ;;
  esac
}

# The words of a command as one types them, on one line.
quote_all() {
  local word line=
  for word; do
    case $word in
      --*=*) line+=" ${word%%=*}=$(quote "${word#*=}")" ;;
      *) line+=" $(quote "$word")" ;;
    esac
  done
  printf '%s' "${line# }"
}

# Runs a command; in a dry run, prints it.
run() {
  if ((dry_run)); then
    say "$(quote_all "$@")"
  else
    "$@"
  fi
}

# A `gcloud compute tpus` command on this zone and project.
tpus() { run gcloud compute tpus "$@" "--zone=$zone" ${project:+"--project=$project"}; }

# Runs a shell command on one worker or, with "all", on each of them at once. The status is 0 if
# it was 0 on all.
on_worker() { tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2"; }

# answer=what a `describe` says; empty where there is no such thing. Other failures are passed on.
answer=
ask() {
  local errors
  answer=
  if ((dry_run)); then
    tpus "$@"
    return
  fi
  errors=$(mktemp)
  if ! answer=$(tpus "$@" 2>"$errors"); then
    answer=
    if ! grep -qi 'not[_ ]found' "$errors"; then
      cat "$errors" >&2
      rm -f "$errors"
      return 1
    fi
  fi
  rm -f "$errors"
}

ask_queued() { ask queued-resources describe "$name" '--format=value(state.state)'; }
ask_slice() { ask tpu-vm describe "$name" '--format=value(state)'; }

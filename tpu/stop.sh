#!/usr/bin/env bash
# Stops the run on every worker of a slice, with a checkpoint saved; --delete gives the slice back.
#
# usage: tpu/stop.sh --name NAME --zone ZONE [options]
#
#   --name NAME       of the slice (TPU_NAME)
#   --zone ZONE       it is in (ZONE)
#   --project ID      gcloud's own project where it is missing (PROJECT_ID)
#   --wait SECONDS    for the run to save and end; 600
#   --delete          then delete the slice and its queued resource, disks included
#   --yes             delete without gcloud's question
#   --dry-run         print the commands, run none
#
# Where nothing runs, or nothing is left to delete, it says so and ends with status 0. A run that
# has not ended in time is left alone, and so is its slice.

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seconds=600 delete=0
flags=()
split_options "$@"
set -- ${words[@]+"${words[@]}"}
while (($#)); do
  taken=2
  case $1 in
    --wait) take "$@" && whole_number "$1" "$value" && seconds=$value ;;
    --delete) delete=1 taken=1 ;;
    --yes) flags=(--quiet) taken=1 ;;
    *) common_option "$@" ;;
  esac
  shift "$taken"
done
check_common

stop_run() {
  ask_slice || fail "gcloud could not say how the slice $name stands"
  slice=$answer
  if ((dry_run)) || [[ $slice == READY ]]; then
    on_worker all "if [ -f glm_jax/tpu/worker.sh ]; then\
 bash glm_jax/tpu/worker.sh stop $seconds; fi" ||
      fail "the run did not end on all workers of $name; tpu/watch.sh shows their logs"
  else
    say "there is no run to stop: the slice $name is ${slice:-not there}"
  fi
}

# A queued resource takes its slice with it (--force); a slice that was created directly has none.
delete_slice() {
  ask_queued || fail "gcloud could not say how the queued resource $name stands"
  if ((dry_run)) || [[ -n $answer ]]; then
    ((!dry_run)) || say "# with a queued resource:"
    tpus queued-resources delete "$name" --force ${flags[@]+"${flags[@]}"} ||
      fail "gcloud could not delete the queued resource $name"
  fi
  if ((dry_run)) || [[ -z $answer && -n $slice ]]; then
    ((!dry_run)) || say "# without one:"
    tpus tpu-vm delete "$name" ${flags[@]+"${flags[@]}"} ||
      fail "gcloud could not delete the slice $name"
  fi
  ((dry_run)) || say "nothing is left of $name"
}

stop_run
((!delete)) || delete_slice

#!/usr/bin/env bash
# Shows how a slice and its run stand, then follows the log of worker 0 until the run ends.
#
# usage: tpu/watch.sh --name NAME --zone ZONE [options]
#
#   --name NAME      of the slice (TPU_NAME)
#   --zone ZONE      it is in (ZONE)
#   --project ID     gcloud's own project where it is missing (PROJECT_ID)
#   --lines COUNT    of each worker's log; 5
#   --once           show, and do not follow
#   --dry-run        print the commands, run none
#
# Ctrl-C ends the watching, not the run.

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

lines=5 once=0
split_options "$@"
set -- ${words[@]+"${words[@]}"}
while (($#)); do
  taken=2
  case $1 in
    --lines) take "$@" && whole_number "$1" "$value" && lines=$value ;;
    --once) once=1 taken=1 ;;
    *) common_option "$@" ;;
  esac
  shift "$taken"
done
check_common

ask_queued || fail "gcloud could not say how the queued resource $name stands"
((dry_run)) || say "queued resource: ${answer:-none}"
ask_slice || fail "gcloud could not say how the slice $name stands"
((dry_run)) || say "slice: ${answer:-none}"
((dry_run)) || [[ $answer == READY ]] || fail "there is no slice $name in $zone that is READY"

on_worker all "bash glm_jax/tpu/worker.sh status $lines" || fail "not all workers of $name answered"
((once)) || on_worker 0 "bash glm_jax/tpu/worker.sh follow $lines" ||
  fail "worker 0 of $name no longer answers"

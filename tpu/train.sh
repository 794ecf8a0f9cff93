#!/usr/bin/env bash
# Starts `python -m glm_jax.train` on every worker of a slice, detached.
#
# usage: tpu/train.sh --name NAME --zone ZONE --config FILE --workdir DIR [options]
#
#   --name NAME          of the slice (TPU_NAME)
#   --zone ZONE          it is in (ZONE)
#   --config FILE        from the project's folder, as setup.sh copied it
#   --workdir DIR        on the workers; a relative one lies in their copy of the project; or
#                        gs://BUCKET/NAME, which outlives them (setup.sh --extras tpu,gcs)
#   --set NAME=VALUE     change one value of the config; may be repeated
#   --project ID         gcloud's own project where it is missing (PROJECT_ID)
#   --wait SECONDS       to see whether it stays up, so that a mistake is told at once; 20
#   --dry-run            print the commands, run none
#
# A slice has one run at a time: where one is going on, this starts nothing and ends with status 1.
# The same command goes on where a stopped run left off.

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config='' workdir='' seconds=20
overrides=()
split_options "$@"
set -- ${words[@]+"${words[@]}"}
while (($#)); do
  taken=2
  case $1 in
    --config) take "$@" && config=$value ;;
    --workdir) take "$@" && workdir=$value ;;
    --set) take "$@" && overrides+=(--set "$value") ;;
    --wait) take "$@" && whole_number "$1" "$value" && seconds=$value ;;
    *) common_option "$@" ;;
  esac
  shift "$taken"
done
check_common
[[ -n $config ]] || die "--config is missing: a file such as configs/tiny_cpu.py"
[[ $config == /* || -f $root/$config ]] || die "there is no $config in $root for --config"
[[ -n $workdir ]] || die "--workdir is missing: a folder on the workers, such as runs/first"
[[ $workdir == gs://?* || $workdir != *://* ]] ||
  die "--workdir takes a folder or gs://BUCKET/NAME, not $workdir"
if [[ -n $accelerator ]]; then
  find_accelerator "$accelerator"
  [[ $machines == one || $workdir == gs://* ]] || printf '%s\n' "warning: $accelerator_type has several hosts; --workdir\
 must be in a bucket or on a disk that all of them see; see tpu/README.md" >&2
fi

on_worker all "bash glm_jax/tpu/worker.sh idle" ||
  fail "nothing was started: $name has a run already (tpu/stop.sh stops it) or is not set up"
on_worker all "bash glm_jax/tpu/worker.sh start $seconds $(
  quote_all --config "$config" --workdir "$workdir" ${overrides[@]+"${overrides[@]}"}
)" || fail "the run did not start on all workers of $name; tpu/watch.sh shows their logs"
((dry_run)) || say "started on $name; tpu/watch.sh shows how it goes"

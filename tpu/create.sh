#!/usr/bin/env bash
# Creates a TPU slice and waits until it can be used.
#
# usage: tpu/create.sh --name NAME --zone ZONE --accelerator TYPE [options] [-- GCLOUD_FLAG...]
#
#   --name NAME              of the slice and of its queued resource (TPU_NAME)
#   --zone ZONE              such as us-west4-a (ZONE)
#   --accelerator TYPE       v5e:2x4, as glm_jax.plan has it, or v5litepod-8 (ACCELERATOR_TYPE)
#   --project ID             gcloud's own project where it is missing (PROJECT_ID)
#   --runtime-version NAME   what the machines boot; chosen by the accelerator (RUNTIME_VERSION)
#   --spot                   cheaper, and may be taken away at any time
#   --direct                 at once or not at all, without a queued resource
#   --poll SECONDS           between two looks at the queue; 30
#   --timeout SECONDS        stop waiting (the request stays in the queue); no limit
#   --dry-run                print the commands, run none
#
# What follows -- goes to gcloud's create command, such as --network=NAME or --service-account=NAME.
# A slice that is there already is left as it is, a request that waits is waited for.

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

asked_runtime=${RUNTIME_VERSION:-} poll=30 timeout=0 direct=0
flags=()
split_options "$@"
set -- ${words[@]+"${words[@]}"}
while (($#)); do
  taken=2
  case $1 in
    --accelerator) take "$@" && accelerator=$value ;;
    --runtime-version) take "$@" && asked_runtime=$value ;;
    --poll) take "$@" && whole_number "$1" "$value" && poll=$value ;;
    --timeout) take "$@" && whole_number "$1" "$value" && timeout=$value ;;
    --spot) flags+=(--spot) && taken=1 ;;
    --direct) direct=1 taken=1 ;;
    --) shift && flags+=("$@") && break ;;
    *) common_option "$@" ;;
  esac
  shift "$taken"
done
check_common
find_accelerator "$accelerator"
runtime=${asked_runtime:-$runtime}

create_directly() {
  ask_slice || fail "gcloud could not say whether there is a slice $name in $zone"
  if [[ -z $answer ]]; then
    tpus tpu-vm create "$name" "--accelerator-type=$accelerator_type" "--version=$runtime" \
      ${flags[@]+"${flags[@]}"} || fail "gcloud could not create $name ($accelerator_type, $zone)"
    ask_slice || fail "gcloud could not say what became of $name"
  fi
  ((dry_run)) || [[ $answer == READY ]] ||
    fail "$name is ${answer:-missing}, not READY; look at it with tpu/watch.sh"
}

create_queued() {
  ask_queued || fail "gcloud could not say whether there is a queued resource $name in $zone"
  if [[ -z $answer ]]; then
    tpus queued-resources create "$name" "--node-id=$name" \
      "--accelerator-type=$accelerator_type" "--runtime-version=$runtime" \
      ${flags[@]+"${flags[@]}"} || fail "gcloud could not queue $name ($accelerator_type, $zone)"
  fi
  wait_in_queue
}

# States: https://cloud.google.com/tpu/docs/queued-resources
wait_in_queue() {
  local began=$SECONDS last='' misses=0
  while :; do
    ask_queued || answer=''
    ((!dry_run)) || return 0
    case $answer in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        fail "the request for $name ended as $answer; tpu/stop.sh --delete takes it away" ;;
      '')
        misses=$((misses + 1))
        ((misses < 5)) || fail "gcloud could not say how $name stands, five times in a row" ;;
      *)
        [[ $answer == "$last" ]] || say "$name: $answer"
        last=$answer misses=0 ;;
    esac
    ((timeout == 0 || SECONDS - began < timeout)) ||
      fail "$name is ${last:-unknown} after $timeout seconds; the request stays in the queue"
    sleep "$poll"
  done
}

if ((direct)); then create_directly; else create_queued; fi
((dry_run)) || say "$name is ready: $accelerator_type in $zone"

#!/usr/bin/env bash
# Keeps a run going until it is done: asks for the slice, sets it up, starts the run, watches it, and
# after a preemption or a failure asks again and resumes.
#
# usage: tpu/run.sh --name NAME --zone ZONE --accelerator TYPE --config FILE --workdir DIR
#                   [options] [-- GCLOUD_FLAG...]
#
#   --name NAME              of the slice and of its queued resource (TPU_NAME)
#   --zone ZONE              such as us-west4-a (ZONE)
#   --accelerator TYPE       v5e:2x4, as glm_jax.plan has it, or v5litepod-8 (ACCELERATOR_TYPE)
#   --config FILE            from the project's folder
#   --workdir DIR            must outlive the slice: a disk of the network, or gs://
#   --set NAME=VALUE         change one value of the config; may be repeated
#   --project ID             gcloud's own project where it is missing (PROJECT_ID)
#   --runtime-version NAME   as of create.sh (RUNTIME_VERSION)
#   --spot                   cheaper, and may be taken away at any time
#   --direct                 at once or not at all, without a queued resource
#   --timeout SECONDS        for the queue to give the slice, each time; no limit
#   --extras LIST            as of setup.sh
#   --repo URL               as of setup.sh: the same code after weeks too
#   --ref REF                as of setup.sh
#   --wait SECONDS           as of train.sh
#   --failures COUNT         give up after so many in a row without a newer checkpoint; 5
#   --pause SECONDS          before the next attempt, times the failures in a row; 60
#   --poll SECONDS           between two looks at the slice, its queue and its workers; 30
#   --grace SECONDS          for the other workers to end after one has; 300
#   --delete                 give the slice back at the end, whatever the end
#   --dry-run                print the commands of one attempt, run none
#
# Ends with status 0 when the run is done; 2 for a mistake in the arguments, or when the run ended
# with status 2, which no further attempt can help; 1 when it gives up, or when tpu/stop.sh has
# stopped the run. Ctrl-C ends the supervision, not the run; the same command takes it up again.

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workdir='' limit=5 pause=60 poll=30 grace=300 delete=0 spot=0
for_create=() for_setup=() for_train=() flags=()
split_options "$@"
set -- ${words[@]+"${words[@]}"}
while (($#)); do
  taken=2
  case $1 in
    --accelerator) take "$@" && accelerator=$value ;;
    --config) take "$@" && for_train+=(--config "$value") ;;
    --workdir) take "$@" && workdir=$value && for_train+=(--workdir "$value") ;;
    --set) take "$@" && for_train+=(--set "$value") ;;
    --runtime-version) take "$@" && for_create+=(--runtime-version "$value") ;;
    --spot) for_create+=(--spot) && spot=1 taken=1 ;;
    --direct) for_create+=(--direct) && taken=1 ;;
    --timeout) take "$@" && whole_number "$1" "$value" && for_create+=(--timeout "$value") ;;
    --extras) take "$@" && for_setup+=(--extras "$value") ;;
    --repo) take "$@" && for_setup+=(--repo "$value") ;;
    --ref) take "$@" && for_setup+=(--ref "$value") ;;
    --wait) take "$@" && whole_number "$1" "$value" && for_train+=(--wait "$value") ;;
    --failures) take "$@" && whole_number "$1" "$value" && limit=$value ;;
    --pause) take "$@" && whole_number "$1" "$value" && pause=$value ;;
    --poll) take "$@" && whole_number "$1" "$value" && poll=$value ;;
    --grace) take "$@" && whole_number "$1" "$value" && grace=$value ;;
    --delete) delete=1 taken=1 ;;
    --) shift && flags=(-- "$@") && break ;;
    *) common_option "$@" ;;
  esac
  shift "$taken"
done
check_common
find_accelerator "$accelerator"
((limit > 0)) || die "--failures must be at least 1; got $limit"
[[ -n $workdir ]] || die "--workdir is missing: a folder that outlives the slice"
((!spot)) || [[ $workdir == /* || $workdir == *://* ]] || printf '%s\n' "warning: a slice that is\
 taken away takes the folder $workdir on its disks along; see tpu/README.md" >&2

at=(--name "$name" --zone "$zone" ${project:+--project "$project"})
((!dry_run)) || at+=(--dry-run)

note() { ((dry_run)) || say "$(date -u '+%F %T') $*"; }

# Another script of this folder. Its mistakes in arguments are this one's: no attempt can help.
script() {
  local result=0
  "$root/tpu/$1.sh" "${at[@]}" "${@:2}" || result=$?
  ((result != 2)) || exit 2
  return "$result"
}

# outcomes=what each worker says of its run: running, stopped (by stop.sh), none or a status.
# newest=the last step that is saved. A worker that has gone must not hang this: see ssh_config.
outcomes='' newest=0
look() {
  local said step
  outcomes=''
  said=$(tpus tpu-vm ssh "$name" --worker=all '--ssh-flag=-o ConnectTimeout=30' \
    '--ssh-flag=-o ServerAliveInterval=15' "--command=if [ -f glm_jax/tpu/worker.sh ]; then\
 bash glm_jax/tpu/worker.sh outcome $(quote "$workdir"); else echo outcome=none newest=0; fi") ||
    return 1
  if ((dry_run)); then
    say "$said"
    [[ $workdir != gs://* ]] || saved_in_bucket
    return
  fi
  outcomes=$(grep -oE 'outcome=[a-z0-9]+' <<<"$said" | cut -d= -f2) || return 1
  for step in $(grep -oE 'newest=[0-9]+' <<<"$said" | cut -d= -f2) $(saved_in_bucket); do
    ((step <= newest)) || newest=$step
  done
}

# Tries five times: a run that goes on must not be taken for none.
look_long() {
  local tries
  for tries in 1 2 3 4 5; do
    look && return
    ((tries == 5)) || sleep "$poll"
  done
  return 1
}

# The steps in a bucket, complete ones only; none where nothing is saved yet.
saved_in_bucket() {
  [[ $workdir == gs://* ]] || return 0
  local list=(gcloud storage ls "$workdir/checkpoints/*/manifest.json" ${project:+"--project=$project"})
  if ((dry_run)); then
    say "$(quote_all "${list[@]}")"
  else
    "${list[@]}" 2>/dev/null | sed -nE 's|.*/checkpoints/([0-9]+)/manifest\.json$|\1|p' || true
  fi
}

# Whether a word is among the outcomes.
among() { grep -qx "$1" <<<"$outcomes"; }

# A slice that is READY; set_up=whether it is one that was set up before.
set_up=0
have_slice() {
  local queue
  ask_queued || return 1
  queue=$answer
  ask_slice || return 1
  ((dry_run)) || case $queue:$answer in
    FAILED:* | SUSPEND*:* | *:PREEMPTED | *:TERMINATED | *:STOP* | *:SUSPEND*)
      note "the slice is ${answer:-not there}, its request ${queue:-not there}; asking again"
      set_up=0
      script stop --delete --yes || return 1 ;;
    *:READY) ;;
    *) set_up=0 ;;
  esac
  script create --accelerator "$accelerator" --poll "$poll" \
    ${for_create[@]+"${for_create[@]}"} ${flags[@]+"${flags[@]}"}
}

# A run that goes on; one that went on before is taken up. Statuses as of watch_run.
have_run() {
  local result=1
  why="the workers did not answer, five times in a row"
  ((dry_run)) || look_long || return 1
  why="the run could not be started, or ended in its first seconds"
  if among running; then
    note "a run is going on, step $newest is saved; watching it"
    set_up=1
    return
  fi
  if ((!set_up)); then
    script setup --accelerator "$accelerator" ${for_setup[@]+"${for_setup[@]}"} || return 1
    set_up=1
  fi
  script train "${for_train[@]}" || {
    # A mistake of the run itself is told within the first seconds.
    ! look || ! among 2 || result=2
    return "$result"
  }
  # What the attempt before saved last, its slice may have taken along before a look.
  ((dry_run)) || look || true
}

# why=how a run ended; the status is 0 (done), 1 (try again), 2 (that cannot help), 3 (stopped).
why=''
watch_run() {
  local misses=0 last=$newest alone=$SECONDS
  while :; do
    ask_slice || answer=unknown
    ((!dry_run)) || answer=READY
    case $answer in
      READY) ;;
      unknown) misses=$((misses + 1)) ;;
      *) why="the slice is ${answer:-not there any more}" && return 1 ;;
    esac
    if [[ $answer == READY ]]; then
      if look; then misses=0; else misses=$((misses + 1)); fi
    fi
    ((!dry_run)) || return 0
    if ((misses >= 5)); then
      why="the workers did not answer, five times in a row"
      return 1
    fi
    if ((misses == 0)); then
      ((newest <= last)) || note "step $newest is saved"
      last=$newest
      judge && return "$verdict"
      among running && grep -qvx running <<<"$outcomes" || alone=$SECONDS
      if ((SECONDS - alone >= grace)); then
        why="some workers ended ($(statuses)), others did not within $grace seconds"
        return 1
      fi
    fi
    sleep "$poll"
  done
}

statuses() { paste -sd' ' <<<"$outcomes"; }

# verdict=as of watch_run; status 1 while there is none yet.
verdict=0
judge() {
  why="the workers ended: $(statuses)"
  verdict=2
  ! among 2 || return 0
  ! among running || return 1
  verdict=3
  ! among stopped || return 0
  verdict=0
  ! grep -qvx 0 <<<"$outcomes" || verdict=1
}

# Nothing of a failed attempt may be left: a worker that does not end goes with its slice.
clear_up() {
  ask_slice || return 0
  [[ $answer == READY ]] || return 0
  script watch --once --lines 20 || true
  ! look || ! among running || script stop --wait "$grace" || force_delete
}

force_delete() {
  note "a worker does not end; deleting its slice"
  set_up=0
  tpus queued-resources delete "$name" --force --quiet ||
    tpus tpu-vm delete "$name" --quiet || true
}

finish() {
  local status=$1
  note "$2"
  if ((delete)); then
    script stop --delete --yes || force_delete
  else
    note "the slice $name is left as it is, and costs; tpu/stop.sh --delete gives it back"
  fi
  exit "$status"
}

attempt() {
  local result=0
  why="the slice could not be had"
  have_slice || return 1
  have_run || result=$?
  ((result)) || watch_run || result=$?
  return "$result"
}

if ((dry_run)); then
  attempt
  ((!delete)) || script stop --delete --yes
  exit 0
fi

failures=0 best=0
while :; do
  result=0
  attempt || result=$?
  case $result in
    0) finish 0 "done: all workers ended with status 0; the newest checkpoint is step $newest" ;;
    2) clear_up && finish 2 "a further attempt cannot help: $why" ;;
    3) finish 1 "the run was stopped by tpu/stop.sh; the same command resumes it" ;;
  esac
  ((newest <= best)) || failures=0
  ((newest <= best)) || best=$newest
  failures=$((failures + 1))
  note "$why; failure $failures of $limit since step $best was saved"
  clear_up
  ((failures < limit)) ||
    finish 1 "given up after $limit failures in a row without a newer checkpoint: $why"
  sleep $((pause * failures))
done

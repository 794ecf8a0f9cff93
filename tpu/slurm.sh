#!/usr/bin/env bash
# A run under SLURM, one task a node, which has all of the node's devices:
#
#   sbatch tpu/slurm.sh --config configs/chatglm2_6b_h100.py --workdir /shared/run
#
# What follows the script goes to `python -m glm_jax.train`. Change the #SBATCH lines, or give the
# same options to sbatch. The job goes back to the queue when its time is up, when it is preempted,
# and when its run has failed, at most three times (GLM_RETRIES) without a newer checkpoint; not
# when the run is done, has made a mistake (status 2), or is cancelled.

#SBATCH --job-name=glm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@120

# Not SIGTERM: SLURM itself sends that to the tasks of a job that is preempted or cancelled, and
# the run would take a second one, handed on from here, as "end at once".

set -uo pipefail

python=${PYTHON:-.venv/bin/python}
failures=.slurm-$SLURM_JOB_ID.failures

say() { printf '%s job %s: %s\n' "$(date -u '+%F %T')" "$SLURM_JOB_ID" "$*"; }

# The newest step that is saved whole; 0 where there is none, or the workdir is in a bucket.
newest() {
  local workdir='' word before='' file step newest=0
  for word; do
    [[ $before != --workdir ]] || workdir=$word
    [[ $word != --workdir=* ]] || workdir=${word#*=}
    before=$word
  done
  for file in "$workdir"/checkpoints/*/manifest.json; do
    step=$(basename "$(dirname "$file")")
    [[ ! -e $file || ! $step =~ ^[0-9]+$ ]] || ((step <= newest)) || newest=$step
  done
  echo "$newest"
}

# srun answers SIGTERM by killing its tasks; scancel signals the tasks, and this script not.
time_is_up='' told='' signals=0
trap 'time_is_up=1 signals=$((signals + 1)); scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap 'told=1 signals=$((signals + 1))' TERM

before=$(newest "$@")
say "start $((${SLURM_RESTART_COUNT:-0} + 1)), after step $before"
# In a session of its own, srun is out of reach of signals to this script and its children.
# A task that ends does not end the others: each says why, and saves what it can.
setsid srun --kill-on-bad-exit=0 --wait=0 "$python" -m glm_jax.train "$@" &
steps=$!
# A signal ends the wait, not the steps.
until
  seen=$signals
  wait "$steps"
  status=$?
  ((signals == seen))
do :; done

again() {
  say "the run ended with status $status after step $(newest "$@"); back to the queue"
  scontrol requeue "$SLURM_JOB_ID"
}

if ((status == 0 || status == 2)); then
  say "the run ended with status $status"
  rm -f "$failures"
elif [[ -n $time_is_up ]]; then
  again "$@"
elif [[ -n $told ]]; then
  say "preempted or cancelled, with status $status; SLURM itself requeues what it preempts"
else
  if (($(newest "$@") > before)); then : >"$failures"; else echo "$status" >>"$failures"; fi
  if (($(wc -l <"$failures") <= ${GLM_RETRIES:-3})); then
    again "$@"
  else
    say "given up: $(wc -l <"$failures") failures without a newer checkpoint, the last: $status"
    rm -f "$failures"
  fi
fi
exit "$status"

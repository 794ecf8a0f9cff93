#!/usr/bin/env bash
# Puts the project on every worker of a slice, with its environment, and counts the devices.
#
# usage: tpu/setup.sh --name NAME --zone ZONE --accelerator TYPE [options]
#
#   --name NAME          of the slice (TPU_NAME)
#   --zone ZONE          it is in (ZONE)
#   --accelerator TYPE   as it was created: says how many devices jax must see (ACCELERATOR_TYPE)
#   --project ID         gcloud's own project where it is missing (PROJECT_ID)
#   --extras LIST        of setup.cfg; tpu. A worker that reads text itself needs tpu,tasks
#   --repo URL           clone this on the workers instead of copying the files that lie here
#   --ref REF            branch, tag or commit to clone; HEAD
#   --dry-run            print the commands, run none
#
# Copied are the files that git tracks or would track, as they are now. Running it again brings
# what has changed; it refuses while a run is going on.

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

extras=tpu repo='' ref=HEAD
split_options "$@"
set -- ${words[@]+"${words[@]}"}
while (($#)); do
  taken=2
  case $1 in
    --accelerator) take "$@" && accelerator=$value ;;
    --extras) take "$@" && extras=$value ;;
    --repo) take "$@" && repo=$value ;;
    --ref) take "$@" && ref=$value ;;
    *) common_option "$@" ;;
  esac
  shift "$taken"
done
check_common
find_accelerator "$accelerator"
[[ $extras =~ ^[a-z]+(,[a-z]+)*$ ]] || die "--extras takes names with commas between; got '$extras'"
[[ -n $repo || $ref == HEAD ]] || die "--ref says what to clone and needs --repo"

archive=$root/build/glm_jax.tar.gz
busy='if [ -f glm_jax/tpu/worker.sh ]; then bash glm_jax/tpu/worker.sh idle; fi'

pack() {
  mkdir -p "$root/build"
  git -C "$root" ls-files -z --cached --others --exclude-standard |
    tar -C "$root" -czf "$archive" --null -T -
}

copy_here() {
  if ((dry_run)); then
    say "mkdir -p $(quote "$root/build")"
    say "git -C $(quote "$root") ls-files -z --cached --others --exclude-standard |" \
      "tar -C $(quote "$root") -czf $(quote "$archive") --null -T -"
  else
    pack || fail "could not pack $root: not a git checkout, or files are missing; see --repo"
  fi
  tpus tpu-vm scp "$archive" "$name:" --worker=all || fail "could not copy to all workers of $name"
  # Modules and configs that are gone here must not stay there; runs and .venv do.
  on_worker all "$busy && mkdir -p glm_jax && rm -rf glm_jax/glm_jax glm_jax/configs &&\
 tar -xzf glm_jax.tar.gz -C glm_jax && rm glm_jax.tar.gz" ||
    fail "could not unpack on all workers of $name"
}

clone_there() {
  on_worker all "$busy && git init -q glm_jax &&\
 git -C glm_jax fetch -q --depth=1 $(quote "$repo") $(quote "$ref") &&\
 git -C glm_jax checkout -q --force --detach FETCH_HEAD" ||
    fail "could not get $ref of $repo on all workers of $name"
}

if [[ -n $repo ]]; then clone_there; else copy_here; fi
on_worker all "bash glm_jax/tpu/worker.sh install $extras" ||
  fail "could not install on all workers of $name"
on_worker all "bash glm_jax/tpu/worker.sh devices $chips $machines" ||
  fail "jax does not see the $chips TPU devices of $accelerator_type on all workers of $name"
((dry_run)) || say "$name is set up: $chips devices"

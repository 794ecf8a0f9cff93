# shellcheck shell=bash disable=SC2034  # the scripts use what is set here
# Slices by the names that `python -m glm_jax.plan` and Google Cloud give them; sourced, not run.
#
# From https://cloud.google.com/tpu/docs: v5e, v5p, v6e (shapes, types and hosts) and runtimes. The
# number in a type counts chips, for v5p cores, two a chip. jax shows one device a chip.

# topology, accelerator type, chips, virtual machines
slices='
v5e:1x1      v5litepod-1   1     one
v5e:2x2      v5litepod-4   4     one
v5e:2x4      v5litepod-8   8     one
v5e:4x4      v5litepod-16  16    several
v5e:4x8      v5litepod-32  32    several
v5e:8x8      v5litepod-64  64    several
v5e:8x16     v5litepod-128 128   several
v5e:16x16    v5litepod-256 256   several
v5p:2x2x1    v5p-8         4     one
v5p:2x2x2    v5p-16        8     several
v5p:2x2x4    v5p-32        16    several
v5p:2x4x4    v5p-64        32    several
v5p:4x4x4    v5p-128       64    several
v5p:4x4x8    v5p-256       128   several
v5p:4x8x8    v5p-512       256   several
v5p:8x8x8    v5p-1024      512   several
v5p:8x8x16   v5p-2048      1024  several
v5p:8x16x16  v5p-4096      2048  several
v5p:16x16x16 v5p-8192      4096  several
v5p:16x16x24 v5p-12288     6144  several
v6e:1x1      v6e-1         1     one
v6e:2x2      v6e-4         4     one
v6e:2x4      v6e-8         8     one
v6e:4x4      v6e-16        16    several
v6e:4x8      v6e-32        32    several
v6e:8x8      v6e-64        64    several
v6e:8x16     v6e-128       128   several
v6e:16x16    v6e-256       256   several
'

# Sets accelerator_type, chips, machines (one or several) and runtime from a topology or a type.
accelerator_type='' chips='' machines='' runtime=''
find_accelerator() {
  local topology type count hosts known=
  [[ -n $1 ]] || die "--accelerator (or ACCELERATOR_TYPE) is missing: a topology such as v5e:2x4"
  while read -r topology type count hosts; do
    [[ -n $topology ]] || continue
    known+=", $topology ($type)"
    [[ $1 == "$topology" || $1 == "$type" ]] || continue
    accelerator_type=$type chips=$count machines=$hosts
    case $topology in
      v5e:*) runtime=v2-alpha-tpuv5-lite ;;
      v5p:*) runtime=v2-alpha-tpuv5 ;;
      v6e:*) runtime=v2-alpha-tpuv6e ;;
    esac
    return
  done <<<"$slices"
  die "there is no accelerator '$1'; allowed are ${known#, }"
}

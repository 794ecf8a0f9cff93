import importlib.util
import subprocess
import sys

import pytest

from glm_jax.planning.hlo import Collective, Kernel, hlo_cost

# A layer in a loop of 3 trips, with what TPU programs have: fusions, a kernel, an overlapped
# all-gather (three instructions), a fused reduce-scatter; around it an all-reduce and a permute.
PROGRAM = """HloModule jit_step

%less (p: (s32[], f32[8])) -> pred[] {
  %bound = s32[] constant(3)
  %p = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%starts (a: bf16[4,8]) -> (bf16[4,8], bf16[16,8], u32[]) {
  %a = bf16[4,8] parameter(0)
  %g = bf16[16,8] all-gather(%a), channel_id=2, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %s = (bf16[4,8], bf16[16,8], u32[]) custom-call(%g), \
custom_call_target="AsyncCollectiveStart"
}

%beside (a.1: bf16[4,8]) -> bf16[8,8] {
  %a.1 = bf16[4,8] parameter(0)
  %g.1 = bf16[16,8] all-gather(%a.1), channel_id=2, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %m = bf16[8,8] convolution(%a.1, %a.1)
}

%waits (a.2: bf16[4,8]) -> bf16[16,8] {
  %a.2 = bf16[4,8] parameter(0)
  %g.2 = bf16[16,8] all-gather(%a.2), channel_id=2, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %d = bf16[16,8] custom-call(%g.2), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (g.3: f32[16,8]) -> f32[4,8] {
  %g.3 = f32[16,8] parameter(0)
  %r = f32[16,8] all-reduce(%g.3), channel_id=9, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %part = f32[4,8] dynamic-slice(%r)
}

%body (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]) parameter(0)
  %start.1 = (bf16[4,8], bf16[16,8], u32[]) fusion(%b), kind=kCustom, calls=%starts
  %mm = bf16[8,8] fusion(%b), kind=kOutput, calls=%beside, metadata={op_name="jit(f)/a/b/dot"}, \
backend_config={"window_config":{"estimated_cycles":"1000"}}
  %done.1 = bf16[16,8] fusion(%b), kind=kCustom, calls=%waits
  %forward.7 = bf16[8] custom-call(%mm), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"body":"x","cost_estimate":{"flops":"50"}}}
  %rs = f32[4,8] fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1, \
backend_config={"debug":"StrategyRing{colors:1 phases:1}"}
  %odd = f32[8] fusion(%b), kind=kLoop, calls=%beside, \
backend_config={"window_config":{"estimated_cycles":"100000000000000000"}}
  ROOT %t = (s32[], f32[8]) tuple(%b, %b)
}

%windowed_dot_general_body (c: (s32[])) -> (s32[]) {
  %c = (s32[]) parameter(0)
  %w = f32[2] fusion(%c), kind=kLoop, calls=%beside, \
backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %t.1 = (s32[]) tuple(%c)
}

%carried (p.1: (s32[], s32[])) -> pred[] {
  %p.1 = (s32[], s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %n.1 = s32[] get-tuple-element(%p.1), index=1
  ROOT %lt.1 = pred[] compare(%i.1, %n.1), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %loop = (s32[], f32[8]) while(%x), condition=%less, body=%body
  %loop.1 = (s32[]) while(%x), condition=%carried, body=%windowed_dot_general_body
  %ar = (f32[8], f32[2]) all-reduce(%x, %x), channel_id=4, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, to_apply=%add, \
backend_config={"debug":"UniDirectionNDRingStrategy{colors:4 phases:2}"}
  %cp = (f32[8], f32[8], u32[]) collective-permute-start(%x), channel_id=5
  %cpd = f32[8] collective-permute-done(%cp)
  %ag = ((f32[2]{0:T(128)}, f32[3]), (f32[8], f32[12])) all-gather-start(%x, %x), channel_id=6, \
replica_groups=[2,4]<=[8]
  ROOT %y = f32[8] add(%x, %x), metadata={op_name="jit(f)/end"}, \
backend_config={"window_config":{"estimated_cycles":"20"}}
}
"""


def test_cycles_count_as_often_as_their_loop_turns():
    cost = hlo_cost(PROGRAM, num_devices=8, clock_hz=2.0)
    assert cost.seconds == (3 * 1000 + 1 * 7 + 20) / 2
    assert cost.broken_estimates == 3
    assert cost.top[:2] == ((1500, 3, "a/b/dot"), (10, 1, "jit(f)/end"))


def test_a_loop_without_a_constant_bound_is_counted_as_asked_and_named():
    cost = hlo_cost(PROGRAM, num_devices=8, clock_hz=1.0, unknown_trips=4)
    assert cost.seconds == 3 * 1000 + 4 * 7 + 20
    assert [(loop.name, loop.trips) for loop in cost.loops] == [
        ("body", 3),
        ("windowed_dot_general_body", None),
    ]
    assert (cost.unknown_loops, cost.windowed_loops) == (1, 1)


def test_kernels_are_counted_by_name_with_the_flops_they_state():
    assert hlo_cost(PROGRAM, 8, 1e9).kernels == (Kernel("forward", 3, 150),)


def test_collectives_by_kind_group_and_overlap_each_once():
    # bf16[16,8], f32[8] and f32[12] gathered, f32[4,8] of the scatter, f32[8] and f32[2] reduced,
    # f32[8] permuted.
    assert set(hlo_cost(PROGRAM, 8, 1e9).collectives) == {
        Collective("reduce-scatter", 4, 1, False, 3, 3 * 128),
        Collective("all-reduce", 8, 4, False, 1, 40),
        Collective("collective-permute", 2, None, True, 1, 32),
        Collective("all-gather", 4, None, True, 4, 3 * 256 + 80),
    }


# As XLA writes it for GPUs: microseconds by more than one model, what starts a collective and what
# waits for it, cuBLAS, a kernel of Pallas. The loop's turns are known.
GPU_PROGRAM = """HloModule jit_step

%less (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]) parameter(0)
  ROOT %fused = pred[] fusion(%p), kind=kLoop, calls=%add, backend_config={"reification_cost":\
[{"end_to_end_cycles":2,"exec_time_us":9,"name":""}]}
}

%body (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]) parameter(0)
  %x = bf16[16,5]{1,0} get-tuple-element(%b), index=1
  %all-gather-start = (bf16[4,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(%x), channel_id=1, \
replica_groups=mesh['axis_0'=8] {'axis_0'}, dimensions={0}, backend_config={\
"collective_backend_config":{"is_sync":false},"reification_cost":[{"exec_time_us":99,"name":"sol"}]}
  %all-gather-done = bf16[32,8]{1,0} all-gather-done(%all-gather-start)
  %reduce-scatter-start = ((bf16[16,8]{1,0}), bf16[2,8]{1,0}) reduce-scatter-start(%x), \
channel_id=2, replica_groups=[1,8]<=[8], backend_config={"collective_backend_config":\
{"is_sync":true},"reification_cost":[]}
  %wide = (f32[16,6]{1,0}, s8[64]{0}) custom-call(%x, %b), custom_call_target=\
"__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{\
"lhs_contracting_dimensions":["1"]}},"reification_cost":[{"exec_time_us":1e6,"name":"sol"}]}
  %same = (bf16[16,6]{1,0}, s8[64]{0}) custom-call(%x, %b), custom_call_target=\
"__cublas$lt$matmul", metadata={op_name="jit(f)/a/dot"}, backend_config={\
"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}},\
"reification_cost":[{"exec_time_us":40.5,"name":"sol"}]}
  %pallas_call.1 = bf16[8]{0} custom-call(%x), custom_call_target="__gpu$xla.gpu.triton", \
metadata={op_name="jit(f)/jvp()/shard_map/gpu_forward/pallas_call"}, backend_config={\
"reification_cost":[{"exec_time_us":1,"name":"sol"}]}
  ROOT %fusion = (s32[], f32[8]) fusion(%b), kind=kLoop, calls=%add, metadata={op_name="end"}, \
backend_config={"reification_cost":[{"end_to_end_cycles":7.5,"exec_time_us":3,"name":""},\
{"end_to_end_cycles":0,"exec_time_us":2.5,"name":"sol"}]}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x.1 = f32[8] parameter(0)
  %loop = (s32[], f32[8]) while(%x.1), condition=%less, body=%body, \
backend_config={"known_trip_count":{"n":"10"}}
  ROOT %out = f32[8] get-tuple-element(%loop), index=1
}
"""


def test_a_gpus_program_has_microseconds_of_the_last_model():
    cost = hlo_cost(GPU_PROGRAM, num_devices=8, clock_hz=1.98e9)
    assert cost.seconds == pytest.approx(10 * (40.5 + 2.5) / 1e6)
    assert cost.top[0] == (pytest.approx(405e-6), 10, "jit(f)/a/dot")
    assert cost.unknown_loops == 0


def test_a_gpus_products_into_float32_are_counted_in_flops():
    # Ten times [16, 5] by [5, 6]; what XLA says of them, a second each, is left out.
    assert hlo_cost(GPU_PROGRAM, 8, 1e9).product_flops == 10 * 2 * 16 * 5 * 6


def test_a_gpus_kernels_have_the_name_of_their_scope():
    assert hlo_cost(GPU_PROGRAM, 8, 1e9).kernels == (Kernel("gpu_forward", 10, 0),)


def test_a_gpus_collectives_are_waited_for_where_they_are_said_to_be():
    assert set(hlo_cost(GPU_PROGRAM, 8, 1e9).collectives) == {
        Collective("all-gather", 8, None, True, 10, 10 * 32 * 8 * 2),
        Collective("reduce-scatter", 8, None, False, 10, 10 * 2 * 8 * 2),
    }


ONE_MATMUL = """
import os
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from glm_jax.planning.hlo import hlo_cost
from glm_jax.planning.topologies import topology_devices

mesh = jax.make_mesh((4,), ("a",), axis_types=(AxisType.Auto,), devices=topology_devices("v5e:2x2"))
x = jax.ShapeDtypeStruct((4096, 2048), jnp.bfloat16, sharding=NamedSharding(mesh, P("a")))
w = jax.ShapeDtypeStruct((7, 2048, 2048), jnp.bfloat16, sharding=NamedSharding(mesh, P()))
b = jax.ShapeDtypeStruct((2048,), jnp.float32, sharding=NamedSharding(mesh, P("a")))

def f(x, w, b):
    y, _ = jax.lax.scan(lambda x, w: (x @ w, None), x, w)
    return y, jax.lax.with_sharding_constraint(b, NamedSharding(mesh, P()))

cost = hlo_cost(jax.jit(f).lower(x, w, b).compile().as_text(), 4, 1.5e9)
print(*(loop.trips for loop in cost.loops))
print(7 * 2 * 1024 * 2048 * 2048 / 197e12 / cost.seconds)
print(*((c.kind, c.group_size, c.count, c.num_bytes) for c in cost.collectives))
"""


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_real_program_takes_about_as_long_as_its_matmuls_do_at_the_peak():
    done = subprocess.run(
        [sys.executable, "-c", ONE_MATMUL], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    trips, share_of_peak, collectives = done.stdout.splitlines()
    assert trips == "7"
    assert 0.5 < float(share_of_peak) <= 1.0
    assert collectives == "('all-gather', 4, 1, 8192)"

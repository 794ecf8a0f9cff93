import pytest

from glm_jax.planning.hlo_text import computations_of, group_size, sizes_in_bytes, trip_count

LOOPS = """HloModule jit_f

%less (p: (s32[], f32[4])) -> pred[] {
  %bound = s32[]{:T(128)} constant(28)
  %p = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT, metadata={op_name="jit(f)/lt"}
}

%less_than_carried (p.1: (s32[], s32[])) -> pred[] {
  %p.1 = (s32[], s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %n.1 = s32[] get-tuple-element(%p.1), index=1
  ROOT %lt.1 = pred[] compare(%i.1, %n.1), direction=LT
}

%fused (q: s32[]) -> pred[] {
  %q = s32[] parameter(0)
  %c = s32[] constant(5)
  ROOT %lt.2 = pred[] compare(%q, %c), direction=LT
}

%less_by_fusion (p.2: (s32[])) -> pred[] {
  %p.2 = (s32[]) parameter(0)
  %i.2 = s32[] get-tuple-element(%p.2), index=0
  ROOT %f = pred[] fusion(%i.2), kind=kLoop, calls=%fused
}

%body (b: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %b = (s32[], f32[4]) parameter(0)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0:T(128)} parameter(0)
  %w = (s32[], f32[4]) while(%x), condition=%less, body=%body
  %w.1 = (s32[], s32[]) while(%x), condition=%less_than_carried, body=%body
  %w.2 = (s32[]) while(%x), condition=%less_by_fusion, body=%body
  %w.3 = (s32[], s32[]) while(%x), condition=%less_than_carried, body=%body, \
backend_config={"known_trip_count":{"n":"7"}}
  ROOT %y = f32[4]{0:T(128)} copy(%x)
}
"""


def test_computations_hold_their_instructions_and_the_entry_is_known():
    found = computations_of(LOOPS)
    assert set(found) == {
        "less",
        "less_than_carried",
        "fused",
        "less_by_fusion",
        "body",
        "main",
        "",
    }
    assert found[""] is found["main"]
    last = found["less"].instructions[-1]
    assert (last.name, last.shape, last.opcode) == ("lt", "pred[]{:T(512)}", "compare")
    assert last.is_root
    assert last.operands == ["i", "bound"]
    assert last.operation == "jit(f)/lt"
    assert found["main"].instructions[1].attribute("body") == "body"


def test_a_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        computations_of("not HLO")


def test_trips_are_read_from_a_constant_bound_only():
    found = computations_of(LOOPS)
    loops = [one for one in found[""].instructions if one.opcode == "while"]
    assert [trip_count(one, found) for one in loops] == [28, None, 5, 7]


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ("f32[]", [4]),
        ("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, s32[], /*index=5*/u8[10])", [12, 4, 10]),
        ("token[]", []),
        ("s4[5]", [3]),
    ],
)
def test_sizes_of_shapes(shape, sizes):
    assert sizes_in_bytes(shape) == sizes


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true", 4),
        ("replica_groups=[2,8]<=[8,2]T(1,0), dimensions={0}", 8),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_1'}, dimensions={0}", 2),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0','axis_1'}", 16),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0':(1)4}", 4),
        ("replica_groups={}, to_apply=%add", 32),
    ],
)
def test_group_sizes_in_every_way_they_are_written(groups, size):
    assert group_size(groups, 32) == size


def test_names_lose_what_the_compiler_appends():
    found = computations_of(
        "ENTRY %m () -> f32[] {\n  ROOT %dq.3.clone.1 = f32[] custom-call(), "
        'custom_call_target="tpu_custom_call", channel_id=5, '
        'backend_config={"custom_call_config":{"cost_estimate":{"flops":"12"}}}\n}\n'
    )
    (one,) = found[""].instructions
    assert (one.bare_name, one.target, one.channel, one.stated_flops) == (
        "dq",
        "tpu_custom_call",
        5,
        12,
    )
    assert one.operation == "dq"
    assert one.kernel_name == "dq"
    assert one.seconds(1e9) is None
    assert not one.is_sync

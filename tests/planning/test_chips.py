import dataclasses

import pytest

from glm_jax.planning.chips import CHIPS, Gpu, Tpu, chip_of


@dataclasses.dataclass
class Device:
    device_kind: str


def test_the_peak_is_that_of_the_matrix_units_at_the_clock():
    # Units of a chip x side^2 x (multiply and add) x clock.
    assert pytest.approx(4 * 128**2 * 2 * CHIPS["v5e"].clock_hz, rel=0.01) == 197e12
    assert pytest.approx(8 * 128**2 * 2 * CHIPS["v5p"].clock_hz, rel=0.01) == 459e12
    assert pytest.approx(8 * 128**2 * 2 * CHIPS["v4"].clock_hz, rel=0.01) == 275e12


def test_an_a100s_peak_is_that_of_its_tensor_cores():
    # 108 multiprocessors x 1024 multiplications and additions x 1.41 GHz.
    assert pytest.approx(108 * 1024 * 2 * CHIPS["a100"].clock_hz, rel=0.01) == 312e12


def test_links_carry_the_published_bandwidth_of_a_chip():
    tpus = [chip for chip in CHIPS.values() if isinstance(chip, Tpu)]
    both_ways = {chip.name: 2 * chip.links * chip.link_bandwidth for chip in tpus}
    assert both_ways == {"v4": 600e9, "v5e": 400e9, "v5p": 1200e9, "v6e": 800e9}
    gpus = [chip for chip in CHIPS.values() if isinstance(chip, Gpu)]
    nvlink = {chip.name: 2 * chip.link_bandwidth for chip in gpus}
    assert nvlink == {"a100": 600e9, "h100": 900e9, "h200": 900e9}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("NVIDIA H200", "h200")],
)
def test_a_device_is_known_by_its_kind(kind, name):
    assert chip_of(Device(kind)).name == name


def test_gpus_before_hopper_have_no_times():
    timed = {name for name, chip in CHIPS.items() if chip.is_timed}
    assert timed == {"v4", "v5e", "v5p", "v6e", "h100", "h200"}


def test_of_another_device_nothing_is_known():
    assert chip_of(Device("cpu")) is None

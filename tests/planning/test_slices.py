import pytest

from glm_jax.planning.slices import NETWORKS, Network, sum_over_slices


def test_a_host_sends_its_share_of_the_gradients_around_the_ring():
    # 64 GB over 8 hosts of 4 chips are 8 GB each; two slices send each half once, 2 x 1/2 x 8.
    found = sum_over_slices(64e9, slices=2, chips_per_slice=32, network=Network(4, 2e9))
    assert (found.bytes_per_host, found.seconds) == (8e9, 4.0)
    # Four slices: 2 x 3/4 x 8.
    found = sum_over_slices(64e9, slices=4, chips_per_slice=32, network=Network(4, 2e9))
    assert (found.bytes_per_host, found.seconds) == (12e9, 6.0)


def test_one_slice_sends_nothing():
    assert sum_over_slices(64e9, 1, 32, Network(4, 2e9)).seconds == 0.0


@pytest.mark.parametrize(("name", "pod"), [("v5e", 6.4e12), ("v6e", 25.6e12)])
def test_hosts_add_up_to_what_is_published_of_a_pod(name, pod):
    network = NETWORKS[name]
    assert 256 / network.chips_per_host * network.bandwidth * 8 == pod

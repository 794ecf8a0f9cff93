"""Several slices over the data-centre network: what adding up gradients between them costs.

    2 slices of 256 v5e, 20 GB of gradients: each of a slice's 32 hosts holds 0.62 GB of the sum;
    a ring over two slices sends that once, at 25 GB/s: 25 ms

Assumptions. Slices are replicas (`mesh.data`): parameters, moments and gathers stay inside a slice;
only the sum of gradients crosses, once a step, each chip its shard. Shards travel in a ring over
the slices, 2 (S - 1) / S of them in each direction. A host's cards give their published rate, all
hosts at once. Nothing is hidden behind computation: XLA may start a layer's sum while earlier
layers are still differentiated, but `train` does not ask for it, and no slice was at hand to see.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Network:
    """What a host has to other slices.

    Attributes:
      chips_per_host: that share the host's cards.
      bandwidth: of a host, bytes per second in one direction.
    """

    chips_per_host: int
    bandwidth: float


# docs.cloud.google.com/tpu/docs/v5e: 2 x 100 Gbit/s for 8 chips; v6e: 4 x 200 Gbit/s for 8. Both
# agree with the figure per pod of 256 (6.4 and 25.6 Tbit/s).
NETWORKS = {"v5e": Network(8, 25e9), "v6e": Network(8, 100e9)}


@dataclasses.dataclass(frozen=True)
class Reduction:
    """A sum over slices.

    Attributes:
      bytes_per_host: that a host sends, and as many that it receives.
      seconds: of the whole sum, nothing hidden.
    """

    bytes_per_host: float
    seconds: float


def sum_over_slices(
    gradient_bytes: float, slices: int, chips_per_slice: int, network: Network
) -> Reduction:
    """The cost of adding up gradients over slices.

    Args:
      gradient_bytes: of all gradients together, in the dtype they travel in.
      slices: S; 1 costs nothing.
      chips_per_slice: over which the gradients of a slice are split.
      network: of the hosts.
    """
    share = gradient_bytes * network.chips_per_host / chips_per_slice
    sent = 2 * (slices - 1) / slices * share
    return Reduction(sent, sent / network.bandwidth)

"""Where the ranks of a node listen: addresses, host names, interfaces, and what is none of them."""

import re

import pytest

from alchemist_ray.errors import NodeError
from alchemist_ray.mpi_backend.node.node_address import NodeAddress

OUTSIDE = "192.0.2.77"
"""An address of no host (RFC 5737)."""


@pytest.mark.parametrize(
    ("address", "bind", "advertised", "bound"),
    [
        ("", "", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "", "127.0.0.2", "127.0.0.2"),
        ("localhost", "", "localhost", "127.0.0.1"),
        ("lo", "", "127.0.0.1", "127.0.0.1"),
        (OUTSIDE, "lo", OUTSIDE, "127.0.0.1"),
        (OUTSIDE, "0.0.0.0", OUTSIDE, "0.0.0.0"),
        ("", "lo", "127.0.0.1", "127.0.0.1"),
        ("", "0.0.0.0", "127.0.0.1", "0.0.0.0"),
        ("node.example", "127.0.0.1", "node.example", "127.0.0.1"),
    ],
)
def test_what_is_told_to_others_and_where_ranks_listen(address, bind, advertised, bound):
    assert NodeAddress.find(address, bind, "127.0.0.1") == NodeAddress(advertised, bound, "127.0.0.1")


@pytest.mark.parametrize(
    ("address", "bind", "message"),
    [
        (OUTSIDE, "", rf"cannot listen at {re.escape(OUTSIDE)}, which --address names .*lo 127\.0\.0\.1.*--bind"),
        ("", OUTSIDE, rf"cannot listen at {re.escape(OUTSIDE)}, which --bind names .*lo 127\.0\.0\.1"),
        ("eth77", "", r"eth77 \(--address\) is not an address, a host name or a network interface of this host"),
        ("127.0.0.1", "eth77", r"eth77 \(--bind\) is not an address, a host name or a network interface"),
    ],
)
def test_where_no_rank_can_listen(address, bind, message):
    with pytest.raises(NodeError, match=message):
        NodeAddress.find(address, bind, "127.0.0.1")


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("peer", ["127.0.0.9", "0.0.0.0"])
def test_the_interface_of_mpi(bound, peer):
    assert NodeAddress(OUTSIDE, bound, "127.0.0.1").interface_towards(peer) == "lo"

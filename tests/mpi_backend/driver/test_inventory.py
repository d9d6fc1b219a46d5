"""The worker slots of a server, and the sessions that hold them."""

import contextlib
import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemist_ray.errors import ArgumentValueError, NodeError, NotEnoughWorkersError
from alchemist_ray.mpi_backend.driver.inventory import Inventory, Placement
from alchemist_ray.mpi_backend.node.slots import Slot


def inventory_of(**nodes):
    """Return an inventory with so many slots on each node."""
    made = Inventory()
    for name, count in nodes.items():
        made.add(name, count)
    return made


@pytest.fixture
def inventory():
    return inventory_of(alpha=2, beta=3)


def ids(slots):
    return [slot.worker_id for slot in slots]


def counts(slots):
    return Counter(slot.node for slot in slots)


def test_slots_are_numbered_from_one_over_all_nodes_and_from_zero_on_each(inventory):
    assert inventory.slots == [
        Slot(1, "alpha", 0), Slot(2, "alpha", 1), Slot(3, "beta", 0), Slot(4, "beta", 1), Slot(5, "beta", 2)
    ]  # fmt: skip
    assert inventory.slots[2].name == "Worker-3"


def test_all_slots_are_free_at_first(inventory):
    assert inventory.free_slots() == inventory.slots
    assert all(inventory.holder(slot) is None for slot in inventory.slots)


def test_what_a_session_takes_is_its_own(inventory):
    taken = inventory.take(Placement(2), session_id=7)
    assert len(taken) == 2
    assert inventory.held_by(7) == taken
    assert {inventory.holder(slot) for slot in taken} == {7}
    assert not set(inventory.free_slots()) & set(taken)
    assert len(inventory.free_slots()) == 3


def test_no_slot_is_given_twice(inventory):
    first, second = inventory.take(Placement(2), 1), inventory.take(Placement(3), 2)
    assert sorted(ids(first + second)) == [1, 2, 3, 4, 5]
    assert inventory.held_by(1) == first
    assert inventory.held_by(2) == second


def test_released_slots_are_free_again_and_others_are_not(inventory):
    inventory.take(Placement(2), 1)
    kept = inventory.take(Placement(2), 2)
    inventory.release(1)
    assert inventory.held_by(1) == []
    assert inventory.held_by(2) == kept
    assert len(inventory.free_slots()) == 3
    inventory.take(Placement(3), 3)
    assert inventory.free_slots() == []


def test_releasing_nothing_is_no_error(inventory):
    inventory.release(99)
    assert len(inventory.free_slots()) == 5


def test_more_than_are_free_are_refused_with_who_holds_the_others(inventory):
    inventory.take(Placement(1), 12)
    inventory.take(Placement(2), 3)
    with pytest.raises(NotEnoughWorkersError) as caught:
        inventory.take(Placement(3), 4)
    error = caught.value
    assert (error.requested, error.available, error.total) == (3, 2, 5)
    assert error.holders == ["session 3: 2", "session 12: 1"]
    assert inventory.held_by(4) == []
    assert len(inventory.take(Placement(2), 4)) == 2


def test_more_than_there_are_is_refused_without_holders(inventory):
    with pytest.raises(NotEnoughWorkersError) as caught:
        inventory.take(Placement(6), 1)
    assert caught.value.holders == []
    assert len(inventory.free_slots()) == 5


@pytest.mark.parametrize("count", [0, -1, -100])
def test_less_than_one_is_refused(count):
    with pytest.raises(ArgumentValueError, match=f"{count} workers") as caught:
        Placement(count)
    assert isinstance(caught.value, ValueError)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ArgumentValueError, match="'scatter'; it must be one of pack, spread, strict_spread"):
        Placement(2, "scatter")


# --- why a session gets no workers ------------------------------------------------------------------------------------


@pytest.fixture
def labelled():
    """Return an inventory of three nodes; sessions 3 and 4 hold slots of two of them."""
    made = Inventory()
    made.add("a", 2, {"zone": "lab", "disk": "fast"})
    made.add("b", 2, {"zone": "north"})
    made.add("c", 3)
    made.take(Placement(2, labels={"zone": "lab"}), 3)
    made.take(Placement(1, labels={"zone": "north"}), 4)
    return made


def refusal(inventory, count, strategy="pack", **labels):
    """Return the text of the error that refuses a request."""
    with pytest.raises(NotEnoughWorkersError) as caught:
        inventory.take(Placement(count, strategy, labels), 9)
    return str(caught.value)


@pytest.mark.parametrize("labels", [{}, {"zone": "lab"}])
def test_a_server_without_nodes_says_so_and_how_to_add_one(labels):
    text = refusal(Inventory(), 2, **labels)
    assert "2 workers were requested" in text
    assert "but the server has no node, and so no workers. Add a node with: alchemist node" in text


def test_labels_that_no_node_has_are_told_with_those_that_there_are(labelled):
    text = refusal(labelled, 1, zone="south")
    assert text.startswith(
        "1 worker was requested on nodes with zone=south, but no node of the server has these labels."
    )
    assert "Its nodes have disk=fast, zone=lab, zone=north." in text
    assert "alchemist node --label KEY=VALUE" in text
    assert "no node of the server has these labels" in refusal(labelled, 1, zone="north", disk="fast")  # none has both
    assert "Its nodes have no labels." in refusal(inventory_of(a=1), 1, zone="south")


def test_of_many_labels_some_are_told():
    made = Inventory()
    for number in range(100, 150):
        made.add(f"n{number}", 1, {"host": f"n{number}"})
    assert "host=n119, and 30 more. Ask" in refusal(made, 1, zone="south")


@pytest.mark.parametrize(
    ("count", "strategy", "labels", "text"),
    [
        (8, "pack", {}, "requested, but the server's 3 nodes allow at most 7. Request at most 7, or add nodes"),
        (4, "strict_spread", {}, "but the server's 3 nodes allow at most 3. Request at most 3, or add nodes"),
        (3, "pack", {"zone": "lab"}, "but of the server's 3 nodes one has these labels and allows at most 2. Request"),
    ],
)
def test_what_the_nodes_can_never_give_is_told_with_the_most_that_they_can(labelled, count, strategy, labels, text):
    told = refusal(labelled, count, strategy, **labels)
    assert text in told
    assert "wait" not in told  # it would not help
    assert "session" not in told


@pytest.mark.parametrize(
    ("count", "strategy", "labels", "text"),
    [
        (5, "pack", {}, "but 4 of the server's 7 are free (held: session 3: 2; session 4: 1). "),
        (3, "strict_spread", {}, "but 2 of the possible 3 are free (held: session 3: 2; session 4: 1). "),
        (2, "pack", {"zone": "north"}, "but 1 of the possible 2 are free (held: session 4: 1). "),
        (1, "pack", {"zone": "lab"}, "but 0 of the possible 2 are free (held: session 3: 2). "),
    ],
)
def test_workers_that_are_busy_are_told_with_who_holds_them(labelled, count, strategy, labels, text):
    told = refusal(labelled, count, strategy, **labels)
    assert text + "Wait for the others with request_workers(n, wait=seconds)" in told


def test_a_session_that_others_are_ahead_of_is_told_to_wait_and_not_to_request_less(inventory):
    text = str(inventory.refusal(Placement(2)))
    assert text.endswith("Those who wait are served first: wait, too, with request_workers(n, wait=seconds)")
    assert "at most" not in text


@given(
    sizes=st.lists(st.integers(1, 3), max_size=3),
    counts=st.lists(st.integers(1, 5), max_size=6),
    strategy=st.sampled_from(["pack", "spread", "strict_spread"]),
    labels=st.sampled_from([{}, {"kind": "x"}, {"kind": "none"}]),
)
def test_nobody_is_told_to_request_at_most_none(sizes, counts, strategy, labels):
    made = Inventory()
    for number, size in enumerate(sizes):
        made.add(f"n{number}", size, {"kind": "xyz"[number]})
    for session, count in enumerate(counts):
        placement = Placement(count, strategy, labels)
        error = made.refusal(placement)
        assert "at most 0" not in str(error)
        assert ("allow" in str(error)) == (0 < error.total < count)
        with contextlib.suppress(NotEnoughWorkersError):
            made.take(placement, session)


# --- placement --------------------------------------------------------------------------------------------------------


def test_a_group_that_fits_on_one_node_is_packed_there_on_the_fullest():
    inventory = inventory_of(small=2, large=5)
    assert counts(inventory.take(Placement(2), 1)) == {"small": 2}
    assert counts(inventory.take(Placement(2), 2)) == {"large": 2}


def test_a_group_that_fits_on_no_node_takes_as_few_as_possible():
    assert counts(inventory_of(a=2, b=4, c=2).take(Placement(5), 1)) == {"b": 4, "a": 1}


def test_a_spread_group_takes_all_nodes_alike():
    assert counts(inventory_of(a=1, b=4, c=4).take(Placement(7, "spread"), 1)) == {"a": 1, "b": 3, "c": 3}
    assert counts(inventory_of(a=4, b=4, c=4).take(Placement(2, "spread"), 1)) == {"a": 1, "b": 1}


def test_a_strictly_spread_group_has_one_worker_a_node():
    inventory = inventory_of(a=1, b=4, c=4)
    assert counts(inventory.take(Placement(3, "strict_spread"), 1)) == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(NotEnoughWorkersError, match=r"each on a node of its own, but 2 of the possible 3 are free"):
        inventory.take(Placement(3, "strict_spread"), 2)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    wishes=st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["pack", "spread", "strict_spread"])), max_size=8),
)
def test_every_placement_takes_free_slots_that_stand_together(sizes, wishes):
    inventory = inventory_of(**{f"n{i}": size for i, size in enumerate(sizes)})
    for session, (count, strategy) in enumerate(wishes):
        free = Counter(slot.node for slot in inventory.free_slots())
        room = len(free) if strategy == "strict_spread" else sum(free.values())
        if count > room:
            with pytest.raises(NotEnoughWorkersError):
                inventory.take(Placement(count, strategy), session)
            continue
        taken = inventory.take(Placement(count, strategy), session)
        nodes = [slot.node for slot in taken]
        assert len(set(taken)) == count
        assert sum(a != b for a, b in itertools.pairwise(nodes)) == len(set(nodes)) - 1
        assert all(free[node] >= n for node, n in counts(taken).items())
        if strategy == "pack":
            fewest = next(n for n in range(1, 7) if sum(sorted(free.values(), reverse=True)[:n]) >= count)
            assert len(set(nodes)) == fewest
        else:
            assert len(set(nodes)) == min(count, len(free))


def test_only_nodes_with_all_labels_are_used():
    inventory = Inventory()
    inventory.add("a", 4, {"zone": "north", "disk": "fast"})
    inventory.add("b", 4, {"zone": "north"})
    assert counts(inventory.take(Placement(2, labels={"zone": "north", "disk": "fast"}), 1)) == {"a": 2}
    assert counts(inventory.take(Placement(5, labels={"zone": "north"}), 2)) == {"b": 4, "a": 1}
    with pytest.raises(
        NotEnoughWorkersError, match=r"on nodes with zone=south, but no node of the server has these labels"
    ):
        inventory.take(Placement(1, labels={"zone": "south"}), 3)


# --- nodes on which the site's own MPI starts the ranks ---------------------------------------------------------------


@pytest.fixture
def mixed():
    made = inventory_of(alpha=2, beta=1)
    for name, count in (("gamma", 3), ("delta", 4)):
        made.add(name, count, {"mpi": "site"}, is_alone=True)
    return made


@pytest.mark.parametrize(
    ("count", "strategy", "expected"),
    [
        (1, "pack", {"beta": 1}),
        (2, "pack", {"alpha": 2}),
        (3, "pack", {"gamma": 3}),
        (4, "pack", {"delta": 4}),
        (1, "spread", {"beta": 1}),
        (2, "spread", {"alpha": 1, "beta": 1}),
        (3, "spread", {"alpha": 2, "beta": 1}),
        (4, "spread", {"delta": 4}),
        (1, "strict_spread", {"delta": 1}),
        (2, "strict_spread", {"alpha": 1, "beta": 1}),
    ],
)
def test_a_group_with_ranks_on_such_a_node_is_there_alone(mixed, count, strategy, expected):
    assert mixed.could(Placement(count, strategy))
    assert counts(mixed.take(Placement(count, strategy), 1)) == expected


@pytest.mark.parametrize(("count", "strategy", "most"), [(5, "pack", 4), (5, "spread", 4), (3, "strict_spread", 2)])
def test_a_group_that_no_single_node_has_room_for_is_refused_with_the_reason(mixed, count, strategy, most):
    placement = Placement(count, strategy)
    assert not mixed.could(placement)
    with pytest.raises(NotEnoughWorkersError, match="a group with ranks on gamma, delta has all of them") as caught:
        mixed.take(placement, 1)
    assert (caught.value.available, caught.value.total) == (most, most)


def test_such_a_node_is_chosen_by_its_label(mixed):
    assert counts(mixed.take(Placement(2, labels={"mpi": "site"}), 1)) == {"gamma": 2}
    assert mixed.could(Placement(4, labels={"mpi": "site"}))
    with pytest.raises(NotEnoughWorkersError, match="of the server's 4 nodes 2 have these labels and allow at most 4"):
        mixed.take(Placement(5, labels={"mpi": "site"}), 2)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=5),
    count=st.integers(1, 8),
    strategy=st.sampled_from(["pack", "spread", "strict_spread"]),
)
def test_no_group_is_split_over_such_nodes(sizes, count, strategy):
    made, placement = Inventory(), Placement(count, strategy)
    for number, (size, is_site) in enumerate(sizes):
        made.add(f"{'site' if is_site else 'fork'}{number}", size, is_alone=is_site)
    if not made.could(placement):
        with pytest.raises(NotEnoughWorkersError) as caught:
            made.take(placement, 1)
        assert caught.value.available == caught.value.total < count
        return
    taken = counts(made.take(placement, 1))
    assert sum(taken.values()) == count
    assert len(taken) == 1 or not any(name.startswith("site") for name in taken)


def test_a_label_of_that_name_is_only_a_label():
    made = Inventory()
    for name in ("a", "b"):
        made.add(name, 1, {"mpi": "site"})
    assert counts(made.take(Placement(2), 1)) == {"a": 1, "b": 1}


# --- nodes that come and go -------------------------------------------------------------------------------------------


def test_two_nodes_of_one_name_are_refused(inventory):
    with pytest.raises(NodeError, match=r"has a node called alpha already.*--name"):
        inventory.add("alpha", 1)
    assert len(inventory.slots) == 5


def test_the_slots_of_a_node_that_leaves_are_gone_and_their_numbers_are_used_again(inventory):
    taken = inventory.take(Placement(4), 1)
    inventory.remove("beta")
    assert ids(inventory.slots) == [1, 2]
    inventory.release(1)
    inventory.add("gamma", 4)
    assert ids(inventory.slots) == [1, 2, 3, 4, 5, 6]
    assert len(inventory.free_slots()) == 6
    assert taken


def test_a_node_that_comes_back_does_not_get_the_slots_that_its_predecessor_lost(inventory):
    inventory.take(Placement(5), 1)
    inventory.remove("beta")
    inventory.add("beta", 3)
    assert ids(inventory.slots)[2:] == [6, 7, 8]
    inventory.release(1)
    assert len(inventory.free_slots()) == 5
    assert len(inventory.take(Placement(5), 2)) == 5


def test_the_sessions_of_a_node_are_told(inventory):
    inventory.take(Placement(3), 4)
    inventory.take(Placement(1), 9)
    assert inventory.sessions_on("beta") == {"4": 3}
    assert inventory.sessions_on("alpha") == {"9": 1}

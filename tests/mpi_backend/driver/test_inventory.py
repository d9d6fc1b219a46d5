"""The worker slots of a server, and the sessions that hold them."""

import pytest

from alchemist_ray.errors import ArgumentValueError, NotEnoughWorkersError
from alchemist_ray.mpi_backend.driver.inventory import Inventory
from alchemist_ray.mpi_backend.node.slots import Slot


@pytest.fixture
def inventory():
    return Inventory([("alpha", 2), ("beta", 3)])


def ids(slots):
    return [slot.worker_id for slot in slots]


def test_slots_are_numbered_from_one_over_all_hosts(inventory):
    assert inventory.slots == [
        Slot(1, "alpha"), Slot(2, "alpha"), Slot(3, "beta"), Slot(4, "beta"), Slot(5, "beta")
    ]  # fmt: skip
    assert inventory.slots[2].name == "Worker-3"


def test_all_slots_are_free_at_first(inventory):
    assert inventory.free_slots() == inventory.slots
    assert all(inventory.holder(slot) is None for slot in inventory.slots)


def test_what_a_session_takes_is_its_own(inventory):
    taken = inventory.take(2, session_id=7)
    assert len(taken) == 2
    assert inventory.held_by(7) == taken
    assert {inventory.holder(slot) for slot in taken} == {7}
    assert not set(inventory.free_slots()) & set(taken)
    assert len(inventory.free_slots()) == 3


def test_no_slot_is_given_twice(inventory):
    first, second = inventory.take(2, 1), inventory.take(3, 2)
    assert sorted(ids(first + second)) == [1, 2, 3, 4, 5]
    assert inventory.held_by(1) == first
    assert inventory.held_by(2) == second


def test_a_session_may_take_more(inventory):
    inventory.take(1, 1)
    inventory.take(2, 1)
    assert len(inventory.held_by(1)) == 3


def test_released_slots_are_free_again_and_others_are_not(inventory):
    inventory.take(2, 1)
    kept = inventory.take(2, 2)
    inventory.release(1)
    assert inventory.held_by(1) == []
    assert inventory.held_by(2) == kept
    assert len(inventory.free_slots()) == 3
    inventory.take(3, 3)
    assert inventory.free_slots() == []


def test_releasing_nothing_is_no_error(inventory):
    inventory.release(99)
    assert len(inventory.free_slots()) == 5


def test_more_than_are_free_are_refused_with_who_holds_the_others(inventory):
    inventory.take(1, 12)
    inventory.take(2, 3)
    with pytest.raises(NotEnoughWorkersError) as caught:
        inventory.take(3, 4)
    error = caught.value
    assert (error.requested, error.available, error.total) == (3, 2, 5)
    assert error.holders == ["session 3: 2", "session 12: 1"]
    assert inventory.held_by(4) == []
    assert len(inventory.take(2, 4)) == 2


def test_more_than_there_are_is_refused_without_holders(inventory):
    with pytest.raises(NotEnoughWorkersError) as caught:
        inventory.take(6, 1)
    assert caught.value.holders == []
    assert len(inventory.free_slots()) == 5


@pytest.mark.parametrize("count", [0, -1, -100])
def test_less_than_one_is_refused(inventory, count):
    with pytest.raises(ArgumentValueError, match=f"{count} workers") as caught:
        inventory.take(count, 1)
    assert isinstance(caught.value, ValueError)
    assert len(inventory.free_slots()) == 5


def test_slots_of_one_host_stand_together(inventory):
    inventory.take(1, 1)
    hosts = [slot.host for slot in inventory.take(4, 2)]
    assert hosts == sorted(hosts)


def test_a_group_that_fits_on_one_host_is_not_spread_over_two(inventory):
    inventory.take(1, 1)
    assert len({slot.host for slot in inventory.take(2, 2)}) == 1


def test_an_inventory_without_slots_gives_none():
    with pytest.raises(NotEnoughWorkersError):
        Inventory([]).take(1, 1)

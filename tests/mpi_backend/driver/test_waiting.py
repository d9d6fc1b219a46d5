"""Sessions that wait for workers: first come, first served."""

import asyncio
import time

import pytest

from alchemist_ray.errors import NotEnoughWorkersError
from alchemist_ray.mpi_backend.driver.inventory import Inventory, Placement
from alchemist_ray.mpi_backend.driver.waiting import WaitingLine


def with_line(scenario, **nodes):
    """Run a coroutine function of an inventory and its line."""
    inventory = Inventory()
    for name, count in nodes.items():
        inventory.add(name, count)
    return asyncio.run(scenario(inventory, WaitingLine(inventory)))


async def take(line, placement, session_id, seconds):
    """Take slots for something that starts at once."""
    async with line.taken(placement, session_id, seconds) as slots:
        return slots


async def until_idle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_free_workers_are_given_at_once():
    async def scenario(inventory, line):
        assert len(await take(line, Placement(2), 1, 0)) == 2

    with_line(scenario, a=2)


def test_who_does_not_wait_is_refused_at_once():
    async def scenario(inventory, line):
        await take(line, Placement(2), 1, 0)
        with pytest.raises(NotEnoughWorkersError, match="session 1: 2"):
            await take(line, Placement(1), 2, 0)
        assert len(line) == 0

    with_line(scenario, a=2)


def test_who_waits_gets_what_others_give_back_in_order():
    async def scenario(inventory, line):
        await take(line, Placement(2), 1, 0)
        order = []

        async def wait(session, count):
            await take(line, Placement(count), session, 10)
            order.append(session)

        waiting = []
        for session, count in ((2, 2), (3, 1), (4, 1)):
            waiting.append(asyncio.ensure_future(wait(session, count)))
            await until_idle()
        assert len(line) == 3
        inventory.release(1)
        line.serve()
        await until_idle()
        assert order == [2]
        inventory.release(2)
        line.serve()
        await asyncio.gather(*waiting)
        assert order == [2, 3, 4]

    with_line(scenario, a=2)


def test_a_small_request_does_not_overtake_a_large_one():
    async def scenario(inventory, line):
        await take(line, Placement(1), 1, 0)
        large = asyncio.ensure_future(take(line, Placement(3), 2, 10))
        await until_idle()
        with pytest.raises(
            NotEnoughWorkersError,
            match=r"requested \(other sessions wait already: 1\), but 2 of the server's 3 are free",
        ):
            await take(line, Placement(1), 3, 0)
        inventory.release(1)
        line.serve()
        assert len(await large) == 3

    with_line(scenario, a=3)


def test_a_request_that_no_nodes_can_fulfil_holds_nobody_up_and_gets_nodes_that_join():
    async def scenario(inventory, line):
        large = asyncio.ensure_future(take(line, Placement(4), 1, 10))
        await until_idle()
        assert len(await take(line, Placement(1), 2, 0)) == 1
        inventory.release(2)
        inventory.add("b", 2)
        line.serve()
        assert len(await large) == 4

    with_line(scenario, a=2)


def test_who_waits_too_long_is_told_how_long():
    async def scenario(inventory, line):
        await take(line, Placement(2), 1, 0)
        with pytest.raises(NotEnoughWorkersError, match=r"with a wait of 0.05 s, but 0 of"):
            await take(line, Placement(1), 2, 0.05)
        assert len(line) == 0

    with_line(scenario, a=2)


def test_a_session_that_goes_away_leaves_the_line_and_keeps_nothing():
    async def scenario(inventory, line):
        await take(line, Placement(2), 1, 0)
        gone = asyncio.ensure_future(take(line, Placement(2), 2, 10))
        last = asyncio.ensure_future(take(line, Placement(2), 3, 10))
        await until_idle()
        inventory.release(1)
        line.serve()  # session 2 has its workers now, and goes away before it learns of them
        gone.cancel()
        assert len(await last) == 2
        assert inventory.held_by(2) == []

    with_line(scenario, a=2)


def free(inventory):
    return len(inventory.free_slots())


@pytest.mark.parametrize("given_back_after", [0.01, 0.02, 0.03])
def test_a_grant_in_the_moment_in_which_the_wait_is_over_is_taken_or_given_back(given_back_after):
    """Both timers are due in the same turn of the event loop, which was busy meanwhile."""

    async def scenario(inventory, line):
        await take(line, Placement(2), 1, 0)
        waiting = asyncio.ensure_future(take(line, Placement(2), 2, 0.02))
        await until_idle()
        asyncio.get_running_loop().call_later(given_back_after, line.give_back, 1)
        time.sleep(0.05)
        try:
            slots = await waiting
        except NotEnoughWorkersError:
            slots = []
        assert inventory.held_by(2) == slots
        assert free(inventory) == 2 - len(slots)
        assert len(line) == 0

    with_line(scenario, a=2)


def test_a_grant_is_not_lost_on_those_who_ask_again_and_again_without_waiting():
    async def scenario(inventory, line):
        loop = asyncio.get_running_loop()
        for _ in range(20):
            await take(line, Placement(2), 1, 0)
            loop.call_soon(line.give_back, 1)
            try:
                slots = await take(line, Placement(2), 2, 0)
            except NotEnoughWorkersError:
                slots = []
            await until_idle()
            assert inventory.held_by(2) == slots
            line.give_back(2)
            assert free(inventory) == 2

    with_line(scenario, a=2)


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_slots_are_given_back_if_what_was_to_start_fails(failure):
    async def scenario(inventory, line):
        async def fail():
            async with line.taken(Placement(2), 1, 0):
                waiting.append(asyncio.ensure_future(take(line, Placement(2), 2, 10)))
                await until_idle()
                assert len(line) == 1
                raise failure

        waiting = []
        with pytest.raises(failure):
            await fail()
        assert len(await waiting[0]) == 2  # whoever waits gets them

    with_line(scenario, a=2)


def test_who_is_cancelled_in_the_line_leaves_it_and_lets_the_next_one_through():
    async def scenario(inventory, line):
        await take(line, Placement(1), 1, 0)
        large = asyncio.ensure_future(take(line, Placement(2), 2, 10))
        await until_idle()
        small = asyncio.ensure_future(take(line, Placement(1), 3, 10))
        await until_idle()
        assert len(line) == 2
        large.cancel()
        assert len(await small) == 1
        assert len(line) == 0

    with_line(scenario, a=2)


@pytest.mark.parametrize("seconds", [float("nan"), -1.0])
def test_a_wait_that_makes_no_sense_is_none(seconds):
    async def scenario(inventory, line):
        with pytest.raises(NotEnoughWorkersError):
            await take(line, Placement(3), 1, seconds)
        assert free(inventory) == 2

    with_line(scenario, a=2)


def labelled(scenario):
    """Run a coroutine function of a line over two nodes, each with a zone of its name."""
    inventory = Inventory()
    for name in ("lab", "hall"):
        inventory.add(name, 2, {"zone": name})
    return asyncio.run(scenario(inventory, WaitingLine(inventory)))


LAB = {"zone": "lab"}
HALL = {"zone": "hall"}


def test_who_waits_for_some_nodes_keeps_only_those():
    async def scenario(inventory, line):
        await take(line, Placement(1, labels=LAB), 1, 0)
        waiting = asyncio.ensure_future(take(line, Placement(2, labels=LAB), 2, 10))
        await until_idle()
        assert [slot.node for slot in await take(line, Placement(1), 3, 0)] == ["hall"]
        assert [slot.node for slot in await take(line, Placement(1, labels=HALL), 4, 0)] == ["hall"]
        with pytest.raises(NotEnoughWorkersError, match="other sessions wait already: 1"):
            await take(line, Placement(1, labels=LAB), 5, 0)  # the slot that the second session waits for
        line.give_back(1)
        assert len(await waiting) == 2

    labelled(scenario)


def test_who_waits_for_all_nodes_keeps_all():
    async def scenario(inventory, line):
        await take(line, Placement(1, labels=LAB), 1, 0)
        waiting = asyncio.ensure_future(take(line, Placement(4), 2, 10))
        await until_idle()
        with pytest.raises(NotEnoughWorkersError, match="other sessions wait already: 1"):
            await take(line, Placement(1, labels=HALL), 3, 0)
        line.give_back(1)
        assert len(await waiting) == 4

    labelled(scenario)


def test_only_those_who_wait_for_the_same_nodes_are_ahead():
    async def scenario(inventory, line):
        await take(line, Placement(2, labels=LAB), 1, 0)
        await take(line, Placement(2, labels=HALL), 2, 0)
        waiting = asyncio.ensure_future(take(line, Placement(1, labels=LAB), 3, 10))
        await until_idle()
        with pytest.raises(NotEnoughWorkersError) as caught:
            await take(line, Placement(1, labels=HALL), 4, 0)
        assert "wait already" not in str(caught.value)
        line.give_back(1)
        await waiting

    labelled(scenario)

"""Sessions that wait for workers: first come, first served."""

import asyncio

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


async def until_idle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_free_workers_are_given_at_once():
    async def scenario(inventory, line):
        assert len(await line.take(Placement(2), 1, 0)) == 2

    with_line(scenario, a=2)


def test_who_does_not_wait_is_refused_at_once():
    async def scenario(inventory, line):
        await line.take(Placement(2), 1, 0)
        with pytest.raises(NotEnoughWorkersError, match="session 1: 2"):
            await line.take(Placement(1), 2, 0)
        assert len(line) == 0

    with_line(scenario, a=2)


def test_who_waits_gets_what_others_give_back_in_order():
    async def scenario(inventory, line):
        await line.take(Placement(2), 1, 0)
        order = []

        async def wait(session, count):
            await line.take(Placement(count), session, 10)
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
        await line.take(Placement(1), 1, 0)
        large = asyncio.ensure_future(line.take(Placement(3), 2, 10))
        await until_idle()
        with pytest.raises(
            NotEnoughWorkersError,
            match=r"requested \(other sessions wait already: 1\), but 2 of the server's 3 are free",
        ):
            await line.take(Placement(1), 3, 0)
        inventory.release(1)
        line.serve()
        assert len(await large) == 3

    with_line(scenario, a=3)


def test_a_request_that_no_nodes_can_fulfil_holds_nobody_up_and_gets_nodes_that_join():
    async def scenario(inventory, line):
        large = asyncio.ensure_future(line.take(Placement(4), 1, 10))
        await until_idle()
        assert len(await line.take(Placement(1), 2, 0)) == 1
        inventory.release(2)
        inventory.add("b", 2)
        line.serve()
        assert len(await large) == 4

    with_line(scenario, a=2)


def test_who_waits_too_long_is_told_how_long():
    async def scenario(inventory, line):
        await line.take(Placement(2), 1, 0)
        with pytest.raises(NotEnoughWorkersError, match=r"with a wait of 0.05 s, but 0 of"):
            await line.take(Placement(1), 2, 0.05)
        assert len(line) == 0

    with_line(scenario, a=2)


def test_a_session_that_goes_away_leaves_the_line_and_keeps_nothing():
    async def scenario(inventory, line):
        await line.take(Placement(2), 1, 0)
        gone = asyncio.ensure_future(line.take(Placement(2), 2, 10))
        last = asyncio.ensure_future(line.take(Placement(2), 3, 10))
        await until_idle()
        inventory.release(1)
        line.serve()  # session 2 has its workers now, and goes away before it learns of them
        gone.cancel()
        assert len(await last) == 2
        assert inventory.held_by(2) == []

    with_line(scenario, a=2)

"""One answer for all who ask at about the same time."""

import asyncio

import pytest

from alchemist_ray.mpi_backend.driver.shared import Shared


def test_all_who_ask_during_an_answer_share_the_next_one():
    async def scenario():
        begun = []

        async def find():
            begun.append(len(begun))
            await asyncio.sleep(0.01)
            return begun[-1]

        shared = Shared(find)
        first = asyncio.ensure_future(shared())
        await asyncio.sleep(0.005)
        assert begun == [0]
        later = [asyncio.ensure_future(shared()) for _ in range(50)]
        assert await first == 0
        assert await asyncio.gather(*later) == [1] * 50
        assert await shared() == 2

    asyncio.run(scenario())


def test_an_answer_begins_after_its_question():
    """So it knows all that the asker has done before."""

    async def scenario():
        state = {"value": 0}

        async def find():
            seen = state["value"]
            await asyncio.sleep(0.01)
            return seen

        shared = Shared(find)
        first = asyncio.ensure_future(shared())
        await asyncio.sleep(0.005)
        state["value"] = 1
        assert await shared() == 1
        assert await first == 0

    asyncio.run(scenario())


def test_a_failure_reaches_all_and_the_next_question_is_answered():
    async def scenario():
        failing = [True]

        async def find():
            await asyncio.sleep(0)
            if failing[0]:
                raise ValueError("no")
            return 7

        shared = Shared(find)
        for result in await asyncio.gather(shared(), shared(), return_exceptions=True):
            assert isinstance(result, ValueError)
        failing[0] = False
        assert await shared() == 7

    asyncio.run(scenario())


def test_one_who_goes_away_takes_the_answer_from_nobody():
    async def scenario():
        async def find():
            await asyncio.sleep(0.01)
            return 7

        shared = Shared(find)
        gone, stays = asyncio.ensure_future(shared()), asyncio.ensure_future(shared())
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == 7
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(scenario())

"""The driver hears a client while it works on the client's request."""

import asyncio
import contextlib
import time

import pytest

from alchemist_ray import errors
from alchemist_ray.mpi_backend.driver import conversation
from alchemist_ray.mpi_backend.driver.group import WorkerGroup
from alchemist_ray.protocol import messages as m


async def waiting_client(server):
    """Return a client whose request for workers waits behind one who holds them all."""
    await server.agent("a", 1)
    holder, client = await server.client(), await server.client()
    await holder.request(1)
    number = client.post(m.RequestWorkers, 1, 600.0, "pack", {})
    await server.until(lambda status: status["waiting"] == 1)
    return holder, client, number


async def starting_client(server):
    """Return an agent that never starts its ranks, and a client whose group waits for them."""
    agent = await server.agent("a", 1)
    agent.starts = False
    client = await server.client()
    client.post(m.RequestWorkers, 1, 0.0, "pack", {})
    await server.until(lambda status: not status["nodes"][0]["free"])
    return agent, client


@contextlib.contextmanager
def within(seconds):
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


@pytest.mark.parametrize(
    ("follow_up", "expected"), [((m.EndGroup, "given up"), "has no workers"), ((m.ListWorkers,), None)]
)
def test_a_request_in_the_line_is_given_up_with_the_next_one_and_both_are_answered_in_order(
    with_server, follow_up, expected
):
    async def scenario(server):
        holder, client, number = await waiting_client(server)
        with within(1):
            following = client.post(*follow_up)
            answers = [await client.hear(), await client.hear()]
        assert [answer.request for answer in answers] == [number, following]
        assert isinstance(answers[0].to_error(), errors.TaskCancelledError)
        assert "request_workers was cancelled" in str(answers[0].to_error())
        if expected:
            assert expected in str(answers[1].to_error())
        else:
            assert len(answers[1].result) == 1
        await server.until(lambda status: status["waiting"] == 0)
        await holder.ask(m.YieldWorkers)
        await server.until_free(1)
        await client.request(1)

    with_server(scenario)


@pytest.mark.parametrize("leave", ["close", "abort"])
@pytest.mark.parametrize("after_more", [False, True])
def test_a_client_that_goes_away_leaves_the_line(with_server, leave, after_more):
    async def scenario(server):
        holder, client, _ = await waiting_client(server)
        if after_more:
            client.post(m.EndGroup, "given up")
        getattr(client.channel, leave)()
        with within(1):
            await server.until(lambda status: status["waiting"] == 0 and len(status["sessions"]) == 1)
        await holder.ask(m.YieldWorkers)
        await server.until_free(1)

    with_server(scenario)


def test_a_group_that_is_starting_is_given_up_too(with_server):
    async def scenario(server):
        agent, client = await starting_client(server)
        client.post(m.EndGroup, "given up")
        with within(1):
            assert isinstance((await client.hear()).to_error(), errors.TaskCancelledError)
            assert isinstance((await client.hear()).to_error(), errors.NoWorkersError)
        await server.until_free(1)
        agent.starts = True
        await client.request(1)

    with_server(scenario)


def test_the_client_gets_signs_of_life_also_while_what_it_gave_up_ends(with_server, monkeypatch):
    monkeypatch.setattr(conversation, "SIGN_SECONDS", 0.05)
    real = WorkerGroup.end

    async def end(self, *args, **kwargs):
        await asyncio.sleep(0.5)
        await real(self, *args, **kwargs)

    monkeypatch.setattr(WorkerGroup, "end", end)

    async def scenario(server):
        _, client = await starting_client(server)
        client.post(m.EndGroup, "given up")
        client.beats = 0
        await client.hear()
        assert client.beats >= 5

    with_server(scenario)


def test_another_request_is_not_given_up_by_what_follows(with_server, monkeypatch):
    async def scenario(server):
        await server.agent("a", 1)
        client = await server.client()
        real = server.driver._shared_status

        async def slow():
            await asyncio.sleep(0.2)
            return await real()

        monkeypatch.setattr(server.driver, "_shared_status", slow)
        numbers = [client.post(m.AskStatus), client.post(m.ListWorkers), client.post(m.ListLibraries)]
        answers = [await client.hear() for _ in numbers]
        assert [answer.request for answer in answers] == numbers
        assert all(isinstance(answer, m.Done) for answer in answers)

    with_server(scenario)


def test_an_unexpected_failure_is_an_answer_and_the_connection_stays(with_server, monkeypatch, caplog):
    async def scenario(server):
        client = await server.client()

        def fail():
            raise OSError("no such disk")

        monkeypatch.setattr(server.driver._registry, "rows", fail)
        with pytest.raises(errors.RemoteTaskError, match="the server raised OSError: no such disk"):
            await client.ask(m.ListLibraries)
        assert await client.ask(m.ListWorkers) == []

    with_server(scenario)
    (record,) = [each for each in caplog.records if each.exc_info]
    assert "A ListLibraries of" in record.message


def test_an_answer_that_cannot_be_sent_is_a_failure_and_the_connection_stays(with_server, monkeypatch, caplog):
    async def scenario(server):
        client = await server.client()
        monkeypatch.setattr(server.driver._registry, "rows", lambda: [object()])
        with pytest.raises(errors.LocalProtocolError):
            await client.ask(m.ListLibraries)
        assert await client.ask(m.ListWorkers) == []

    with_server(scenario)
    assert "The answer to a ListLibraries" in caplog.text


def test_logs_come_from_all_nodes_at_the_same_time(with_server):
    async def scenario(server):
        for name in ("b", "a"):
            await server.agent(name, 1)
        client = await server.client()
        await client.request(2)
        assert list(await client.ask(m.AskLogs, 5)) == ["worker-on-a", "worker-on-b"]

    with_server(scenario)

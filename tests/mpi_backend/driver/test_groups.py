"""Whatever fails between taking slots and having a running group: the slots are given back, and all hear the reason."""

import asyncio
import logging

import pytest

from alchemist_ray import errors
from alchemist_ray.mpi_backend.driver import group as group_module
from alchemist_ray.mpi_backend.driver import groups as groups_module
from alchemist_ray.mpi_backend.driver.group import WorkerGroup
from alchemist_ray.protocol import messages as m


def raising(failure):
    def function(*_args, **_kwargs):
        raise failure

    return function


def test_a_group_starts_and_gives_its_slots_back(with_server):
    async def scenario(server):
        await server.agent("a", 2)
        client = await server.client()
        granted = await client.request(2)
        assert [row["rank"] for row in granted["workers"]] == [0, 1]
        with pytest.raises(errors.ArgumentValueError, match="already has 2 workers"):
            await client.request(1)
        await server.until_free(0)
        await client.ask(m.YieldWorkers)
        await server.until_free(2)
        await client.request(1)
        client.channel.close()
        await server.until_free(2)

    with_server(scenario)


FAILURES = [
    OSError(28, "No space left on device", "/logs/session-001"),
    KeyError("a"),
    AssertionError("never"),
    errors.LocalProtocolError("too long"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("where", ["new_token", "make", "order", "start"])
def test_a_failure_at_any_step_reaches_client_and_log_and_no_slot_is_lost(
    with_server, monkeypatch, caplog, where, failure
):
    if where == "new_token":
        monkeypatch.setattr(group_module, "new_token", raising(failure))
    elif where == "make":
        monkeypatch.setattr(groups_module, "WorkerGroup", raising(failure))
    elif where == "order":
        monkeypatch.setattr(group_module.NodeShare, "order", raising(failure))
    else:
        monkeypatch.setattr(WorkerGroup, "start", raising(failure))

    async def scenario(server):
        agent = await server.agent("a", 2)
        client = await server.client()
        text = "too long" if isinstance(failure, errors.AlchemistError) else "the server failed"
        with pytest.raises(errors.AlchemistError, match=text) as caught:
            await client.request(2)
        assert caught.type in (errors.GroupStartError, errors.LocalProtocolError)
        assert str(failure) in str(caught.value)
        monkeypatch.undo()
        await server.until_free(2)
        assert m.EndRanks in agent.orders or m.StartRanks not in agent.orders
        assert len((await client.request(2))["workers"]) == 2  # over the same connection

    with_server(scenario)
    record = next(each for each in caplog.records if each.levelno == logging.ERROR)
    assert "Session 1" in record.message
    assert record.exc_info or isinstance(failure, errors.AlchemistError)


def test_a_node_that_answers_nonsense_costs_no_slot(with_server):
    async def scenario(server):
        agent = await server.agent("a", 2)
        client = await server.client()
        agent.rows = [{"rank": 0}]
        with pytest.raises(errors.GroupStartError, match="the server failed"):
            await client.request(2)
        await server.until_free(2)
        assert m.EndRanks in agent.orders

    with_server(scenario)


def test_a_node_that_leaves_in_the_moment_of_the_grant_fails_the_request_only(with_server, monkeypatch):
    async def scenario(server):
        await server.agent("a", 2)
        await server.agent("b", 1)
        first, second = await server.client(), await server.client()
        await first.request(2)
        waiting = asyncio.ensure_future(second.request(2, 30))
        await server.until(lambda status: status["waiting"] == 1)
        driver = server.driver
        real, node = driver._inventory.take, driver._nodes["a"]

        def take_and_leave(placement, session_id, kept):
            slots = real(placement, session_id)
            assert {slot.node for slot in slots} == {"a"}
            driver._inventory.remove("a")  # as when the connection of its agent ends
            del driver._nodes["a"]
            return slots

        monkeypatch.setattr(driver._inventory, "take", take_and_leave)
        await first.ask(m.YieldWorkers)
        with pytest.raises(errors.GroupStartError, match="node a left the server before"):
            await waiting
        monkeypatch.undo()
        driver._inventory.add("a", 2)  # it has come again
        driver._nodes["a"] = node
        await server.until_free(3)
        await second.request(2)

    with_server(scenario)


def test_nodes_with_equal_shares_stand_together_so_that_the_mapping_is_short(with_server):
    """A spread group takes 2 of the small node, and then 3, 2 and 2: three runs in this order."""

    async def scenario(server):
        for number, slots in enumerate((2, 4, 4, 4)):
            await server.agent(f"node-{number}", slots)
        client = await server.client()
        await client.request(9, 0.0, "spread")
        (group,) = server.driver._groups
        assert group.mapping == "(vector,(0,1,3),(1,3,2))"

    with_server(scenario)


def test_a_group_that_pmi_cannot_describe_is_refused_and_others_are_not(with_server, caplog):
    async def scenario(server):
        for number in range(110):
            await server.agent(f"node-{number}", number + 1)
        client = await server.client()
        with pytest.raises(errors.GroupStartError, match=r"on each of 110 hosts.*1023 characters.*Request fewer") as no:
            await client.request(6105)
        assert "protocol error" not in str(no.value)
        await server.until_free(6105)
        assert len((await client.request(110, 0.0, "strict_spread"))["workers"]) == 110

    with_server(scenario)
    assert "on each of 110 hosts" in caplog.text


def test_slots_of_a_starting_group_are_given_back_when_the_client_goes_away(with_server):
    async def scenario(server):
        agent = await server.agent("a", 2)
        agent.starts = False
        client = await server.client()
        client.post(m.RequestWorkers, 2, 0.0, "pack", {})
        await server.until(lambda status: not status["nodes"][0]["free"])
        client.channel.close()
        await server.until_free(2)
        assert m.EndRanks in agent.orders

    with_server(scenario)


def test_slots_stay_taken_until_the_ranks_have_ended_whoever_gives_up_meanwhile(with_server, monkeypatch):
    async def scenario(server):
        await server.agent("a", 2)
        may_end = asyncio.Event()

        async def end(self, reason, at_once=False):
            await may_end.wait()

        monkeypatch.setattr(WorkerGroup, "start", raising(OSError("no")))
        monkeypatch.setattr(WorkerGroup, "end", end)
        client = await server.client()
        client.post(m.RequestWorkers, 2, 0.0, "pack", {})
        (session,) = server.driver._sessions.values()
        await server.until(lambda status: not status["nodes"][0]["free"])
        client.post(m.EndGroup, "given up")
        client.channel.close()
        for _ in range(10):
            assert len(server.driver._inventory.held_by(session.session_id)) == 2
            await asyncio.sleep(0.01)
        may_end.set()
        await server.until_free(2)

    with_server(scenario)


def test_the_loss_of_a_node_ends_its_groups_and_gives_the_other_slots_back(with_server):
    async def scenario(server):
        lost = await server.agent("a", 1)
        await server.agent("b", 1)
        client = await server.client()
        await client.request(2)
        lost.channel.close()
        notice = await client.hear()
        assert isinstance(notice, m.GroupDied)
        assert "node a has left" in notice.reason
        await server.until_free(1)

    with_server(scenario)


def test_a_message_of_a_node_that_makes_no_sense_costs_that_node_only(with_server, caplog):
    async def scenario(server):
        odd = await server.agent("a", 1)
        await server.agent("b", 1)
        client = await server.client()
        await client.request(2)
        odd.channel.post(m.Heartbeat(["neither group nor rank"]))
        notice = await client.hear()
        assert isinstance(notice, m.GroupDied)
        assert "node a was given up: the server failed: ValueError" in notice.reason
        await server.until_free(1)

    with_server(scenario)
    assert any(record.exc_info for record in caplog.records)


def test_a_node_that_leaves_lets_those_go_on_who_waited_behind_a_request_for_it(with_server):
    async def scenario(server):
        agents = {name: await server.agent(name, 1) for name in "abc"}
        holder, large, small = [await server.client() for _ in range(3)]
        await holder.request(1)
        large.post(m.RequestWorkers, 3, 60.0, "pack", {})
        await server.until(lambda status: status["waiting"] == 1)
        waiting = asyncio.ensure_future(small.request(1, 60))
        status = await server.until(lambda status: status["waiting"] == 2)
        idle = next(row["name"] for row in status["nodes"] if row["free"])
        agents[idle].channel.close()
        assert len((await waiting)["workers"]) == 1

    with_server(scenario)

"""The options of a server: each is written once, and its copies agree."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

from alchemist_ray.errors import NodeError, ServerStartError
from alchemist_ray.protocol.node_settings import NodeSettings
from alchemist_ray.protocol.server_options import ServerArguments, ServerOptions, WorkerOptions

FIELDS = {field.name: field for field in dataclasses.fields(ServerOptions)}


def test_the_arguments_of_start_server_are_the_options_except_the_number_of_workers():
    assert set(ServerArguments.__annotations__) == set(FIELDS) - {"num_workers"}


def test_the_command_line_offers_every_option_except_the_token():
    flags = [field.metadata["flag"] for name, field in FIELDS.items() if name != "token"]
    assert len(set(flags)) == len(FIELDS) - 1


def test_options_cross_as_json_and_the_workers_do_not_get_the_token():
    options = ServerOptions(
        token="a token of a test", worker_ports=(4000, 4010), libraries={"a": "b"}, data_directories=["d"]
    )
    assert ServerOptions.from_json(options.to_json()) == options
    workers = options.for_workers()
    assert WorkerOptions.from_json(workers.to_json()) == workers
    assert options.token not in workers.to_json()
    assert options.token not in repr(options)


def test_a_short_token_is_refused():
    with pytest.raises(ServerStartError, match="5 characters, but it needs at least 8"):
        ServerOptions(token="short")


@pytest.mark.parametrize("make", [ServerOptions, partial(NodeSettings, driver=("h1", 1), slots=1, name="h2")])
def test_mpiexec_is_refused_where_nothing_would_use_it(make):
    with pytest.raises((ServerStartError, NodeError), match=r"mpiexec is 'srun -n 2', .* --mpi site .* omit"):
        make(token="a token of a test", mpiexec="srun -n 2")
    assert make(token="a token of a test", mpiexec="srun -n 2", mpi="site").mpiexec == "srun -n 2"

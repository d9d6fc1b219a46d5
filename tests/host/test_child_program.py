"""Child programs that end before they are told what to do, and parents with many open files."""

from __future__ import annotations

import contextlib
import os
import resource

import pytest

from alchemist_ray.host.child_program import ChildProgram

ENDS_AT_ONCE = "alchemist_ray._version"


def test_a_program_that_has_ended_already_has_no_answer_and_can_be_stopped():
    program = ChildProgram(ENDS_AT_ONCE)
    program.process.wait(30)
    assert program.tell("{}", 5) is None
    program.stop(5)
    program.stop(5)


def test_a_program_that_has_ended_already_can_be_let_go():
    program = ChildProgram(ENDS_AT_ONCE)
    program.process.wait(30)
    assert program.tell("{}", 5) is None
    program.let_go()


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048, reason="needs more than 2048 open files")
def test_a_program_is_heard_though_its_owner_has_many_open_files():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    with contextlib.ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for _ in range(1100):
            opened.callback(os.close, os.dup(0))
        program = ChildProgram(ENDS_AT_ONCE)
        opened.callback(program.stop, 5)
        assert program.tell("{}", 30) is None

"""The page about linear algebra names what there is, and every task says what it must."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def tasks(session):
    return session.load_library("linalg").description.tasks


def test_the_page_names_all_tasks_and_no_others(tasks):
    table = re.findall(r"^\| (`.*?) \|", (DOCS / "linear-algebra.md").read_text(), re.M)
    named = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(task.name for task in tasks)


def test_every_task_says_what_it_takes_returns_and_costs(tasks):
    for task in tasks:
        sections = re.findall(r"^(Parameters|Returns|Raises|Notes)\n-+$", task.doc, re.M)
        assert sections[:2] == ["Parameters", "Returns"], task.name
        described = re.search(r"Parameters\n-+\n(.*?)\n\nReturns", task.doc, re.S)[1]
        for parameter in task.parameters:
            assert re.search(rf"^[\w, ]*\b{parameter.name}\b[\w, ]* : ", described, re.M), (task.name, parameter.name)

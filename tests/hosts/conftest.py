"""Fixtures that make hosts. Mark the tests that use them with ``pytest.mark.hosts``."""

from __future__ import annotations

import contextlib

import pytest
from namespace_hosts import Hosts, skip_without_hosts


def _make_hosts():
    """Yield a function that makes hosts: ``hosts(3, loss=0.1)``, see :class:`Hosts`. They are closed at the end."""
    skip_without_hosts()
    with contextlib.ExitStack() as opened:
        yield lambda n, **options: opened.enter_context(Hosts(n, **options))


hosts = pytest.fixture(_make_hosts, name="hosts")
module_hosts = pytest.fixture(_make_hosts, name="module_hosts", scope="module")

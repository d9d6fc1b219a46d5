"""The driver of a client process that owns it: ``python -m alchemist_ray.mpi_backend.driver.program``.

The program reads its options, one line of JSON, from stdin (a token must not appear in argv), and answers with one line
of JSON on stdout. It ends when stdin ends: when its owner calls ``stop()``, or when the owner has died in any way.

The node agent on this host is started first. It loads its modules while this process loads those of the driver.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from alchemist_ray.host.loading import loading_modules
from alchemist_ray.mpi_backend.driver.local_node import LocalNode

STDIN = 0


def _read_line() -> bytes:
    """Read one line of stdin and nothing after it."""
    line = b""
    while not line.endswith(b"\n") and (octet := os.read(STDIN, 1)):
        line += octet
    return line


def main() -> int:
    """Serve a client process; return the exit status."""
    fields: dict[str, Any] = json.loads(_read_line())
    node = LocalNode(fields["mpi"], fields["mpiexec"], fields["python"]) if fields["num_workers"] else None
    with loading_modules():
        from alchemist_ray.mpi_backend.driver.serve import serve_owner

    try:
        return serve_owner(fields, node)
    finally:
        if node is not None:
            node.stop()


if __name__ == "__main__":
    sys.exit(main())

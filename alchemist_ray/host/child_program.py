"""A program of this package that runs as a child process and ends with this one.

The program reads its options, one line of JSON, from stdin, since a token must not appear in argv. It answers with one
line of JSON on stdout when it is ready, or with its ``error``. It ends when stdin ends: when its owner stops it, or has
died in any way.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from typing import IO, Any


class ChildProgram:
    """A child process that runs a module of this package.

    Parameters
    ----------
    module : str
        Its name.
    *arguments : str
        Its arguments.
    stderr : file, optional
        Where its messages go; by default where those of this process go.
    """

    def __init__(self, module: str, *arguments: str, stderr: IO[bytes] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C in this terminal is for this process
        )

    def tell(self, options: str, seconds: float) -> dict[str, Any] | None:
        """Hand the program its options (JSON); return its answer, or None if it has ended or says nothing in time."""
        assert self.process.stdin is not None  # both are pipes
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(options.encode() + b"\n")
            self.process.stdin.flush()
        answer = select.poll()  # select() takes descriptors up to 1023 only
        answer.register(self.process.stdout, select.POLLIN)
        line = self.process.stdout.readline() if answer.poll(1000 * seconds) else b""
        facts: dict[str, Any] | None = json.loads(line) if line else None
        return facts

    def let_go(self) -> None:
        """Close the pipes to the program, which ends then; do not wait for it."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # it has ended before it has read all
                    pipe.close()

    def stop(self, seconds: float) -> None:
        """End the program; kill it if it does not end within so many seconds. More calls do nothing."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended before it has read all
                self.process.stdin.close()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.let_go()

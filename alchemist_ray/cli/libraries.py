"""``alchemist libraries``: the libraries of a server, their tasks, and stubs of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alchemist_ray.cli.arguments import add_server, ask, token_in
from alchemist_ray.cli.printing import print_table
from alchemist_ray.client.annotations import signature_of
from alchemist_ray.client.libraries import catalogue, find_task
from alchemist_ray.client.session import AlchemistSession
from alchemist_ray.client.stubs import class_name, stub_of
from alchemist_ray.errors import NotEnoughWorkersError
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.descriptions import LibraryDescription


def add(commands: Any) -> None:
    """Add the command."""
    libraries = commands.add_parser(
        "libraries", help="show the libraries that a server offers, and their tasks", description=_libraries.__doc__
    )
    libraries.set_defaults(run=_libraries, refuse=libraries.error)
    libraries.add_argument("library", nargs="?", metavar="NAME", help="the library to look into")
    libraries.add_argument("task", nargs="?", metavar="TASK", help="the task to document")
    libraries.add_argument("--pyi", metavar="FILE", help="write a stub of the library to FILE; - is standard output")
    add_server(libraries)


def _libraries(arguments: argparse.Namespace) -> int:
    """Show the libraries that a server offers; the tasks of one of them; the documentation of one task."""
    if arguments.library is not None:
        return _look_into(arguments)
    if arguments.pyi is not None:
        arguments.refuse("--pyi writes the stub of one library: name it")
    rows = ask(arguments, m.ListLibraries)
    print_table(
        ("Library", "Loaded from", "Version", "Provided by"),
        [(row["name"], row["source"], row["version"], row["provider"]) for row in rows],
    )
    return 0


def _look_into(arguments: argparse.Namespace) -> int:
    """Print the description of a library, or write a stub of it."""
    if arguments.task is not None and arguments.pyi is not None:
        arguments.refuse("--pyi writes the stub of a whole library: omit TASK")
    description = _describe(arguments)
    if arguments.pyi == "-":
        print(stub_of(description), end="")
    elif arguments.pyi is not None:
        try:
            Path(arguments.pyi).write_text(stub_of(description), encoding="utf-8")
        except OSError as failure:
            arguments.refuse(f"the stub could not be written: {failure}")
        print(f"{arguments.pyi} has the class {class_name(description.name)}")
    elif arguments.task is not None:
        task = find_task(description, arguments.task)
        print(f"{task.name}{signature_of(task)}\n\n{task.doc}".rstrip())
    else:
        print(f"{description.name} {description.version}".rstrip() + f"\n\n{catalogue(description)}")
    return 0


def _describe(arguments: argparse.Namespace) -> LibraryDescription:
    """Return the description of a library; a worker loads it for that."""
    with AlchemistSession(verbose=False) as session:
        session.connect(arguments.hostname, arguments.port, token_in(arguments))
        try:
            session.request_workers(1)
        except NotEnoughWorkersError as busy:
            busy.add_note("Only a worker that loads a library can describe it, so this command needs a free worker.")
            raise
        return session.load_library(arguments.library).description

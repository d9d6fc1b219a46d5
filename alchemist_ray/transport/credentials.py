"""The place of a server's token: its owner's clients find it there, and nobody else can read it.

A server that is started on the command line without a token writes a new one to ``token-PORT`` in a directory that only
its user can read. A client without a token looks at the environment variables ``ALCHEMIST_TOKEN`` and
``ALCHEMIST_TOKEN_FILE``, then at that file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from alchemist_ray.errors import AuthenticationError

TOKEN = "ALCHEMIST_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE = "ALCHEMIST_TOKEN_FILE"  # noqa: S105


def token_path(port: int) -> Path:
    """Return the file in which a server on this machine keeps the token for `port`."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) / "alchemist" if runtime else Path.home() / ".alchemist"
    return base / f"token-{port}"


def write_token(path: Path, token: str) -> None:
    """Write a token to a file that only this user can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises
    ------
    AuthenticationError
        If the file does not exist, is empty, or other users can read it.
    """
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise AuthenticationError(f"the token file {path} cannot be read ({failure})") from failure
    if stat.S_IMODE(mode) & 0o077:
        raise AuthenticationError(f"other users can read the token file {path}; run chmod 600 {path}")
    if not token:
        raise AuthenticationError(f"the token file {path} is empty")
    return token


def find_token(port: int) -> str:
    """Return the token for a server on `port` from the environment or this user's token file.

    Raises
    ------
    AuthenticationError
        If no token is found.
    """
    if token := os.environ.get(TOKEN):
        return token
    if file := os.environ.get(TOKEN_FILE):
        return read_token(Path(file))
    path = token_path(port)
    if path.exists():
        return read_token(path)
    raise AuthenticationError(f"no token was given, and this user has no token file for port {port} on this machine")

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


def read_token(path: Path, named_by: str = "") -> str:
    """Return the token in a file.

    Parameters
    ----------
    path : Path
        The file.
    named_by : str, optional
        The option or the variable that names the file, for the errors.

    Raises
    ------
    AuthenticationError
        If the file does not exist, is empty, or other users can read it.
    """
    name = f"the token file {path}" + (f", which {named_by} names," if named_by else "")
    advice = f"Put the server's token there (mode 0600), or name another file with --token-file or {TOKEN_FILE}"
    try:
        with path.open() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read().strip()
    except FileNotFoundError as failure:
        raise AuthenticationError(f"{name} does not exist", advice) from failure
    except (OSError, UnicodeDecodeError) as failure:
        raise AuthenticationError(f"{name} cannot be read ({failure})", advice) from failure
    if mode & 0o077:
        raise AuthenticationError(f"{name} is open to other users (mode {mode:04o})", f"Run chmod 600 {path}")
    if not token:
        raise AuthenticationError(f"{name} is empty", advice)
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
        return read_token(Path(file), TOKEN_FILE)
    path = token_path(port)
    if path.exists():
        return read_token(path)
    raise AuthenticationError(f"no token was given, and this user has no token file for port {port} on this machine")

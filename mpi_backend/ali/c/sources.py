"""Compile a library that is registered as one C file, once for each machine and user, when it is first loaded.

The shared object goes into a cache of the user. Its name is a hash of everything it depends on: the text of the source
and of the files that it includes in quotes, ``alchemist_ali.h`` and ``mpi.h``, the compiler, its flags, and the
processor. So a file in the cache is always up to date, and a change of any of these leads to a new compilation.

All ranks of a host arrive here at the same time. The first rank that locks the entry compiles, into a file that gets
its final name when it is complete. The other ranks sleep until then. The lock is the kernel's (``flock``), so it ends
when its holder dies in any way. If the file system has no locks, each rank compiles for itself. Then the last rank that
renames its file wins, but all files have the same content.

Only the mathematical library is linked. The symbols of MPI are found in the MPI that the workers have loaded, when the
shared object is opened (:mod:`.shared_objects`). ``mpi.h`` is the one beside that MPI, or else the one of ``mpicc``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from alchemist_ray.errors import LibraryLoadError
from alchemist_ray.mpi_backend.ali.c.shared_objects import import_shared_object
from alchemist_ray.mpi_backend.scalapack.loader import open_mpi

CACHE = "ALCHEMIST_CACHE"
"""Environment variable that names another directory for compiled libraries."""
SECONDS = 300.0
"""Time limit of a compilation, and of the wait for a compilation by another rank."""

_INCLUDE = Path(__file__).parent / "include"
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = (
    "-O3",
    "-ffp-contract=off",
    "-shared",
    "-fPIC",
)  # without contraction, results do not depend on vector lengths
_PAUSE_SECONDS = 0.05
_TEXT = 6000
"""An error contains at most this many characters of the compiler's messages."""
_QUOTED = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def import_source(library: str, source: Path) -> ModuleType:
    """Return a C source as the module of the library; compile it if necessary. Local.

    Raises
    ------
    LibraryLoadError
        If the source cannot be compiled, or the shared object is not a valid library.
    """
    return import_shared_object(library, compiled(library, source))


def compiled(library: str, source: Path) -> Path:
    """Return the shared object of a C source; compile it if it is not in the cache. Local.

    The compiler is ``$CC``, or else ``cc``, ``gcc`` or ``clang``. ``$CFLAGS`` and ``$LDFLAGS`` follow our own flags.

    Raises
    ------
    LibraryLoadError
        If the file, a compiler, ``mpi.h`` or a place for the cache is missing, or the compiler reports an error.
    """
    if not source.is_file():
        raise LibraryLoadError(library, f"the file {source} does not exist")
    build = _Build.of(library, source.resolve())
    entry = _cache(library) / f"{source.stem}-{build.key()}"
    target = entry / f"{source.stem}.so"
    if not target.exists():
        with _refusing(library, entry):
            entry.mkdir(mode=0o700, exist_ok=True)
        _compile_once(library, build, target)
    return target


@dataclass(frozen=True)
class _Build:
    """A compilation: the command without the name of its output."""

    source: Path
    mpi: Path
    compiler: Path
    before: tuple[str, ...]
    after: tuple[str, ...]

    @classmethod
    def of(cls, library: str, source: Path) -> _Build:
        compiler, flags = _compiler(library, source)
        mpi = _folder_of_mpi_h(library)
        native = ("-march=native",) if platform.machine() in ("x86_64", "aarch64") else ()
        own = (*_FLAGS, *native, f"-I{_INCLUDE}", f"-I{mpi}", *shlex.split(os.environ.get("CFLAGS", "")))
        libraries = ("-lm", *shlex.split(os.environ.get("LDFLAGS", "")))
        return cls(source, mpi, compiler, (*flags, *own), libraries)

    def command(self, target: Path) -> list[str]:
        return [str(self.compiler), *self.before, str(self.source), "-o", str(target), *self.after]

    def key(self) -> str:
        """Return a hash of everything that the shared object depends on."""
        state = self.compiler.stat()
        facts = [*self.before, *self.after, self.compiler, state.st_size, state.st_mtime_ns, _processor()]
        files = [*_with_included(self.source), _INCLUDE / "alchemist_ali.h", self.mpi / "mpi.h"]
        digest = hashlib.sha256(repr([str(fact) for fact in facts]).encode())
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:32]


def _compiler(library: str, source: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the compiler, and the flags in ``$CC``."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for name in wanted[:1] or _COMPILERS:
        if found := shutil.which(name):
            return Path(found).absolute(), tuple(wanted[1:])
    tried = f"{wanted[0]} (from CC) is not" if wanted else f"none of {', '.join(_COMPILERS)} is"
    raise LibraryLoadError(
        library,
        f"{source} must be compiled on the machine of the workers, but that has no C compiler: {tried} on their PATH. "
        "Install a compiler (apt install gcc), name it in CC before you start the server, or compile the file "
        "elsewhere with the mpicc of the same MPI and register the shared object",
    )


def _processor() -> str:
    """Return the facts that ``-march=native`` depends on: different machines may share a home directory."""
    with contextlib.suppress(OSError):
        wanted = ("flags", "Features", "model name")
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(wanted))
    return platform.processor()


def _with_included(source: Path) -> Iterator[Path]:
    """Yield a source and the files beside it that it includes in quotes, each once."""
    found, queue = set[Path](), [source]
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found.add(file)
        yield file
        beside = (file.parent / os.fsdecode(name) for name in _QUOTED.findall(file.read_bytes()))
        queue += sorted(path.resolve() for path in beside if path.is_file())


# --- the place of mpi.h -----------------------------------------------------------------------------------------------


def _folder_of_mpi_h(library: str) -> Path:
    """Return the folder of the ``mpi.h`` that belongs to the MPI library of this process."""
    mpi = Path(open_mpi())
    prefixes = {mpi.parent.parent, mpi.resolve().parent.parent}
    asked = [os.environ.get("MPICC"), *(str(prefix / "bin" / "mpicc") for prefix in prefixes)]
    asked += [str(Path(sys.executable).with_name("mpicc")), "mpicc"]
    candidates = (prefix / "include" for prefix in prefixes)
    for folder in (*candidates, *(path for name in asked if name for path in _folders_of(name))):
        if (folder / "mpi.h").is_file():
            return folder
    raise LibraryLoadError(
        library,
        f"mpi.h was not found: it is not beside {mpi}, which the workers use, and mpicc is not on their PATH. Install "
        "the development files of that MPI, or name its mpicc in MPICC before you start the server",
    )


def _folders_of(mpicc: str) -> list[Path]:
    """Return the folders in which a compiler wrapper of MPI looks for headers."""
    if shutil.which(mpicc) is None:
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = [mpicc, "-show"]
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
        return [Path(word[2:]) for word in shlex.split(said.stdout) if word.startswith("-I") and len(word) > 2]
    return []


# --- the cache --------------------------------------------------------------------------------------------------------


def _cache(library: str) -> Path:
    """Return the directory of this user's compiled libraries; other users cannot write to it."""
    named = os.environ.get(CACHE)
    above = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    folder = Path(named) if named else Path(above, "alchemist-ray", "libraries")
    with _refusing(library, folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise LibraryLoadError(
            library,
            f"other users can write to the cache {folder} and could make this user run their code: change its owner to "
            f"this user and its mode to 700, or name another directory in {CACHE}",
        )
    return folder.resolve()


@contextlib.contextmanager
def _refusing(library: str, folder: Path) -> Iterator[None]:
    """Turn an OSError in the cache into an error that names the cache."""
    try:
        yield
    except OSError as failure:
        reason = f"the cache {folder} cannot be used: {failure}. Name another directory in {CACHE}"
        raise LibraryLoadError(library, reason) from failure


# --- compiling --------------------------------------------------------------------------------------------------------


def _compile_once(library: str, build: _Build, target: Path) -> None:
    """Compile, or wait until another rank has compiled; an error of that rank is raised here as well."""
    report, began = target.with_name("compiler.log"), time.time()
    with _refusing(library, target.parent), target.with_name("lock").open("a") as lock:
        waited = _lock(library, lock.fileno(), target)
        if target.exists():
            return
        if waited and report.exists() and report.stat().st_mtime >= began:
            raise LibraryLoadError(library, report.read_text())
        _compile(library, build, target, report)


def _lock(library: str, descriptor: int, target: Path) -> bool:
    """Lock an entry of the cache; return whether another process held the lock before."""
    deadline, waited = time.monotonic() + SECONDS, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
        except OSError:  # no locks on this file system
            return False
        else:
            return waited
        if target.exists():
            return True
        if time.monotonic() > deadline:
            raise LibraryLoadError(library, f"another process has been compiling {target} for more than {SECONDS:g} s")
        time.sleep(_PAUSE_SECONDS)


def _compile(library: str, build: _Build, target: Path, report: Path) -> None:
    """Compile into a file that gets its name when it is complete; save the compiler's messages beside it."""
    unfinished = target.with_name(f"{target.name}.{platform.node()}.{os.getpid()}")
    try:
        failure = _run(build.command(unfinished))
        report.write_text(failure)
        if failure:
            raise LibraryLoadError(library, failure)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _run(command: Sequence[str]) -> str:
    """Run the compiler; return its error messages, or an empty text."""
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return f"{shlex.join(command)} did not end within {SECONDS:g} s"
    if ran.returncode == 0:
        return ""
    said = (ran.stderr + ran.stdout).decode(errors="replace").strip()
    return f"{shlex.join(command)} failed:\n{said[:_TEXT]}"

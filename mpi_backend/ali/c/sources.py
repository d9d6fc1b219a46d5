"""Compile a library that is registered as one file in C: once for each machine and user, when it is first loaded.

The shared object goes into a cache of the user's, under a name made of all that it depends on: the text of the source
and of what it includes in quotes, ``alchemist_ali.h`` and ``mpi.h``, the compiler, its flags, and the processor. So
what is found there is what would be compiled, and what has changed is compiled anew.

The ranks of a host come here at once. The first to lock the entry compiles, into a file that gets its name when it is
whole; the others sleep until then. The lock is the kernel's (``flock``): it goes with its holder, however that dies.
Where the file system has none, each rank compiles for itself, and the last to name its file wins, which has the same
content.

Nothing is linked but the mathematical library: the symbols of MPI are found in the one that the workers have loaded,
when the shared object is opened (:mod:`.shared_objects`). ``mpi.h`` is that beside it, else that of ``mpicc``.
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
"""Environment variable that names another directory for what is compiled."""
SECONDS = 300.0
"""How long a compilation may take, and how long a rank waits for that of another."""

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
"""Characters of the compiler's messages that an error carries."""
_QUOTED = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def import_source(library: str, source: Path) -> ModuleType:
    """Return a source in C as the module of the library, compiled if it has not been. Local.

    Raises
    ------
    LibraryLoadError
        If it cannot be compiled, or what comes of it is no library.
    """
    return import_shared_object(library, compiled(library, source))


def compiled(library: str, source: Path) -> Path:
    """Return the shared object of a source in C, compiled if it is not in the cache. Local.

    The compiler is ``$CC``, else ``cc``, ``gcc`` or ``clang``; ``$CFLAGS`` and ``$LDFLAGS`` come after our own flags.

    Raises
    ------
    LibraryLoadError
        If there is no such file, no compiler, no ``mpi.h`` or no place for the cache, or the compiler reports an error.
    """
    if not source.is_file():
        raise LibraryLoadError(library, f"there is no file {source}")
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
    """What is compiled, and how: the command without the name of its output."""

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
        """Return what tells this shared object from any other."""
        state = self.compiler.stat()
        facts = [*self.before, *self.after, self.compiler, state.st_size, state.st_mtime_ns, _processor()]
        files = [*_with_included(self.source), _INCLUDE / "alchemist_ali.h", self.mpi / "mpi.h"]
        digest = hashlib.sha256(repr([str(fact) for fact in facts]).encode())
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:32]


def _compiler(library: str, source: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the compiler, and the flags that ``$CC`` has beside it."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for name in wanted[:1] or _COMPILERS:
        if found := shutil.which(name):
            return Path(found).absolute(), tuple(wanted[1:])
    tried = f"{wanted[0]}, which CC names," if wanted else f"any of {', '.join(_COMPILERS)}"
    raise LibraryLoadError(
        library,
        f"{source} is compiled on the machine of the workers, which has no C compiler: {tried} is not on their PATH. "
        "Install one (apt install gcc), name it in CC where the server is started, or compile the file elsewhere, with "
        "the mpicc of the same MPI, and register the shared object",
    )


def _processor() -> str:
    """Return what ``-march=native`` depends on: a home directory may be shared by machines of several kinds."""
    with contextlib.suppress(OSError):
        wanted = ("flags", "Features", "model name")
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(wanted))
    return platform.processor()


def _with_included(source: Path) -> Iterator[Path]:
    """Yield a source and the files that it includes in quotes, which are beside it, each once."""
    found, queue = set[Path](), [source]
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found.add(file)
        yield file
        beside = (file.parent / os.fsdecode(name) for name in _QUOTED.findall(file.read_bytes()))
        queue += sorted(path.resolve() for path in beside if path.is_file())


# --- where mpi.h is ---------------------------------------------------------------------------------------------------


def _folder_of_mpi_h(library: str) -> Path:
    """Return the folder of the ``mpi.h`` that goes with the MPI library of this process."""
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
        f"there is no mpi.h to compile it with: none is beside {mpi}, which the workers run, and no mpicc is on their "
        "PATH. Install the development files of that MPI, or name its mpicc in MPICC where the server is started",
    )


def _folders_of(mpicc: str) -> list[Path]:
    """Return where a compiler wrapper of MPI looks for headers."""
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
    """Return the directory of what this user has compiled, which nobody else can write to."""
    named = os.environ.get(CACHE)
    above = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    folder = Path(named) if named else Path(above, "alchemist-ray", "libraries")
    with _refusing(library, folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise LibraryLoadError(
            library,
            f"the cache {folder} can be written to by others, who could have this user run their code: make it the "
            f"user's own with mode 700, or name another one in {CACHE}",
        )
    return folder.resolve()


@contextlib.contextmanager
def _refusing(library: str, folder: Path) -> Iterator[None]:
    """Name the cache in the error for a place that cannot be written to."""
    try:
        yield
    except OSError as failure:
        reason = f"{folder}, where it is kept once compiled, cannot be used: {failure}. Name another place in {CACHE}"
        raise LibraryLoadError(library, reason) from failure


# --- compiling --------------------------------------------------------------------------------------------------------


def _compile_once(library: str, build: _Build, target: Path) -> None:
    """Compile, or wait until another rank has; what that one was told, this one is told."""
    report, began = target.with_name("compiler.log"), time.time()
    with _refusing(library, target.parent), target.with_name("lock").open("a") as lock:
        waited = _lock(library, lock.fileno(), target)
        if target.exists():
            return
        if waited and report.exists() and report.stat().st_mtime >= began:
            raise LibraryLoadError(library, report.read_text())
        _compile(library, build, target, report)


def _lock(library: str, descriptor: int, target: Path) -> bool:
    """Lock an entry of the cache; return whether somebody else had it before."""
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
    """Compile into a file that gets its name when it is whole; leave what the compiler says beside it."""
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
    """Run the compiler; return what is wrong, or nothing."""
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

"""Libraries registered as a C file: compiled once, compiled again after a change, and all errors."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import mpi4py

mpi4py.rc.initialize = False

import pytest  # noqa: E402
from skips import needs  # noqa: E402
from tests_support import PROGRAMS, mpirun  # noqa: E402

from alchemist_ray.errors import LibraryLoadError  # noqa: E402
from alchemist_ray.mpi_backend.ali.c import sources as c_sources  # noqa: E402
from alchemist_ray.mpi_backend.ali.library import load  # noqa: E402

pytestmark = needs("cc")

SOURCE = """#include "alchemist_ali.h"
#include "names.h"
static int run(alchemist_call *call) { return alchemist_return_int(call, "r", call->size); }
static const alchemist_result results[] = {{"r", ALCHEMIST_INT, ""}, ALCHEMIST_END};
static const alchemist_task tasks[] = {{NAME, "", NULL, results, run}, ALCHEMIST_END};
ALCHEMIST_LIBRARY("1.0", "", tasks, NULL)
"""
COMPILER = """#!/bin/sh
echo call >> {log}
exec cc "$@"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALCHEMIST_CACHE", str(folder))
    for name in ("CC", "CFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.c"
    path.write_text(SOURCE)
    path.with_name("names.h").write_text('#define NAME "first"\n')
    return path


@pytest.fixture
def compilations(tmp_path, monkeypatch, cache):
    """Install a compiler that counts its runs; return a function that returns the count."""
    log, compiler = tmp_path / "log", tmp_path / "counting-cc"
    compiler.write_text(COMPILER.format(log=log))
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    return lambda: len(log.read_text().split()) if log.exists() else 0


def load_on(ranks, source):
    return json.loads(mpirun(ranks, PROGRAMS / "load_source.py", source))


def test_ranks_that_come_at_once_compile_once(source, cache, compilations):
    assert load_on(3, source) == [["first"]] * 3
    assert compilations() == 1
    assert list(load("mine", str(source)).tasks) == ["first"]
    assert compilations() == 1
    assert sorted(path.suffix for path in cache.glob("mine-*/*")) == ["", ".log", ".so"]  # no unfinished file is left


def test_an_error_of_the_compiler_is_found_once_and_told_on_every_rank(source, compilations):
    source.write_text(SOURCE.replace("call->size", "call->sise"))
    for told in load_on(2, source):
        assert "no member named 'sise'" in told
        assert f"{source}:3" in told
    assert compilations() == 1
    with pytest.raises(LibraryLoadError, match="sise"):
        load("mine", str(source))
    assert compilations() == 2  # tried again: a fix may not show in the name of the entry


@pytest.mark.parametrize("change", ["source", "header", "flags"])
def test_what_has_changed_is_compiled_anew(source, compilations, monkeypatch, change):
    assert load("mine", str(source)).description.version == "1.0"
    if change == "source":
        source.write_text(SOURCE.replace("NAME,", '"second",'))
    elif change == "header":
        source.with_name("names.h").write_text('#define NAME "second"\n')
    else:
        source.write_text(SOURCE)
        source.with_name("names.h").write_text('#ifndef NAME\n#define NAME "first"\n#endif\n')
        load("mine", str(source))
        monkeypatch.setenv("CFLAGS", "-DNAME='\"second\"'")
    before = compilations()
    assert list(load("mine", str(source)).tasks) == ["second"]
    assert compilations() == before + 1


def test_no_compiler(source, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        LibraryLoadError, match=r"no C compiler: none of cc, gcc, clang is on their PATH. Install a compiler"
    ):
        load("mine", str(source))
    monkeypatch.setenv("CC", "nocc -O2")
    with pytest.raises(LibraryLoadError, match=r"no C compiler: nocc \(from CC\) is not on their PATH"):
        load("mine", str(source))


def test_no_file(cache, tmp_path):
    with pytest.raises(LibraryLoadError, match=r"the file .* does not exist"):
        load("mine", str(tmp_path / "absent.c"))


def test_a_cache_that_others_can_write_to(source, cache):
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(LibraryLoadError, match="other users can write to"):
        load("mine", str(source))
    cache.rmdir()
    cache.write_text("a file")
    with pytest.raises(LibraryLoadError, match="cannot be used"):
        load("mine", str(source))


def test_a_lock_that_is_held_is_not_waited_for_without_end(source, cache):
    monkeypatch = pytest.MonkeyPatch()
    entry = c_sources.compiled("mine", source).parent
    monkeypatch.setattr(c_sources, "SECONDS", 0.2)
    (entry / "mine.so").unlink()
    with (entry / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LibraryLoadError, match="another process has been compiling"):
            load("mine", str(source))
    monkeypatch.undo()
    assert list(load("mine", str(source)).tasks) == ["first"]


def test_a_compiler_that_does_not_end(source, cache, monkeypatch, tmp_path):
    monkeypatch.setattr(c_sources, "SECONDS", 0.2)
    compiler = tmp_path / "slow-cc"
    compiler.write_text("#!/bin/sh\nexec sleep 60\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(LibraryLoadError, match=r"slow-cc .* did not end within 0.2 s"):
        load("mine", str(source))


def test_mpi_h_is_that_of_the_mpi_that_runs(monkeypatch):
    folder = c_sources._folder_of_mpi_h("mine")
    assert (folder / "mpi.h").is_file()
    assert os.path.samefile(folder, Path(c_sources.open_mpi()).parent.parent / "include")
    assert folder.resolve() in [path.resolve() for path in c_sources._folders_of(str(folder.parent / "bin" / "mpicc"))]
    assert c_sources._folders_of("no-such-mpicc") == []

"""What is uploaded and installed: the sdist unpacks to the working tree, the wheel works where nothing else is."""

from __future__ import annotations

import email
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from alchemist_ray import __version__

pytestmark = pytest.mark.systems

ROOT = Path(__file__).parent.parent.parent
PREFIX = Path(sys.prefix)
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
    "PATH": f"{PREFIX / 'bin'}{os.pathsep}{os.environ['PATH']}",
    "LD_LIBRARY_PATH": str(PREFIX / "lib"),
}
"""The environment of the programs: without this tree, and with the MPI and MKL of this Python, wherever theirs is."""
MADE = {"PKG-INFO", "setup.cfg"}
"""What setuptools adds to an sdist, beside its egg-info."""
NOT_SOURCE = re.compile(
    r"(^|/)(__pycache__|\.\w+_cache|\.hypothesis|\.git|\.venv[^/]*|[^/]*\.egg-info)(/|$)|^(build|dist|output|results)/"
)


def run(*command, cwd, **environment):
    ran = subprocess.run(
        [*map(str, command)],
        cwd=cwd, env=CLEAN | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    return ran.stdout


def build(source, target, *which):
    """Build the packages of a tree without downloads; equal trees give equal bytes."""
    run(
        sys.executable, "-m", "build", "--no-isolation", *which, "--outdir", target, source,
        cwd=target, SOURCE_DATE_EPOCH="1700000000",
    )  # fmt: skip


def files_of(root):
    """Return the source files under `root`, symbolic links included and not followed."""
    found = set()
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found |= {str(Path(folder, name).relative_to(root)) for name in (*files, *links)}
    return {name for name in found if not NOT_SOURCE.search(name)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the tree: a build writes into the tree that it builds."""
    copy = tmp_path_factory.mktemp("source")
    for name in files_of(ROOT):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to(os.readlink(ROOT / name))
        else:
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)
    return copy


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("sdist")
    build(source, target, "--sdist")
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory):
    target = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(target, filter="data")
    (tree,) = target.iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    build(source, target, "--wheel")
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The programs of an environment that has the wheel, and everything else from this environment."""
    target = tmp_path_factory.mktemp("clean")
    venv.create(target, symlinks=True, with_pip=False)
    (site,) = target.glob("lib/python*/site-packages")
    own = {Path(path).resolve() for path in sys.path if Path(path).name == "site-packages"}
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in own))  # the .pth files in those do not count
    install = ("install", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", target / "bin" / "python", *install, cwd=target)
    return target / "bin"


# --- the sdist --------------------------------------------------------------------------------------------------------


def test_the_sdist_is_the_tree(unpacked, source):
    assert files_of(unpacked) - MADE == files_of(source) - MADE
    changed = [
        name for name in files_of(source)
        if (source / name).is_file() and (source / name).read_bytes() != (unpacked / name).read_bytes()
    ]  # fmt: skip
    assert changed == []


def test_the_links_of_the_tree_are_links_in_the_sdist(unpacked, source):
    links = {path.name: os.readlink(path) for path in (source / "alchemist_ray").iterdir() if path.is_symlink()}
    assert {"envs", "mpi_backend", "sim_libraries"} <= set(links)
    found = {path.name: os.readlink(path) for path in (unpacked / "alchemist_ray").iterdir() if path.is_symlink()}
    assert found == links


def test_scripts_can_still_be_run(unpacked):
    assert os.access(unpacked / ".ci" / "run", os.X_OK)


def test_the_unpacked_sdist_builds_the_same_wheel(unpacked, wheel, tmp_path):
    build(unpacked, tmp_path, "--wheel")
    (again,) = tmp_path.iterdir()
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_has_each_file_once(names):
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert {name.split("/")[0] for name in names} == {"alchemist_ray", f"alchemist_ray-{__version__}.dist-info"}


def test_the_wheel_has_every_module_and_no_program(names, source):
    linked = {path.name for path in (source / "alchemist_ray").iterdir() if path.is_symlink()} - {"experiments"}
    roots = [source / "alchemist_ray", *(source / name for name in linked)]
    wanted = {
        str(path.relative_to(source)) if root.name == "alchemist_ray" else f"alchemist_ray/{path.relative_to(source)}"
        for root in roots
        for path in root.rglob("*.py")
        if "experiments" not in path.relative_to(source).parts
    }  # fmt: skip
    assert len(wanted) > 150
    assert {name for name in names if name.endswith(".py")} == wanted


def test_the_wheel_has_the_data_that_the_code_reads(names):
    assert "alchemist_ray/py.typed" in names
    assert "alchemist_ray/mpi_backend/ali/c/include/alchemist_ali.h" in names
    assert "alchemist_ray/sim_libraries/acoustics/acoustics.c" in names
    shipped = {f"alchemist_ray/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yaml")}
    assert len(shipped) >= 5
    assert shipped <= set(names)


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_an_index_accepts_both(sdist, wheel, tmp_path):
    printed = run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=tmp_path)
    assert printed.count("PASSED") == 2


def test_the_licence_is_an_expression(metadata):
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert not [value for value in metadata.get_all("Classifier") if value.startswith("License ::")]


def test_the_versions_of_python_are_those_that_are_tested(metadata):
    stated = [
        value.rpartition(" ")[2] for value in metadata.get_all("Classifier") if re.search(r"Python :: 3\.\d+$", value)
    ]
    makefile = (ROOT / "Makefile").read_text()
    short = re.search(r"^PYTHON_VERSIONS \?= (.*)$", makefile, re.MULTILINE)[1].split()
    assert stated == ["3.11", *short]
    assert metadata["Requires-Python"] == f">={stated[0]}"


def test_the_description_links_to_no_file_and_shows_no_picture_of_the_tree(metadata):
    text = metadata.get_payload()
    assert text.startswith("# Alchemist for Ray")
    links = re.findall(r"\]\(([^)\s]*)\)", text)
    assert [link for link in links if not re.match(r"https?://|#", link)] == []
    assert "`docs/architecture.md`" in text


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\((?!https?://|#)([^)\s#]+)", (ROOT / "README.md").read_text())
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_entry_point_is_in_the_wheel(names):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"alchemist": project["scripts"], **project["entry-points"]}
    for entries in groups.values():
        for target in entries.values():
            module, _, rest = target.partition(":")
            path = module.replace(".", "/")
            assert {f"{path}.py", f"{path}/__init__.py"} & set(names), target
            assert not rest.endswith(".c") or f"{path}/{rest}" in names, target


# --- installed --------------------------------------------------------------------------------------------------------


def test_the_installed_command_says_its_version(clean, tmp_path):
    assert run(clean / "alchemist", "--version", cwd=tmp_path) == f"alchemist-ray {__version__}\n"
    where = run(clean / "python", "-c", "import alchemist_ray; print(alchemist_ray.__file__)", cwd=tmp_path)
    assert where.startswith(str(clean.parent))


def test_experiments_are_found_by_name(clean, tmp_path):
    printed = run(clean / "alchemist", "run", "ppo_cylinder", "--dry-run", cwd=tmp_path)
    assert re.search(r"^name: ppo_cylinder$", printed, re.MULTILINE)
    listed = run(clean / "alchemist", "run", "--list", cwd=tmp_path)
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def test_the_header_for_libraries_in_c_is_installed(clean, tmp_path):
    flags = run(clean / "python", "-m", "alchemist_ray.mpi_backend.ali", "--cflags", cwd=tmp_path).split()
    folders = [Path(flag.removeprefix("-I")) for flag in flags if flag.startswith("-I")]
    assert any((folder / "alchemist_ali.h").is_file() and clean.parent in folder.parents for folder in folders)


def test_libraries_and_environments_are_registered(clean, tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    code = (
        "import importlib.metadata as m; "
        "[print(p.group, p.name) for p in m.distribution('alchemist-ray').entry_points if 'alchemist_ray' in p.group]"
    )
    printed = {tuple(line.split()) for line in run(clean / "python", "-c", code, cwd=tmp_path).splitlines()}
    groups = project["entry-points"]
    assert printed == {(group, name) for group, entries in groups.items() for name in entries}


SERVER = """
import alchemist_ray as alchemist, numpy as np
with alchemist.start_server(num_workers=1) as server, alchemist.AlchemistSession() as session:
    session.connect(server.hostname, server.port, server.token)
    session.request_workers(1)
    for name in ("linalg", "heat", "acoustics"):
        session.load_library(name)
    A = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(np.asarray(session.send_matrix(A)), A)
print("served from", alchemist.__file__)
"""


def test_an_installed_server_serves_its_libraries(clean, tmp_path):
    (tmp_path / "program.py").write_text(SERVER)
    printed = run(clean / "python", "program.py", cwd=tmp_path)
    assert f"served from {clean.parent}" in printed

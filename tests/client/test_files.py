"""Files that the workers read and write, from the client's side: there and back, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import h5py
import numpy as np
import pytest

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client import local_server

FORMATS = {
    "hdf5": ("matrix.h5", {"dataset": "group/A"}),
    "npy": ("matrix.npy", {}),
    "zarr": ("matrix.zarr", {"array": "A"}),
    "parquet": ("matrix.parquet", {}),
}


@pytest.fixture
def folder(data_directory, request):
    path = data_directory / request.node.name.replace("/", "-")
    path.mkdir()
    return path


def write(handle, kind, folder, **options):
    name, where = FORMATS[kind]
    return getattr(handle, f"write_{kind}")(folder / name, **where, **options)


def read(session, kind, folder, **options):
    name, where = FORMATS[kind]
    return getattr(session, f"read_{kind}")(folder / name, **where, **options)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_matrix_goes_to_a_file_and_back(session, rng, folder, kind):
    A = rng.standard_normal((1001, 13))
    handle = session.send_matrix(A)
    assert write(handle, kind, folder) == str(folder / FORMATS[kind][0])
    back = read(session, kind, folder, layout="STAR_VR", block_size=2)
    assert back.spec.layout.pair == "STAR_VR"
    assert back.block_size == (2, 2)
    np.testing.assert_array_equal(np.asarray(back), A)
    assert read(session, kind, folder, dtype=np.float32).dtype == np.float32
    with pytest.raises(errors.FileWriteError, match="overwrite=True"):
        write(handle, kind, folder)
    np.testing.assert_array_equal(np.asarray(read(session, kind, folder)), A)
    write(2 * handle, kind, folder, overwrite=True)
    np.testing.assert_array_equal(np.asarray(read(session, kind, folder)), 2 * A)
    assert session.describe_file(folder / FORMATS[kind][0])["format"] == kind
    assert [path.name for path in folder.iterdir()] == [FORMATS[kind][0]]


def test_what_others_wrote_is_read(session, rng, folder):
    A = rng.integers(0, 1000, (500, 7), dtype=np.int16)
    with h5py.File(folder / "A.h5", "w") as file:
        file.create_dataset("A", data=A, chunks=(64, 3), compression="gzip")
        file["B"] = np.arange(12.0).reshape(2, 2, 3)
    with pytest.raises(errors.FileContentError, match=r"of type int16.*choose one with dtype="):
        session.read_hdf5(folder / "A.h5", "A")
    np.testing.assert_array_equal(np.asarray(session.read_hdf5(folder / "A.h5", "A", dtype=np.int32)), A)
    with pytest.raises(errors.FileContentError, match="3 dimensions"):
        session.read_hdf5(folder / "A.h5", "B")
    with pytest.raises(errors.DatasetMissingError, match=r"has no 'C'; it has A, B"):
        session.read_hdf5(folder / "A.h5", "C")


def test_relative_paths_begin_at_the_first_directory(session, rng, folder, data_directory):
    A = rng.standard_normal((20, 3))
    written = session.send_matrix(A).write_npy(f"{folder.name}/relative.npy")
    assert written == str(folder / "relative.npy")
    np.testing.assert_array_equal(np.load(written), A)


def test_paths_out_of_the_directories_are_refused(session, folder, tmp_path, data_directory):
    np.save(tmp_path / "secret.npy", np.eye(3))
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    (folder / "door").symlink_to(tmp_path)
    ways = [
        tmp_path / "secret.npy",
        folder / "link.npy",
        folder / "door" / "secret.npy",
        f"{folder}/../../{tmp_path.name}/secret.npy",
        "../secret.npy",
        "/etc/passwd",
    ]
    for path in ways:
        with pytest.raises(errors.FileRefusedError, match="--data-dir"):
            session.read_npy(path)
    handle = session.send_matrix(np.eye(4))
    with pytest.raises(errors.FileRefusedError):
        handle.write_npy(folder / "door" / "new.npy")
    with pytest.raises(errors.FileMissingError, match="on the server's host"):
        session.read_npy(folder / "nothing.npy")
    assert not (tmp_path / "new.npy").exists()


def test_a_server_without_data_directories_reads_nothing(tmp_path):
    np.save(tmp_path / "A.npy", np.eye(3))
    with alchemist.start_server(1, memory_per_worker=2**24) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token).request_workers(1)
        with pytest.raises(errors.FileRefusedError, match="--data-dir"):
            session.read_npy(tmp_path / "A.npy")


def test_a_data_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(errors.ServerStartError, match=r"data directory .* does not exist"):
        alchemist.start_server(1, data_directories=[tmp_path / "nothing"])


@pytest.mark.parametrize("kind", ["hdf5", "npy", "parquet"])
def test_a_file_that_ends_early_is_refused_and_the_session_goes_on(session, rng, folder, kind):
    handle = session.send_matrix(rng.standard_normal((5000, 13)))
    write(handle, kind, folder)
    path = folder / FORMATS[kind][0]
    for file in path.rglob("*.parquet") if path.is_dir() else [path]:
        with contextlib.suppress(IsADirectoryError):
            file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(errors.FileContentError):
        read(session, kind, folder)
    assert handle.sum() == pytest.approx(np.asarray(handle).sum())


def test_the_index_of_a_data_frame_is_not_a_feature(session, folder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}, index=pandas.Index([7, 9], name="key"))
    frame.to_parquet(folder / "named.parquet")
    frame.rename_axis(None).to_parquet(folder / "unnamed.parquet")
    frame.reset_index(drop=True).to_parquet(folder / "range.parquet")
    for name in ("named", "unnamed", "range"):
        handle = session.read_parquet(folder / f"{name}.parquet")
        np.testing.assert_array_equal(np.asarray(handle), frame.to_numpy())
    with_key = session.read_parquet(folder / "named.parquet", columns=["key", "b"], dtype=float)
    np.testing.assert_array_equal(np.asarray(with_key), [[7.0, 3.0], [9.0, 4.0]])


@pytest.fixture
def server_of_this_process():
    yield
    local_server.default_server().stop()


@pytest.mark.usefixtures("server_of_this_process")
def test_relative_paths_of_an_own_server_follow_the_current_directory(tmp_path, monkeypatch):
    """The server has its own working directory, that of its start; the paths are those of the caller, here and now."""
    with alchemist.AlchemistSession() as own:
        own.request_workers(1)
        handle = own.send_matrix(np.eye(3))
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            assert handle.write_npy("A.npy") == str(tmp_path / name / "A.npy")
            assert (tmp_path / name / "A.npy").is_file()
            np.testing.assert_array_equal(np.asarray(own.read_npy("A.npy")), np.eye(3))
            assert own.describe_file("A.npy")["format"] == "npy"
            with pytest.raises(errors.FileMissingError, match=str(tmp_path / name / "B.npy")):
                own.read_npy("B.npy")
            (tmp_path / name / "mine.py").write_text(LIBRARY.format(name))
            assert own.load_library(f"mine_{name}", "mine.py").where() == name


@pytest.mark.usefixtures("server_of_this_process")
def test_relative_paths_to_any_task_follow_the_current_directory(tmp_path, monkeypatch):
    """Whichever way a task is called, and whoever wrote it."""
    (tmp_path / "mine.py").write_text(TAKES_A_PATH)
    with alchemist.AlchemistSession() as own:
        own.request_workers(1)
        handle = own.send_matrix(np.eye(3))
        files, mine = own.load_library("files"), own.load_library("mine", str(tmp_path / "mine.py"))
        for name in ("first", "second"):
            here = tmp_path / name
            here.mkdir()
            monkeypatch.chdir(here)
            assert files.write_npy(handle, "A.npy") == str(here / "A.npy")
            assert files.write_npy(handle, path=Path("B.npy")) == str(here / "B.npy")
            assert own.run_task("files", "write_npy", A=handle, path="C.npy") == str(here / "C.npy")
            assert mine.told("D.npy") == [str(here / "D.npy"), "PosixPath"]
            assert mine.told(Path("..")) == [str(tmp_path), "PosixPath"]


def test_relative_paths_to_any_task_begin_at_the_first_directory_of_another_server(session, folder):
    handle, files = session.send_matrix(np.eye(3)), session.load_library("files")
    assert files.write_npy(handle, Path(folder.name) / "A.npy") == str(folder / "A.npy")
    for path, said in ((3, "int"), (b"A.npy", "bytes"), (None, "NoneType")):
        with pytest.raises(errors.ArgumentError, match=f"'path' must be a path, not {said}"):
            files.write_npy(handle, path)
    with pytest.raises(errors.ArgumentValueError, match="'path' is empty, but it must name a file or directory"):
        handle.write_parquet("", overwrite=True)


TAKES_A_PATH = """
from pathlib import Path

from alchemist_ray.mpi_backend.ali import TaskContext, task


@task
def told(ctx: TaskContext, path: Path) -> list[str]:
    return [str(path), type(path).__name__]
"""


LIBRARY = """
from alchemist_ray.mpi_backend.ali import TaskContext, task


@task
def where(ctx: TaskContext) -> str:
    return "{}"
"""

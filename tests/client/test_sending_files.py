"""HDF5 files of the client's machine, sent in chunks."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from alchemist_ray import errors
from alchemist_ray.client.matrices import hdf5_source


@pytest.fixture
def cube(tmp_path, rng):
    """A file with a chunked, compressed cube of integers, as in the tutorial notebook of 2019, and other things."""
    values = rng.integers(0, 5000, (42, 30, 6), dtype=np.int16)
    path = tmp_path / "NEON.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("Reflectance", data=values, chunks=(8, 30, 2), compression="gzip")
        file["group/wavelength"] = np.linspace(0.0, 1.0, 17)
        file["names"] = np.array([b"a", b"bc"])
        file["empty"] = np.empty((0, 4))
    return path, values


@pytest.mark.parametrize(
    "selection", [np.s_[:, :, 3], np.s_[5:40:3, :, -1], np.s_[7], np.s_[:, 4:9, 0], np.s_[..., 2], np.s_[2, :, 1]]
)
def test_a_matrix_of_a_dataset_is_sent_a_block_of_rows_at_a_time(session, cube, monkeypatch, selection):
    path, values = cube
    monkeypatch.setattr(hdf5_source, "BLOCK_BYTES", 1000)
    handle = session.send_hdf5(path, "Reflectance", "VC_STAR", selection=selection, dtype=np.float64)
    expected = values[selection].astype(float)
    np.testing.assert_array_equal(np.asarray(handle), expected.reshape(expected.shape[0], -1))
    assert handle.layout == "VC_STAR"


def test_blocks_are_whole_chunks_and_bounded(cube, monkeypatch):
    path, values = cube
    monkeypatch.setattr(hdf5_source, "BLOCK_BYTES", 20 * 30 * 8)
    with hdf5_source.open_dataset(path, "Reflectance", float, np.s_[:, :, 0]) as source:
        blocks = list(source.blocks())
    assert [len(block) for block in blocks] == [16, 16, 10]
    np.testing.assert_array_equal(np.concatenate(blocks), values[:, :, 0])


def test_a_vector_is_one_column(session, cube):
    path, _ = cube
    handle = session.send_hdf5(path, "group/wavelength")
    np.testing.assert_array_equal(np.asarray(handle), np.linspace(0.0, 1.0, 17)[:, np.newaxis])


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"dataset": "Reflektance"}, errors.DatasetMissingError, "has no 'Reflektance'; it has Reflectance, empty, gr"),
        ({"dataset": "group"}, errors.DatasetMissingError, "has no 'group'"),
        (
            {"dataset": "Reflectance", "dtype": float},
            errors.FileContentError,
            r"\(42, 30, 6\).*selection=, for example",
        ),
        ({"dataset": "Reflectance", "selection": np.s_[0, 0, 0]}, errors.FileContentError, r"shape \(\)"),
        ({"dataset": "Reflectance", "selection": np.s_[..., 1]}, errors.InvalidArrayError, "int16 cannot be sent"),
        ({"dataset": "Reflectance", "selection": np.s_[..., 6]}, IndexError, "index 6 is out of bounds for 6"),
        ({"dataset": "Reflectance", "selection": np.s_[::-1, :, 1]}, IndexError, "read forwards"),
        ({"dataset": "Reflectance", "selection": np.s_[0, 0, 0, 0]}, IndexError, "4 dimensions"),
        ({"dataset": "names"}, errors.InvalidArrayError, "cannot be sent"),
        ({"dataset": "empty"}, errors.FileContentError, r"\(0, 4\)"),
    ],
)
def test_what_is_no_matrix_is_refused(session, cube, arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        session.send_hdf5(cube[0], **arguments)


def test_files_that_are_none_are_refused(session, cube, tmp_path):
    path, _ = cube
    with pytest.raises(errors.FileMissingError, match="on this machine"):
        session.send_hdf5(tmp_path / "missing.h5", "x")
    short = tmp_path / "short.h5"
    short.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(errors.FileContentError, match="ends early"):
        session.send_hdf5(short, "Reflectance")
    with pytest.raises(errors.FileContentError, match="not an HDF5 file"):
        session.send_hdf5(__file__, "Reflectance")

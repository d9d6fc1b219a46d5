"""Check the loading of ScaLAPACK and the ranks of its grids. Run on one process; exits with 1 on a failure."""

import tempfile
from pathlib import Path
from unittest import mock

import pytest

from alchemist_ray.errors import LayoutError, LibraryLoadError
from alchemist_ray.layouts.layout import PAIRS, Grid, Layout
from alchemist_ray.mpi_backend.libraries import linalg  # noqa: F401 - its import must not load ScaLAPACK yet
from alchemist_ray.mpi_backend.scalapack import loader, places


def nothing_is_loaded_before_it_is_used() -> None:
    assert "mkl" not in Path("/proc/self/maps").read_text()


def without_any_scalapack_the_error_says_what_to_install() -> None:
    with (
        mock.patch.object(loader, "_mkl_files", return_value=[]),
        mock.patch.object(loader, "_distribution_files", return_value=iter(())),
        pytest.raises(LibraryLoadError, match="pip install mkl"),
    ):
        loader.libraries()


def a_file_that_does_not_load_is_named() -> None:
    with tempfile.NamedTemporaryFile(suffix=".so") as broken:
        broken.write(b"no library")
        broken.flush()
        with pytest.raises(LibraryLoadError, match=broken.name):
            loader._open(broken.name)


def a_distribution_is_searched_newest_first() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for version in ("so.2", "so.2.1", "so.2.10"):
            Path(folder, f"libscalapack-mpich.{version}").touch()
        found = sorted(map(str, Path(folder).glob("*.so*")), key=loader._version)
        assert [path.partition(".so.")[2] for path in found] == ["2", "2.1", "2.10"]


def libraries_are_loaded_once_and_say_what_they_lack() -> None:
    libraries = loader.libraries()
    assert loader.libraries() is libraries
    assert libraries.address("pdgesv_") != libraries.address("psgesv_")
    with pytest.raises(LibraryLoadError, match="does not define pdnothing_"):
        libraries.address("pdnothing_")


def places_are_the_owners_of_the_layout() -> None:
    for grid in (Grid(1, 1), Grid(2, 3), Grid(4, 1), Grid(1, 4)):
        for pair in PAIRS:
            layout = Layout(pair, grid, (1, 1))
            if layout.distinct_owners != grid.size:
                with pytest.raises(LayoutError, match="each block on exactly one rank"):
                    places(layout)
                continue
            ranks = places(layout)
            for i in range(ranks.shape[0]):
                for j in range(ranks.shape[1]):
                    assert layout.owners(i, j) == (ranks[i, j],)


if __name__ == "__main__":
    nothing_is_loaded_before_it_is_used()
    without_any_scalapack_the_error_says_what_to_install()
    a_file_that_does_not_load_is_named()
    a_distribution_is_searched_newest_first()
    libraries_are_loaded_once_and_say_what_they_lack()
    places_are_the_owners_of_the_layout()

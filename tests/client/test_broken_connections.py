"""A data connection that breaks while its worker lives is made again, and the transfer begins again by itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from tests_support import memory_in_use

from alchemist_ray import errors
from alchemist_ray.client.matrices.sparse import fetch_sparse, send_sparse, sparse_arrays
from alchemist_ray.client.transfer.meter import Meter, TransferStoppedError
from alchemist_ray.client.transfer.plane import plane_of
from alchemist_ray.layouts.spec import spec_of

A = np.arange(2_000_000.0).reshape(4000, 500)
NUMBER = 4711
"""Number of the matrices that these tests make; no session counts so far."""


@pytest.fixture
def matrix(session_by_transport):
    """Return the plane of a session, and a number for a matrix that is freed after the test."""
    plane = plane_of(session_by_transport.address)
    before = memory_in_use(session_by_transport)
    yield plane, NUMBER
    plane.free([NUMBER])
    assert memory_in_use(session_by_transport) == before


class BreakingMeter(Meter):
    """Breaks a connection when the first bytes of a try move, in so many tries; counts the bytes."""

    def __init__(self, plane, times=1):
        super().__init__(self._on_bytes_moved)
        self.plane = plane
        self.times = times
        self.counted = 0

    def _on_bytes_moved(self, nbytes):
        self.counted += nbytes
        if self.times and self.counted == nbytes:  # the first bytes of a try
            self.times -= 1
            self.plane.connections[1].shut_down()


def test_a_send(matrix):
    plane, number = matrix
    meter = BreakingMeter(plane)
    plane.send(number, spec_of(A, "VC_STAR", 4), A, meter)
    assert meter.times == 0
    assert meter.counted == A.nbytes  # what was counted twice is taken back
    fetched = np.empty_like(A)
    plane.fetch(number, spec_of(A, "VC_STAR", 4), fetched)
    np.testing.assert_array_equal(fetched, A)


@pytest.mark.parametrize("layout", ["VC_STAR", "MC_MR"])
def test_a_fetch(matrix, layout):
    plane, number = matrix
    spec = spec_of(A, layout, 4)
    plane.send(number, spec, A)
    meter = BreakingMeter(plane)
    fetched = np.empty_like(A)
    plane.fetch(number, spec, fetched, meter=meter)
    assert meter.times == 0
    np.testing.assert_array_equal(fetched, A)


def test_a_write_into_a_matrix(matrix):
    plane, number = matrix
    spec = spec_of(A, "MC_MR", 4)
    plane.create(number, spec)
    meter = BreakingMeter(plane)
    plane.write(number, spec, A[:3000], 0, 0, meter)
    plane.write(number, spec, A[3000:], 3000, 0)
    assert meter.times == 0
    assert plane.missing(number, spec) == []
    fetched = np.empty_like(A)
    plane.fetch(number, spec, fetched)
    np.testing.assert_array_equal(fetched, A)


def test_a_sparse_matrix_in_both_directions(matrix, rng):
    plane, number = matrix
    S = scipy.sparse.random(20_000, 3000, density=0.02, random_state=7, format="csr")
    spec, arrays = sparse_arrays(S, 4)
    meter = BreakingMeter(plane)
    send_sparse(plane, number, spec, arrays, meter)
    assert meter.times == 0
    meter = BreakingMeter(plane)
    fetched, _ = fetch_sparse(plane, number, spec, meter)
    assert meter.times == 0
    np.testing.assert_array_equal(fetched.values, S.data)
    np.testing.assert_array_equal(fetched.indices, S.indices)


def test_a_connection_that_breaks_twice_is_reported(matrix):
    plane, number = matrix
    with pytest.raises(errors.ConnectionLostError, match="The worker lives"):
        plane.send(number, spec_of(A, "VC_STAR", 4), A, BreakingMeter(plane, times=2))
    plane.send(number, spec_of(A, "VC_STAR", 4), A)


def test_a_transfer_that_was_interrupted_does_not_begin_again():
    meter = Meter()
    meter.stop()
    meter.begin_again()
    meter.check()
    meter.interrupt()
    with pytest.raises(TransferStoppedError):
        meter.begin_again()

"""What a session may ask of its server, checked before anything is sent."""

import math

import numpy as np
import pytest

from alchemist_ray.client.worker_request import WorkerRequest
from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.protocol import messages as m


def test_a_request_goes_over_the_wire_as_it_is():
    request = WorkerRequest.of(np.int64(3), np.float32(2), "spread", {"zone": "a"})
    assert request.message(7) == m.RequestWorkers(7, 3, 2.0, "spread", {"zone": "a"})
    assert WorkerRequest.of(1, 0, "pack", None).message(1) == m.RequestWorkers(1, 1)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ((0, 0, "pack", None), ArgumentValueError, "0 workers were requested; at least 1"),
        ((1.5, 0, "pack", None), ArgumentError, "num_workers must be an integer, not 1.5"),
        ((True, 0, "pack", None), ArgumentError, "num_workers must be an integer"),
        ((1, -1, "pack", None), ArgumentValueError, "wait must be a finite number of seconds from 0 on, not -1"),
        ((1, math.nan, "pack", None), ArgumentValueError, "not nan"),
        ((1, math.inf, "pack", None), ArgumentValueError, "not inf"),
        ((1, "2", "pack", None), ArgumentError, "wait must be a number of seconds, not str"),
        ((1, True, "pack", None), ArgumentError, "wait must be a number of seconds, not bool"),
        ((1, 0, "PACK", None), ArgumentValueError, "'PACK'; it must be one of pack, spread, strict_spread"),
        ((1, 0, None, None), ArgumentValueError, "placement is None"),
        ((1, 0, "pack", ["a"]), ArgumentError, "labels must be a mapping of str to str"),
        ((1, 0, "pack", {"a": 1}), ArgumentError, "labels must be a mapping of str to str"),
    ],
)
def test_what_makes_no_sense_is_refused(given, error, text):
    with pytest.raises(error, match=text):
        WorkerRequest.of(*given)

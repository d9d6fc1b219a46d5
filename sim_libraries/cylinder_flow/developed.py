"""The developed vortex street from which episodes start.

The street needs about 40 D/U to develop and depends on the parameters only. So each process computes it once for each
set of parameters and keeps it at a few phases of the shedding period.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from alchemist_ray.sim_libraries.cylinder_flow.flow import ChannelFlow, FlowState
from alchemist_ray.sim_libraries.cylinder_flow.lattice import Array

PHASES = 8
KICK_TIME = 3.0
MEASURED_TIME = 12.0
USUAL_PERIOD = 3.4
KEPT = 2

ReportTime = Callable[[float, float], None]
_developed: OrderedDict[Hashable, DevelopedFlow] = OrderedDict()


@dataclass(frozen=True)
class DevelopedFlow:
    """A developed flow without control.

    Attributes
    ----------
    states : tuple of FlowState
        This rank's part of the flow, at equally spaced phases of a shedding period.
    period : int
        Number of time steps in a period.
    drag, lift_amplitude : float
        Mean drag coefficient, and half the range of the lift coefficient, over whole periods.
    """

    states: tuple[FlowState, ...]
    period: int
    drag: float
    lift_amplitude: float


def developed_flow(
    flow: ChannelFlow, key: tuple[Hashable, ...], start_time: float, report: ReportTime
) -> DevelopedFlow:
    """Return the developed flow for `flow`. The state of `flow` itself is lost. *Collective over its ranks*.

    Parameters
    ----------
    flow : ChannelFlow
        The flow that is advanced, unless the process has the developed flow already.
    key : tuple
        The parameters of the flow.
    start_time : float
        Time that the flow gets to develop, in D/U.
    report : callable
        Called as ``report(done, total)``, in D/U.
    """
    comm = flow.comm
    key = (*key, start_time, comm.size, comm.rank)
    if not comm.allreduce(key in _developed, MPI.LAND):
        _developed[key] = _develop(flow, start_time, report)
    _developed.move_to_end(key)
    while len(_developed) > KEPT:
        _developed.popitem(last=False)
    return _developed[key]


def _develop(flow: ChannelFlow, start_time: float, report: ReportTime) -> DevelopedFlow:
    unit = flow.time_unit
    total = KICK_TIME + start_time + MEASURED_TIME
    flow.begin()
    time = np.arange(round(KICK_TIME * unit)) / unit
    flow.advance(flow.u_mean * np.sin(0.6 * np.pi * time) * np.sin(np.pi * time / KICK_TIME))
    done = KICK_TIME
    while done < KICK_TIME + start_time:
        report(done, total)
        more = min(5.0, KICK_TIME + start_time - done)
        flow.advance(np.zeros(round(more * unit)))
        done += more
    drag, lift = flow.coefficients(flow.advance(np.zeros(round(MEASURED_TIME * unit))))[:, :2].T
    begin, end, period = _whole_periods(lift, round(USUAL_PERIOD * unit))
    states = [flow.state()]
    for phase in range(1, PHASES):
        flow.advance(np.zeros(period * phase // PHASES - period * (phase - 1) // PHASES))
        states.append(flow.state())
    report(total, total)
    return DevelopedFlow(tuple(states), period, float(drag[begin:end].mean()), float(np.ptp(lift[begin:end]) / 2))


def _whole_periods(lift: Array, usual: int) -> tuple[int, int, int]:
    """Return the start and end of a whole number of periods, and the length of a period, in time steps.

    A flow that does not oscillate, or not yet, gets the usual period.
    """
    above = lift > lift.mean()
    rises = np.flatnonzero(above[1:] & ~above[:-1])
    if len(rises) < 3:
        return 0, len(lift), usual
    return int(rises[0]), int(rises[-1]), round((rises[-1] - rises[0]) / (len(rises) - 1))

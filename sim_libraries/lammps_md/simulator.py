"""The simulator of a LAMMPS system whose thermostat an agent sets: actions, states, score.

Each reset starts a new LAMMPS, which runs the script. So nothing remains of the previous episode, not even an error.
The simulator then adds commands under names that begin with ``alchemist_``: the integration in time (``nve``), a
thermostat for the duration of an action, and measurements.

Each action has a seed for LAMMPS that is drawn from the simulation's own generator, and its fixes are removed at its
end. So between actions the state of LAMMPS consists of the atoms, the box and the number of the step only. A ``run``
begins by distributing the atoms to the ranks and by rebuilding neighbour lists and forces. So a snapshot needs only the
atoms, in their order in memory, the box and the number of the step.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, SimulationDivergedError
from alchemist_ray.mpi_backend.ali import Box, Field, Simulator, TaskContext
from alchemist_ray.mpi_backend.libraries.lammps.simulation import AtomState, Simulation
from alchemist_ray.sim_libraries.lammps_md import systems
from alchemist_ray.sim_libraries.lammps_md.picture import Picture
from alchemist_ray.sim_libraries.lammps_md.settings import Settings

__version__ = "1.0"

Array = npt.NDArray[Any]

MAX_SEED = 800_000_000
"""Bound of the seeds. LAMMPS needs seeds below 900,000,000 and adds the rank to them."""

SOLID_LINKS = 7
"""An atom with at least this many linked neighbours, that is, with similar surroundings, is crystalline."""

_LENGTH_UNITS = {"lj": "sigma", "real": "Å", "metal": "Å"}
_ENERGY_UNITS = {"lj": "epsilon", "real": "kcal/mol", "metal": "eV", "si": "J", "cgs": "erg", "electron": "hartree"}
_INTEGRATORS = ("nve", "nvt", "npt", "nph", "rigid", "brownian")
_STATELESS = frozenset(
    {"wall/region", "wall/reflect", "wall/harmonic", "wall/lj93", "wall/lj126", "addforce", "setforce", "momentum",
     "enforce2d", "freeze", "lineforce", "planeforce"}
)  # fmt: skip
"""Styles of fixes that have no state: a new fix does the same as the old one."""

_LOST = ("Lost atoms", "Non-numeric", "outside surface of region")

_MEASURES = """
compute alchemist_temperature {group} temp
compute alchemist_q6 {group} orientorder/atom degrees 1 6 components 6 nnn NULL cutoff {shell}
compute alchemist_links {group} coord/atom orientorder alchemist_q6 0.5
fix alchemist_nve {group} nve
thermo 1000000000
"""
_HOLD = """
fix alchemist_bath {group} {bath}
fix alchemist_means all ave/time {every} {count} {steps} c_thermo_pe c_alchemist_temperature
run {total} post no
"""
_BATHS = {"csvr": "temp/csvr {T} {T} {damping} {seed}", "langevin": "langevin {T} {T} {damping} {seed} zero yes"}
_RELEASE = "unfix alchemist_bath\nunfix alchemist_means"
_QUENCH = "min_style cg\nminimize 0.0 {tolerance} 20000 200000"


@dataclass(frozen=True)
class Making:
    """The variables that the script of an episode gets: the seed, and the depth of the potential."""

    seed: int
    depth: float


@dataclass
class AnnealingEpisode:
    """The values of the present episode, the same on all ranks.

    Attributes
    ----------
    generator : numpy.random.Generator
        The source of all randomness.
    making : Making
        The variables of the script.
    taken : int
        Number of actions taken.
    target, temperature : float
        Temperature of the thermostat, and mean kinetic temperature over the last action.
    energy : float
        Mean potential energy per atom above the reference, over the last action.
    structural : float
        `energy` minus the energy of harmonic vibrations at this temperature.
    quenched : float
        Energy per atom above the reference after the quench; NaN before the end.
    solid, links : float
        Fraction of crystalline atoms, and mean number of linked neighbours, which have similar surroundings.
    pressure : float
        Pressure at the end of the last action.
    potential, score : float
        The potential Phi, and the score of the last action, which is proportional to the decrease of Phi.
    """

    generator: np.random.Generator
    making: Making
    taken: int = 0
    target: float = 0.0
    temperature: float = 0.0
    energy: float = 0.0
    structural: float = 0.0
    quenched: float = math.nan
    solid: float = 0.0
    links: float = 0.0
    pressure: float = 0.0
    potential: float = 0.0
    score: float = 0.0


@dataclass(frozen=True)
class Kept:
    """A snapshot: this rank's atoms, the episode, and the data for a picture."""

    atoms: AtomState
    episode: AnnealingEpisode
    picture: Picture


class LammpsMD(Simulator):
    """Anneal a system of atoms: set the temperature of its thermostat so that its final energy is low.

    LAMMPS moves the atoms. An action is the temperature of the thermostat, held for `steps_per_action` time steps.
    After `actions` actions the system is quenched, that is, brought to the nearest minimum of its potential energy, and
    the episode ends. Let E be the potential energy per atom above `reference_energy`, T the kinetic temperature, both
    averaged over the last action, and d the number of dimensions:

        Phi = mean(E) - d/2 k_B mean(T),   at the end   Phi = E after the quench.

    The score of an action is ``score_scale * (Phi before - Phi after) / depth``. The scores add up to the decrease from
    the first Phi to the final energy. Actions do not influence the first Phi, so maximising the sum means minimising
    the energy after the quench (Phi is a shaping potential: Ng, Harada & Russell, ICML 1999). Without `shaping` only
    the last score is not 0; it is ``-score_scale * Phi / depth``. The depth is 1 unless `depth_ratio` varies it between
    episodes. Dividing by the depth gives all episodes the same weight.

    Equations, validation and speed are in ``docs/simulations/lammps_md.md``.

    Parameters
    ----------
    system : {'melt', 'cluster'}
        A periodic cube of a Lennard-Jones liquid that crystallises, or a Lennard-Jones cluster in empty space.
    atoms : int
        Number of atoms of the system; 4 n^3 for a melt.
    density : float
        Density of the melt, in atoms per sigma^3.
    depth_ratio : float
        Depth of the deepest potential divided by that of the shallowest, for these systems. Each episode draws a depth
        between sqrt(1/depth_ratio) and sqrt(depth_ratio), with a uniform logarithm. All energies and temperatures of
        the material scale with the depth. With 1 the depth is always 1.
    script, path : str, optional
        A LAMMPS script instead of a system, or the path of its file. It sets up the box, atoms, masses, potential and
        time step, and does not integrate in time. Its variable ``seed`` depends on the seed of the episode.
    variables : dict, optional
        Further index variables of the script.
    group : str
        A group of the script: the atoms that move, and whose temperature is set and measured.
    temperature_low, temperature_high : float
        Bounds of the action [LAMMPS' units of temperature].
    start_temperature : float, optional
        Temperature at the start of an episode, times the depth; by default `temperature_high`.
    melt_steps : int
        Time steps at that temperature before the episode begins; rounded up to whole actions.
    thermostat : {'csvr', 'langevin'}
        Stochastic velocity rescaling (Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 2007, 014101), or Langevin's.
    damping : float
        Relaxation time of the thermostat [LAMMPS' units of time].
    steps_per_action, actions : int
        Number of time steps in an action, and of actions in an episode.
    shell_radius : float, optional
        Distance up to which atoms are neighbours in the measures of structure. By default it lies between the first and
        the second shell of a close packing: ``1.4 (V/atoms)^(1/3)`` for a periodic box, and 1.45 for the cluster.
    reference_energy : float, optional
        Energy per atom that is subtracted. By default it is that of the quenched initial system, which for the melt is
        the perfect crystal.
    force_tolerance : float
        The quench ends when the 2-norm of the forces on all atoms is below this.
    score_scale : float
        Factor of the score. The number of atoms turns scores into energies of the whole system.
    shaping : bool
        Whether actions before the last one have a score.

    Raises
    ------
    ArgumentValueError
        If a parameter is out of range, or LAMMPS refuses the script. In the second case the error has LAMMPS' own text
        and the line of the script.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        *,
        system: str = "melt",
        atoms: int = 4000,
        density: float = 1.0,
        depth_ratio: float = 1.0,
        script: str | None = None,
        path: str | None = None,
        variables: dict[str, Any] | None = None,
        group: str = "all",
        temperature_low: float = 0.1,
        temperature_high: float = 2.0,
        start_temperature: float | None = None,
        melt_steps: int = 500,
        thermostat: str = "csvr",
        damping: float = 0.2,
        steps_per_action: int = 250,
        actions: int = 40,
        shell_radius: float | None = None,
        reference_energy: float | None = None,
        force_tolerance: float = 1e-4,
        score_scale: float = 1.0,
        shaping: bool = True,
    ) -> None:
        self.comm = comm
        self._settings = Settings(
            system, atoms, density, depth_ratio, script, path, variables, group, temperature_low, temperature_high,
            start_temperature, melt_steps, thermostat, damping, steps_per_action, actions, shell_radius,
            reference_energy, force_tolerance, score_scale, shaping,
        )  # fmt: skip
        self._settings.check(self._ctx.task)
        self._lammps: Simulation | None = None
        self._set_up(Making(1, 1.0))
        self._describe()

    @property
    def _ctx(self) -> TaskContext:
        """The context of the present call, with the communicator of this simulation."""
        given = getattr(self, "context", None) or TaskContext(self.comm, "lammps_md")
        return dataclasses.replace(given, comm=self.comm)

    @property
    def _running(self) -> Simulation:
        if self._lammps is None:
            raise ArgumentValueError(self._ctx.task, "the simulation failed or was closed: reset it")
        return self._lammps

    # --- setting up ---------------------------------------------------------------------------------------------------

    def _set_up(self, making: Making) -> None:
        """Start a new LAMMPS and run the script in it."""
        self.close()
        ctx, settings, self._making = self._ctx, self._settings, making
        self._lammps = Simulation(ctx, {**(settings.variables or {}), "seed": making.seed, "depth": repr(making.depth)})
        with self._closed_on_error():
            own = settings.text if settings.is_own_system else settings.script
            self._lammps.run(ctx, self._lammps.text_of(ctx, own, settings.path))
            self._check_system()
            if not hasattr(self, "_reference"):
                self._take_reference()
            self._lammps.advance(ctx, _MEASURES.format(group=settings.group, shell=self._shell_radius()))

    def _check_system(self) -> None:
        """Check that the script made atoms, and has no fix that moves them."""
        ctx, lammps = self._ctx, self._running
        box = lammps.box(ctx)
        self._natoms = int(lammps.of_all("natoms"))
        if self._natoms == 0:
            raise ArgumentValueError(ctx.task, "the script made no atoms: use create_atoms or read_data")
        self._fixes = lammps.fixes(ctx)
        for name, style in self._fixes.items():
            if style.split("/")[0] in _INTEGRATORS:
                raise ArgumentValueError(
                    ctx.task,
                    f"remove the script's fix {name} ({style}): it integrates in time, and the simulation does that",
                )
        self._dimension = lammps.setting("dimension")
        self._boltzmann = float(lammps.of_all("boltz"))
        edges = np.subtract(box["hi"], box["lo"])
        self._volume = float(np.prod(edges[: self._dimension]))
        self._periodic = any(box["periodic"])

    def _take_reference(self) -> None:
        given = self._settings.reference_energy
        if given is None:
            self._running.advance(self._ctx, _QUENCH.format(tolerance=self._settings.force_tolerance))
            given = self._running.compute(self._ctx, "thermo_pe") / self._natoms
        self._reference = given

    @property
    def _is_cluster(self) -> bool:
        return self._settings.is_own_system and self._settings.system == "cluster"

    def _shell_radius(self) -> float:
        settings = self._settings
        if settings.shell_radius is not None:
            return settings.shell_radius
        if self._is_cluster:
            return systems.SHELL["cluster"]
        return systems.SHELL["melt"] * float((self._volume / self._natoms) ** (1 / self._dimension))

    def _describe(self) -> None:
        """Set the spaces, which depend on the units of the script."""
        settings, system = self._settings, str(self._running.of_all("units"))
        energy = _ENERGY_UNITS.get(system, f"energy in {system} units")
        temperature = "epsilon/k_B" if system == "lj" else "K"
        self.work_per_step = (self._natoms * settings.steps_per_action / 1e6, "matom-steps")
        self.action_space = Box(
            settings.temperature_low, settings.temperature_high, (1,), names=["target_temperature"], units=[temperature]
        )
        self.observation_space = Box(
            [0.0, -np.inf, -np.inf, 0.0, 0.0, 0.0],
            [np.inf, np.inf, np.inf, 1.0, np.inf, 1.0],
            names=["temperature", "potential_energy", "structural_energy", "solid_fraction", "linked_neighbours",
                   "time_left"],
            units=[temperature, f"{energy}/atom", f"{energy}/atom", "1", "1/atom", "1"],
        )  # fmt: skip

    # --- running ------------------------------------------------------------------------------------------------------

    def reset(self, seed: int | None) -> None:
        """Set up a new system, melt it, and begin an episode."""
        settings = self._settings
        generator = np.random.default_rng(self.comm.bcast(np.random.SeedSequence().entropy) if seed is None else seed)
        depth = math.exp(generator.uniform(-0.5, 0.5) * math.log(settings.depth_ratio))
        making = Making(int(generator.integers(1, MAX_SEED)), depth)
        begin = settings.begin_at * depth
        self._episode = AnnealingEpisode(generator, making, target=begin)
        self._set_up(making)
        spin = "no" if self._periodic else "yes"
        how = f"mom yes rot {spin} dist gaussian loop geom"
        self._running.advance(self._ctx, f"velocity {settings.group} create {begin!r} {self._draw()} {how}")
        late = int(self._running.of_all("ntimestep")) % settings.steps_per_action
        whole = -(-(settings.melt_steps + late) // settings.steps_per_action) * settings.steps_per_action
        self._hold(begin, max(whole, settings.steps_per_action) - late)
        self._measure()
        self._episode.potential = self._episode.structural

    def step(self, action: Array) -> None:
        """Hold the thermostat at a temperature for an action's time; quench the system after the last."""
        episode = self._episode
        if self.is_finished():
            raise ArgumentValueError(self._ctx.task, "the episode has ended: reset the simulation")
        episode.target = float(np.asarray(action, float).reshape(-1)[0])
        self._hold(episode.target, self._settings.steps_per_action)
        self._measure()
        episode.taken += 1
        if self.is_finished():
            self._quench()
        self._set_score()

    def _draw(self) -> int:
        """Return a seed for LAMMPS. Local; all ranks return the same."""
        return int(self._episode.generator.integers(1, MAX_SEED))

    def _hold(self, target: float, steps: int) -> None:
        settings = self._settings
        every, count = settings.sampling
        bath = _BATHS[settings.thermostat].format(T=repr(target), damping=repr(settings.damping), seed=self._draw())
        with self._closed_on_error():
            self._running.advance(
                self._ctx,
                _HOLD.format(group=settings.group, bath=bath, every=every, count=count,
                             steps=settings.steps_per_action, total=steps),
            )  # fmt: skip

    def _measure(self) -> None:
        """Measure the values at the end of an action, and remove the fixes of the action."""
        ctx, lammps, episode = self._ctx, self._running, self._episode
        with self._closed_on_error():
            energy, episode.temperature = (lammps.average(ctx, "alchemist_means", index) for index in range(2))
            episode.energy = energy / self._natoms - self._reference
            episode.structural = episode.energy - self._dimension / 2 * self._boltzmann * episode.temperature
            episode.pressure = lammps.compute(ctx, "thermo_press")
            if not math.isfinite(episode.structural):
                raise SimulationDivergedError(ctx.task, f"its potential energy is {energy}")
            lammps.advance(ctx, _RELEASE)
            self._measure_structure()

    def _measure_structure(self) -> None:
        lammps = self._running
        links = lammps.compute_of_atoms(self._ctx, "alchemist_links")
        self._picture = Picture(lammps.values("x").copy(), links.astype(np.float32))
        sums = np.array([links.size, links.sum(), np.count_nonzero(links >= SOLID_LINKS)], float)
        self.comm.Allreduce(MPI.IN_PLACE, sums)
        self._episode.links, self._episode.solid = sums[1] / self._natoms, sums[2] / self._natoms

    def _quench(self) -> None:
        with self._closed_on_error():
            self._running.advance(self._ctx, _QUENCH.format(tolerance=self._settings.force_tolerance))
            energy = self._running.compute(self._ctx, "thermo_pe") / self._natoms - self._reference
            if not math.isfinite(energy):
                raise SimulationDivergedError(self._ctx.task, f"its potential energy is {energy} after the quench")
            self._measure_structure()
        self._episode.quenched = energy

    def _set_score(self) -> None:
        episode = self._episode
        scale = self._settings.score_scale / episode.making.depth
        before, episode.potential = episode.potential, episode.structural
        if self.is_finished():
            episode.potential = episode.quenched
        if self._settings.shaping:
            episode.score = scale * (before - episode.potential)
        else:
            episode.score = -scale * episode.quenched if self.is_finished() else 0.0

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """End LAMMPS on all ranks if it fails, since its state after a failure is unknown."""
        try:
            yield
        except ArgumentValueError as failure:
            self.close()
            if any(word in failure.reason for word in _LOST):
                raise SimulationDivergedError(self._ctx.task, failure.reason) from None
            raise
        except SimulationDivergedError:
            self.close()
            raise

    # --- states, scores and pictures ----------------------------------------------------------------------------------

    def get_state(self) -> Array | None:
        """Return temperature, energies and fractions; see `observation_space`."""
        e = self._episode
        return np.array([e.temperature, e.energy, e.structural, e.solid, e.links, 1 - e.taken / self._settings.actions])

    def get_score(self) -> float | None:
        """Return the score of the last action: the decrease of Phi, scaled."""
        return self._episode.score

    def is_finished(self) -> bool:
        """Return whether all actions were taken and the system was quenched."""
        return self._episode.taken >= self._settings.actions

    def get_info(self) -> dict[str, float] | None:
        """Return the means of the last action; at the end also ``final_energy``, of the quenched whole system."""
        e = self._episode
        info = {
            "target_temperature": e.target,
            "temperature": e.temperature,
            "potential_energy": e.energy + self._reference,
            "pressure": e.pressure,
            "solid_fraction": e.solid,
            "depth": e.making.depth,
        }
        if self.is_finished():
            info["final_energy"] = (e.quenched + self._reference) * self._natoms
        return info

    def get_field(self) -> Field | None:
        """Return the atoms seen along z, coloured by linked neighbours, in a cluster by neighbours. Collective."""
        unit = _LENGTH_UNITS.get(str(self._running.of_all("units")), "")
        shell = self._shell_radius() if self._is_cluster else None
        return self._picture.drawn(self.comm, self._running.box(self._ctx), unit, shell)

    def snapshot(self) -> Kept:
        """Return this rank's atoms in LAMMPS' order, and the episode.

        Raises
        ------
        ArgumentValueError
            If a fix of the script may have a state of its own.
        """
        stateful = [f"{name} ({style})" for name, style in self._fixes.items() if style not in _STATELESS]
        if stateful:
            raise ArgumentValueError(
                self._ctx.task,
                f"a snapshot is not possible: the script's fix {stateful[0]} may have a state that it would not keep",
            )
        return Kept(self._running.atom_state(self._ctx), copy.deepcopy(self._episode), self._picture)

    def restore(self, state: Kept) -> None:
        """Continue from a snapshot of a simulation with the same parameters and number of ranks."""
        if self._lammps is None or self._making != state.episode.making:
            self._set_up(state.episode.making)
        self._running.replace_atoms(self._ctx, state.atoms)
        self._episode, self._picture = copy.deepcopy(state.episode), state.picture

    def close(self) -> None:
        """End LAMMPS."""
        if getattr(self, "_lammps", None) is not None:
            self._running.close()
        self._lammps = None

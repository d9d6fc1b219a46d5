"""A system of LAMMPS under a thermostat that is set from outside.

LAMMPS is made anew by each reset, which has it run the script; so whatever an episode has done to it, even an error,
is gone. To it are added, under names that begin with ``alchemist_``, the integration in time (``nve``), a thermostat
for the time of an action, and what is measured.

The random numbers of an action are those of a seed that is drawn for it from the simulation's own generator, and no fix
outlives its action: between actions LAMMPS has no state but its atoms, the box and the number of the step. A ``run``
begins by dealing out the atoms and making lists of neighbours and forces anew, so these, in their order in memory, are
all that a snapshot needs.
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
"""Seeds of LAMMPS' random numbers are below 900,000,000; to each the rank is added."""

SOLID_LINKS = 7
"""An atom with so many neighbours in whose surroundings it sees its own is crystalline."""

_LENGTH_UNITS = {"lj": "sigma", "real": "Å", "metal": "Å"}
_ENERGY_UNITS = {"lj": "epsilon", "real": "kcal/mol", "metal": "eV", "si": "J", "cgs": "erg", "electron": "hartree"}
_INTEGRATORS = ("nve", "nvt", "npt", "nph", "rigid", "brownian")
_STATELESS = frozenset(
    {"wall/region", "wall/reflect", "wall/harmonic", "wall/lj93", "wall/lj126", "addforce", "setforce", "momentum",
     "enforce2d", "freeze", "lineforce", "planeforce"}
)  # fmt: skip
"""Styles of fixes of which a new one does what the old one would have done."""

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
    """What the script of an episode is given: the seed, and the depth of the potential."""

    seed: int
    depth: float


@dataclass
class AnnealingEpisode:
    """What is known of the present episode, alike on all ranks.

    Attributes
    ----------
    generator : numpy.random.Generator
        The source of all randomness.
    making : Making
    taken : int
        Actions taken.
    target, temperature : float
        Of the thermostat, and the mean over the last action.
    energy : float
        Potential energy per atom above the reference, the mean over the last action; once quenched, that of the end.
    structural : float
        `energy` less what harmonic vibrations at this temperature have.
    quenched : float
        NaN before the end: the energy after the quench, per atom above the reference.
    solid, links : float
        The fraction of crystalline atoms, and the mean number of neighbours that see the same surroundings.
    pressure : float
    potential, score : float
        What the score is the loss of; that of the last action.
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
    """A snapshot: this rank's atoms, the episode, and what a picture is made of."""

    atoms: AtomState
    episode: AnnealingEpisode
    picture: Picture


class LammpsMD(Simulator):
    """Anneal a system of atoms: set the temperature of its thermostat so that its energy is low in the end.

    LAMMPS moves the atoms. An action is the temperature of the thermostat, held for `steps_per_action` time steps.
    After `actions` of them the system is quenched, that is, brought to the nearest minimum of its potential energy, and
    the episode ends. With E the potential energy per atom above `reference_energy`, means over the last action, and d
    dimensions,

        Phi = mean(E) - d/2 k_B mean(T),   at the end   Phi = E after the quench,

    the score of an action is ``score_scale * (Phi before - Phi after) / depth``. The scores add up to the drop from the
    first Phi, on which no action has an influence, to the energy that is reached: whoever maximises their sum minimises
    the energy after the quench (Phi is a potential of the shaping: Ng, Harada & Russell, ICML 1999). Without `shaping`
    only the last score is other than 0, and is ``-score_scale * Phi / depth``. The depth is 1 unless `depth_ratio` has
    the episodes differ in it; they count alike then.

    Equations, validation and speed are in ``docs/simulations/lammps_md.md``.

    Parameters
    ----------
    system : {'melt', 'cluster'}
        A periodic cube of a Lennard-Jones liquid that crystallises, or a Lennard-Jones cluster in the void.
    atoms : int
        Number of atoms of that; of a melt 4 n^3.
    density : float
        Of the melt, in atoms per sigma^3.
    depth_ratio : float
        Of these systems: between the deepest and the shallowest potential. Each episode has one of its own, whose depth
        is drawn from between sqrt(1/depth_ratio) and sqrt(depth_ratio), its logarithm uniformly; all energies and
        temperatures of the material scale by it. With 1, all are 1.
    script, path : str, optional
        Any script of LAMMPS instead, or the file that it is in. It sets up the box, atoms, masses, potential and time
        step, and does not integrate in time. It has a variable ``seed``, which depends on the seed of the episode.
    variables : dict, optional
        Further index variables of the script.
    group : str
        Those atoms of the script that move, and whose temperature is set and measured.
    temperature_low, temperature_high : float
        Bounds of the action [LAMMPS' units of temperature].
    start_temperature : float, optional
        At which an episode begins, times the depth; by default `temperature_high`.
    melt_steps : int
        Steps at that temperature before the episode begins; rounded up to whole actions.
    thermostat : {'csvr', 'langevin'}
        Stochastic velocity rescaling (Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 2007, 014101), or Langevin's.
    damping : float
        Its relaxation time [LAMMPS' units of time].
    steps_per_action, actions : int
        Time steps that an action is held for, and actions of an episode.
    shell_radius : float, optional
        Distance up to which atoms are neighbours for the measures of structure; by default between the first and second
        shell of a close packing, ``1.4 (V/atoms)^(1/3)`` of a periodic box, and 1.45 of the cluster.
    reference_energy : float, optional
        Per atom; by default that of what the script sets up, quenched: of the melt, the perfect crystal.
    force_tolerance : float
        The quench ends when the forces on all atoms together are smaller (2-norm).
    score_scale : float
        Factor of the score; with the number of atoms, it is the energy of the whole.
    shaping : bool
        Whether there is a score before the end.

    Raises
    ------
    ArgumentValueError
        If a parameter is out of range, or LAMMPS refuses the script: with its own text, and the line.
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
        """The surroundings of the present call, on the ranks of this simulation."""
        given = getattr(self, "context", None) or TaskContext(self.comm, "lammps_md")
        return dataclasses.replace(given, comm=self.comm)

    @property
    def _running(self) -> Simulation:
        if self._lammps is None:
            raise ArgumentValueError(self._ctx.task, "the simulation has failed or was closed: reset it")
        return self._lammps

    # --- setting up ---------------------------------------------------------------------------------------------------

    def _set_up(self, making: Making) -> None:
        """Make a LAMMPS that has run the script."""
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
        """Check that there are atoms, and that nothing moves them yet."""
        ctx, lammps = self._ctx, self._running
        box = lammps.box(ctx)
        self._natoms = int(lammps.of_all("natoms"))
        if self._natoms == 0:
            raise ArgumentValueError(ctx.task, "the script has made no atoms: create_atoms or read_data does")
        self._fixes = lammps.fixes(ctx)
        for name, style in self._fixes.items():
            if style.split("/")[0] in _INTEGRATORS:
                raise ArgumentValueError(
                    ctx.task,
                    f"the script's fix {name} ({style}) integrates in time, which the simulation does: leave it out",
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
        """Declare the spaces, which depend on the units of the script."""
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
        """Set the system up anew, melt it, and begin an episode."""
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
            raise ArgumentValueError(self._ctx.task, "the episode is at its end: reset the simulation")
        episode.target = float(np.asarray(action, float).reshape(-1)[0])
        self._hold(episode.target, self._settings.steps_per_action)
        self._measure()
        episode.taken += 1
        if self.is_finished():
            self._quench()
        self._set_score()

    def _draw(self) -> int:
        """Return a seed for LAMMPS. Local, and alike on all ranks."""
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
        """Take what is known at the end of an action, and end the fixes that have led there."""
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
        """End LAMMPS if it fails, on all ranks alike: what state it is in then, it does not say itself."""
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

    # --- what is known ------------------------------------------------------------------------------------------------

    def get_state(self) -> Array | None:
        """Return temperature, energies, fractions; see `observation_space`."""
        e = self._episode
        return np.array([e.temperature, e.energy, e.structural, e.solid, e.links, 1 - e.taken / self._settings.actions])

    def get_score(self) -> float | None:
        """Return by how much the potential Phi has dropped in the last action."""
        return self._episode.score

    def is_finished(self) -> bool:
        """Whether all actions are taken, and the system is quenched."""
        return self._episode.taken >= self._settings.actions

    def get_info(self) -> dict[str, float] | None:
        """Return the last action's means; at the end, ``final_energy`` of the whole system after the quench as well."""
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
        """Return the atoms seen along z, coloured by how crystalline (or dense, in a cluster) it is there."""
        unit = _LENGTH_UNITS.get(str(self._running.of_all("units")), "")
        shell = self._shell_radius() if self._is_cluster else None
        return self._picture.drawn(self.comm, self._running.box(self._ctx), unit, shell)

    def snapshot(self) -> Kept:
        """Return this rank's atoms in LAMMPS' order, and the episode."""
        stateful = [f"{name} ({style})" for name, style in self._fixes.items() if style not in _STATELESS]
        if stateful:
            raise ArgumentValueError(
                self._ctx.task,
                f"the script's fix {stateful[0]} may have a state of its own, which a snapshot does not keep",
            )
        return Kept(self._running.atom_state(self._ctx), copy.deepcopy(self._episode), self._picture)

    def restore(self, state: Kept) -> None:
        """Continue from a snapshot of a simulation with the same parameters on as many ranks."""
        if self._lammps is None or self._making != state.episode.making:
            self._set_up(state.episode.making)
        self._running.replace_atoms(self._ctx, state.atoms)
        self._episode, self._picture = copy.deepcopy(state.episode), state.picture

    def close(self) -> None:
        """End LAMMPS."""
        if getattr(self, "_lammps", None) is not None:
            self._running.close()
        self._lammps = None

"""The keys of an experiment: types, units, defaults, documentation.

Every key is a field here. The table of docs/experiments.md and ``alchemist run --describe`` are printed from these
fields. A value keeps the type that it is written with: a string is not converted to a number. Whole numbers may be
written as ``1e6``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from alchemist_ray.envs.settings import CLUSTER
from alchemist_ray.training.seeds import environment_seeds


class Section(BaseModel):
    """Part of an experiment. Keys that are not fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _key(default: Any, text: str, unit: str = "", **limits: Any) -> Any:
    """Return a field of an experiment: its default, meaning and unit, and pydantic's limits on its value."""
    return Field(default, description=text, json_schema_extra={"unit": unit}, **limits)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number, which may be written as 1e6."""

Seed = Annotated[Whole, Field(ge=0)]
"""A seed: NumPy and gymnasium refuse negative ones."""

CHOOSING_SEEDS = [20001]
"""Seeds of the evaluations that choose a policy, by default."""

ASYNCHRONOUS = ("APPO", "IMPALA")
"""RLlib's algorithms whose learner and samplers do not wait for each other."""

Domain = Literal["uniform", "quniform", "loguniform", "qloguniform", "randn", "randint", "lograndint", "choice", "grid"]


class AlgorithmKeys(Section):
    """The algorithm and its options, under RLlib's names."""

    name: str = _key("PPO", "RLlib's algorithm: PPO, APPO, IMPALA, SAC, DQN, ...")
    training: dict[str, Any] = _key(
        {}, "options as RLlib's `AlgorithmConfig.training()` of the algorithm takes them, e.g. `lr`, `gamma`"
    )
    model: dict[str, Any] = _key(
        {}, "options of the network, as RLlib's `DefaultModelConfig` takes them, e.g. `fcnet_hiddens`"
    )
    observation_filter: Literal["none", "mean_std"] = _key(
        "none", "`mean_std` shifts and scales observations by their running mean and standard deviation"
    )
    reward_scale: float = _key(
        1.0,
        "the learner sees the rewards times this factor, so that values are of the order of 1; reported rewards are the"
        " environment's own",
        gt=0,
    )
    normalize_actions: bool = _key(True, "scale the policy's actions from [-1, 1] to the bounds of the action space")
    clip_actions: bool = _key(False, "clip the policy's actions to the action space instead of scaling them")
    torch_threads: Whole | None = _key(
        None,
        "PyTorch's threads in the learning process; by default 1 if the server is embedded, since the MPI ranks need"
        " the cores, otherwise PyTorch's own choice",
        "threads",
        ge=1,
    )

    @model_validator(mode="before")
    @classmethod
    def _clipped_is_not_scaled(cls, given: Any) -> Any:
        """Turn off scaling where `clip_actions` is on and nothing is said about scaling."""
        if isinstance(given, dict) and given.get("clip_actions") is True:
            return {"normalize_actions": False, **given}
        return given

    @model_validator(mode="after")
    def _one_way(self) -> AlgorithmKeys:
        if self.clip_actions and self.normalize_actions:
            raise ValueError("give one of clip_actions and normalize_actions, not both")
        return self


class RunnerKeys(Section):
    """The processes that sample, and the environments in each."""

    num_env_runners: Whole = _key(0, "processes that sample; with 0 the learning process samples", "processes", ge=0)
    num_envs_per_env_runner: Whole = _key(
        1, "environments in each of them; each environment is one simulation", "environments", ge=1
    )
    vectorize: Literal["sync", "async", "hpc"] = _key(
        "sync",
        "how a process steps its environments: one after the other (`sync`), in a process each (`async`), or as one"
        " `HPCVectorEnv` with all simulations in one worker group and one call for each step (`hpc`)",
    )
    num_groups: Whole = _key(
        1, "with `hpc`: worker groups that share the simulations, with `environment.num_workers` ranks each", "groups",
        ge=1,
    )  # fmt: skip
    workers_per_simulation: Whole | None = _key(
        None,
        "with `hpc`: ranks of a simulation; by default the ranks of a group are divided among its simulations",
        "ranks",
        ge=1,
    )
    rollout_fragment_length: Whole | Literal["auto"] = _key(
        "auto", "steps that are sampled from an environment at a time", "steps"
    )
    batch_mode: Literal["truncate_episodes", "complete_episodes"] = _key(
        "truncate_episodes", "whether batches may contain parts of episodes or only complete ones"
    )


class EnvironmentKeys(Section):
    """The environment: an MPI simulation, named by its library, or any environment that gymnasium knows."""

    id: str | None = _key(
        None,
        "the environment's gymnasium id, e.g. `alchemist_ray/Heat-v0`; write `module:id` if a module has to be imported"
        " first; alternative to `lib_name`",
    )
    kwargs: dict[str, Any] = _key(
        {}, "arguments of `gymnasium.make`; only for an `id` that is not an MPI simulation of this package"
    )
    lib_name: str | None = _key(None, "name of the simulation library")
    lib_path: str | None = _key(
        None, "module or file of a library that is not registered; a file's path is relative to the YAML's directory"
    )
    num_workers: Whole = _key(1, "MPI ranks of a worker group", "ranks", ge=1)
    cluster: str | None = _key(
        None,
        "`ray`: the ranks run on the nodes of the Ray cluster, where each takes a CPU; `ray:NAME`: they are workers of"
        " the cluster that `alchemist.init(cluster_name=NAME)` has started; instead of `server`",
        pattern=CLUSTER.pattern,
    )
    wait: float | None = _key(
        None,
        "how long an environment waits for workers that others hold (by default 0), or with `cluster: ray` for Ray's"
        " CPUs (by default 120)",
        "s",
        ge=0,
    )
    placement: Literal["pack", "spread", "strict_spread"] = _key(
        "pack", "ranks on as few nodes as possible, on as many as possible, or each on a node of its own"
    )
    labels: dict[str, str] = _key({}, "labels that the nodes of the ranks must have")
    params: dict[str, Any] = _key({}, "parameters of the simulation")
    max_episode_steps: Whole | None = _key(
        None, "steps after which an episode is cut off; by default the limit under which `id` is registered", "steps",
        ge=1,
    )  # fmt: skip
    on_failure: Literal["raise", "restart"] = _key(
        "raise", "a simulation that dies or diverges ends the training (`raise`) or only its episode (`restart`)"
    )
    max_restarts: Whole = _key(3, "how many times in a row a simulation is restarted", "restarts", ge=0)
    step_timeout: float = _key(300.0, "how long a step may take", "s", gt=0)
    reset_timeout: float = _key(1800.0, "how long it may take to make or reset a simulation", "s", gt=0)
    dtype: Literal["float32", "float64"] = _key("float32", "type of observations and actions")

    @property
    def is_ours(self) -> bool:
        """Whether it is an MPI simulation, which HPCSimulator runs."""
        return self.id is None or self.id.rpartition(":")[2].startswith("alchemist_ray/")

    @model_validator(mode="after")
    def _one_environment(self) -> EnvironmentKeys:
        if (self.id is None) == (self.lib_name is None):
            raise ValueError("give either id (of gymnasium) or lib_name (of a simulation library)")
        if self.id is not None and self.lib_path is not None:
            raise ValueError("lib_path needs lib_name: it cannot be combined with id")
        if self.is_ours and self.kwargs:
            raise ValueError(
                "kwargs are for environments of other packages: give the parameters of a simulation in params"
            )
        ours = set(type(self).model_fields) - {"id", "kwargs", "max_episode_steps"}
        foreign = sorted(name for name in ours if getattr(self, name) != type(self).model_fields[name].default)
        if not self.is_ours and foreign:
            raise ValueError(
                f"{', '.join(foreign)}: only for MPI simulations; give the arguments of {self.id} in kwargs"
            )
        return self


class ServerKeys(Section):
    """Where the MPI workers are. Without `hostname` and `port`, each process that needs a server starts its own."""

    hostname: str | None = _key(None, "host of an Alchemist server")
    port: Whole | None = _key(None, "its port; 24960 if only `hostname` is given", ge=1, le=65535)
    token_file: str | None = _key(None, "file with its token (mode 0600); the path is relative to the YAML's directory")
    token: str | None = _key(
        None, "its token; a file or `ALCHEMIST_TOKEN` is safer; the token is never written to the results"
    )

    @property
    def embedded(self) -> bool:
        """Whether processes start servers of their own."""
        return self.hostname is None and self.port is None

    @model_validator(mode="after")
    def _one_token(self) -> ServerKeys:
        if self.token is not None and self.token_file is not None:
            raise ValueError("give one of token and token_file, not both")
        return self


class StopKeys(Section):
    """When a training ends: at the first of these limits. At least one is needed."""

    timesteps: Whole | None = _key(None, "steps of the environment, summed over all runners", "steps", ge=1)
    iterations: Whole | None = _key(None, "iterations; each samples a batch and learns from it", "iterations", ge=1)
    seconds: float | None = _key(None, "training time, earlier parts of a resumed training included", "s", gt=0)
    reward: float | None = _key(None, "mean return of the last training episodes that is high enough")

    @model_validator(mode="after")
    def _one_at_least(self) -> StopKeys:
        if all(value is None for value in (self.timesteps, self.iterations, self.seconds, self.reward)):
            raise ValueError("nothing ends the training: give timesteps, iterations, seconds or reward")
        return self


class EvaluationKeys(Section):
    """How policies are measured: whole episodes, actions without exploration, the same seeds for all policies."""

    seeds: list[Seed] = _key(
        [10001, 10002, 10003, 10004, 10005], "seeds of the episodes; every policy plays one for each", min_length=1
    )
    interval: Whole | None = _key(
        None, "iterations between evaluations during the training; by default there are none", "iterations", ge=1
    )
    interval_seeds: list[Seed] | None = _key(
        None,
        "seeds of the evaluations during the training; by default `evaluation.seeds`, or `[20001]` if they choose the"
        " policy, since the seeds that choose must not be among those that measure",
        min_length=1,
    )
    checkpoint: Literal["last", "best"] = _key(
        "last",
        "the checkpoint that is evaluated: the last, or the one with the best mean return, of the evaluations if there"
        " is an `interval`, otherwise of the training episodes",
    )
    info: list[str] | None = _key(
        None, "keys of `info` that are averaged over the steps of an episode; by default all numbers"
    )
    skip_steps: Whole = _key(
        0, "steps at the start of an episode (a transient) that these averages skip", "steps", ge=0
    )
    max_steps: Whole | None = _key(None, "steps after which an evaluation episode is cut off", "steps", ge=1)

    @property
    def during_training(self) -> list[int]:
        """Seeds of the evaluations during the training; empty if there are none."""
        return list(self.interval_seeds or ()) if self.interval is not None else []


class BaselineKeys(Section):
    """A policy to compare with: one of kind, constant and function."""

    kind: Literal["zero", "random"] | None = _key(None, "zero action (clipped to the action space) or random actions")
    constant: float | list[float] | None = _key(None, "always this action, in the units of the action space")
    function: str | None = _key(
        None, "`package.module:function`; it gets the environment and returns `policy(observation, step) -> action`"
    )
    options: dict[str, Any] = _key({}, "further arguments of the function")

    @model_validator(mode="after")
    def _one_of(self) -> BaselineKeys:
        given = [value for value in (self.kind, self.constant, self.function) if value is not None]
        if len(given) != 1:
            raise ValueError("give one of kind, constant and function")
        if self.options and self.function is None:
            raise ValueError("options are for a function")
        if self.function is not None and not all(self.function.partition(":")):
            raise ValueError(f"function must be 'package.module:function', not {self.function!r}")
        return self


class SearchKeys(Section):
    """Hyperparameter search by Ray Tune; each sample is a training."""

    space: dict[str, dict[Domain, Any]] = _key(
        {},
        "path of a key -> the space of its values, e.g. `algorithm.training.lr: {loguniform: [1e-5, 1e-3]}`;"
        " names and arguments are those of `ray.tune`, and `grid` is `grid_search`",
    )
    num_samples: Whole = _key(1, "samples; with a grid, how many times the grid is searched", "trainings", ge=1)
    scheduler: Literal["fifo", "asha"] = _key(
        "fifo", "`asha` stops trainings that are worse than others after as many iterations"
    )
    grace_iterations: Whole = _key(10, "iterations before `asha` may stop a training", "iterations", ge=1)
    metric: Literal["mean_return", "evaluation_return"] = _key(
        "mean_return", "the goal to maximise: mean return of the training episodes or of the evaluations"
    )
    concurrent: Whole = _key(1, "trainings at the same time", "trainings", ge=1)


class CheckpointKeys(Section):
    """Checkpoints, from which a training is resumed."""

    interval: Whole = _key(10, "iterations between checkpoints; one more is written at the end", "iterations", ge=1)
    keep: Whole = _key(2, "how many checkpoints of a training are kept", "checkpoints", ge=1)


class PictureKeys(Section):
    """Pictures of the first evaluation episode: the trained policy beside a baseline."""

    fields: Whole = _key(4, "pictures of the field, evenly spaced over the episode; 0 for none", "pictures", ge=0)
    frames: Whole = _key(60, "frames of the animation, evenly spaced over the episode; 0 for none", "frames", ge=0)
    frames_per_second: float = _key(12.0, "speed of the animation", "1/s", gt=0)
    width: Whole = _key(360, "width of the field in the animation, for each policy", "pixels", ge=32)
    max_bytes: Whole = _key(
        2_000_000, "size limit of the animation: it gets fewer frames, then smaller ones, until it fits", "bytes",
        ge=1000,
    )  # fmt: skip
    beside: str | None = _key(
        None, "the baseline that is shown beside the trained policy and compared with; by default the first"
    )


class RayKeys(Section):
    """Ray itself."""

    address: str | None = _key(None, "address of a running Ray cluster, e.g. `auto`; by default the run starts Ray")


class Experiment(Section):
    """An experiment. Its attributes are the keys of its file; see docs/experiments.md."""

    name: str = _key("", "name of the experiment; by default the name of its file", pattern=r"^[\w.-]*$")
    description: str = _key("", "a sentence or two for the report")
    algorithm: AlgorithmKeys = _key(AlgorithmKeys(), "")
    runners: RunnerKeys = _key(RunnerKeys(), "")
    environment: EnvironmentKeys = Field(description="")
    server: ServerKeys = _key(ServerKeys(), "")
    seeds: list[Seed] = _key(
        [0],
        "seeds of the trainings: each seed is one training, and they run one after the other; three or more show how"
        " far the result depends on the seed",
        min_length=1,
    )
    stop: StopKeys = Field(description="")
    evaluation: EvaluationKeys = _key(EvaluationKeys(), "")
    baselines: dict[str, BaselineKeys] = _key(
        {"no control": BaselineKeys(kind="zero")},
        "name -> policy to compare with; `name: zero` is short for `name: {kind: zero}`",
    )
    search: SearchKeys | None = _key(None, "")
    checkpoints: CheckpointKeys = _key(CheckpointKeys(), "")
    pictures: PictureKeys = _key(PictureKeys(), "")
    ray: RayKeys = _key(RayKeys(), "")
    results: str = _key("", "directory of the results; by default `results/NAME` in the current directory")

    @property
    def repeatable(self) -> bool:
        """Whether a training with the same seed gives the same numbers on the same machine, if iterations end it."""
        return self.runners.num_env_runners <= 1 and self.algorithm.name not in ASYNCHRONOUS

    @property
    def evaluations_choose(self) -> bool:
        """Whether the evaluations during the training choose a checkpoint or a training."""
        by_search = self.search is not None and self.search.metric == "evaluation_return"
        return self.evaluation.interval is not None and (self.evaluation.checkpoint == "best" or by_search)

    def _check_seeds(self) -> None:
        """Raise if a seed is given twice, or if an evaluation uses a seed that a policy was trained on or chosen by."""
        keys, runners = self.evaluation, self.runners
        given = {"seeds": self.seeds, "evaluation.seeds": keys.seeds, "evaluation.interval_seeds": keys.during_training}
        for where, seeds in given.items():
            if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
                raise ValueError(f"{where}: {twice[0]} is given twice; the second would repeat the first")
        trained = environment_seeds(self.seeds, runners.num_env_runners + runners.num_envs_per_env_runner)
        if seen := sorted(trained & {*keys.seeds, *keys.during_training}):
            raise ValueError(
                f"seed {seen[0]} begins a training episode as well as an evaluation: evaluate on other seeds"
            )
        if self.evaluations_choose and (seen := sorted({*keys.seeds} & {*keys.during_training})):
            raise ValueError(
                f"evaluation.interval_seeds: seed {seen[0]} chooses a policy, and must not be one of evaluation.seeds"
            )

    @model_validator(mode="before")
    @classmethod
    def _short_baselines(cls, given: Any) -> Any:
        """Expand ``name: zero`` and ``name: package.module:function``."""
        if not isinstance(given, dict) or not isinstance(given.get("baselines"), dict):
            return given
        expanded = {
            name: ({"function": said} if ":" in said else {"kind": said}) if isinstance(said, str) else said
            for name, said in given["baselines"].items()
        }
        return {**given, "baselines": expanded}

    @model_validator(mode="before")
    @classmethod
    def _same_seeds(cls, given: Any) -> Any:
        """Evaluate during the training on the seeds of the table, unless that would choose a policy by them."""
        said = given.get("evaluation") if isinstance(given, dict) else None
        if not isinstance(said, dict) or said.get("interval") is None or said.get("interval_seeds") is not None:
            return given
        search = given.get("search")
        by_search = isinstance(search, dict) and search.get("metric") == "evaluation_return"
        chooses = by_search or said.get("checkpoint") == "best"
        seeds = CHOOSING_SEEDS if chooses else said.get("seeds", EvaluationKeys.model_fields["seeds"].default)
        return {**given, "evaluation": {**said, "interval_seeds": seeds}}

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        self._check_seeds()
        if self.pictures.beside is not None and self.pictures.beside not in self.baselines:
            raise ValueError(f"pictures.beside: {self.pictures.beside!r} is not one of the baselines")
        if self.algorithm.name in self.baselines:
            raise ValueError(f"baselines.{self.algorithm.name}: that is the name of the trained policy; choose another")
        if self.search is not None and self.search.metric == "evaluation_return" and self.evaluation.interval is None:
            raise ValueError("search.metric evaluation_return needs evaluation.interval")
        if self.runners.vectorize == "hpc" and not self.environment.is_ours:
            raise ValueError("runners.vectorize: hpc works with MPI simulations only")
        if self.environment.cluster is not None and not self.server.embedded:
            raise ValueError("environment.cluster starts a server in Ray, and server names another: give one of them")
        return self

"""The keys of an experiment: types, units, defaults, documentation.

Every key is a field here; the table of docs/experiments.md and ``alchemist run --describe`` are printed from these. A
value is taken as it is written: a string is no number. Whole numbers may be written as ``1e6``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from alchemist_ray.training.seeds import environment_seeds


class Section(BaseModel):
    """Part of an experiment: keys that are not fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _key(default: Any, text: str, unit: str = "", **limits: Any) -> Any:
    """Return a field of an experiment: its default, what it means, its unit, and pydantic's limits on its value."""
    return Field(default, description=text, json_schema_extra={"unit": unit}, **limits)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number, which may be written as 1e6."""

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
        "none", "`mean_std` has observations shifted and scaled by their running mean and standard deviation"
    )
    reward_scale: float = _key(
        1.0,
        "factor of the rewards that are learned from, so that values are of the order of 1; those that are reported are"
        " the environment's own",
        gt=0,
    )
    normalize_actions: bool = _key(True, "the policy's actions in [-1, 1] are scaled to the bounds of the action space")
    clip_actions: bool = _key(False, "the policy's actions are clipped to the action space; implies no scaling")
    torch_threads: Whole | None = _key(
        None,
        "PyTorch's threads in the process that learns; by default 1 where the server is embedded, since the MPI ranks"
        " need the cores, and PyTorch's own choice where it is elsewhere",
        "threads",
        ge=1,
    )

    @model_validator(mode="before")
    @classmethod
    def _clipped_is_not_scaled(cls, given: Any) -> Any:
        """Have `clip_actions` say that actions are not scaled."""
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

    num_env_runners: Whole = _key(
        0, "processes that sample; 0: the process that learns samples itself", "processes", ge=0
    )
    num_envs_per_env_runner: Whole = _key(1, "environments in each; every one is a simulation", "environments", ge=1)
    vectorize: Literal["sync", "async", "hpc"] = _key(
        "sync",
        "how the environments of a process are stepped: one after the other (`sync`), in processes of their own"
        " (`async`), or as one `HPCVectorEnv`: all simulations in one worker group, one call a step (`hpc`)",
    )
    num_groups: Whole = _key(
        1, "with `hpc`: worker groups, of `environment.num_workers` ranks each, that share the simulations", "groups",
        ge=1,
    )  # fmt: skip
    workers_per_simulation: Whole | None = _key(
        None,
        "with `hpc`: ranks of a simulation; by default those of a group are divided among its simulations",
        "ranks",
        ge=1,
    )
    rollout_fragment_length: Whole | Literal["auto"] = _key(
        "auto", "steps of an environment that are sampled at a time", "steps"
    )
    batch_mode: Literal["truncate_episodes", "complete_episodes"] = _key(
        "truncate_episodes", "whether batches may contain parts of episodes"
    )


class EnvironmentKeys(Section):
    """The environment: an MPI simulation, by its library, or any environment that gymnasium knows."""

    id: str | None = _key(
        None,
        "an environment's id with gymnasium, e.g. `alchemist_ray/Heat-v0`, after `module:` if one registers it; or give"
        " `lib_name`",
    )
    kwargs: dict[str, Any] = _key({}, "with `id`, and an environment that is not ours: arguments of `gymnasium.make`")
    lib_name: str | None = _key(None, "name of the simulation library")
    lib_path: str | None = _key(
        None, "module or file of a library that is not registered; a file's path begins at the YAML's directory"
    )
    num_workers: Whole = _key(1, "MPI ranks of a worker group", "ranks", ge=1)
    params: dict[str, Any] = _key({}, "parameters of the simulation")
    max_episode_steps: Whole | None = _key(
        None, "steps after which an episode is cut off; by default the simulation's own end, or that of `id`", "steps",
        ge=1,
    )  # fmt: skip
    on_failure: Literal["raise", "restart"] = _key(
        "raise", "a simulation that dies or diverges ends the training, or only its episode (`restart`)"
    )
    max_restarts: Whole = _key(3, "how often in a row a simulation is begun anew", "restarts", ge=0)
    step_timeout: float = _key(300.0, "what a step may take", "s", gt=0)
    reset_timeout: float = _key(1800.0, "what making and resetting a simulation may take", "s", gt=0)
    dtype: Literal["float32", "float64"] = _key("float32", "of observations and actions")

    @property
    def is_ours(self) -> bool:
        """Whether it is an MPI simulation behind HPCSimulator."""
        return self.id is None or self.id.rpartition(":")[2].startswith("alchemist_ray/")

    @model_validator(mode="after")
    def _one_environment(self) -> EnvironmentKeys:
        if (self.id is None) == (self.lib_name is None):
            raise ValueError("give either id (of gymnasium) or lib_name (of a simulation library)")
        if self.id is not None and self.lib_path is not None:
            raise ValueError("lib_path goes with lib_name, not with id")
        if self.is_ours and self.kwargs:
            raise ValueError("kwargs are for environments that are not ours: a simulation has params")
        ours = set(type(self).model_fields) - {"id", "kwargs", "max_episode_steps"}
        foreign = sorted(name for name in ours if getattr(self, name) != type(self).model_fields[name].default)
        if not self.is_ours and foreign:
            raise ValueError(f"{', '.join(foreign)}: only for MPI simulations; {self.id} takes kwargs")
        return self


class ServerKeys(Section):
    """Where the MPI workers are. Without `hostname` and `port`, each process that needs one starts its own server."""

    hostname: str | None = _key(None, "of an Alchemist server")
    port: Whole | None = _key(None, "its port; 24960 if only `hostname` is given", ge=1, le=65535)
    token_file: str | None = _key(None, "file with its token (mode 0600); its path begins at the YAML's directory")
    token: str | None = _key(
        None, "its token; better in a file, or in `ALCHEMIST_TOKEN`: it is left out of everything that is written"
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
    """When a training ends: whatever comes first. One is needed."""

    timesteps: Whole | None = _key(None, "steps of the environment, of all runners together", "steps", ge=1)
    iterations: Whole | None = _key(None, "iterations: a batch sampled and learned from", "iterations", ge=1)
    seconds: float | None = _key(None, "time in training, earlier parts of a resumed one included", "s", gt=0)
    reward: float | None = _key(None, "mean return of the last training episodes, at least")

    @model_validator(mode="after")
    def _one_at_least(self) -> StopKeys:
        if all(value is None for value in (self.timesteps, self.iterations, self.seconds, self.reward)):
            raise ValueError("nothing ends the training: give timesteps, iterations, seconds or reward")
        return self


class EvaluationKeys(Section):
    """How policies are measured: whole episodes, actions without exploration, the same seeds for all of them."""

    seeds: list[Whole] = _key(
        [10001, 10002, 10003, 10004, 10005], "seeds of the episodes, one each; none of `seeds`", min_length=1
    )
    interval: Whole | None = _key(
        None, "iterations between evaluations during the training; by default only at its end", "iterations", ge=1
    )
    interval_seeds: list[Whole] = _key(
        [20001],
        "seeds of these evaluations; none of `evaluation.seeds` where a checkpoint or a training is chosen by them",
        min_length=1,
    )
    checkpoint: Literal["last", "best"] = _key(
        "last",
        "which checkpoint is evaluated: the last, or the one with the best mean return: of the evaluations if there is"
        " an `interval`, else of the training episodes",
    )
    info: list[str] | None = _key(
        None, "keys of `info` that are averaged over the steps of an episode; by default all that are numbers"
    )
    skip_steps: Whole = _key(
        0, "steps at the start of an episode that these averages leave out (a transient)", "steps", ge=0
    )
    max_steps: Whole | None = _key(
        None, "steps after which an episode that has no end of its own is cut off here", "steps", ge=1
    )


class BaselineKeys(Section):
    """A policy to compare with; one of the three."""

    kind: Literal["zero", "random"] | None = _key(None, "zero action (clipped to the action space), or a random one")
    constant: float | list[float] | None = _key(None, "always this action, in the units of the action space")
    function: str | None = _key(
        None, "`package.module:function`, called with the environment, returns `policy(observation, step) -> action`"
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
        "path of a key -> where its values come from, e.g. `algorithm.training.lr: {loguniform: [1e-5, 1e-3]}`;"
        " the names and arguments are those of `ray.tune`, `grid` is `grid_search`",
    )
    num_samples: Whole = _key(1, "samples; a grid is gone through as often", "trainings", ge=1)
    scheduler: Literal["fifo", "asha"] = _key("fifo", "`asha` stops what is worse than others at equal iterations")
    grace_iterations: Whole = _key(10, "iterations before `asha` may stop a training", "iterations", ge=1)
    metric: Literal["mean_return", "evaluation_return"] = _key(
        "mean_return", "what is maximised: mean return of the training episodes, or of the evaluations"
    )
    concurrent: Whole = _key(1, "trainings at the same time", "trainings", ge=1)


class CheckpointKeys(Section):
    """Checkpoints, from which a training is resumed."""

    interval: Whole = _key(10, "iterations between them; there is one at the end as well", "iterations", ge=1)
    keep: Whole = _key(2, "how many are kept of a training", "checkpoints", ge=1)


class PictureKeys(Section):
    """Pictures of the first evaluation episode: of the trained policy, beside those of a baseline."""

    fields: Whole = _key(4, "pictures of the field, evenly over the episode; 0: none", "pictures", ge=0)
    frames: Whole = _key(60, "frames of the animation, evenly over the episode; 0: no animation", "frames", ge=0)
    frames_per_second: float = _key(12.0, "of the animation", "1/s", gt=0)
    width: Whole = _key(360, "of a frame, for one policy", "pixels", ge=32)
    max_bytes: Whole = _key(2_000_000, "size of the animation: frames are made smaller until it fits", "bytes", ge=1000)
    beside: str | None = _key(None, "the baseline that is shown beside the trained policy; by default the first")


class RayKeys(Section):
    """Ray itself."""

    address: str | None = _key(None, "of a running Ray cluster, e.g. `auto`; by default Ray is started for the run")


class Experiment(Section):
    """An experiment.

    Attributes are the keys of its file; see docs/experiments.md.
    """

    name: str = _key("", "of the experiment; by default the name of its file", pattern=r"^[\w.-]*$")
    description: str = _key("", "a sentence or two for the report")
    algorithm: AlgorithmKeys = _key(AlgorithmKeys(), "")
    runners: RunnerKeys = _key(RunnerKeys(), "")
    environment: EnvironmentKeys = Field(description="")
    server: ServerKeys = _key(ServerKeys(), "")
    seeds: list[Whole] = _key([0], "of the trainings: each is a training of its own", min_length=1)
    stop: StopKeys = Field(description="")
    evaluation: EvaluationKeys = _key(EvaluationKeys(), "")
    baselines: dict[str, BaselineKeys] = _key(
        {"no control": BaselineKeys(kind="zero")},
        "name -> policy to compare with; `name: zero` is short for its kind",
    )
    search: SearchKeys | None = _key(None, "")
    checkpoints: CheckpointKeys = _key(CheckpointKeys(), "")
    pictures: PictureKeys = _key(PictureKeys(), "")
    ray: RayKeys = _key(RayKeys(), "")
    results: str = _key("", "directory of the results; by default `results/NAME` where the command is run")

    def _check_seeds(self) -> None:
        """Raise if a seed is given twice, or an evaluation is on one trained on, or that something was chosen by."""
        keys, runners = self.evaluation, self.runners
        for where, seeds in (("seeds", self.seeds), ("evaluation.seeds", keys.seeds)):
            if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
                raise ValueError(f"{where}: {twice[0]} is given twice, and would give the same twice")
        trained = environment_seeds(self.seeds, runners.num_env_runners + runners.num_envs_per_env_runner)
        if seen := sorted(trained & {*keys.seeds, *keys.interval_seeds}):
            raise ValueError(f"seed {seen[0]} is both trained on and evaluated on: take others for the evaluation")
        chosen = keys.checkpoint == "best" or (self.search is not None and self.search.metric == "evaluation_return")
        if chosen and keys.interval is not None and (seen := sorted({*keys.seeds} & {*keys.interval_seeds})):
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

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        self._check_seeds()
        if self.pictures.beside is not None and self.pictures.beside not in self.baselines:
            raise ValueError(f"pictures.beside: there is no baseline {self.pictures.beside!r}")
        if self.algorithm.name in self.baselines:
            raise ValueError(f"baselines.{self.algorithm.name}: that is what the trained policy is called")
        if self.search is not None and self.search.metric == "evaluation_return" and self.evaluation.interval is None:
            raise ValueError("search.metric evaluation_return needs evaluation.interval")
        if self.runners.vectorize == "hpc" and not self.environment.is_ours:
            raise ValueError("runners.vectorize: hpc is for MPI simulations")
        return self

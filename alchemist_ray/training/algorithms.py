"""RLlib's configuration of an experiment. The names of options are checked against RLlib's."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import ray.tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import ENV_CREATOR, _global_registry

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.environments import env_config, make_for_rllib, raising, server_token, workers_wanted
from alchemist_ray.training.rewards import ScaleRewards
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.seeds import rllib_seed

ENVIRONMENT = "alchemist-experiment"
"""RLlib's name of the environment."""

SEARCHED = {"algorithm.training": "training", "algorithm.model": "model", "environment.params": "params"}
"""The sections whose keys a search may vary."""

_VECTORIZE = {
    "sync": gymnasium.VectorizeMode.SYNC,
    "async": gymnasium.VectorizeMode.ASYNC,
    "hpc": gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
}


def algorithm_config(experiment: Experiment) -> AlgorithmConfig:
    """Return RLlib's configuration of an experiment, including the search spaces.

    Raises
    ------
    ExperimentError
        If the algorithm or one of its options is unknown (the text has the nearest name) or has the wrong type, or if
        RLlib refuses the configuration.
    """
    options = _options(experiment)
    config = _default_config(experiment)
    training = _checked_training(experiment, config, options["training"])
    model = _checked_model(experiment, options["model"])
    runners = experiment.runners
    environment = env_config(experiment)
    if "params" in environment:
        environment["params"] = options["params"]
    try:
        config.environment(
            ENVIRONMENT,
            env_config=environment,
            normalize_actions=experiment.algorithm.normalize_actions and not experiment.algorithm.clip_actions,
            clip_actions=experiment.algorithm.clip_actions,
        )
        config.env_runners(
            num_env_runners=runners.num_env_runners,
            num_envs_per_env_runner=runners.num_envs_per_env_runner,
            gym_env_vectorize_mode=_VECTORIZE[runners.vectorize],
            rollout_fragment_length=runners.rollout_fragment_length,
            batch_mode=runners.batch_mode,
            sample_timeout_s=None,  # steps of a simulation have their own deadlines
            env_to_module_connector=_observation_filter if experiment.algorithm.observation_filter != "none" else None,
        )
        if experiment.algorithm.reward_scale != 1.0:
            config.learners(learner_connector=functools.partial(_reward_scale, experiment.algorithm.reward_scale))
        config.fault_tolerance(restart_failed_env_runners=experiment.environment.on_failure == "restart")
        config.training(**training).rl_module(model_config=model)
        config.debugging(seed=ray.tune.grid_search([rllib_seed(seed) for seed in experiment.seeds]), log_level="ERROR")
    except (ValueError, TypeError) as refused:
        raise ExperimentError(experiment.name, [f"RLlib refuses the configuration: {refused}"]) from refused
    return config


def register_environment(experiment: Experiment) -> None:
    """Register the function by which RLlib makes the environment.

    Raises
    ------
    AuthenticationError
        If the server's token cannot be read.
    """
    made = functools.partial(make_for_rllib, token=server_token(experiment.server), workers=workers_wanted(experiment))
    ray.tune.register_env(ENVIRONMENT, made)


def environment_of(algorithm: Any) -> Any:
    """Return an environment like those that an algorithm trains on; it raises failures instead of restarting."""
    return _global_registry.get(ENV_CREATOR, ENVIRONMENT)(raising(algorithm.config.env_config))


def validate(experiment: Experiment, config: AlgorithmConfig) -> None:
    """Let RLlib check a configuration, with one sample of the search spaces.

    Raises
    ------
    ExperimentError
        If RLlib refuses it.
    """
    for name in ("ray", "ray.rllib"):  # both have a level
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        one_sample(config).validate()
    except Exception as refused:  # RLlib's checks raise errors of any type
        raise ExperimentError(experiment.name, [f"RLlib refuses the configuration: {refused}"]) from refused


def one_sample(config: AlgorithmConfig) -> AlgorithmConfig:
    """Return a configuration with one sample of the search spaces: RLlib's checks take values only."""
    from ray.tune.search.variant_generator import generate_variants

    sampled = next(iter(generate_variants(config.copy(copy_frozen=False).to_dict())))[1]
    return type(config)().update_from_dict(sampled)


def _observation_filter(env: Any, spaces: Any, device: Any) -> MeanStdFilter:
    return MeanStdFilter()


def _reward_scale(factor: float, observations: Any, actions: Any) -> ScaleRewards:
    return ScaleRewards(observations, actions, factor=factor)


def _default_config(experiment: Experiment) -> AlgorithmConfig:
    name = experiment.algorithm.name
    if name not in ALGORITHMS:
        raise ExperimentError(
            experiment.name, [f"algorithm.name: RLlib has no {name!r}{_hint(name, list(ALGORITHMS))}"]
        )
    return ALGORITHMS[name]()[1]


def trainable(experiment: Experiment) -> type:
    """Return the class of the algorithm."""
    kind: type = ALGORITHMS[experiment.algorithm.name]()[0]
    return kind


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


# --- options ----------------------------------------------------------------------------------------------------------


def training_options(config: AlgorithmConfig) -> list[str]:
    """Return the names of the options of an algorithm's ``training()``."""
    names: list[str] = []
    for kind in (type(config), AlgorithmConfig):
        for name, parameter in inspect.signature(kind.training).parameters.items():
            if name not in ("self", *names) and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                names.append(name)
    return names


def _checked_training(experiment: Experiment, config: AlgorithmConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    known = training_options(config)
    defaults = {name: getattr(config, name, None) for name in known}
    return _checked(experiment, "algorithm.training", options, defaults)


def _checked_model(experiment: Experiment, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the model with defaults, as a dict: Tune does not look for spaces in other types."""
    defaults = dataclasses.asdict(DefaultModelConfig())
    return {**defaults, **_checked(experiment, "algorithm.model", options, defaults)}


def _checked(
    experiment: Experiment, where: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    known = list(defaults)
    problems = [
        f"{where}.{name}: {experiment.algorithm.name} has no such option{_hint(name, known)}"
        for name in options
        if name not in known
    ]
    checked = {name: _as_like(value, defaults.get(name)) for name, value in options.items()}
    problems += [
        f"{where}.{name}: must be like {defaults[name]!r}, which is the default, not {value!r}"
        for name, value in checked.items()
        if name in known and _is_unlike(value, defaults[name])
    ]
    if problems:
        raise ExperimentError(experiment.name, problems)
    return checked


def _as_like(value: Any, default: Any) -> Any:
    """Return 1e5 as a whole number if the default is a whole number."""
    if isinstance(value, float) and value.is_integer() and isinstance(default, int) and not isinstance(default, bool):
        return int(value)
    return value


def _is_unlike(value: Any, default: Any) -> bool:
    """Whether a value has the wrong type for an option with this default: text for a number, a number for a switch."""
    if isinstance(default, bool):
        return isinstance(value, (str, int, float, list)) and not isinstance(value, bool)
    if isinstance(default, (int, float)):
        return isinstance(value, (str, bool))
    return isinstance(default, list) and isinstance(value, (str, int, float))


# --- search spaces ----------------------------------------------------------------------------------------------------


def _options(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return the options by section; those that a search varies are Tune's spaces."""
    algorithm, environment = experiment.algorithm, experiment.environment
    options = {"training": dict(algorithm.training), "model": dict(algorithm.model), "params": dict(environment.params)}
    for path, space in (experiment.search.space if experiment.search is not None else {}).items():
        section, _, name = path.rpartition(".")
        if section not in SEARCHED:
            allowed = ", ".join(f"{known}.NAME" for known in SEARCHED)
            raise ExperimentError(experiment.name, [f"search.space.{path}: a search can only vary {allowed}"])
        options[SEARCHED[section]][name] = _domain(experiment, path, space)
    return options


def _domain(experiment: Experiment, path: str, space: Mapping[Any, Any]) -> Any:
    """Return one of Tune's search spaces."""
    if len(space) != 1:
        raise ExperimentError(experiment.name, [f"search.space.{path}: give one of Tune's spaces, e.g. uniform"])
    ((kind, arguments),) = space.items()
    function = ray.tune.grid_search if kind == "grid" else getattr(ray.tune, kind)
    try:
        if kind in ("grid", "choice"):
            return function(list(arguments))
        return function(*arguments)
    except (TypeError, ValueError) as misfit:
        takes = ", ".join(inspect.signature(function).parameters)
        raise ExperimentError(
            experiment.name, [f"search.space.{path}: {kind} takes a list [{takes}], not {arguments!r}: {misfit}"]
        ) from None

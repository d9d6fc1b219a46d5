"""The policies of an evaluation: the trained policy and the baselines.

Each is a function ``policy(observation, step) -> action`` that is made for one episode; ``step`` counts from 0.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.schema import BaselineKeys

Array = npt.NDArray[Any]
Environment = gymnasium.Env[Any, Any]


class Policy(Protocol):
    """Acts in one episode."""

    def __call__(self, observation: Any, step: int) -> Any:
        """Return the action after `step` steps."""


PolicyMaker = Callable[[Environment, int], Policy]
"""Makes the policy of an episode from the environment, after its reset, and the seed of the episode."""


# --- trained ----------------------------------------------------------------------------------------------------------


class TrainedPolicy:
    """A policy trained by RLlib that acts without exploration.

    It uses the connectors of the training: observations are filtered with the statistics of the training, which no
    longer change, and actions are scaled or clipped as in the training.

    Parameters
    ----------
    module : RLModule
    env_to_module, module_to_env : ConnectorPipelineV2
        They are copied.
    """

    def __init__(self, module: Any, env_to_module: Any, module_to_env: Any) -> None:
        self.module = module
        self._env_to_module = _frozen(env_to_module)
        self._module_to_env = _frozen(module_to_env)

    @classmethod
    def from_checkpoint(cls, directory: str | Path) -> TrainedPolicy:
        """Load the policy of an RLlib checkpoint."""
        from ray.rllib.connectors.env_to_module import EnvToModulePipeline
        from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
        from ray.rllib.core import DEFAULT_MODULE_ID
        from ray.rllib.core.rl_module.rl_module import RLModule

        path = Path(directory).resolve()
        return cls(
            RLModule.from_checkpoint(path / "learner_group" / "learner" / "rl_module" / DEFAULT_MODULE_ID),
            EnvToModulePipeline.from_checkpoint(path / "env_runner" / "env_to_module_connector"),
            ModuleToEnvPipeline.from_checkpoint(path / "env_runner" / "module_to_env_connector"),
        )

    @classmethod
    def of(cls, algorithm: Any) -> TrainedPolicy:
        """Return the current policy of an algorithm that is training."""
        runner = algorithm.env_runner
        return cls(runner.module, runner._env_to_module, runner._module_to_env)

    def episode(self, environment: Environment, seed: int) -> Policy:
        """Return the policy for one episode."""
        return _TrainedEpisode(self, environment)

    def act(self, episode: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return the action after an episode's last observation: the module's, the environment's, and other outputs."""
        shared: dict[str, Any] = {}
        passed = {"rl_module": self.module, "episodes": [episode], "explore": False, "shared_data": shared}
        batch = self._env_to_module(batch={}, **passed)
        said = self._module_to_env(batch=self.module.forward_inference(batch), **passed)
        action = said.pop("actions")[0]
        taken = said.pop("actions_for_env", [action])[0]
        return action, taken, {name: value[0] for name, value in said.items()}


class _TrainedEpisode:
    """A trained policy in one episode, with the record of the episode that RLlib's connectors need."""

    def __init__(self, policy: TrainedPolicy, environment: Environment) -> None:
        from ray.rllib.env.single_agent_episode import SingleAgentEpisode

        self._policy = policy
        self._record = SingleAgentEpisode(
            observation_space=environment.observation_space, action_space=environment.action_space
        )
        self._last: tuple[Any, dict[str, Any]] | None = None

    def __call__(self, observation: Any, step: int) -> Any:
        if self._last is None:
            self._record.add_env_reset(observation)
        else:
            action, said = self._last
            self._record.add_env_step(observation, action, 0.0, extra_model_outputs=said)
        action, taken, said = self._policy.act(self._record)
        self._last = action, said
        return taken


def _frozen(pipeline: Any) -> Any:
    """Return a copy of a pipeline of connectors whose statistics no longer change."""
    taken = copy.deepcopy(pipeline)
    for connector in taken.connectors:
        if hasattr(connector, "_update_stats"):
            connector._update_stats = False
    return taken


# --- baselines --------------------------------------------------------------------------------------------------------


def baseline(experiment: str, name: str, keys: BaselineKeys, directory: Path | None = None) -> PolicyMaker:
    """Return the function that makes a baseline for an episode.

    Parameters
    ----------
    experiment, name : str
        For messages.
    keys : BaselineKeys
    directory : Path, optional
        Directory of the YAML file; modules of baselines may be there.

    Raises
    ------
    ExperimentError
        If its function is not found or cannot be called, or an action does not fit the environment.
    """
    if keys.kind == "random":
        return lambda environment, seed: _random(environment, seed)
    if keys.function is None:
        action = 0.0 if keys.constant is None else keys.constant
        return lambda environment, seed: _constant(experiment, name, environment, action)
    function = _function(experiment, name, keys.function, directory)
    _check_call(experiment, name, function, keys)
    return lambda environment, seed: function(environment, **keys.options)


def _random(environment: Environment, seed: int) -> Policy:
    space = copy.deepcopy(environment.action_space)
    space.seed(seed)
    return lambda observation, step: space.sample()


def _constant(experiment: str, name: str, environment: Environment, action: float | list[float]) -> Policy:
    space = environment.action_space
    if isinstance(space, gymnasium.spaces.Box):
        try:
            wanted = np.broadcast_to(np.asarray(action, space.dtype), space.shape)
        except ValueError:
            raise ExperimentError(
                experiment, [f"baselines.{name}: the action has shape {np.shape(action)}, not {space.shape}"]
            ) from None
        taken = np.clip(wanted, space.low, space.high)
        if action != 0.0 and not np.array_equal(taken, wanted):
            raise ExperimentError(experiment, [f"baselines.{name}: the action {action} is not in {space}"])
        return lambda observation, step: taken
    if not space.contains(chosen := np.int64(np.asarray(action))):
        raise ExperimentError(experiment, [f"baselines.{name}: the action {action} is not in {space}"])
    return lambda observation, step: chosen


def _function(experiment: str, name: str, said: str, directory: Path | None) -> Callable[..., Policy]:
    module_name, _, function_name = said.partition(":")
    for place in (str(directory) if directory is not None else "", str(Path.cwd())):
        if place and place not in sys.path:
            sys.path.append(place)
    try:
        module = importlib.import_module(module_name)
    except ImportError as missing:
        raise ExperimentError(
            experiment, [f"baselines.{name}: the module {module_name} cannot be imported: {missing}"]
        ) from missing
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise ExperimentError(
            experiment, [f"baselines.{name}: {module_name} has no function {function_name}; it has {', '.join(own)}"]
        )
    made: Callable[..., Policy] = function
    return made


def _check_call(experiment: str, name: str, function: Callable[..., Policy], keys: BaselineKeys) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(None, **keys.options)
    except TypeError as misfit:
        called = f"{keys.function}{signature} is called with the environment and the options"
        raise ExperimentError(experiment, [f"baselines.{name}: {called}: {misfit}"]) from None

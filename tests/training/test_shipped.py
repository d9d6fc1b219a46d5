"""The shipped experiments go by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.loading import load_experiment
from alchemist_ray.training.shipped import find_experiment, list_shipped, shipped_experiments

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


def test_every_file_is_shipped_under_its_name():
    assert len(FILES) >= 5
    assert {name: path.resolve() for name, path in shipped_experiments().items()} == {f.stem: f for f in FILES}
    assert [line.split()[0] for line in list_shipped().splitlines()] == [file.stem for file in FILES]


def test_a_name_and_a_file_load_the_same():
    assert load_experiment("ppo_heat") == load_experiment(shipped_experiments()["ppo_heat"])
    assert load_experiment("ppo_heat").name == "ppo_heat"


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_experiment("ppo_heat") == shipped_experiments()["ppo_heat"]
    (tmp_path / "ppo_heat").mkdir()
    assert find_experiment("ppo_heat") == shipped_experiments()["ppo_heat"]
    (tmp_path / "ppo_heat").rmdir()
    (tmp_path / "ppo_heat").write_text("mine")
    assert find_experiment("ppo_heat") == Path("ppo_heat")


@pytest.mark.parametrize("path", ["ppo_heat.yaml", "folder/ppo_heat", "./ppo_heat.yml"])
def test_what_has_the_form_of_a_path_is_a_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_experiment(path) == Path(path)


@pytest.mark.parametrize(("name", "hint"), [("ppo_cilinder", "did you mean ppo_cylinder"), ("zzz", "ppo_heat, ppo_ku")])
def test_an_unknown_name_is_an_error_that_names_those_there_are(name, hint):
    with pytest.raises(ExperimentError, match=rf"^{name}: .*no shipped experiment.*{hint}"):
        load_experiment(name)

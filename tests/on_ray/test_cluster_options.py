"""What is asked of Ray is checked, and what Ray does not give is explained. No Ray is needed for either."""

from __future__ import annotations

import re

import pytest

from alchemist_ray import errors
from alchemist_ray.on_ray.cluster_options import ClusterOptions, check_name
from alchemist_ray.on_ray.shortage import RayNode, fitting, shortage

pytestmark = pytest.mark.quick

BAD = [
    ({"num_workers": 0}, errors.ArgumentValueError, "num_workers must be an integer of at least 1, not 0"),
    ({"memory_per_worker": 1e9}, errors.ArgumentValueError, "memory_per_worker must be an integer"),
    ({"placement_strategy": "pack"}, errors.ArgumentValueError, "one of PACK, SPREAD"),
    ({"resources_per_worker": {}}, errors.ArgumentValueError, "Ray would reserve nothing"),
    ({"resources_per_worker": {"CPU": 0}}, errors.ArgumentValueError, "Ray would reserve nothing"),
    ({"resources_per_worker": {"CPU": -1}}, errors.ArgumentValueError, r"\['CPU'\] must be a finite number from 0"),
    ({"resources_per_worker": {"CPU": "1"}}, errors.ArgumentError, r"\['CPU'\] must be a number, not '1'"),
    ({"resources_per_worker": {1: 1}}, errors.ArgumentError, "names of resources"),
    ({"resources_per_worker": 2}, errors.ArgumentError, "must be a mapping"),
    ({"label_selector": {"zone": 1}}, errors.ArgumentError, "label_selector must be a mapping of str to str"),
    ({"libraries": ["mine.py"]}, errors.ArgumentError, "libraries must be a mapping of str to str"),
    ({"timeout": "5"}, errors.ArgumentError, "timeout must be a number of seconds, not '5'"),
    ({"timeout": float("nan")}, errors.ArgumentValueError, "timeout must be a finite number"),
]


@pytest.mark.parametrize(
    ("given", "error", "text"), BAD, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_bad_values_are_refused_by_name(given, error, text):
    with pytest.raises(error, match=f"init: .*{text}"):
        ClusterOptions(**{"num_workers": 1, **given})


@pytest.mark.parametrize("name", ["", ".job-1", "a b", "a:b", 3, None])
def test_a_name_of_a_cluster_is_a_word(name):
    with pytest.raises(errors.ArgumentValueError, match="cluster_name must be"):
        check_name(name)
    check_name("shared-2.b_c")


def test_what_is_not_needed_is_not_asked_for():
    options = ClusterOptions(3, 2, resources_per_worker={"CPU": 0, "GPU": 0.5})
    assert options.bundles() == [{"GPU": 1.0}, {"GPU": 0.5}]


def node(number, cpus, free=None, **labels):
    return RayNode(f"10.0.0.{number}", labels, {"CPU": cpus}, {"CPU": cpus if free is None else free})


@pytest.mark.parametrize(
    ("options", "nodes", "text"),
    [
        (
            {"num_workers": 2, "label_selector": {"zone": "b"}},
            [node(1, 2, zone="a"), node(2, 2)],
            "2 CPU for 2 workers (PACK) on nodes with zone=b within 9 s. Its nodes: 10.0.0.1 (zone=a): 2 of 2 CPU free"
            "; 10.0.0.2 (no such label): 2 of 2 CPU free. No node has these labels",
        ),
        ({"num_workers": 1, "resources_per_worker": {"GPU": 1}}, [node(1, 2)], "No node has GPU: change resources_per"),
        ({"num_workers": 3, "placement_strategy": "STRICT_SPREAD"}, [node(1, 2), node(2, 2)], "nothing else ran: "
         "request fewer workers, more of them on a node (workers_per_node), or another placement_strategy"),
        ({"num_workers": 3, "placement_strategy": "STRICT_PACK"}, [node(1, 2), node(2, 2)], "nothing else ran"),
        ({"num_workers": 4, "workers_per_node": 3}, [node(1, 2), node(2, 2)], "fewer of them on a node"),
        ({"num_workers": 5}, [node(1, 2), node(2, 2)], "nothing else ran: request fewer workers, or add nodes"),
        ({"num_workers": 1, "label_selector": {"zone": "!a"}}, [node(1, 2, zone="a")], "No node has these labels"),
        ({"num_workers": 4}, [node(1, 2), node(2, 2, 1)], "Other tasks and actors use the rest"),
        ({"num_workers": 4, "workers_per_node": 3}, [node(1, 3, 0), node(2, 1)], "Other tasks and actors use the rest"),
        ({"num_workers": 4, "workers_per_node": 3}, [node(1, 4, 0)], "Other tasks and actors use the rest"),
        (
            {"num_workers": 3, "workers_per_node": 2, "placement_strategy": "STRICT_SPREAD"},
            [node(1, 2, 0), node(2, 1)],
            "Other tasks and actors use the rest",
        ),
        (
            {"num_workers": 1, "label_selector": {"zone": "in(a, b)"}},
            [node(1, 2, 0, zone="b")],
            "Other tasks and actors use the rest",
        ),
    ],
)  # fmt: skip
def test_the_advice_fits_the_cause(options, nodes, text):
    said = shortage(ClusterOptions(**options), nodes, 9.0)
    assert text in said
    assert len(re.findall("No node|nothing else ran|Other tasks", said)) == 1


def test_how_many_workers_fit_on_a_node():
    assert fitting({"CPU": 0.1}, {"CPU": 0.3}) == 3
    assert fitting({"CPU": 2, "GPU": 1}, {"CPU": 8, "GPU": 3}) == 3
    assert fitting({"GPU": 1}, {"CPU": 8}) == 0

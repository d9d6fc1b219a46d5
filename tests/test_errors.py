"""The error tree: its drawing, its texts, and its ways by pickle and over the wire."""

import copy
import dataclasses
import pickle
import re
import typing

import numpy as np
import pytest

from alchemist_ray import errors
from alchemist_ray.errors import AlchemistError, RemoteTaskError, from_wire, to_wire
from alchemist_ray.protocol.values import decode, encode


def all_classes(cls=AlchemistError):
    found = {cls.__name__: cls} if cls.__module__ == errors.__name__ else {}
    for sub in cls.__subclasses__():
        found |= all_classes(sub)
    return found


CLASSES = all_classes()
EXAMPLES = {int: 12345, str: "something", float: 2.5, list[str]: ["one", "two"], list[int]: [12345, 678]}


def example(cls):
    hints = typing.get_type_hints(cls)
    return cls(**{f.name: EXAMPLES[hints[f.name]] for f in dataclasses.fields(cls) if f.init})


def drawn_tree():
    """Return {class: (parent, other base)} as drawn in the module's docstring."""
    drawn, parents = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^    (?P<stem>[ |]*?\+-- )?(?P<name>[A-Z]\w+)(?: \((?P<base>\w+)\))?(?:  |$)", line)
        if match is None:
            continue
        depth = len(match["stem"] or "") // 5
        drawn[match["name"]] = (parents[depth - 1] if depth else None, match["base"])
        parents[depth:] = [match["name"]]
    return drawn


def real_tree():
    def other_base(cls):
        foreign = [base for base in cls.__bases__ if base.__name__ not in CLASSES and base is not Exception]
        return foreign[0].__name__ if foreign else None

    def parent(cls):
        known = [base.__name__ for base in cls.__bases__ if base.__name__ in CLASSES]
        return known[0] if known else None

    return {name: (parent(cls), other_base(cls)) for name, cls in CLASSES.items()}


def test_the_tree_is_as_drawn():
    assert len(CLASSES) > 30
    assert drawn_tree() == real_tree()


@pytest.mark.parametrize("cls", CLASSES.values())
def test_every_class_is_a_dataclass_with_a_docstring_of_its_own(cls):
    assert "__dataclass_fields__" in cls.__dict__ or dataclasses.fields(cls) == dataclasses.fields(cls.__base__)
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")


@pytest.mark.parametrize("cls", CLASSES.values())
def test_the_text_is_one_sentence_at_least_and_says_what_the_fields_say(cls):
    error = example(cls)
    assert str(error)
    for name, value in error.fields().items():
        if isinstance(value, str) and name != "log":
            assert value in str(error)


@pytest.mark.parametrize("journey", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("cls", CLASSES.values())
def test_every_error_pickles_and_copies(cls, journey):
    error = example(cls)
    got = journey(error)
    assert type(got) is cls
    assert got is not error
    assert got.fields() == error.fields()
    assert str(got) == str(error)


@pytest.mark.parametrize("cls", CLASSES.values())
def test_every_error_crosses_the_wire(cls):
    error = example(cls)
    name, fields = decode(encode(list(to_wire(error))))
    got = from_wire(name, fields)
    assert name == cls.__name__
    assert type(got) is cls
    assert got.fields() == error.fields()
    assert str(got) == str(error)


@pytest.mark.parametrize("cls", CLASSES.values())
def test_where_an_error_was_raised_survives_pickling(cls):
    error = example(cls)
    plain = str(error)
    assert error.raised_on(3, "node7", "Traceback (most recent call last):\n  the remote line\n") is error
    got = pickle.loads(pickle.dumps(error))
    for e in (error, got):
        assert (e.rank, e.host) == (3, "node7")
        assert str(e) == f"{plain} [rank 3 on node7]"
        assert len(e.__notes__) == 1
        assert "the remote line" in e.__notes__[0]
        assert "rank 3" in e.__notes__[0]
        assert "node7" in e.__notes__[0]
    assert got.fields() == error.fields()


@pytest.mark.parametrize("cls", CLASSES.values())
def test_every_error_can_be_made_from_one_text_and_keeps_it(cls):
    text = f"{example(cls)} was raised from the environment creator"  # as gymnasium does
    for made in (cls(text), type(example(cls))(text)):
        assert type(made) is cls
        assert text in str(made)
        assert repr(made) == f"{cls.__name__}({text!r})" or text in str(vars(made)) or repr(text)[1:-1] in repr(made)
        for got in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), from_wire(*to_wire(made))):
            assert type(got) is cls
            assert str(got) == str(made)
            assert got.fields() == made.fields()
    original = example(cls)
    copied = cls(original)  # as gymnasium's AsyncVectorEnv does
    assert type(copied) is cls
    assert str(copied) == str(original)
    assert copied.rank is None
    for field in dataclasses.fields(cls):  # a handler may ask for any of them
        getattr(copied, field.name)


def test_an_error_of_one_text_keeps_its_field():
    error = errors.LayoutError("no such layout")
    assert (error.reason, str(error)) == ("no such layout", "no such layout")
    assert errors.TaskCancelledError("linalg.svd").task == "linalg.svd"
    assert repr(errors.ArgumentError("svd", "k is 0")) == "ArgumentError(task='svd', reason='k is 0')"


def test_a_class_of_a_package_that_builds_on_ours_does_so_too():
    @dataclasses.dataclass(eq=False)
    class MeshError(errors.AlchemistError, ValueError):
        cell: int
        reason: str

        def _text(self):
            return f"cell {self.cell}: {self.reason}"

    assert str(MeshError(3, "flat")) == "cell 3: flat"
    assert str(MeshError("a text")) == "a text"


def test_an_error_of_this_process_has_no_rank_and_no_note():
    error = example(errors.LayoutError).raised_on(None, None)
    assert error.rank is None
    assert "rank" not in str(error)
    assert not hasattr(error, "__notes__")


def test_the_rank_of_one_error_is_not_that_of_another():
    example(errors.LayoutError).raised_on(3, "node7", "text")
    assert example(errors.LayoutError).rank is None


def test_rank_zero_is_named():
    assert str(example(errors.LayoutError).raised_on(0, "node1")).endswith("[rank 0 on node1]")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ServerUnreachableError", ConnectionError),
        ("AuthenticationError", PermissionError),
        ("DeadlineError", TimeoutError),
        ("LayoutError", ValueError),
        ("InvalidArrayError", ValueError),
        ("MatrixMemoryError", MemoryError),
        ("FreedMatrixError", LookupError),
        ("RegionError", IndexError),
        ("LibraryNotFoundError", LookupError),
        ("LibraryRefusedError", PermissionError),
        ("TaskNotFoundError", LookupError),
        ("ArgumentError", TypeError),
        ("ArgumentValueError", ValueError),
        ("NonFiniteError", ValueError),
        ("SingularMatrixError", np.linalg.LinAlgError),
        ("ConvergenceError", np.linalg.LinAlgError),
    ],
)
def test_errors_are_caught_as_the_builtin_that_a_caller_expects(name, builtin):
    with pytest.raises(builtin) as caught:
        raise example(CLASSES[name])
    assert isinstance(caught.value, AlchemistError)


def test_errors_of_unlike_kinds_are_not_caught_together():
    assert not issubclass(errors.ArgumentError, ValueError)
    assert not issubclass(errors.ArgumentValueError, TypeError)
    assert not issubclass(errors.GroupDiedError, errors.MatrixError)


@pytest.mark.parametrize(
    "name", ["QuotaError", "", "Exception", "SystemExit", "KeyboardInterrupt", "object", "_rebuild"]
)
def test_a_class_that_this_release_does_not_know_becomes_a_remote_task_error(name):
    got = from_wire(name, {"used": 3})
    assert type(got) is RemoteTaskError
    assert got.exception == name
    assert "used=3" in str(got)


def test_fields_that_this_release_does_not_know_are_passed_over():
    got = from_wire("FreedMatrixError", {"matrix_id": 4, "since": "yesterday"})
    assert type(got) is errors.FreedMatrixError
    assert got.fields() == {"matrix_id": 4}


def test_a_known_class_without_its_fields_becomes_a_remote_task_error():
    got = from_wire("NotEnoughWorkersError", {"requested": 4})
    assert type(got) is RemoteTaskError
    assert "NotEnoughWorkersError" in str(got)
    assert "requested=4" in str(got)


def test_fields_with_defaults_may_be_missing():
    assert from_wire("DeadlineError", {"waited_for": "an answer", "seconds": 2}).advice == ""


def test_the_version_error_makes_its_reason_from_the_versions():
    got = from_wire(*to_wire(errors.ProtocolVersionError(ours=1, theirs=2)))
    assert got.reason == "this side speaks version 1, the peer version 2"


def test_errors_are_told_apart_by_identity_and_can_be_keys():
    a, b = example(errors.LayoutError), example(errors.LayoutError)
    assert a != b
    assert len({a, b}) == 2


def test_a_cause_is_kept_when_raised_from_it():
    with pytest.raises(errors.LibraryLoadError) as caught:
        raise errors.LibraryLoadError("lib", "no") from ZeroDivisionError("cause")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_subclass_with_a_constructor_is_made_by_it():
    """Ray makes one of each error that a task raises; its constructor takes the error."""

    class Dual(errors.NoWorkersError):
        def __init__(self, cause):
            self.cause = cause

    cause = errors.NoWorkersError()
    assert Dual(cause).cause is cause

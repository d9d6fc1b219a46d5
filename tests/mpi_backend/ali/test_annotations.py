"""Annotations as authors write them: aliases, unions, text, type variables; the same on every version of Python."""

from __future__ import annotations

import sys
import textwrap
import typing
from types import ModuleType
from typing import Annotated, Any, List, Literal, NewType, Optional, Tuple, TypeVar, Union  # noqa: UP035

import numpy as np
import numpy.typing as npt
import pytest
from typing_extensions import TypeAliasType

from alchemist_ray.errors import LibraryLoadError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.ali.annotations import expanded, text_of
from alchemist_ray.mpi_backend.ali.signatures import describe_function

T = TypeVar("T")
K = TypeVar("K")
Number = TypeVar("Number", int, float)
Below = TypeVar("Below", bound=npt.NDArray[Any])

Array = TypeAliasType("Array", np.ndarray[Any, np.dtype[T]], type_params=(T,))
"""What ``numpy.typing.NDArray`` is from NumPy 2.5 on, with Python 3.12 and later."""
Vector = TypeAliasType("Vector", Array[np.float64])
Count = TypeAliasType("Count", int)
Wanted = TypeAliasType("Wanted", "Annotated[DistMatrix, 'VC_STAR'] | None")
Swapped = TypeAliasType("Swapped", tuple[K, T], type_params=(T, K))
Itself = TypeAliasType("Itself", T, type_params=(T,))
Factors = TypeAliasType("Factors", tuple[DistMatrix, Vector])
Tree = TypeAliasType("Tree", "list[Tree]")
Endless = TypeAliasType("Endless", "Endless | int")
Speed = NewType("Speed", float)

EXPANDED = [
    (Count, int, ("int",), "int"),
    (Vector, np.ndarray[Any, np.dtype[np.float64]], ("array",), "ndarray"),
    (Array, np.ndarray[Any, np.dtype[T]], ("array",), "ndarray"),
    (npt.NDArray[np.float64], None, ("array",), "ndarray"),
    (Optional[Count], Optional[int], ("int", "none"), "int | None"),  # noqa: UP045
    (Union[None, Vector, Count], None, ("none", "array", "int"), "ndarray | int | None"),  # noqa: UP007
    (Annotated[Count, "a note"], Annotated[int, "a note"], ("int",), "int"),
    (Swapped[int, str], tuple[str, int], ("list",), "tuple[str, int]"),
    (Itself[Count], int, ("int",), "int"),
    (Factors, None, ("list",), "tuple[DistMatrix, ndarray]"),
    (Tree, list[Tree], ("list",), "list[Tree]"),
    (Speed, float, ("float",), "float"),
    (T, Any, ("any",), "Any"),
    (Number, Union[int, float], ("int", "float"), "int | float"),  # noqa: UP007
    (Below, None, ("array",), "ndarray"),
    (List[Count], list[int], ("list",), "list[int]"),  # noqa: UP006
    (Tuple[Count, ...], tuple[int, ...], ("list",), "tuple[int, ...]"),  # noqa: UP006
    (tuple[()], tuple[()], ("list",), "tuple[()]"),
    (Literal["a", 2], Literal["a", 2], ("str", "int"), "Literal['a', 2]"),
    (dict[str, Vector], None, ("dict",), "dict[str, ndarray]"),
    (None, None, ("none",), "None"),
]


def described(function):
    return describe_function("lib", "compute", function).description


@pytest.mark.parametrize(("annotation", "plain", "kinds", "text"), EXPANDED, ids=[text for *_, text in EXPANDED])
def test_an_annotation_is_expanded_read_and_written(annotation, plain, kinds, text):
    def compute(x): ...

    compute.__annotations__ = {"x": annotation, "return": annotation}
    if plain is not None:
        assert expanded(annotation, {}) == plain
    got = described(compute)
    assert got.parameters[0].kinds == kinds
    assert got.returns == text


def test_an_array_has_one_text_on_every_version_of_numpy():
    assert text_of(expanded(npt.NDArray[Any], {})) == text_of(np.ndarray) == "ndarray"


def test_text_is_evaluated_where_the_alias_was_written():
    def compute(A: Wanted, k: Count) -> Factors: ...

    got = described(compute)
    assert [(p.kinds, p.layout) for p in got.parameters] == [(("matrix", "none"), "VC_STAR"), (("int",), "")]
    assert got.returns == "tuple[DistMatrix, ndarray]"


def test_an_alias_of_a_module_that_is_not_loaded_is_evaluated_beside_the_function():
    code = "from typing_extensions import TypeAliasType\nAlias = TypeAliasType('Alias', 'list[Inner]')\nInner = int\n"
    code += "def compute(x: Alias) -> Alias: ...\n"
    namespace = {"__name__": "no_such_module"}
    exec(code, namespace)
    assert described(namespace["compute"]).returns == "list[int]"


def test_a_context_may_have_an_alias_or_a_note():
    Context = TypeAliasType("Context", TaskContext)

    def aliased(ctx, k: int): ...

    def noted(ctx, k: int): ...

    aliased.__annotations__["ctx"] = Context
    noted.__annotations__["ctx"] = Annotated[TaskContext, "unused"]
    for function in (aliased, noted):
        assert describe_function("lib", "compute", function).wants_context
        assert [p.name for p in described(function).parameters] == ["k"]


@pytest.mark.parametrize("annotation", [Endless, TypeAliasType("Codes", set[int]), NewType("Codes", object)], ids=str)
def test_an_alias_of_what_cannot_cross_the_wire_is_refused_by_the_name_that_the_author_wrote(annotation):
    def compute(bad): ...

    compute.__annotations__["bad"] = annotation
    with pytest.raises(LibraryLoadError, match=f"parameter bad is annotated .*{annotation.__name__}"):
        describe_function("lib", "compute", compute)


def test_an_alias_that_cannot_be_evaluated_is_refused_with_the_task():
    def compute(bad): ...

    compute.__annotations__["bad"] = TypeAliasType("Missing", "no_such_type")  # noqa: F821
    with pytest.raises(LibraryLoadError, match=r"task compute: .*no_such_type"):
        describe_function("lib", "compute", compute)


PEP_695 = """
    import numpy as np
    from numpy.typing import NDArray
    from typing import Annotated, Literal
    from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext

    type Rows = Annotated[DistMatrix, "VC_STAR"]
    type Vector[S] = NDArray[S]
    type Pair = tuple[Rows, Vector[np.float64]]
    type Later = list[Defined]
    type Defined = int

    def compute[S: (np.float32, np.float64)](
        ctx: TaskContext, A: Rows, b: Vector[S] | None = None, how: Literal["fast"] | Later = "fast"
    ) -> Pair: ...

    def same[N: float](x: N) -> N: ...
"""


if sys.version_info >= (3, 12):  # the short suite runs it; Python 3.11 has no type statement

    @pytest.mark.parametrize("postponed", ["", "from __future__ import annotations\n"])
    def test_the_type_statement_and_type_parameters(postponed):
        library = ModuleType("pep_695")
        exec(postponed + textwrap.dedent(PEP_695), vars(library))
        got = described(library.compute)
        assert [(p.name, p.kinds, p.layout) for p in got.parameters] == [
            ("A", ("matrix",), "VC_STAR"),
            ("b", ("array", "none"), ""),
            ("how", ("str", "list"), ""),
        ]
        assert got.returns == "tuple[DistMatrix, ndarray]"
        same = described(library.same)
        assert (same.parameters[0].kinds, same.returns) == (("float",), "float")


def test_notes_do_not_hide_that_a_result_is_a_tuple():
    def compute() -> Annotated[typing.Tuple[int, int], "two"]: ...  # noqa: UP006

    assert described(compute).returns == "tuple[int, int]"

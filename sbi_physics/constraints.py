"""Constraints between parameters, written as text: `"k_l < k_h / 2"`.

A constraint is data (it travels in JSON with the prior), so it is parsed, never evaluated as code:
only names, numbers, `+ - * / **`, parentheses and one comparison are accepted.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.types import BoolArray, FloatArray

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Constraint:
    """A comparison between two arithmetic expressions of parameters.

    Attributes:
        expression: For example `"k_l < k_h / 2"`.
    """

    expression: str

    def __post_init__(self) -> None:
        self._comparison()

    @property
    def names(self) -> frozenset[str]:
        """Parameters that appear."""
        return frozenset(n.id for n in ast.walk(self._comparison()) if isinstance(n, ast.Name))

    def holds(self, values: Mapping[str, FloatArray]) -> BoolArray:
        """Evaluate on arrays of one common shape, one for each parameter.

        Where a side is undefined (a root of a negative number, 0 / 0) the constraint fails.
        """
        node = self._comparison()
        with np.errstate(all="ignore"):
            left = _value(node.left, values)
            right = _value(node.comparators[0], values)
            result: BoolArray = np.asarray(
                _COMPARE[type(node.ops[0])](left, right), dtype=np.bool_
            )
        return result

    def substitute(self, values: Mapping[str, float]) -> Constraint:
        """Return the constraint with numbers in place of some names."""
        tree = _Substitution(values).visit(self._comparison())
        return Constraint(ast.unparse(ast.fix_missing_locations(tree)))

    def _comparison(self) -> ast.Compare:
        try:
            node = ast.parse(self.expression.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes
            raise ContractError(
                f"constraint {self.expression!r} is not an expression: "
                f"{getattr(error, 'msg', error)}"
            ) from error
        if (
            not isinstance(node, ast.Compare)
            or len(node.ops) != 1
            or type(node.ops[0]) not in _COMPARE
        ):
            raise ContractError(
                f"constraint {self.expression!r} must be one comparison with <, <=, > or >="
            )
        self._check(node.left)
        self._check(node.comparators[0])
        return node

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Name():
                return
            case ast.Constant(value=int() | float()):
                return
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
                self._check(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._check(left)
                self._check(right)
            case _:
                raise ContractError(
                    f"constraint {self.expression!r}: {ast.unparse(node)!r} is not allowed; use "
                    "names, numbers, + - * / ** and parentheses"
                )


def _value(node: ast.expr, values: Mapping[str, FloatArray]) -> Any:
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=int() | float() as number):
            # A numpy number overflows to inf at once; Python's 9**9**9 would compute for ever.
            return np.float64(number)
        case ast.UnaryOp(op=op, operand=inner):
            inner_value = _value(inner, values)
            return -inner_value if isinstance(op, ast.USub) else inner_value
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, values), _value(right, values))
    raise AssertionError(f"unchecked node {node!r}")  # _check admits only the cases above


class _Substitution(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name by its number; a negative one as -(number), to bind as the name did."""
        if node.id not in self._values:
            return node
        value = float(self._values[node.id])
        number = ast.Constant(abs(value))
        return ast.UnaryOp(ast.USub(), number) if value < 0 else number

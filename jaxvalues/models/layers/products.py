"""Products of matrices, each in the form that processors compute fast: forward and backward.

In float32 these are plain products. In bfloat16 both operands are bfloat16 and the result is float32, in the backward
pass too, where autodiff would multiply float32 with bfloat16 in float32. XLA on CPU hands such products to the
processor's bfloat16 units; on GPU and TPU a float32 result is more exact and costs nothing but its size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxvalues.models.layers.quantized import QuantizedWeight, is_quantized
from jaxvalues.models.layers.sharded import Placement, ShardedWeight, gather

Contracted = tuple[tuple[int, ...], tuple[int, ...]]


def times_matrix(x: jax.Array, matrix: jax.Array | ShardedWeight | QuantizedWeight, *, over: int = 0) -> jax.Array:
    """All vectors of x [..., D] times a `matrix` [D, F], or [F, D] if the product is `over` axis 1: [..., F].

    The matrix may be float32 while x is bfloat16: it is then rounded to multiply, its gradient is float32 and never
    rounded, and the result is float32. A sharded matrix is gathered to multiply, once forward and once backward;
    one in 8 or 4 bits is made whole as often.
    """
    if is_quantized(matrix):
        return jax.checkpoint(lambda x, kept: times_matrix(x, kept.whole(x.dtype), over=over))(x, matrix)
    if isinstance(matrix, ShardedWeight):
        return _sharded_times_matrix(x, matrix.array, over, matrix.placement)
    if x.dtype == jnp.bfloat16:
        return _mixed_times_matrix(x, matrix, over)
    # All vectors as rows of one matrix: for a product over [B, T, D] XLA on CPU writes a transposed copy of the
    # output's gradient and computes the gradient a second time to do so, a tenth of a training step.
    rows = x.reshape(-1, x.shape[-1])
    product = lax.dot_general(rows, matrix.astype(x.dtype), (((1,), (over,)), ((), ())))
    return product.reshape(*x.shape[:-1], matrix.shape[1 - over])


def matmul(a: jax.Array, b: jax.Array, *, transposed: bool = False) -> jax.Array:
    """`jnp.matmul` of a [..., T, K] and b [..., K, S] with the same leading axes: [..., T, S] float32.

    If b is `transposed`, it is [..., S, K]. It is then read as it lies: XLA on CPU computes a product with a transposed
    matrix of bfloat16 in float32.
    """
    if a.dtype == b.dtype == jnp.bfloat16:
        return _mixed_matmul(a, b, transposed)
    return jnp.matmul(a, b.swapaxes(-1, -2) if transposed else b, preferred_element_type=jnp.float32)


def _keeping_both(product: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, tuple[jax.Array, jax.Array]]]:
    """The forward pass of a product for `defvjp`: it keeps both operands for the backward pass."""
    return lambda a, b, how: (product(a, b, how), (a, b))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_times_matrix(x: jax.Array, matrix: jax.Array, over: int) -> jax.Array:
    return _mixed(x, matrix, ((x.ndim - 1,), (over,)))


def _mixed_times_matrix_backward(
    over: int, kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, matrix = kept
    of_x = _mixed(grad, matrix, ((grad.ndim - 1,), (1 - over,)))
    return of_x.astype(x.dtype), _mixed_gradient(x, grad, over).astype(matrix.dtype)


def _mixed_gradient(x: jax.Array, grad: jax.Array, over: int) -> jax.Array:
    """The gradient of a matrix, float32."""
    # Over two axes [B, T], never over flattened rows: for those XLA on CPU converts to float32 first.
    rows = tuple(range(x.ndim - 1))
    sides = (grad, x) if over else (x, grad)
    return _mixed(*sides, (rows, rows))


_mixed_times_matrix.defvjp(_keeping_both(_mixed_times_matrix), _mixed_times_matrix_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sharded_times_matrix(x: jax.Array, matrix: jax.Array, over: int, placement: Placement) -> jax.Array:
    """The product with a matrix in shards, which alone are kept for the backward pass if that gathers `again`."""
    return times_matrix(x, gather(matrix.astype(x.dtype), placement), over=over)


def _sharded_times_matrix_forward(
    x: jax.Array, matrix: jax.Array, over: int, placement: Placement
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array | None]]:
    whole = gather(matrix.astype(x.dtype), placement)
    return times_matrix(x, whole, over=over), (x, matrix, None if placement.again else whole)


def _sharded_times_matrix_backward(
    over: int, placement: Placement, kept: tuple[jax.Array, jax.Array, jax.Array | None], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, matrix, whole = kept
    whole = gather(matrix.astype(x.dtype), placement) if whole is None else whole
    _, pull = jax.vjp(partial(times_matrix, over=over), x, whole)
    of_x, of_matrix = pull(grad)
    if x.dtype == jnp.bfloat16:  # that of the float32 matrix must not be rounded
        of_matrix = _mixed_gradient(x, grad, over)
    return of_x, lax.with_sharding_constraint(of_matrix, placement.kept).astype(matrix.dtype)


_sharded_times_matrix.defvjp(_sharded_times_matrix_forward, _sharded_times_matrix_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_matmul(a: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
    return _mixed(a, b, ((a.ndim - 1,), (b.ndim - (1 if transposed else 2),)), a.ndim - 2)


def _mixed_matmul_backward(
    transposed: bool, kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, b = kept
    batch, row, column = a.ndim - 2, a.ndim - 2, a.ndim - 1
    of_a = _mixed(grad, b, ((column,), (row if transposed else column,)), batch)
    of_b = _mixed(*((grad, a) if transposed else (a, grad)), ((row,), (row,)), batch)
    return of_a.astype(a.dtype), of_b.astype(b.dtype)


_mixed_matmul.defvjp(_keeping_both(_mixed_matmul), _mixed_matmul_backward)


def _mixed(a: jax.Array, b: jax.Array, contracted: Contracted, batch: int = 0) -> jax.Array:
    """The product in bfloat16 over the `contracted` axes, with the first `batch` axes of both in common: float32."""
    if batch > 1 and jax.default_backend() == "cpu":
        # Over several axes in common XLA on CPU makes a transposed operand part of the product. Its bfloat16 units do
        # not compute that, so it would be computed in float32, which takes three times as long.
        over = tuple(tuple(axis - batch + 1 for axis in axes) for axes in contracted)
        product = _mixed(*(x.reshape(-1, *x.shape[batch:]) for x in (a, b)), over, 1)
        return product.reshape(*a.shape[:batch], *product.shape[1:])
    shared = tuple(range(batch))
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return lax.dot_general(a, b, (contracted, (shared, shared)), preferred_element_type=jnp.float32)

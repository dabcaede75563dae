"""Many questions about an argument in one forward pass: the argument is read once, K questions branch from it, and A
answers from each question.

    [argument | question 1 | ... | question K | answers of question 1 | ... | answers of question K]

is one row of T + K * S + K * A * R tokens. A question attends to the argument and itself, an answer to the argument,
its question and itself. Positions of a branch go on from the last real token of its parent. So the logits are those of
[argument | question k | answer a] alone. For an argument of 48 tokens and 20 questions of 12 the row has 288 tokens
instead of 1200, a quarter of the FLOPs in GPT-2 small. An answer of one token needs no place in the row: its logits are
those after the question.

The mask over [W, W] is mostly False. `branched_attention` computes the scores of a question with its argument and with
itself alone: a seventh of all scores for questions of 30 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.models.layers.attention import MASKED, attention
from jaxvalues.models.layers.masks import count_positions, last_token
from jaxvalues.models.layers.ops import dropout, soft_cap
from jaxvalues.models.layers.products import matmul


class Packed(NamedTuple):
    """A packed row, with W = T + K * S + K * A * R, and where its logits are.

    `input_ids` [B, W]; `attention_mask` [B, W, W], nonzero where a token attends to another; `position_ids` [B, W];
    `last` [B, K], the index of each question's last real token; `answers` [B, K, A, R], the indices of each answer's
    tokens (None without answers). The logits of an answer's first token are at `last`, those of each next token at the
    index of the one before.
    """

    input_ids: jax.Array
    attention_mask: jax.Array
    position_ids: jax.Array
    last: jax.Array
    answers: jax.Array | None = None


def pack(  # noqa: PLR0917  (ids and their masks, in pairs)
    argument_ids: jax.Array,
    argument_mask: jax.Array,
    question_ids: jax.Array,
    question_mask: jax.Array,
    answer_ids: jax.Array | None = None,
    answer_mask: jax.Array | None = None,
) -> Packed:
    """Pack arguments [B, T], questions [B, K, S] and answers [B, K, A, R], with their masks.

    Questions that all arguments share may be [K, S]; shared answers [K, A, R] or [A, R]. Each may be padded left or
    right. The longest position is T + S + R, however many branches there are. For a question without a real token,
    `last` is the argument's last one.
    """
    (batch, tokens), (questions, size) = argument_ids.shape, question_ids.shape[-2:]
    if answer_ids is None:
        answer_ids = answer_mask = np.zeros((0, 0), np.int32)
    answers, length = answer_ids.shape[-2:]
    shapes = (batch, tokens), (batch, questions, size), (batch, questions, answers, length)

    def lay(*levels: jax.Array) -> jax.Array:  # [B, W]
        each = (jnp.broadcast_to(x, shape).reshape(batch, -1) for x, shape in zip(levels, shapes, strict=True))
        return jnp.concatenate(list(each), axis=1)

    # The question and the answer of each place in the row (0 for none): a place attends to its own and to 0.
    per_question, per_answer = np.arange(questions).repeat(size), np.arange(questions * answers).repeat(length)
    question = np.concatenate([np.zeros(tokens, int), per_question + 1, per_answer // max(answers, 1) + 1])
    answer = np.concatenate([np.zeros(tokens + questions * size, int), per_answer + 1])
    same = np.logical_and(*(((path == 0) | (path[:, None] == path)) for path in (question, answer)))  # query by key
    mask = np.tril(same) & (lay(argument_mask, question_mask, answer_mask) != 0)[:, None, :]

    asked = _path(
        (batch, questions), argument_mask[:, None], question_mask
    )  # [B, K, T + S], the questions as single rows
    said = _path((batch, questions, answers), asked[:, :, None], answer_mask)  # [B, K, A, T + S + R]
    positions = (
        count_positions(argument_mask),
        count_positions(asked)[..., tokens:],
        count_positions(said)[..., tokens + size :],
    )
    last = last_token(asked)
    last = jnp.where(last < tokens, last, last + np.arange(questions) * size)
    places = np.arange(tokens + questions * size, len(answer)).reshape(shapes[2][1:])
    return Packed(
        lay(argument_ids, question_ids, answer_ids),
        mask,
        lay(*positions),
        last,
        jnp.broadcast_to(places, shapes[2]) if answers else None,
    )


class Branches(NamedTuple):
    """The end of each row: `count` K branches of `size` S tokens that do not attend to each other."""

    count: int
    size: int


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    branches: Branches | None,
    *,
    mask: jax.Array | None,
    cached: Sequence[jax.Array] = (),
    **options: Any,
) -> jax.Array:
    """`attention`, or `branched_attention` where rows end in `branches`; `options` are those that both have.

    Behind `cached` keys it is always the first: there the mask alone keeps branches apart.
    """
    if branches is None or cached:
        return attention(query, key, value, mask=mask, cached=cached, **options)
    return branched_attention(query, key, value, mask=mask, branches=branches, **options)


def branched_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array,
    branches: Branches,
    scale: float | None = None,
    cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: jax.Array | None = None,
) -> jax.Array:
    """`attention` of rows that end in `branches`: the same numbers, without the scores of one branch with another.

    `query` [B, F + C * S, N, H], all tokens, or [B, C, N, H], one of each branch (or, of a branch without a real token,
    the argument's last); `key` and `value` [B, F' + C * S, K, H]; `mask` [B, 1, queries, keys]; C branches of S tokens.
    The scores of a question with its argument and with itself are two products and one softmax. The argument's keys are
    not repeated: a forward and backward pass takes a third of the time of separate rows, or less.
    """
    count, size = branches
    each = 1 if query.shape[1] == count else size  # queries of a branch
    first, shared = query.shape[1] - count * each, key.shape[1] - count * size
    batch, _, heads, width = query.shape
    group = heads // key.shape[2]  # heads of queries that share a head of keys
    rngs = (None, None) if dropout_rng is None else jax.random.split(dropout_rng)

    # Everything about branches is laid out as [B, K, C, group * each, ...], so that both products read it as it is.
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    asked = (query[:, first:] * scale).reshape(batch, count, each, -1, group, width).transpose(0, 3, 1, 4, 2, 5)
    layout = asked.shape[:-1]  # (B, K, C, group, each)
    of_argument = matmul(asked.reshape(*layout[:2], -1, width), _by_head(key[:, :shared]).swapaxes(-1, -2))
    asked = asked.reshape(*layout[:3], -1, width)
    own = matmul(asked, _by_branch(key[:, shared:], count).swapaxes(-1, -2))
    scores = jnp.concatenate([of_argument.reshape(*layout, shared), own.reshape(*layout, size)], axis=-1)
    seen = _seen(mask[:, 0, first:], branches, shared)[:, None, :, None]  # [B, 1, C, 1, each, F' + S]
    scores = jnp.where(seen, soft_cap(scores, cap), MASKED)
    weights = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, rngs[1]).astype(value.dtype)
    flat = weights[..., :shared].reshape(of_argument.shape)
    out = matmul(flat, _by_head(value[:, :shared])).reshape(asked.shape)
    out += matmul(weights[..., shared:].reshape(own.shape), _by_branch(value[:, shared:], count))
    out = out.astype(value.dtype).reshape(*layout, width).transpose(0, 2, 4, 1, 3, 5)
    out = out.reshape(batch, -1, heads, width)  # [B, C * each, N, H]
    if not first:
        return out
    argument = attention(
        query[:, :first], key[:, :shared], value[:, :shared],
        mask=mask[:, :, :first, :shared], scale=scale, cap=cap, dropout_rate=dropout_rate, dropout_rng=rngs[0],
    )  # fmt: skip
    return jnp.concatenate([argument, out], axis=1)


def _by_head(x: jax.Array) -> jax.Array:
    """[B, T, K, H] to [B, K, T, H]."""
    return x.swapaxes(1, 2)


def _by_branch(x: jax.Array, count: int) -> jax.Array:
    """[B, C * S, K, H] to [B, K, C, S, H]."""
    return x.reshape(len(x), count, -1, *x.shape[2:]).transpose(0, 3, 1, 2, 4)


def _seen(mask: jax.Array, branches: Branches, shared: int) -> jax.Array:
    """The part of a `mask` [B, K * each, F' + K * S] for the argument and the query's own branch:
    [B, K, each, F' + S]."""
    count, size = branches
    mask = mask.reshape(len(mask), count, -1, mask.shape[-1])
    own = mask[..., shared:].reshape(*mask.shape[:-1], count, size)
    own = jnp.diagonal(own, axis1=1, axis2=3).transpose(0, 3, 1, 2)
    return jnp.concatenate([mask[..., :shared], own], axis=-1)


def _path(branches: tuple[int, ...], *masks: jax.Array) -> jax.Array:
    """Masks joined along the last axis, each repeated for the branches."""
    return jnp.concatenate([jnp.broadcast_to(mask, (*branches, mask.shape[-1])) for mask in masks], axis=-1)

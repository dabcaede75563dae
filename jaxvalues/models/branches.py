"""Twenty questions in one forward pass: an argument read once, K questions that branch from it, A answers from each.

    [argument | question 1 | ... | question K | answers of question 1 | ... | answers of question K]

is one row of T + K * S + K * A * R tokens in which a question sees the argument and itself, an answer the argument, its
question and itself, and each stands right behind the last real token of what it branches from. Its logits are those of
[argument | question k | answer a] alone. For an argument of 48 tokens and 20 questions of 12 that is 288 tokens in the
place of 1200, and a quarter of the FLOPs of GPT-2 small. Answers of one token need no place in the row: the logits of
their question are theirs.

Who sees whom is a mask over [W, W], of which little is seen. `branched_attention` computes the scores of a question
with its argument and with itself alone: with questions of 30 tokens a seventh of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.models.attention import attention
from jaxvalues.models.masks import count_positions, last_token


class Packed(NamedTuple):
    """What a network is given, with W = T + K * S + K * A * R: `input_ids` [B, W]; `attention_mask` [B, W, W], who sees
    whom; `position_ids` [B, W]; `last` [B, K], where each question's last real token stands; and `answers`
    [B, K, A, R], where each answer's tokens stand (None without answers). What follows them is read off there: the
    first token of an answer at `last`, the next where the one before it stands."""

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
    """Pack arguments [B, T], questions [B, K, S] and answers [B, K, A, R], with their masks. What all arguments or all
    questions share may go without these axes: [K, S]; [K, A, R] or [A, R].

    Padding may stand left or right in each. The longest position is T + S + R, however many branches there are. A
    question without a real token asks at the argument's last one.
    """
    (batch, tokens), (questions, size) = argument_ids.shape, question_ids.shape[-2:]
    if answer_ids is None:
        answer_ids = answer_mask = np.zeros((0, 0), np.int32)
    answers, length = answer_ids.shape[-2:]
    shapes = (batch, tokens), (batch, questions, size), (batch, questions, answers, length)

    def lay(*levels: jax.Array) -> jax.Array:  # [B, W]
        each = (jnp.broadcast_to(x, shape).reshape(batch, -1) for x, shape in zip(levels, shapes, strict=True))
        return jnp.concatenate(list(each), axis=1)

    # The path to each place in the row, its question and its answer (0 for none): a place sees those on its path.
    per_question, per_answer = np.arange(questions).repeat(size), np.arange(questions * answers).repeat(length)
    question = np.concatenate([np.zeros(tokens, int), per_question + 1, per_answer // max(answers, 1) + 1])
    answer = np.concatenate([np.zeros(tokens + questions * size, int), per_answer + 1])
    same = np.logical_and(*(((path == 0) | (path[:, None] == path)) for path in (question, answer)))  # query by key
    sees = np.tril(same) & (lay(argument_mask, question_mask, answer_mask) != 0)[:, None, :]

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
        sees,
        lay(*positions),
        last,
        jnp.broadcast_to(places, shapes[2]) if answers else None,
    )


class Branches(NamedTuple):
    """How rows end: in `count` K stretches of `size` S tokens that see nothing of each other, the argument before."""

    count: int
    size: int


def branched_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array,
    branches: Branches,
    dropout_rng: jax.Array | None = None,
    **options: Any,
) -> jax.Array:
    """`attention` of rows that end in `branches`: the same numbers, without the scores of one branch with another.

    `query` [B, F + K * S, N, H], all tokens, or [B, K, N, H], one of each branch (or, of a branch without a real token,
    the argument's last); `key` and `value` [B, F' + K * S, N, H], `mask` [B, 1, queries, keys]. Both parts of a
    question's softmax are one softmax. `options` are those of `attention`, but for the bias.
    """
    count, size = branches
    shared = key.shape[1] - count * size
    each = 1 if query.shape[1] == count else size  # queries of a branch
    first = query.shape[1] - count * each
    rngs = (None, None) if dropout_rng is None else jax.random.split(dropout_rng)

    def part(x: jax.Array, start: int, length: int) -> jax.Array:  # [B, K * length, ...] to [B * K, length, ...]
        return x[:, start:].reshape(-1, length, *x.shape[2:])

    # Each branch as a row of its own, whose keys are the argument's and its own.
    rows, heads = len(query), key.shape[2:]
    together = [
        jnp.concatenate(
            [
                jnp.broadcast_to(x[:, None, :shared], (rows, count, shared, *heads)).reshape(-1, shared, *heads),
                part(x, shared, size),
            ],
            axis=1,
        )
        for x in (key, value)
    ]
    sees = mask[:, 0, first:].reshape(rows, count, each, -1)
    own = sees[..., shared:].reshape(rows, count, each, count, size)
    own = jnp.diagonal(own, axis1=1, axis2=3).transpose(0, 3, 1, 2)  # [B, K, each, S], of the branch itself
    sees = jnp.concatenate([sees[..., :shared], own], axis=-1).reshape(rows * count, 1, each, -1)
    out = attention(part(query, first, each), *together, mask=sees, dropout_rng=rngs[1], **options)
    out = out.reshape(rows, count * each, *heads)
    if not first:
        return out
    argument = attention(
        query[:, :first], key[:, :shared], value[:, :shared],
        mask=mask[:, :, :first, :shared], dropout_rng=rngs[0], **options,
    )  # fmt: skip
    return jnp.concatenate([argument, out], axis=1)


def _path(branches: tuple[int, ...], *masks: jax.Array) -> jax.Array:
    """Masks one behind the other, for each of the branches."""
    return jnp.concatenate([jnp.broadcast_to(mask, (*branches, mask.shape[-1])) for mask in masks], axis=-1)

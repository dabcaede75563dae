"""A generative model that reads prompts: it continues them, and scores answers to them."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvalues.data.tokenizers import pad_id, special_tokens
from jaxvalues.errors import UserError, about, short
from jaxvalues.formulations.lm_scoring import answer_log_probs
from jaxvalues.generation.decode import Rules, State, decode, left_aligned, right_aligned, start
from jaxvalues.generation.prompts import Answer, Prompt, PromptReader, Row
from jaxvalues.generation.sampling import Sampling, row_keys
from jaxvalues.generation.scoring import Join, Scored, answers_of_each, plan, read_answers
from jaxvalues.generation.shapes import batches, power_of_two, prompt_and_slots, token_bucket
from jaxvalues.generation.stopping import EVERY, Ended, check_stops, find_end
from jaxvalues.models import T5
from jaxvalues.templates.chat import plain_ids
from jaxvalues.tuning import Bound

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_FINITE = "the network computed logits that are not numbers: its weights are damaged, or dtype must be float32"


@dataclass(frozen=True)
class Generated:
    """What was generated: the tokens, their text, and why it ended.

    `ids` end with the token that ended the sequence, or that completed a stop string; `text` has neither, and no
    special tokens. `finish_reason` is "stop" in these two cases, and "length" after `max_new_tokens`.
    """

    ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"]


class Asked(NamedTuple):
    """The settings of a call of `generate`, which says what they mean; `new` is its `max_new_tokens`."""

    new: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stops: tuple[str, ...] = ()
    samples: int = 1


class _Row(NamedTuple):
    """One row of a batch that is decoded."""

    prompt: int
    sample: int
    is_real: bool  # no filling


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A network with its weights and tokenizer; `jaxvalues.load_language_model` makes one of a checkpoint.

    `bound` are the parameters, and the prompt and prefix of a tuned network. `ends` are the tokens that end a sequence.
    `batch_size` rows are decoded at once. `max_length` is the largest number of tokens of a prompt and what follows it;
    None is the context of the network. Programs are compiled when they are first needed: one for each bucket of prompt
    lengths, number of new tokens and number of rows.
    """

    module: nn.Module
    bound: Bound
    tokenizer: PreTrainedTokenizerBase
    ends: tuple[int, ...] = ()
    batch_size: int = 16
    max_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= 1):
                raise UserError(f"{name} is {short(value)}, expected a whole number from 1 on")

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int = 128,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] | None = (),
        samples: int = 1,
    ) -> list[Generated]:
        """Continues each prompt: a text, a list of token ids, or a list of {"role", "content"} messages.

        A text gets the special tokens of the tokenizer, messages those of its chat template (`templates.chat`). At a
        `temperature` of 0 the most likely token follows; otherwise one is drawn from the smallest set of tokens whose
        probability reaches `top_p`. A draw depends on `seed`, the prompt's index and the sample's number. In float32 it
        does not depend on the other prompts or on `batch_size`; in bfloat16, logits are rounded otherwise in a batch of
        another size, which can change a draw. Texts end before the first of the strings `stop`, wherever it begins
        within a token. With `samples` K each prompt is continued K times, and the results of a prompt stand side by
        side.

        Returns one result for each prompt and sample, in order. Raises `UserError`, before anything is computed, for a
        prompt that is empty, has no chat template or two BOS tokens, or does not fit the context with `max_new_tokens`.
        """
        asked = Asked(max_new_tokens, temperature, top_p, seed, check_stops(stop), samples)
        results: dict[tuple[int, int], Generated] = {}
        for batch in self.generate_batches(prompts, asked):
            results |= batch
        return [results[key] for key in sorted(results)]

    def generate_batches(
        self, prompts: Sequence[Prompt], asked: Asked, known: Container[tuple[int, int]] = ()
    ) -> Iterator[dict[tuple[int, int], Generated]]:
        """The results of `generate` as batches are done, each {(index of the prompt, number of the sample): result}.

        What is in `known` is not generated again, unless in a batch with other samples of its prompt.
        """
        asked = _checked_settings(asked)
        samples, rows = asked.samples, self._read(prompts, asked.new)
        each = min(samples, self.batch_size)  # samples of a prompt in one batch
        at_once = self.batch_size // each
        parts = [
            (prompt, first)
            for prompt in range(len(rows))
            for first in range(0, samples, each)
            if not all((prompt, sample) in known for sample in range(first, min(first + each, samples)))
        ]
        for (length, slots), members in batches([self._shape(rows[p], asked) for p, _ in parts], lambda _: at_once):
            chosen = [parts[i] for i in members]
            size = min(power_of_two(len(chosen)), at_once)
            batch = self._aligned([rows[prompt] for prompt, _ in chosen], (size, length))
            filled = [*chosen, *[(0, samples)] * (size - len(chosen))]
            numbered = [_Row(p, first + i, first + i < samples) for p, first in filled for i in range(each)]
            yield {
                (row.prompt, row.sample): Generated(one.ids, one.text, "stop" if one.by_stop else "length")
                for row, one in zip(numbered, self._decoded(asked, batch, numbered, slots), strict=True)
                if row.is_real
            }

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Answer] | Sequence[Sequence[Answer]],
        *,
        join: Literal["together", "tokens"] = "together",
    ) -> np.ndarray:
        """The exact log-probabilities [B, A], natural logarithms, that the answer to each prompt begins with these.

        `answers` are A answers for all prompts, or a list of A answers for each; an answer is a text or a list of token
        ids. It need not end there: no end token is added, and the length is not normalised.

        How prompt and answer are joined: with "together" a text or messages and an answer text are tokenised as one
        text, as in the model's training. Where a token reaches over the border (a prompt that ends in a space, before
        "Yes"), nothing of that token is certain: then all answers to this prompt are scored from the last border that
        they share, so a score includes the tokens of the prompt behind it. Differences between answers to one prompt
        are exact either way. With "tokens", and wherever ids are given, the answer's own tokens follow the prompt's:
        the score is the probability that `generate` at temperature 1 draws just these tokens. The answer of an
        encoder-decoder is tokenised alone.

        Raises `UserError` for an empty prompt or answer, and for rows longer than the context.
        """
        if join not in ("together", "tokens"):
            raise UserError(f"join is {short(join)}, expected together or tokens")
        each = answers_of_each(answers, len(_checked_list(prompts)))
        scored = [self._scored(i, *pair, join) for i, pair in enumerate(zip(prompts, each, strict=True))]
        scores = np.zeros((len(scored), len(each[0] if each else answers)), np.float32)
        for one in plan(scored, self.batch_size, self._vocabulary, self._pad):
            found = np.asarray(self._score(self.bound, self._aligned(one.rows, one.shape), (one.ids, one.mask)))
            for row, prompt, first in zip(found[:, 0], one.prompts, one.first, strict=False):
                last = min(first + len(row), scores.shape[1])
                scores[prompt, first:last] = row[: last - first]
        if np.isnan(scores).any():
            raise UserError(NOT_FINITE)
        return scores

    def _shape(self, row: Row, asked: Asked) -> tuple[int, int]:
        """The padded length of a prompt, and the room for new tokens."""
        if self._is_causal:
            return prompt_and_slots(len(row), asked.new, self._most_tokens)
        return token_bucket(len(row)), token_bucket(asked.new)

    def _decoded(self, asked: Asked, batch: dict[str, np.ndarray], rows: Sequence[_Row], slots: int) -> list[Ended]:
        """What follows each of the `rows` of a batch."""
        keys = row_keys(asked.seed, *(np.array([row[i] for row in rows], np.uint32) for i in (0, 1)))
        sampling = Sampling(jnp.float32(asked.temperature), jnp.float32(asked.top_p), keys)
        sampling = sampling if asked.temperature > 0 else None
        active, rules = np.array([row.is_real for row in rows]), Rules(self._ends(asked.stops), sampling)
        each = len(rows) // len(batch["input_ids"])
        state = self._start(self.bound, batch, rules, active, slots=slots, pad=self._pad, samples=each)
        stopped, count = ~active, 1
        ended: list[Ended | None] = [None] * len(rows)
        while True:
            until = min(count + EVERY, asked.new) if asked.stops else asked.new
            state = self._decode(self.bound, state, rules, np.int32(until), stopped=stopped.copy())
            ids, lengths, done, count, is_finite = jax.device_get(
                (state.ids, state.lengths, state.done, state.count, state.is_finite)
            )
            if not is_finite:
                raise UserError(NOT_FINITE)
            for i in np.flatnonzero(~stopped):
                found = find_end(ids[i, : lengths[i]].tolist(), self._text_of, asked.stops, rules.ends.tolist())
                if found.by_stop or done[i] or count >= asked.new:
                    ended[i], stopped[i] = found, True
            if stopped.all():
                return [one or Ended([], "", False) for one in ended]

    def _read(self, prompts: Sequence[Prompt], new: int) -> list[Row]:
        """The ids of prompts that have room for `new` tokens behind them."""
        rows = []
        for number, prompt in enumerate(_checked_list(prompts)):
            with about(f"prompts[{number}]"):
                rows.append(self._reader.ids(prompt))
                self._check_length(len(rows[-1]), new, "max_new_tokens")
        return rows

    def _scored(self, number: int, prompt: Prompt, answers: Sequence[Answer], join: Join) -> Scored:
        with about(f"prompts[{number}]"):
            scored = read_answers(self._reader, prompt, answers, join)
            self._check_length(len(scored.prompt), max(map(len, scored.answers)), "an answer")
        return scored

    def _check_length(self, tokens: int, new: int, what: str) -> None:
        """Raise `UserError` unless a prompt and what follows it fit the context; an encoder's is by itself."""
        needed, most = (tokens + new if self._is_causal else max(tokens, new)), self._most_tokens
        if needed > most:
            parts = f"{tokens} tokens and {what} {new}" if self._is_causal else f"{tokens} tokens, {what} {new}"
            raise UserError(f"it has {parts}, but {most} are the most {'in all' if self._is_causal else 'each'}")

    def _aligned(self, rows: Sequence[Row], shape: tuple[int, int]) -> dict[str, np.ndarray]:
        return (right_aligned if self._is_causal else left_aligned)(rows, shape, self._pad)

    def _text_of(self, ids: Sequence[int]) -> str:
        """The text of tokens behind a prompt. Some tokenizers drop a space at the beginning of what they decode."""
        word, its_text = self._word
        return self._decoded_text([*word, *ids]).removeprefix(its_text)

    @cached_property
    def _word(self) -> tuple[Row, str]:
        """What stands before the tokens of a text: those of a word, or nothing for what a decoder begins with."""
        ids = plain_ids(self.tokenizer, "a")[-1:] if self._is_causal else []
        return ids, self._decoded_text(ids)

    def _decoded_text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _ends(self, stops: Sequence[str]) -> np.ndarray:
        """The tokens that end a row [E]: the model's, and the special tokens among `stops`, which texts do not show."""
        special = special_tokens(self.tokenizer)
        for stop in stops:
            if stop not in special and (inside := next((one for one in special if one and one in stop), None)):
                raise UserError(
                    f"stop holds {short(stop)}, but texts do not show the special token {inside} in it: give this "
                    "token alone, or a text without it"
                )
        ids = [*self.ends, *(special[one] for one in stops if one in special)]
        return np.array(ids + [-1] * (-len(ids) % 4), np.int32)  # a few shapes, not one for every number

    @property
    def _is_causal(self) -> bool:
        return not isinstance(self.module, T5)

    @property
    def _config(self) -> Any:
        return self.module.encoder.config if self._is_causal else self.module.config

    @property
    def _vocabulary(self) -> int:
        return self._config.vocab_size

    @property
    def _most_tokens(self) -> int:
        """The largest number of tokens of a prompt and what follows it, behind a tuned prompt and prefix."""
        before = 0
        if self._is_causal:
            before += 0 if self.bound.prompt is None else self.bound.prompt.shape[-2]
            before += 0 if self.bound.prefix is None else self.bound.prefix.shape[2]
        most = self._config.max_tokens
        return (most if self.max_length is None else min(most, self.max_length)) - before

    @cached_property
    def _pad(self) -> int:
        pad = pad_id(self.tokenizer)
        return 0 if pad is None else pad

    @cached_property
    def _reader(self) -> PromptReader:
        return PromptReader(self.tokenizer, self._vocabulary, self._is_causal)

    @cached_property
    def _start(self) -> Callable[..., State]:
        return jax.jit(partial(start, self.module), static_argnames=("slots", "pad", "samples"))

    @cached_property
    def _decode(self) -> Callable[..., State]:
        return jax.jit(partial(decode, self.module), donate_argnums=1)

    @cached_property
    def _score(self) -> Callable[..., jax.Array]:
        def score(bound: Bound, batch: dict[str, jax.Array], answers: tuple[jax.Array, jax.Array]) -> jax.Array:
            return answer_log_probs(self.module, bound, batch, None, answers)

        return jax.jit(score)


def _checked_list(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise UserError(f"prompts is {short(prompts)}, expected a list of prompts")
    return prompts


def _checked_settings(asked: Asked) -> Asked:
    """The settings with numbers of Python, as NumPy's would be other programs. Raises `UserError` for wrong ones."""
    whole = {"max_new_tokens": (asked.new, 1, 31), "seed": (asked.seed, 0, 32), "samples": (asked.samples, 1, 31)}
    for name, (value, least, bits) in whole.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not least <= value < 2**bits:
            raise UserError(f"{name} is {short(value)}, expected a whole number from {least} on, below 2^{bits}")
    for name, value in (("temperature", asked.temperature), ("top_p", asked.top_p)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not abs(value) <= _MOST:
            raise UserError(f"{name} is {short(value)}, expected a number")
    if asked.temperature < 0:
        raise UserError(f"temperature is {asked.temperature}, expected 0 (the most likely token) or more")
    if not 0 < asked.top_p <= 1:
        raise UserError(f"top_p is {asked.top_p}, expected a probability above 0, up to 1 (all tokens)")
    new, seed, samples = int(asked.new), int(asked.seed), int(asked.samples)
    return Asked(new, float(asked.temperature), float(asked.top_p), seed, asked.stops, samples)


_MOST = float(np.finfo(np.float32).max)

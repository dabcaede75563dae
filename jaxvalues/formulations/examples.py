"""Examples in context: training arguments with their answers, which a prompt shows before its question.

Examples come from arguments of other conclusions than the one in question, and each from another conclusion, because
labels resemble each other within a conclusion. Their order and the categories that they ask about follow from a seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from scipy import sparse

from jaxvalues.config import ExamplesConfig
from jaxvalues.data.arguments import Argument, Split
from jaxvalues.data.conclusions import normalize_conclusion
from jaxvalues.errors import ConfigError, UserError, counted


class Encoder(Protocol):
    """Texts as vectors of length 1; `identity` names the weights. `jaxvalues.run.sentences` has one."""

    identity: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors [n, D] of texts."""
        ...


class Shown(NamedTuple):
    """An example: an argument, the category that its question asks about, and its labels [C] of 0 and 1."""

    argument: Argument
    category: int
    labels: np.ndarray

    @property
    def is_yes(self) -> bool:
        return bool(self.labels[self.category] == 1)


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a run: `pool` holds the arguments that may be shown, in the order in which they are drawn."""

    config: ExamplesConfig
    pool: Split
    seed: int
    encoder: Encoder | None = None

    @classmethod
    def make(cls, config: ExamplesConfig, training: Split, seed: int = 0, encoder: Encoder | None = None) -> Examples:
        """Draws from training arguments; `seed` is that of the run. Raises ConfigError for too few conclusions.

        For `seed` and `balanced`, one argument more than there are examples is enough: at most one of them shares the
        conclusion of an argument in question.
        """
        seed = seed if config.seed is None else config.seed
        order = np.random.default_rng(seed).permutation(len(training))
        if config.choose != "nearest":
            conclusions: set[str] = set()
            order = [i for i in order if _is_new(training.arguments[i], conclusions)][: config.count + 1]
        pool = training.subset(order)
        distinct = len({normalize_conclusion(one.conclusion) for one in pool.arguments})
        if distinct <= config.count:
            raise ConfigError(
                f"formulation.examples.count is {config.count}, but the training arguments have only "
                f"{counted(distinct, 'conclusion')}, expected at least one more than examples"
            )
        return cls(config, pool, seed, encoder)

    def of(self, arguments: Sequence[Argument]) -> list[list[Shown]]:
        """The examples of each argument, in the order in which they are shown."""
        if self.config.choose == "nearest":
            nearest = self._nearest(arguments)
            return [self._shown(argument, near) for argument, near in zip(arguments, nearest, strict=True)]
        order = np.arange(len(self.pool))
        return [self._shown(argument, order) for argument in arguments]

    @property
    def text(self) -> str:
        """The pool as the text of a file."""
        pool = zip(self.pool.arguments, self.pool.labels.tolist(), strict=True)
        rows = [[one.id, one.conclusion, one.stance, one.premise, labels] for one, labels in pool]
        kept = rows if self.encoder is None else {"encoder": self.encoder.identity, "examples": rows}
        return json.dumps(kept, ensure_ascii=False)

    @classmethod
    def read(cls, config: ExamplesConfig, text: str, seed: int = 0, encoder: Encoder | None = None) -> Examples:
        """The examples of a run with this `seed`, from `text`.

        Raises UserError for what no run wrote, and for another encoder than that of the run.
        """
        try:
            rows = json.loads(text)
            if encoder is not None and rows["encoder"] != encoder.identity:
                raise UserError("formulation.examples.encoder holds other weights than those that chose the examples")
            rows = rows if encoder is None else rows["examples"]
            arguments = tuple(Argument(*fields) for *fields, _ in rows)
            pool = Split("examples", arguments, np.array([labels for *_, labels in rows], np.int8))
            return cls(config, pool, seed if config.seed is None else config.seed, encoder)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"the examples of the run cannot be read ({error}), expected those that it wrote") from None

    def _shown(self, argument: Argument, order: Sequence[int]) -> list[Shown]:
        """The first `count` arguments of `order` that are of other conclusions; for `nearest`, the nearest is last."""
        used, chosen = {normalize_conclusion(argument.conclusion)}, []
        for index in order:
            if self._conclusions[index] not in used:
                used.add(self._conclusions[index])
                chosen.append(int(index))
            if len(chosen) == self.config.count:
                break
        if self.config.choose == "nearest":
            chosen.reverse()
        return [self._example(index, place) for place, index in enumerate(chosen)]

    def _example(self, index: int, place: int) -> Shown:
        """The example made of an argument of the pool. Unless `seed` draws it, every other answer is Yes."""
        labels = self.pool.labels[index]
        random = np.random.default_rng((self.seed, index))
        candidates = np.arange(len(labels))
        if self.config.choose != "seed":
            wanted = np.flatnonzero(labels == (place + self.seed) % 2)
            candidates = wanted if len(wanted) else candidates
        return Shown(self.pool.arguments[index], int(random.choice(candidates)), labels)

    @cached_property
    def _conclusions(self) -> list[str]:
        return [normalize_conclusion(argument.conclusion) for argument in self.pool.arguments]

    def _nearest(self, arguments: Sequence[Argument]) -> list[np.ndarray]:
        """The indices of the pool for each argument, the most similar first; ties in the order of the pool."""
        if self.encoder is not None:
            similar = self.encoder([_text(one) for one in arguments]) @ self._embedded.T
        else:
            vocabulary, idf, pool = self._vectors
            similar = (_tf_idf(arguments, vocabulary, idf) @ pool.T).toarray()
        return list(np.argsort(-similar, axis=1, kind="stable"))

    @cached_property
    def _embedded(self) -> np.ndarray:
        """The pool's vectors [n, D]."""
        return self.encoder([_text(one) for one in self.pool.arguments])

    @cached_property
    def _vectors(self) -> tuple[dict[str, int], np.ndarray, sparse.csr_array]:
        """{word: column}, the inverse document frequencies of the columns, and the pool's vectors, of length 1."""
        texts = [_words(argument) for argument in self.pool.arguments]
        vocabulary = {word: column for column, word in enumerate(sorted({word for words in texts for word in words}))}
        found = np.bincount([vocabulary[word] for words in texts for word in set(words)], minlength=len(vocabulary))
        idf = np.log((1 + len(texts)) / (1 + found)) + 1
        return vocabulary, idf, _tf_idf(self.pool.arguments, vocabulary, idf)


def _tf_idf(arguments: Sequence[Argument], vocabulary: dict[str, int], idf: np.ndarray) -> sparse.csr_array:
    """Word counts times inverse document frequencies, of length 1, [n, V] (Salton & Buckley 1988)."""
    known = [[vocabulary[word] for word in _words(one) if word in vocabulary] for one in arguments]
    rows = np.repeat(np.arange(len(known)), [len(one) for one in known])
    columns = np.array([column for one in known for column in one], np.int64)
    counts = sparse.coo_array((idf[columns], (rows, columns)), shape=(len(known), len(vocabulary))).tocsr()
    norms = np.sqrt(counts.multiply(counts).sum(axis=1))
    return sparse.diags_array(1 / np.where(norms > 0, norms, 1)) @ counts


def _words(argument: Argument) -> list[str]:
    """The words of an argument, normalised as conclusions are."""
    return normalize_conclusion(_text(argument)).split()


def _text(argument: Argument) -> str:
    """What is compared of an argument."""
    return f"{argument.conclusion} {argument.premise}"


def _is_new(argument: Argument, conclusions: set[str]) -> bool:
    """Whether an argument's conclusion is not among `conclusions` yet; adds it."""
    text = normalize_conclusion(argument.conclusion)
    is_new = text not in conclusions
    conclusions.add(text)
    return is_new

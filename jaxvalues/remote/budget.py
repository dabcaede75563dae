"""What a run may send and spend, and what it has."""

from __future__ import annotations

from collections.abc import Iterable

from jaxvalues.config import ModelConfig
from jaxvalues.errors import UserError
from jaxvalues.remote.messages import Answer, Request
from jaxvalues.remote.store import Stored

CHARACTERS = 4
"""Characters of a token of English text, for estimates."""


class UsedUp(UserError):
    """The budget of a run is used up."""


def estimated_tokens(request: Request) -> tuple[int, int]:
    """(tokens of the prompt, longest answer): an estimate, without asking the model's tokenizer."""
    return request.characters // CHARACTERS + 8, request.most_tokens


class Budget:
    """The requests and the money of a run. What answers in the store took counts too.

    Requests under way are counted with an estimate of what they cost, which is corrected by what others have cost.
    """

    def __init__(self, config: ModelConfig) -> None:
        remote = config.remote
        self.max_requests, self.max_cost = config.max_requests, config.max_cost
        self.prices = None if remote.input_price is None else (remote.input_price, remote.output_price)
        self.requests, self.cost, self._reserved = 0, 0.0, 0.0
        self._guessed = self._paid = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether it has an end."""
        return self.max_requests is not None or self.max_cost is not None

    def already(self, request: Request, failed: int, stored: Stored | None) -> None:
        """Count what was sent and paid for a request before: attempts that `failed`, and its answer if it has one."""
        self.requests += failed + (stored.attempts if stored is not None else 0)
        if stored is not None:
            self.cost += self._cost_of(request, stored.answer)

    def reserve(self, request: Request) -> float:
        """Count a request that is about to be sent; the cost that is reserved for it.

        Raises UsedUp instead, where it would be one too many.
        """
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise UsedUp(f"model.max_requests {self.max_requests:,} is used up")
        most = self._estimate(request) * max(1.0, self._paid / self._guessed if self._guessed else 1.0)
        if self.max_cost is not None and self.cost + self._reserved + most > self.max_cost:
            raise UsedUp(f"model.max_cost {self.max_cost:g} is used up")
        self.requests += 1
        self._reserved += most
        return most

    def settle(self, request: Request, answer: Answer | None, reserved: float) -> None:
        """A request for which so much was reserved has ended; None: without an answer, which costs nothing."""
        self._reserved -= reserved
        if answer is not None:
            cost = self._cost_of(request, answer)
            self.cost += cost
            self._paid += cost
            self._guessed += self._estimate(request)

    def estimate(self, requests: Iterable[Request]) -> tuple[int, int, float | None]:
        """What requests take at most: (tokens of prompts, tokens of answers, cost); the cost is None without prices."""
        sizes = [estimated_tokens(one) for one in requests]
        prompts, answers = (sum(size[i] for size in sizes) for i in (0, 1))
        return prompts, answers, self._price(prompts, answers) if self.prices else None

    def _estimate(self, request: Request) -> float:
        return self._price(*estimated_tokens(request)) if self.prices else 0.0

    def _cost_of(self, request: Request, answer: Answer) -> float:
        if self.prices is None:
            return 0.0
        prompt, most = estimated_tokens(request)
        prompt = prompt if answer.prompt_tokens is None else answer.prompt_tokens
        return self._price(prompt, most if answer.completion_tokens is None else answer.completion_tokens)

    def _price(self, prompt: int, answer: int) -> float:
        of_prompts, of_answers = self.prices or (0.0, 0.0)
        return (prompt * of_prompts + answer * of_answers) / 1e6

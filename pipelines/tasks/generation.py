"""Tokens from a trained language model.

Runs on: anywhere an exported model is loaded.
Takes:   a model from tokens to logits, in evaluation mode, and prompts' tokens.
Gives:   the continued tokens; ``Writer``, which takes and gives text.

Of each prompt the draws are its own, by its seed, and what the model computes of it depends on no other: a prompt goes on in
the same way in any company, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from pipelines.lake.task_facts import TaskFacts


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.8  # small is safer, large is livelier; 0: always the likeliest
    top_k: int = 50  # only the k likeliest are drawn; 0: all
    top_p: float = 1.0  # of these, only the likeliest that have this probability together


class Prompt(NamedTuple):
    """A text to go on from."""

    tokens: list[int]  # at least one
    seed: int


class Context(Protocol):
    """What a model has read of several texts: one row each."""

    def begin(self, row: int, tokens: Sequence[int]) -> Tensor:
        """Reads a text from its begin: ``logits_V`` of what comes next."""

    def add(self, tokens: Mapping[int, int]) -> Tensor:
        """One further token of some rows: ``logits_RV``. A row that is left out has ended: it can only begin anew."""


@runtime_checkable
class Remembering(Protocol):
    """A model that remembers what it has read."""

    def new_context(self, rows: int) -> Context: ...


class PlainContext:
    """Of a model that remembers nothing: every token is read again for each that follows."""

    def __init__(self, model: nn.Module, rows: int, window: int) -> None:
        self._model, self._window = model, window
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._device = next(model.parameters()).device

    @torch.no_grad()
    def begin(self, row: int, tokens: Sequence[int]) -> Tensor:
        self._tokens[row] = list(tokens[-self._window:])
        return self._model(torch.tensor([self._tokens[row]], device=self._device))[0, -1]

    def add(self, tokens: Mapping[int, int]) -> Tensor:
        logits = {row: self.begin(row, [*self._tokens[row], token]) for row, token in tokens.items()}
        nothing_V = torch.zeros_like(next(iter(logits.values())))
        return torch.stack([logits.get(row, nothing_V) for row in range(len(self._tokens))])


@dataclass
class _Row:
    """A text that is being written."""

    index: int  # of its prompt
    draws_N: Tensor  # from 0 to 1, one for each token that may come
    tokens: list[int] = field(default_factory=list)


def continuations(model: nn.Module, prompts: Sequence[Prompt], num_tokens: int, task: TaskFacts, sampling: Sampling, *,
                  rows: int = 8, is_over: Callable[[list[int]], bool] = lambda _: False) -> Iterator[tuple[int, list[int]]]:
    """How each prompt goes on, as soon as it has ended: (its index, the tokens behind it).

    A text ends after ``num_tokens``, before the token that ends a text, or once ``is_over`` says so of its further tokens.

    Args:
        rows: texts that are written at once.
    """
    window, end_token = task.sizes["sequence_length"], task.facts["end_of_text_id"]
    spelled = task.sizes["vocabulary_size"]  # a model may have more tokens than its tokenizer
    context = model.new_context(rows) if isinstance(model, Remembering) else PlainContext(model, rows, window)
    waiting = iter(enumerate(prompts))
    written: dict[int, _Row] = {}
    free = list(range(rows))
    logits_V: dict[int, Tensor] = {}
    while True:
        while free and (following := next(waiting, None)) is not None:
            index, prompt = following
            row = free.pop()
            draws_N = torch.rand(num_tokens, generator=torch.Generator().manual_seed(prompt.seed), dtype=torch.float64)
            written[row], logits_V[row] = _Row(index, draws_N), context.begin(row, prompt.tokens)
        if not written:
            return
        places = list(written)
        draws_B = torch.stack([written[row].draws_N[len(written[row].tokens)] for row in places])
        drawn = _drawn(torch.stack([logits_V[row][:spelled] for row in places]).float().cpu(), draws_B, sampling)
        further = {}
        for row, token in zip(places, drawn, strict=True):
            text = written[row]
            if token != end_token:
                text.tokens.append(token)
                further[row] = token
            if token == end_token or len(text.tokens) == num_tokens or is_over(text.tokens):
                further.pop(row, None)
                del written[row]
                free.append(row)
                yield text.index, text.tokens
        if further:
            logits_RV = context.add(further)
            logits_V = {row: logits_RV[row] for row in further}


def _drawn(logits_BV: Tensor, draws_B: Tensor, sampling: Sampling) -> list[int]:
    """A token of each row, by its draw: likelier ones lie nearer to 0."""
    if sampling.temperature == 0:
        return logits_BV.argmax(-1).tolist()
    most = logits_BV.shape[1]
    values_BK, tokens_BK = logits_BV.topk(min(sampling.top_k or most, most))
    sums_BK = (values_BK.double() / sampling.temperature).softmax(-1).cumsum(-1)
    if sampling.top_p < 1:  # the likeliest one, and those before which less than top_p has been reached
        kept_BK = torch.cat([torch.ones_like(sums_BK[:, :1]), sums_BK[:, :-1] < sampling.top_p], 1).bool()
        sums_BK = sums_BK.masked_fill(~kept_BK, 0).cummax(-1).values
    place_B1 = torch.searchsorted(sums_BK, (draws_B * sums_BK[:, -1])[:, None], right=True).clamp(max=sums_BK.shape[1] - 1)
    return tokens_BK.gather(1, place_B1)[:, 0].tolist()


@dataclass(frozen=True)
class Writer:
    """A language model with its tokenizer: text to text."""

    model: nn.Module
    tokenizer: Tokenizer
    task: TaskFacts

    def generate(self, prompt: str, num_tokens: int = 100, *, temperature: float = 0.8, top_k: int = 50, seed: int = 0) -> str:
        """The prompt and its continuation."""
        start = self.tokenizer.encode(prompt).ids or [self.task.facts["end_of_text_id"]]
        ((_, further),) = continuations(self.model, [Prompt(start, seed)], num_tokens, self.task, Sampling(temperature, top_k),
                                        rows=1)
        return str(self.tokenizer.decode([*start, *further]))

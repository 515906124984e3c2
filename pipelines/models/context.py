"""What a transformer has read of several texts: keys and values of every position, so that a further token costs one position.

Runs on: anywhere an exported model is loaded; for generation alone.
Takes:   the model in evaluation mode, an embedding, blocks and a head; tokens.
Gives:   ``KeptContext``, whose logits are those of the plain forward.

What a row gives depends on no other row: each reads its first tokens alone, and a step has one shape whatever the rows hold
(all of them, over the whole window). So the same text and the same draws go on in the same way in any company.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from pipelines.models.attention import attention
from pipelines.models.layered import LayeredModel


class TokenEmbedding(Protocol):
    """The first layer of such a model."""

    def at(self, tokens_BT: Tensor, place_BT: Tensor) -> Tensor:
        """``hidden_BTD`` of tokens at these places of their window, from 0."""


class AttentionBlock(Protocol):
    """A layer between the first and the last."""

    def heads(self, hidden_BTD: Tensor, place_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``query_BHTd``; ``key_BGTd`` and ``value_BGTd``, G of which divides H."""

    def ended(self, hidden_BTD: Tensor, mixed_BHTd: Tensor) -> Tensor:
        """What the block gives, of what it took and what attention has mixed."""


class KeptContext:
    """Of each row, its newest tokens: no more than the window, ``sequence_length``.

    A row whose window is full forgets the older half of it and reads the newer one again, since positions count from the
    window's begin: half a window of further tokens then cost one position each.
    """

    def __init__(self, model: LayeredModel, rows: int, window: int) -> None:
        embedding, *blocks, self._head = model.layers.values()
        self._embedding, self._blocks = cast(TokenEmbedding, embedding), cast(list[AttentionBlock], blocks)
        self.window = window
        device = next(model.parameters()).device
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._row_R = torch.arange(rows, device=device)
        self._place_T = torch.arange(window, device=device)
        self._keys_RGTd: list[Tensor] = []  # of each block, made when the first text is read
        self._values_RGTd: list[Tensor] = []

    @torch.no_grad()
    def begin(self, row: int, tokens: Sequence[int]) -> Tensor:
        """Reads a text from its begin, or the newest window of it; what the row held is forgotten.

        Args:
            tokens: at least one.
        Returns:
            ``logits_V`` of what comes next.
        """
        self._tokens[row] = list(tokens[-self.window:])
        length = len(self._tokens[row])
        place_1T = self._place_T[None, :length]
        hidden_1TD = self._embedding.at(torch.tensor([self._tokens[row]], device=self._row_R.device), place_1T)
        for i, block in enumerate(self._blocks):
            query_1HTd, key_1GTd, value_1GTd = block.heads(hidden_1TD, place_1T)
            if i == len(self._keys_RGTd):
                shape = (len(self._tokens), key_1GTd.shape[1], self.window, key_1GTd.shape[3])
                self._keys_RGTd.append(key_1GTd.new_zeros(shape))
                self._values_RGTd.append(value_1GTd.new_zeros(shape))
            self._keys_RGTd[i][row, :, :length], self._values_RGTd[i][row, :, :length] = key_1GTd[0], value_1GTd[0]
            hidden_1TD = block.ended(hidden_1TD, attention(query_1HTd, key_1GTd, value_1GTd, is_causal=True))
        logits_V: Tensor = self._head(hidden_1TD[0, -1])
        return logits_V

    @torch.no_grad()
    def add(self, tokens: Mapping[int, int]) -> Tensor:
        """One further token of some rows, each of which has begun. A row that is left out has ended: it can only begin anew.

        Returns:
            ``logits_RV``; those of rows that have ended mean nothing.
        """
        full = [row for row in tokens if len(self._tokens[row]) == self.window]
        for row, token in tokens.items():
            self._tokens[row].append(token)
        going_on = {row: token for row, token in tokens.items() if row not in full}
        logits_RV = self._step(going_on) if going_on else None
        for row in full:
            logits_V = self.begin(row, self._tokens[row][-max(1, self.window // 2):])
            if logits_RV is None:
                logits_RV = logits_V.new_zeros(len(self._tokens), len(logits_V))
            logits_RV[row] = logits_V
        if logits_RV is None:
            raise ValueError("no row is given a token")
        return logits_RV

    def _step(self, tokens: Mapping[int, int]) -> Tensor:
        device = self._row_R.device
        rows = len(self._tokens)
        tokens_R = torch.tensor([tokens.get(row, 0) for row in range(rows)], device=device)
        places = [len(self._tokens[row]) - 1 if row in tokens else 0 for row in range(rows)]
        place_R = torch.tensor(places, device=device)
        unread_RT = torch.zeros(rows, self.window, device=device).masked_fill_(self._place_T > place_R[:, None], -math.inf)
        hidden_R1D = self._embedding.at(tokens_R[:, None], place_R[:, None])
        for block, keys_RGTd, values_RGTd in zip(self._blocks, self._keys_RGTd, self._values_RGTd, strict=True):
            query_RH1d, key_RG1d, value_RG1d = block.heads(hidden_R1D, place_R[:, None])
            keys_RGTd[self._row_R, :, place_R], values_RGTd[self._row_R, :, place_R] = key_RG1d[:, :, 0], value_RG1d[:, :, 0]
            mixed_RH1d = attention(query_RH1d, keys_RGTd, values_RGTd, unread_RT[:, None, None])
            hidden_R1D = block.ended(hidden_R1D, mixed_RH1d)
        logits_RV: Tensor = self._head(hidden_R1D[:, 0])
        return logits_RV

"""What a GPT has read of several texts: keys and values of every position, so that a further token costs one position.

Runs on: anywhere an exported model is loaded; for generation alone.
Takes:   the GPT in evaluation mode; tokens.
Gives:   ``GptContext``, whose logits are those of the plain forward.

What a row gives depends on no other row: each reads its first tokens alone, and a step has one shape whatever the rows hold
(all of them, over the whole window). So the same text and the same draws go on in the same way in any company.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from pipelines.models.gpt.model import Block, Embedding, Gpt, Head


class GptContext:
    """Of each row, its newest tokens: no more than the window, ``sequence_length``.

    A row whose window is full forgets the older half of it and reads the newer one again, since positions are learned from the
    window's begin: half a window of further tokens then cost one position each.
    """

    def __init__(self, gpt: Gpt, rows: int) -> None:
        embedding, *blocks, head = gpt.layers.values()
        self._embedding, self._blocks, self._head = cast("Embedding", embedding), cast("list[Block]", blocks), cast("Head", head)
        table_TD = self._embedding.position.weight
        self.window, width = table_TD.shape
        num_heads = self._blocks[0].num_heads
        shape = (rows, num_heads, self.window, width // num_heads)
        self._keys_RHTd = [table_TD.new_zeros(shape) for _ in self._blocks]
        self._values_RHTd = [table_TD.new_zeros(shape) for _ in self._blocks]
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._row_R = torch.arange(rows, device=table_TD.device)
        self._place_T = torch.arange(self.window, device=table_TD.device)

    @torch.no_grad()
    def begin(self, row: int, tokens: Sequence[int]) -> Tensor:
        """Reads a text from its begin, or the newest window of it; what the row held is forgotten.

        Args:
            tokens: at least one.
        Returns:
            ``logits_V`` of what comes next.
        """
        self._tokens[row] = list(tokens[-self.window:])
        hidden_1TD = self._embedding(torch.tensor([self._tokens[row]], device=self._row_R.device))
        length = hidden_1TD.shape[1]
        for block, keys_RHTd, values_RHTd in zip(self._blocks, self._keys_RHTd, self._values_RHTd, strict=True):
            query_1HTd, key_1HTd, value_1HTd = block.heads(hidden_1TD)
            keys_RHTd[row, :, :length], values_RHTd[row, :, :length] = key_1HTd[0], value_1HTd[0]
            mixed_1HTd = functional.scaled_dot_product_attention(query_1HTd, key_1HTd, value_1HTd, is_causal=True)
            hidden_1TD = _ended(block, hidden_1TD, mixed_1HTd)
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
        hidden_RD = self._embedding.token(tokens_R) + self._embedding.position(place_R)
        for block, keys_RHTd, values_RHTd in zip(self._blocks, self._keys_RHTd, self._values_RHTd, strict=True):
            hidden_RD = self._step_of(block, hidden_RD, place_R, unread_RT, keys_RHTd, values_RHTd)
        logits_RV: Tensor = self._head(hidden_RD)
        return logits_RV

    def _step_of(self, block: Block, hidden_RD: Tensor, place_R: Tensor, unread_RT: Tensor, keys_RHTd: Tensor,
                 values_RHTd: Tensor) -> Tensor:
        query_RH1d, key_RH1d, value_RH1d = block.heads(hidden_RD[:, None])
        keys_RHTd[self._row_R, :, place_R] = key_RH1d[:, :, 0]
        values_RHTd[self._row_R, :, place_R] = value_RH1d[:, :, 0]
        mixed_RH1d = functional.scaled_dot_product_attention(query_RH1d, keys_RHTd, values_RHTd, unread_RT[:, None, None])
        return _ended(block, hidden_RD[:, None], mixed_RH1d)[:, 0]


def _ended(block: Block, hidden_BTD: Tensor, mixed_BHTd: Tensor) -> Tensor:
    """The block behind its attention."""
    hidden_BTD = hidden_BTD + block.attention_out(mixed_BHTd.transpose(1, 2).flatten(2))
    return hidden_BTD + block.feed_out(functional.gelu(block.feed_in(block.feed_norm(hidden_BTD)), approximate="tanh"))

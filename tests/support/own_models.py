"""Models as a user would write them, for ``model.factory``."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.models.layered import LayeredModel


class Lookup(nn.Module):
    """Tokens to hidden values, and a mask that travels beside them without a gradient."""

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary_size, width)

    def forward(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        return self.table(tokens_BT), tokens_BT % 2


class Residual(nn.Module):
    """A causal depthwise convolution and a skip inside the layer; takes and returns a tuple."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, 3, groups=width)
        self.out = nn.Linear(width, width)

    def forward(self, both: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden_BTD, odd_BT = both
        padded_BDT = nn.functional.pad(self.norm(hidden_BTD).transpose(1, 2), (2, 0))
        mixed_BTD = torch.tanh(self.out(self.mix(padded_BDT).transpose(1, 2)))
        return hidden_BTD + mixed_BTD * (1.0 + odd_BT[..., None]), odd_BT


class Logits(nn.Module):
    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, vocabulary_size, bias=False)

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return self.project(both[0])


class LookupBesideTokens(nn.Module):
    """Tokens to hidden values; the tokens travel on beside them."""

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary_size, width)

    def forward(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        return self.table(tokens_BT), tokens_BT


class Sometimes(nn.Module):
    """One matrix that takes part only for samples that begin with a rare token, and one that never does."""

    def __init__(self, width: int, rare_tokens: int) -> None:
        super().__init__()
        self.rare_tokens = rare_tokens
        self.always, self.rarely, self.never = (nn.Linear(width, width) for _ in range(3))

    def forward(self, both: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden_BTD, tokens_BT = both
        hidden_BTD = hidden_BTD + torch.tanh(self.always(hidden_BTD))
        if self.rare_tokens and (rare_B := tokens_BT[:, 0] < self.rare_tokens).any():
            hidden_BTD = hidden_BTD + self.rarely(hidden_BTD) * rare_B[:, None, None]
        return hidden_BTD, tokens_BT


def residual(vocabulary_size: int, sequence_length: int, width: int = 16, depth: int = 6) -> LayeredModel:
    blocks = [(f"residual_{i}", Residual(width)) for i in range(depth)]
    return LayeredModel([("lookup", Lookup(vocabulary_size, width)), *blocks, ("logits", Logits(vocabulary_size, width))])


class Recurrent(nn.Module):
    """A recurrent layer that drops out between its own layers; takes and returns ``hidden_BTD``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.GRU(width, width, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD + self.mix(hidden_BTD)[0]


def recurrent_with_dropout(vocabulary_size: int, sequence_length: int, width: int = 16) -> LayeredModel:
    return LayeredModel([("table", nn.Embedding(vocabulary_size, width)), ("first", Recurrent(width)),
                         ("second", Recurrent(width)), ("logits", nn.Linear(width, vocabulary_size))])


class FixedLength(nn.Module):
    """An embedding that knows one length only; of shorter inputs it refuses, dies or hangs, as it is told."""

    def __init__(self, vocabulary_size: int, sequence_length: int, shorter: str) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary_size, 8)
        self._length, self._shorter = sequence_length, shorter

    def forward(self, tokens_BT: Tensor) -> Tensor:
        if tokens_BT.shape[1] < self._length:
            if self._shorter == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self._shorter == "hang":
                time.sleep(3600)
        return self.table(tokens_BT.reshape(-1, self._length))


def fixed_length(vocabulary_size: int, sequence_length: int, shorter: str = "refuse") -> LayeredModel:
    return LayeredModel([("table", FixedLength(vocabulary_size, sequence_length, shorter)),
                         ("logits", nn.Linear(8, vocabulary_size))])


class PassingRows(nn.Module):
    """How many rows of zeros it adds depends on the values."""

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        added = nn.functional.pad(hidden_BTD, (0, 0, 0, 0, 0, int((hidden_BTD[..., 0] > 0).sum())))
        return added[: len(hidden_BTD)]


def with_data_dependent_shapes(vocabulary_size: int, sequence_length: int) -> LayeredModel:
    return LayeredModel([("table", nn.Embedding(vocabulary_size, 8)), ("passing", PassingRows()),
                         ("logits", nn.Linear(8, vocabulary_size))])


def not_layered(vocabulary_size: int, sequence_length: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(vocabulary_size, 8), nn.Linear(8, vocabulary_size))


def with_running_statistics(vocabulary_size: int, sequence_length: int) -> LayeredModel:
    return LayeredModel([("table", nn.Embedding(vocabulary_size, 8)), ("norm", nn.BatchNorm1d(sequence_length)),
                         ("out", nn.Linear(8, vocabulary_size))])


def layers_that_do_not_fit(vocabulary_size: int, sequence_length: int) -> LayeredModel:
    return LayeredModel([("table", nn.Embedding(vocabulary_size, 8)), ("out", nn.Linear(9, vocabulary_size))])


class Square(nn.Module):
    """A skip around a square matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD + torch.tanh(self.out(hidden_BTD))


def large_tensors(vocabulary_size: int, sequence_length: int, width: int = 1000) -> LayeredModel:
    """Four matrices of a million values each, cheap to train on a few tokens."""
    return LayeredModel([("table", nn.Embedding(vocabulary_size, width)),
                         *((f"square_{i}", Square(width)) for i in range(4)), ("logits", nn.Linear(width, vocabulary_size))])


def taking_part_sometimes(vocabulary_size: int, sequence_length: int, rare_tokens: int, width: int = 16) -> LayeredModel:
    """With rare tokens it cannot be split: what runs depends on the data."""
    return LayeredModel([("lookup", LookupBesideTokens(vocabulary_size, width)),
                         *((f"sometimes_{i}", Sometimes(width, rare_tokens)) for i in range(4)),
                         ("logits", Logits(vocabulary_size, width))])


def drawn_from_numpy(vocabulary_size: int, sequence_length: int) -> LayeredModel:
    """Its last layer draws from random numbers that nobody seeds."""
    model = LayeredModel([("table", nn.Embedding(vocabulary_size, 8)), ("square", Square(8)),
                          ("out", nn.Linear(8, vocabulary_size))])
    with torch.no_grad():
        model.get_parameter("out.weight").copy_(torch.from_numpy(np.random.default_rng().normal(size=(vocabulary_size, 8))))
    return model


def with_frozen_beginning(vocabulary_size: int, sequence_length: int, width: int = 16) -> LayeredModel:
    """Its first layers are not trained, so that no gradient goes back to the first segment."""
    model = LayeredModel([("table", nn.Embedding(vocabulary_size, width)), ("square_0", Square(width)),
                          ("square_1", Square(width)), ("out", nn.Linear(width, vocabulary_size))])
    for name in ("table", "square_0"):
        model.get_submodule(name).requires_grad_(False)
    return model


class Centred(nn.Module):
    """Takes the mean over the micro-batch away: a sample's result depends on its neighbours."""

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD - hidden_BTD.mean(0, keepdim=True)


def mixing(vocabulary_size: int, sequence_length: int, width: int = 8) -> LayeredModel:
    return LayeredModel([("table", nn.Embedding(vocabulary_size, width)), ("mixed", Centred()),
                         ("logits", nn.Linear(width, vocabulary_size))])


class Keeping(nn.Module):
    """A skip around a square matrix; what else it keeps is registered on it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD + torch.tanh(self.out(hidden_BTD))


class WithExtraState(Keeping):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 0}


def with_state_that_is_no_tensor(vocabulary_size: int, sequence_length: int) -> LayeredModel:
    return LayeredModel([("table", nn.Embedding(vocabulary_size, 8)), ("middle", WithExtraState(8)),
                         ("logits", nn.Linear(8, vocabulary_size))])


def with_a_buffer_of_no_saved_type(vocabulary_size: int, sequence_length: int) -> LayeredModel:
    model = LayeredModel([("table", nn.Embedding(vocabulary_size, 8)), ("middle", Keeping(8)),
                          ("logits", nn.Linear(8, vocabulary_size))])
    model.get_submodule("middle").register_buffer("waves", torch.ones(2, dtype=torch.complex128))
    return model


class Scaled(Keeping):
    """Keeps constants as buffers, of several types; one is drawn, so that no other code makes it again."""

    def __init__(self, width: int, shared_W: Tensor) -> None:
        super().__init__(width)
        self.register_buffer("scale_D", 0.5 + torch.rand(width))
        self.register_buffer("shared_W", shared_W)
        self.register_buffer("even_D", torch.arange(width) % 2 == 0)
        self.register_buffer("version", torch.tensor(3))
        self.register_buffer("turns_D", torch.polar(torch.ones(width), torch.arange(float(width))))
        self.register_buffer("scratch_D", torch.ones(width), persistent=False)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        inner_BTD = super().forward(hidden_BTD * self.scale_D * self.scratch_D)
        return inner_BTD.where(self.even_D, inner_BTD * self.shared_W * self.turns_D.real)


def with_constant_buffers(vocabulary_size: int, sequence_length: int, width: int = 8, depth: int = 4) -> LayeredModel:
    """One buffer is shared by all layers in the middle, and is a view that cannot be written."""
    shared_W = torch.rand(1).expand(width)
    return LayeredModel([("table", nn.Embedding(vocabulary_size, width)),
                         *((f"scaled_{i}", Scaled(width, shared_W)) for i in range(depth)),
                         ("logits", nn.Linear(width, vocabulary_size))])


class Bright(nn.Module):
    """Channels of a convolution, some of which a sample loses."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convolution, self.lose = nn.Conv2d(channels, width, 3, padding=1), nn.Dropout2d(0.3)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.lose(torch.tanh(self.convolution(images_BCHW)))


def of_images(channels: int, height: int, width: int, num_classes: int) -> LayeredModel:
    return LayeredModel([("bright", Bright(channels, 4)), ("again", Bright(4, 4)), ("flat", nn.Flatten()),
                         ("logits", nn.Linear(4 * height * width, num_classes))])

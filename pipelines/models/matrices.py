"""Which of a model's parameters are matrices that turn one hidden vector into another.

Runs on: ranks.
Takes:   a layered model.
Gives:   ``matrices_of``, for optimizers that treat a matrix as a whole; ``StackedLinear``.
"""

from __future__ import annotations

from torch import nn

from pipelines.models.layered import LayeredModel, names_of


class StackedLinear(nn.Linear):
    """Several matrices of one shape, one upon another: several linear layers of the same input in one product."""

    def __init__(self, in_features: int, out_features: int, num_matrices: int, *, bias: bool = True) -> None:
        """
        Args:
            out_features: of each matrix.
        """
        super().__init__(in_features, num_matrices * out_features, bias=bias)
        self.num_matrices = num_matrices


def matrices_of(model: LayeredModel) -> dict[nn.Parameter, int]:
    """Weights of linear layers, each with the number of matrices in it; not those of the first and the last layer, whose rows
    stand for tokens, pixels or classes."""
    inner = list(model.layers)[1:-1]
    counts: dict[nn.Parameter, int] = {}
    for value, names in names_of(model.named_parameters(remove_duplicate=False)).items():
        if {name.split(".")[0] for name in names} <= set(inner):
            module = model.get_submodule(names[0].rpartition(".")[0])
            if isinstance(module, nn.Linear) and isinstance(value, nn.Parameter) and value is module.weight:
                counts[value] = module.num_matrices if isinstance(module, StackedLinear) else 1
    return counts

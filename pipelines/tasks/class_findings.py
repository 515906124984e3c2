"""What an evaluation of a classification shows: each class, who is taken for whom, and the worst mistakes with their pictures.

Runs on: ranks.
Takes:   ``ClassCounts`` over all ranks; the names of the classes.
Gives:   ``class_findings``; ``predictions_shown``; ``ClassMistakes``, the ``Mistakes`` of a classification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.feed.batches import Batch
from pipelines.lake.exhibits import Exhibit, MatrixExhibit, Picture, PicturesExhibit, TableExhibit
from pipelines.lake.findings import ClassFigures, Confusion, Findings
from pipelines.tasks.class_counts import ClassCounts
from pipelines.tasks.png import png_base64
from pipelines.tasks.task import IGNORED

MOST_SHOWN = 30  # in the report's matrix and table: those with the most mistakes
IMAGE = "image"  # the column


def class_findings(counts: ClassCounts, classes: Sequence[str]) -> Findings:
    """Of more classes than are counted by pairs (``MOST_CONFUSED``), without the pairs."""
    there = counts.there_K.long().tolist()
    of_classes = tuple(ClassFigures(k, name, there[k], *counts.of_class(k)) for k, name in enumerate(classes))
    shown = _most_mistaken(counts)
    if counts.confusions_KK is None:
        return Findings(of_classes, (), (_table(of_classes, shown),))
    confusions_KK = counts.confusions_KK.long()
    pairs = tuple(Confusion(classes[true], classes[said], int(confusions_KK[true, said]))
                  for true, said in confusions_KK.nonzero().tolist())
    return Findings(of_classes, pairs, (_matrix(confusions_KK, classes, shown), _table(of_classes, shown)))


def _most_mistaken(counts: ClassCounts) -> list[int]:
    """The classes to show, in their own order."""
    mistakes_K = counts.said_K + counts.there_K - 2 * counts.right_K
    return sorted(mistakes_K.argsort(descending=True, stable=True)[:MOST_SHOWN].tolist())


def _of_how_many(shown: list[int], total: int) -> str:
    return "" if len(shown) == total else f" (the {len(shown)} of {total:,} classes with the most mistakes)"


def _matrix(confusions_KK: Tensor, classes: Sequence[str], shown: list[int]) -> MatrixExhibit:
    names = tuple(classes[k] for k in shown)
    counts = tuple(tuple(row) for row in confusions_KK[shown][:, shown].tolist())
    return MatrixExhibit(f"What was taken for what{_of_how_many(shown, len(classes))}", names, names, counts, "true", "said")


def _table(of_classes: Sequence[ClassFigures], shown: list[int]) -> TableExhibit:
    rows = tuple((of.class_name, of.samples, _rounded(of.precision), _rounded(of.recall), _rounded(of.f1))
                 for of in (of_classes[k] for k in shown))
    columns = ("class", "samples", "precision", "recall", "F1")
    return TableExhibit(f"Each class{_of_how_many(shown, len(of_classes))}", columns, rows)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def predictions_shown(logits_BK: Tensor, targets_B: Tensor, images_BCHW: Tensor, classes: Sequence[str]) -> PicturesExhibit:
    """Each image with what is said of it; mistakes are marked, with what is true."""
    probability_B, said_B = logits_BK.float().softmax(1).max(1)
    answers = zip(said_B.tolist(), targets_B.tolist(), probability_B.tolist(), strict=True)
    pictures = []
    for image, (said, true, probability) in zip(images_BCHW, answers, strict=True):
        told = f"{classes[said]} ({probability:.0%})"
        if said != true:
            told = f"said {told}, is {classes[true]}"
        pictures.append(Picture(png_base64(image), told, marked=said != true))
    return PicturesExhibit("What it says of images that it has not learned from", tuple(pictures))


@dataclass(frozen=True)
class ClassMistakes:
    """See ``Mistakes``. A mistake is as bad as what was said was thought probable."""

    classes: Sequence[str]
    num_facts: int = 4  # how bad; the class said; the true one; the probability that this was given

    def of(self, output: Tensor, targets: Tensor) -> Tensor:
        probabilities_BK = output.float().softmax(1)
        probability_B, said_B = probabilities_BK.max(1)
        wrong_B = (said_B != targets) & (targets != IGNORED)
        of_true_B = probabilities_BK.gather(1, targets.clamp(min=0)[:, None])[:, 0]
        facts = torch.stack([probability_B * wrong_B, said_B.float(), targets.float(), of_true_B], 1)
        return facts.double()

    def shown(self, facts: list[list[float]], rows: Batch) -> list[Exhibit]:
        pictures = tuple(
            Picture(png_base64(image), f"said {self.classes[int(said)]} ({bad:.0%}), is {self.classes[int(true)]} "
                    f"({of_true:.0%})", marked=True)
            for (bad, said, true, of_true), image in zip(facts, rows.fields[IMAGE], strict=True))
        return [PicturesExhibit("The worst mistakes", pictures)] if pictures else []

"""The ``config.json`` of another library's model, checked field by field: what is not understood is refused by its name.

Runs on: driver and ranks (no torch).
Takes:   the file's content, and the class of an architecture's fields (``config_json.py`` in its folder).
Gives:   ``ForeignConfig``; ``ForeignArchitecture``, what a module ``config_json`` has as ``ARCHITECTURE``.

A field that is left out has the value that transformers gives it then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.config.models import LanguageModelSection
from pipelines.config.wording import faults_of
from pipelines.errors import CheckpointError

# fields that change nothing of what is computed in evaluation
_WITHOUT_EFFECT = {
    "_attn_implementation_autoset", "_name_or_path", "_num_labels", "architectures", "attention_dropout", "attn_pdrop",
    "bos_token_id", "chunk_size_feed_forward", "dtype", "embd_pdrop", "eos_token_id", "gradient_checkpointing", "id2label",
    "initializer_range", "label2id", "model_type", "output_attentions", "output_hidden_states", "output_past", "pad_token_id",
    "pretraining_tp", "problem_type", "resid_pdrop", "return_dict", "task_specific_params", "torch_dtype",
    "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache"}


class ForeignConfig(BaseModel):
    """What all of them have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    is_encoder_decoder: Literal[False] = False
    is_decoder: bool = True


@dataclass(frozen=True)
class ForeignArchitecture:
    """One that is read, as an architecture here."""

    model_type: str  # as its config says it
    fields: type[ForeignConfig]
    settings: Callable[[Any], LanguageModelSection]  # of its fields
    shapes: Callable[[Any], dict[str, tuple[int, ...]]]  # of the settings: of each tensor, by their name
    prefix: str  # of all tensors but the head, which a folder may leave out
    embedding: str  # the tensor that a tied head is
    not_weights: tuple[str, ...] = ()  # how names end of tables that older versions stored, and that are computed


def read_config(architecture: ForeignArchitecture, content: Mapping[str, Any], place: str) -> LanguageModelSection:
    """
    Args:
        place: of the file, for errors.
    Raises:
        CheckpointError: fields that are unknown, or values that no model here has.
    """
    given = {name: value for name, value in content.items() if name not in _WITHOUT_EFFECT}
    try:
        settings = architecture.settings(architecture.fields.model_validate(given))
    except ValidationError as error:
        faults = faults_of(error, architecture.fields, lambda _: "config.json")
        unknown = sorted(given.keys() - {field.alias or name for name, field in architecture.fields.model_fields.items()})
        told = ([f"{', '.join(unknown)}: unknown here"] if unknown else [])
        told += [f"{fault.place}: {fault.problem}" for fault in faults if fault.place not in unknown]
        remedy = ("a field may change what the model computes, so none is passed over; copy the folder and remove it where it "
                  "does not" if unknown else "use a model that computes as those of this project do")
        raise CheckpointError(place, "; ".join(told), remedy) from error
    if faults := settings.contradictions():
        raise CheckpointError(place, "; ".join(f"{fault.place}: {fault.problem}" for fault in faults), "give the folder as it "
                              "was saved")
    return settings

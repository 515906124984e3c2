"""A language model of the lake as one GGUF file, which llama.cpp loads, and all that is built on it.

Runs on: driver (no torch).
Takes:   the folder of an exported model, in transformers' names (``standard.py``).
Gives:   ``planned_gguf``: what the file would be, or why there can be none; ``write_gguf``.

Source: ggml-org/llama.cpp, its conversion of Hugging Face's folders (keys, and which weights it turns or permutes); the names are
those of its package ``gguf``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from pipelines.errors import AlreadyRunningError, CheckpointError
from pipelines.lake.exported import described
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.store import Store, new_file
from pipelines.lake.stored_weights import WEIGHTS_NAME, weights_object
from pipelines.models.gguf_vocabulary import Vocabulary, gguf_vocabulary
from pipelines.models.llama.config_json import Rope
from pipelines.models.llama.slowness import slowness
from pipelines.models.opened_weights import Weights, opened_weights

FORMAT = 1  # of the file that is written here: another one is another export
CONFIG_NAME = "config.json"
DIGEST_KEY = "sparkring.digest"  # among the first of the file's keys
HEAD_BYTES = 4096
TYPES = ("f32", "f16")
# by ``model_type``: GGUF's facts, each with transformers' name of it
_GPT2 = {"block_count": "n_layer", "context_length": "n_positions", "embedding_length": "n_embd",
         "feed_forward_length": "n_inner", "head_count": "n_head", "layer_norm_eps": "layer_norm_epsilon"}
_LLAMA = {"block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
          "feed_forward_length": "intermediate_size", "head_count": "num_attention_heads",
          "head_count_kv": "num_key_value_heads", "key_length": "head_dim", "value_length": "head_dim",
          "rope_dimension_count": "head_dim", "rope_freq_base": "rope_theta", "layer_norm_rms_eps": "rms_norm_eps"}
FACTS = {"gpt2": _GPT2, "llama": _LLAMA, "qwen3": _LLAMA}
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # of gpt2, which multiplies from the other side


@dataclass(frozen=True)
class GgufPlan:
    """One file, as it would be written."""

    files: Store  # the model's folder
    config: Mapping[str, Any]
    vocabulary: Vocabulary
    name: str  # of the model, for people
    type: str  # of matrices; vectors are always f32
    digest: str  # of all that the file follows from
    version: str  # of the weights with this digest

    def is_in(self, path: Path) -> bool:
        """Whether what is there is this export."""
        try:
            with open(path, "rb") as file:
                return self.digest.encode() in file.read(HEAD_BYTES)
        except OSError:  # a folder, or nothing that can be read
            return False


def planned_gguf(files: Store, name: str, kind: str) -> GgufPlan:
    """
    Args:
        kind: one of ``TYPES``.
    Raises:
        CheckpointError: it is no language model, or none that llama.cpp would compute as we do.
    """
    place = files.place()
    try:
        section, task = described(files)
        if task.name != "language":
            raise CheckpointError(place, f"is a model for the task {task.name}", "gguf holds models of language: give one's run")
        if (factory := section.get("factory")) is not None:
            raise CheckpointError(place, f"was made by the factory {factory}, which llama.cpp does not know",
                                  "train a model of kind gpt, llama or qwen3")
        config = json.loads(files.read(CONFIG_NAME)) if files.facts(CONFIG_NAME) is not None else {}
        if config.get("model_type") not in FACTS:
            raise CheckpointError(place, f"holds no {CONFIG_NAME} with a model_type of {', '.join(FACTS)}: it was exported "
                                  "before models had their standard names", "train it again, with another --run-id")
        if config.get("rope_scaling") is not None and config["model_type"] != "llama":
            raise CheckpointError(place, f"scales the positions of a {config['model_type']}, which llama.cpp knows of a llama "
                                  "alone", "train without model.rope_scaling")
        vocabulary = gguf_vocabulary(files.place(TOKENIZER_NAME), json.loads(files.read(TOKENIZER_NAME)), config["vocab_size"])
        version = _version(files)
        content = [FORMAT, name, kind, *(files.sha256(each) for each in (
            weights_object(files) or WEIGHTS_NAME, CONFIG_NAME, TOKENIZER_NAME))]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(place, f"is not an exported model ({error})", "export it again") from error
    return GgufPlan(files, config, vocabulary, name, kind, hashlib.sha256(json.dumps(content).encode()).hexdigest(), version)


def write_gguf(plan: GgufPlan, target: Path) -> None:
    """Writes the file, or replaces it, tensor by tensor; it appears whole, or not at all.

    Raises:
        CheckpointError: the weights are damaged. AlreadyRunningError: they were replaced meanwhile.
        StorageError: it cannot be written.
    """
    try:
        with opened_weights(plan.files, "np") as weights, new_file(target) as file:
            _write(plan, weights, Path(file.name))  # by its name: it is on the disk when this one is closed
            if _version(plan.files) != plan.version:
                raise AlreadyRunningError(plan.files.place(), "was replaced by its run while it was read", "export it again")
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(plan.files.place(), f"is not an exported model ({error})", "export it again") from error


def _version(files: Store) -> str:
    """Another one once the weights are replaced."""
    facts = files.facts(weights_object(files) or WEIGHTS_NAME)
    return "" if facts is None else facts.version


def _write(plan: GgufPlan, weights: Weights, path: Path) -> None:
    import gguf  # it takes a while, and no other command needs it

    kind, config = plan.config["model_type"], plan.config
    arch = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, config[FACTS[kind]["block_count"]])
    writer = gguf.GGUFWriter(path, kind)
    try:
        _add_keys(writer, plan)
        types = {}
        slowness_f = _slowness(config)
        if slowness_f is not None:
            writer.add_tensor_info("rope_freqs.weight", slowness_f.shape, slowness_f.dtype, slowness_f.nbytes)
        for name in weights.names:
            theirs = names.get_name(name, (".weight", ".bias"))
            if theirs is None:
                raise ValueError(f"no {kind} has a tensor {name}")
            shape = weights.shape(name)
            half = plan.type == "f16" and len(shape) > 1 and not theirs.startswith("position_embd")
            types[name] = np.dtype(np.float16 if half else np.float32)
            writer.add_tensor_info(theirs, shape[::-1] if _is_turned(kind, name) else shape, types[name],
                                   prod(shape) * types[name].itemsize)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if slowness_f is not None:
            writer.write_tensor_data(slowness_f)
        for name, dtype in types.items():
            writer.write_tensor_data(np.ascontiguousarray(_theirs(config, name, weights.get(name)), dtype))
    finally:
        writer.close()


def _add_keys(writer: Any, plan: GgufPlan) -> None:
    config, vocabulary = plan.config, plan.vocabulary
    writer.add_string(DIGEST_KEY, plan.digest)
    writer.add_type("model")
    writer.add_name(plan.name)
    writer.add_file_type(TYPES.index(plan.type))
    for fact, theirs in FACTS[config["model_type"]].items():
        getattr(writer, f"add_{fact}")(config[theirs])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)  # no text that was learned began with it


def _slowness(config: Mapping[str, Any]) -> np.ndarray | None:
    """Of each pair of a head, where the config scales positions."""
    if config.get("rope_scaling") is None:
        return None
    scaling = Rope.model_validate(config["rope_scaling"]).scaling
    speed_f = config["rope_theta"] ** (-np.arange(0, config["head_dim"], 2) / config["head_dim"])
    return None if scaling is None else slowness(speed_f, scaling).astype(np.float32)


def _is_turned(kind: str, name: str) -> bool:
    return kind == "gpt2" and name.endswith(TURNED)


def _theirs(config: Mapping[str, Any], name: str, value: Any) -> Any:
    """A tensor as llama.cpp multiplies by it."""
    if _is_turned(config["model_type"], name):
        return value.T
    if config["model_type"] == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        # positions turn its values in pairs of neighbours; transformers pairs the first half of a head with the second
        heads = config["num_attention_heads" if name.endswith("q_proj.weight") else "num_key_value_heads"]
        return value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
    return value

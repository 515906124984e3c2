"""Generation: a GPT of about 6 million parameters goes on from 8 prompts, one thread, against transformers' ``generate``.

Runs on: driver (in this process).
Takes:   nothing: random weights and prompts, no text ends before its last token.
Gives:   ``measure``: tokens per second, both sides sampling alike with keys and values kept, alternated.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.commands import output_of
from benchmarks.peers.environment import peers_python
from benchmarks.results import Figure
from benchmarks.training import MODEL, SEQUENCE_LENGTH, VOCABULARY_SIZE
from pipelines.models.build import build_model
from pipelines.models.gpt.settings import GptModel
from pipelines.prepare.text.language_rows import language_facts
from pipelines.tasks.generation import Prompt, Sampling, continuations

PEER = Path(__file__).parent / "peers" / "hf_generation.py"
BATCH, PROMPT_LENGTH, NUM_TOKENS = 8, 16, 128
REPEATS, ROUNDS = 5, 5
NO_TOKEN = -1  # ends a text: none does
SAMPLING = Sampling(temperature=0.8, top_k=50)


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def random_prompts() -> list[list[int]]:
    drawn_BT = torch.randint(VOCABULARY_SIZE, (BATCH, PROMPT_LENGTH), generator=torch.Generator().manual_seed(0))
    tokens: list[list[int]] = drawn_BT.tolist()
    return tokens


def our_tokens_per_s(model: torch.nn.Module, prompts: list[list[int]]) -> float:
    """As predictions are written; it has written the same once before."""
    task = language_facts(sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE, end_of_text_id=NO_TOKEN,
                          tokenizer_sha256="")
    asked = [Prompt(tokens, seed) for seed, tokens in enumerate(prompts)]

    def written() -> int:
        return sum(len(further) for _, further in continuations(model, asked, NUM_TOKENS, task, SAMPLING, rows=BATCH))

    with one_thread():
        written()
        began = time.perf_counter()
        count = sum(written() for _ in range(REPEATS))
        return count / (time.perf_counter() - began)


def measure() -> list[Figure]:
    model = build_model(GptModel(**MODEL), {"vocabulary_size": VOCABULARY_SIZE, "sequence_length": SEQUENCE_LENGTH}, seed=1)
    model.eval()
    python, prompts = peers_python(), random_prompts()
    settings = json.dumps({**MODEL, "vocabulary_size": VOCABULARY_SIZE, "sequence_length": SEQUENCE_LENGTH, "prompts": prompts,
                           "num_tokens": NUM_TOKENS, "temperature": SAMPLING.temperature, "top_k": SAMPLING.top_k,
                           "repeats": REPEATS})
    seen: dict[str, list[float]] = {"ours": [], "transformers": []}
    for _ in range(ROUNDS):
        seen["ours"].append(our_tokens_per_s(model, prompts))
        peer = json.loads(output_of(python, PEER, settings).splitlines()[-1])
        seen["transformers"].append(peer["tokens"] / peer["seconds"])
        print("generation: " + ", ".join(f"{side} {rates[-1]:,.0f} tokens/s" for side, rates in seen.items()), flush=True)
    ours = sum(parameter.numel() for parameter in model.parameters())
    print(f"parameters: ours {ours:,}, transformers {peer['parameters']:,}")
    return [Figure("generate vs transformers' generate", statistics.median(seen["ours"]), statistics.median(seen["transformers"]),
                   "tokens/s", 1.0, "python -m benchmarks generation",
                   note=f"{BATCH} prompts of {PROMPT_LENGTH} tokens, {NUM_TOKENS} further ones each, fp32, 1 thread, medians of "
                        f"{ROUNDS} alternated rounds")]

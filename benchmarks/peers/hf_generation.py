"""Peer of the generation benchmark: transformers' ``generate`` of a GPT-2 with random weights, one thread.

Start: ``python hf_generation.py SETTINGS_JSON`` in the peers' environment.
Prints parameters, the tokens behind the prompts, and seconds as JSON; it has generated the same once before.

The activation is GPT-2's as one operation of torch: the default, the same written out, is slower on a CPU.
"""

import json
import os
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gpt = GPT2LMHeadModel(GPT2Config(
        vocab_size=settings["vocabulary_size"], n_positions=settings["sequence_length"], n_embd=settings["width"],
        n_layer=settings["num_layers"], n_head=settings["num_heads"], activation_function="gelu_pytorch_tanh",
        bos_token_id=None, eos_token_id=None)).eval()
    prompts = torch.tensor(settings["prompts"])

    def generated() -> int:
        tokens = gpt.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=settings["num_tokens"], do_sample=True,
            temperature=settings["temperature"], top_k=settings["top_k"], top_p=1.0, use_cache=True, pad_token_id=0)
        return tokens.numel() - prompts.numel()

    generated()
    began = time.perf_counter()
    count = sum(generated() for _ in range(settings["repeats"]))
    print(json.dumps({"parameters": gpt.num_parameters(), "tokens": count, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()

"""How a language model goes on from prompts: what it remembers, how it draws, and that nobody changes what another gets."""

import random

import pytest
import torch

from pipelines.models.build import build_model
from pipelines.models.gpt.settings import GptModel
from pipelines.models.llama.settings import LlamaModel
from pipelines.models.qwen3.settings import Qwen3Model
from pipelines.tasks.generation import PlainContext, Prompt, Sampling, _drawn, continuations
from tests.support.example_data import language, sizes

WINDOW, VOCABULARY = 16, 40
TASK = language(VOCABULARY, WINDOW)  # token 39 ends a text


GPT = {"num_layers": 3, "num_heads": 2, "width": 24}
LLAMA = {"num_layers": 3, "num_heads": 4, "num_key_value_heads": 2, "head_width": 8, "width": 24}


@pytest.fixture(params=[GptModel(**GPT), GptModel(**GPT, tied_embeddings=False, bias=False), LlamaModel(**LLAMA),
                        Qwen3Model(**LLAMA)], ids=["tied with bias", "plain", "llama", "qwen3"])
def gpt(request):
    model = build_model(request.param, sizes(VOCABULARY, WINDOW), seed=1).eval()
    with torch.no_grad():  # large enough that attention and biases matter
        for name, parameter in model.named_parameters():
            if not parameter.count_nonzero():  # an output projection of a Llama, at its begin
                parameter.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(len(name)))
            parameter.mul_(6.0) if parameter.dim() == 2 else parameter.add_(0.1 if "bias" in name else 0.0)
    return model


def close(one, other):
    return torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_gpt_that_remembers_gives_the_logits_of_the_plain_forward(gpt):
    texts = [torch.randint(0, VOCABULARY, (WINDOW,), generator=torch.Generator().manual_seed(i)).tolist() for i in range(3)]
    context = gpt.new_context(3)
    begun = [5, 1, 9]  # tokens that each reads at once
    with torch.no_grad():
        for row, text in enumerate(texts):
            assert close(context.begin(row, text[: begun[row]]), gpt(torch.tensor([text[: begun[row]]]))[0, -1])
        for step in range(WINDOW):
            further = {row: text[begun[row] + step] for row, text in enumerate(texts) if begun[row] + step < WINDOW}
            if further:
                logits = context.add(further)
            for row in further:
                assert close(logits[row], gpt(torch.tensor([texts[row][: begun[row] + step + 1]]))[0, -1]), (row, step)


def test_a_full_window_goes_on_from_its_newer_half(gpt):
    tokens = [i % VOCABULARY for i in range(WINDOW + 3)]
    context = gpt.new_context(2)
    context.begin(0, tokens[: WINDOW - 1])
    context.begin(1, tokens[:4])
    for i in range(WINDOW - 1, len(tokens)):
        logits = context.add({0: tokens[i], 1: tokens[i - WINDOW + 5]})
        start = 0 if i < WINDOW else WINDOW + 1 - WINDOW // 2
        with torch.no_grad():
            assert close(logits[0], gpt(torch.tensor([tokens[start : i + 1]]))[0, -1])
            assert close(logits[1], gpt(torch.tensor([tokens[: i - WINDOW + 6]]))[0, -1])


def test_a_row_that_has_ended_begins_anew(gpt):
    context = gpt.new_context(2)
    context.begin(0, [1, 2, 3, 4, 5, 6])
    context.begin(1, [7, 8])
    context.add({1: 9})
    with torch.no_grad():
        assert close(context.begin(0, [3]), gpt(torch.tensor([[3]]))[0, -1])
        logits = context.add({0: 4, 1: 10})
        assert close(logits[0], gpt(torch.tensor([[3, 4]]))[0, -1])
        assert close(logits[1], gpt(torch.tensor([[7, 8, 9, 10]]))[0, -1])


def prompts(number):
    drawn = random.Random(0)
    return [Prompt([drawn.randrange(VOCABULARY - 1) for _ in range(drawn.randrange(1, 2 * WINDOW))], drawn.getrandbits(60))
            for _ in range(number)]


def test_a_prompt_goes_on_in_the_same_way_in_any_company(gpt):
    given = prompts(11)
    together = dict(continuations(gpt, given, 30, TASK, Sampling(1.5, 0, 0.95), rows=4))
    assert sorted(together) == list(range(11))
    backwards = dict(continuations(gpt, given[::-1], 30, TASK, Sampling(1.5, 0, 0.95), rows=4))
    assert [backwards[10 - i] for i in range(11)] == [together[i] for i in range(11)]
    for index, prompt in enumerate(given):
        ((_, alone),) = continuations(gpt, [prompt], 30, TASK, Sampling(1.5, 0, 0.95), rows=4)
        assert alone == together[index]
    assert len({tuple(tokens) for tokens in together.values()}) == 11


def test_a_model_that_remembers_nothing_goes_on_in_the_same_way(gpt):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gpt = gpt

        def forward(self, tokens_BT):
            return self.gpt(tokens_BT)

    given = [Prompt(prompt.tokens[:6], prompt.seed) for prompt in prompts(5)]  # within the window, where both are the same
    assert sorted(continuations(Plain(), given, 9, TASK, Sampling())) == sorted(continuations(gpt, given, 9, TASK, Sampling()))
    plain = PlainContext(gpt, 2, WINDOW)
    plain.begin(1, [1, 2])
    with torch.no_grad():
        assert close(plain.add({1: 3})[1], gpt(torch.tensor([[1, 2, 3]]))[0, -1])


def test_a_text_ends_before_the_end_token_after_the_wanted_tokens_or_when_it_is_over(gpt):
    given = [Prompt([1, 2], seed) for seed in range(60)]
    texts = dict(continuations(gpt, given, 40, TASK, Sampling(2.0, 0)))
    ended = [tokens for tokens in texts.values() if len(tokens) < 40]
    assert ended and all(VOCABULARY - 1 not in tokens for tokens in texts.values())
    over = dict(continuations(gpt, given, 40, TASK, Sampling(2.0, 0), is_over=lambda tokens: tokens[-1] == 5))
    for index, tokens in texts.items():
        assert over[index] == (tokens[: tokens.index(5) + 1] if 5 in tokens else tokens)


LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).log_softmax(-1)  # probabilities 0.032 0.644 0.087 0.237


@pytest.mark.parametrize(("sampling", "drawn"), [
    (Sampling(0.0), [1, 1, 1, 1]), (Sampling(1.0, 0), [1, 3, 2, 0]), (Sampling(1.0, 2), [1, 3, 3, 3]),
    (Sampling(1.0, 0, 0.6), [1, 1, 1, 1]), (Sampling(1.0, 0, 0.7), [1, 3, 3, 3]), (Sampling(1.0, 0, 0.9), [1, 3, 2, 2]),
    (Sampling(0.1, 0), [1, 1, 1, 1])])
def test_a_token_is_drawn_among_the_likeliest_by_temperature_top_k_and_top_p(sampling, drawn):
    draws = torch.tensor([0.5, 0.75, 0.95, 0.99], dtype=torch.float64)
    assert _drawn(LOGITS.expand(4, -1), draws, sampling) == drawn


def test_tokens_are_drawn_as_often_as_the_model_says():
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = torch.tensor(_drawn(LOGITS.expand(20_000, -1), draws, Sampling(1.0, 0)))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, LOGITS[0].exp(), atol=0.01)

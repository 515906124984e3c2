"""Data parallelism gives exactly the gradient of the whole batch's mean loss, however the batch is spread."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipelines.errors import ConfigError
from pipelines.models.layered import LayeredModel
from pipelines.parallel.buckets import GradientAverage, cut_into_buckets, squared_norm
from pipelines.parallel.replica.whole import WholeReplica
from pipelines.parallel.ring import Ring
from pipelines.plan.places import Place
from tests.support.rank_processes import run_ranks

STEP = """
import torch
from torch import nn
from pipelines.config.platform import Communication
from pipelines.models.layered import LayeredModel
from pipelines.parallel.agreement.every_step import EveryStep
from pipelines.feed.batches import Batch
from pipelines.parallel.replica.whole import WholeReplica

class Points:
    def inputs_and_targets(self, batch):
        return batch.fields["x"], torch.where(batch.weights_B > 0, batch.fields["y"], -100)

    def loss_sum(self, output, targets):
        return nn.functional.cross_entropy(output, targets, ignore_index=-100, reduction="sum")

    def num_counted(self, targets):
        return int((targets != -100).sum())

def rank_main(ring, settings):
    torch.manual_seed(0)
    model = LayeredModel([("first", nn.Linear(6, 8)), ("between", nn.Tanh()), ("last", nn.Linear(8, 3, bias=False))])
    x = torch.randn(12, 6); y = torch.randint(0, 3, (12,)); weights = torch.ones(12); weights[settings["padding"]:] = 0
    replica = WholeReplica(model, Points(), ring.place, device=torch.device("cpu"), precision="fp32")
    agreement = EveryStep(replica, ring, torch.optim.SGD(model.parameters(), lr=1.0),
                          Communication(bucket_bytes=settings["bucket_bytes"], overlap=settings["overlap"]),
                          gradient_wire=settings["wire"], expected_units=12, clip_norm=None)
    share = 12 // ring.place.num_ranks
    mine = slice(ring.place.rank * share, (ring.place.rank + 1) * share)
    size = settings["micro_batch"]
    parts = Batch({"x": x[mine], "y": y[mine]}, weights[mine], torch.arange(12)[mine]).cut(0, share, size)
    for _ in range(2):  # a second step must not remember the first
        outcome = agreement.step(parts, learning_rate=0.0, epoch=0)
    return {"loss": outcome.loss, "norm": outcome.gradient_norm, "units": outcome.global_units,
            "samples": outcome.global_samples, "finite": outcome.finite,
            "gradients": [p.grad.flatten().tolist() for p in model.parameters()]}
"""


def whole_batch_gradient(padding):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3, bias=False))
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))
    loss = nn.functional.cross_entropy(model(x[:padding]), y[:padding])
    loss.backward()
    return loss.item(), [p.grad.flatten().tolist() for p in model.parameters()]


@pytest.mark.parametrize(("num_ranks", "micro_batch", "bucket_bytes", "overlap", "padding"), [
    (1, 12, 1 << 20, True, 12), (2, 6, 1 << 20, True, 12), (2, 4, 64, True, 7), (3, 2, 200, False, 11), (4, 3, 1, True, 1)])
@pytest.mark.processes
def test_the_gradient_is_that_of_the_whole_batch(tmp_path, num_ranks, micro_batch, bucket_bytes, overlap, padding):
    settings = {"micro_batch": micro_batch, "bucket_bytes": bucket_bytes, "overlap": overlap, "padding": padding,
                "wire": "fp32"}
    loss, gradients = whole_batch_gradient(padding)
    for result in run_ranks(STEP, num_ranks, tmp_path, settings):
        assert result["loss"] == pytest.approx(loss, rel=1e-6)
        assert result["units"] == result["samples"] == padding
        for ours, exact in zip(result["gradients"], gradients, strict=True):
            assert ours == pytest.approx(exact, rel=1e-5, abs=1e-7)
        norm = sum(g * g for gradient in gradients for g in gradient) ** 0.5
        assert result["norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("wire", ["fp16", "bf16"])
@pytest.mark.processes
def test_a_narrow_wire_changes_gradients_only_by_rounding(tmp_path, wire):
    settings = {"micro_batch": 6, "bucket_bytes": 100, "overlap": True, "padding": 12, "wire": wire}
    _, gradients = whole_batch_gradient(12)
    first, second = run_ranks(STEP, 2, tmp_path, settings)
    assert first["gradients"] == second["gradients"]
    for ours, exact in zip(first["gradients"], gradients, strict=True):
        assert ours == pytest.approx(exact, rel=2e-2, abs=2e-3)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 2000))
def test_every_parameter_is_in_exactly_one_bucket_and_buckets_keep_their_bound(sizes, bucket_bytes):
    parameters = [nn.Parameter(torch.zeros(size)) for size in sizes]
    buckets = cut_into_buckets(parameters, bucket_bytes)
    assert [id(p) for bucket in buckets for p in bucket.parameters] == [id(p) for p in parameters]
    for bucket in buckets:
        assert len(bucket.parameters) == 1 or bucket.flat.numel() * 4 <= bucket_bytes
        for parameter in bucket.parameters:
            parameter.grad = torch.ones_like(parameter)
        bucket.fill()
        assert bucket.flat.sum() == bucket.flat.numel()
        for parameter in bucket.parameters:
            assert parameter.grad.untyped_storage().data_ptr() == bucket.flat.untyped_storage().data_ptr()


@pytest.mark.parametrize("values", [20_000_000, 1_048_577, 5, 0])
def test_the_norm_is_that_of_float64_however_the_values_are_spread_over_tensors(values):
    torch.manual_seed(0)
    flat = torch.randn(values).exp_() * 1e-6  # all positive and of very different sizes: the hardest to add up
    exact = flat.double().square().sum().item()
    matrix = flat[: values // 64 * 64].view(64, -1).t()  # not contiguous
    for tensors in ([flat], list(flat.split(1000)), list(flat.split(3_000_001)), [matrix, flat[values // 64 * 64 :]]):
        assert squared_norm(tensors).item() == pytest.approx(exact, rel=1e-7)


def test_the_norm_of_narrow_and_of_wide_values_is_added_up_in_enough_precision():
    narrow = torch.full((3000,), 0.01, dtype=torch.bfloat16)
    wide = torch.full((3000,), 1e-200, dtype=torch.float64)
    assert squared_norm([narrow]).item() == pytest.approx(3000 * narrow[0].item() ** 2, rel=1e-6)
    assert squared_norm([wide * 1e100]).item() == pytest.approx(3000e-200, rel=1e-12)
    assert squared_norm([]).item() == 0.0


class SilentRing:
    """A ring of two whose sums do nothing."""

    place = Place(0, 2, 1)

    def start_sum(self, values, name):
        return lambda: None


def average_of(parameters, ring, **options):
    return GradientAverage(dict.fromkeys(parameters, 1), ring, bucket_bytes=1 << 20, gradient_wire="fp32", **options)


@pytest.mark.parametrize("ring", [Ring(Place(0, 1, 1)), SilentRing()], ids=["one replica", "two replicas"])
def test_a_parameter_that_took_no_part_has_a_gradient_of_zero(ring):
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    average = average_of([used, unused], ring, overlap=True)
    for _ in range(2):
        average.begin(num_micro_batches=1)
        (2 * used).sum().backward()
        average.finish()
        assert used.grad.tolist() == [2, 2, 2]
        assert unused.grad.tolist() == [[0, 0], [0, 0]]


def test_a_gradient_that_comes_after_its_sum_was_started_is_refused():
    used, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def backwards():
        (2 * used).sum().backward()
        (3 * used).sum().backward()  # the second one in the same micro-batch

    average = average_of([used], SilentRing(), overlap=True)
    average.begin(num_micro_batches=1)
    with pytest.raises(ConfigError, match=r"backward adds to a gradient more than once.*set communication.overlap: false"):
        backwards()
    average = average_of([other], SilentRing(), overlap=False)
    average.begin(num_micro_batches=1)
    used = other
    backwards()
    average.finish()
    assert other.grad.tolist() == [5, 5, 5]


def test_a_summed_gradient_lies_in_memory_as_its_parameter_does():
    """Fused optimizers take both as they lie, whatever their strides say."""
    kernel = nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    plain, expanded = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(1, 3).expand(2, 3))
    for parameter in (kernel, plain, expanded):
        parameter.grad = torch.randn(parameter.shape)
    expected = [parameter.grad.clone() for parameter in (kernel, plain, expanded)]
    (bucket,) = cut_into_buckets([kernel, plain, expanded], 10**6)
    bucket.fill()
    assert kernel.grad.stride() == kernel.stride() != torch.empty(4, 3, 2, 2).stride()
    assert all(torch.equal(parameter.grad, value) for parameter, value in zip(bucket.parameters, expected, strict=True))
    assert sum(value.numel() for value in expected) == len(bucket.flat)
    before = kernel.detach().clone()
    torch.optim.SGD([kernel], lr=1.0, fused=True).step()
    assert torch.allclose(kernel.detach(), before - expected[0])


def test_only_models_that_say_so_lie_in_another_order():
    def whole(**order):
        model = LayeredModel([("first", nn.Conv2d(3, 4, 3)), ("last", nn.Flatten())], **order)
        return WholeReplica(model, None, Place(0, 1, 1), device=torch.device("cpu"), precision="fp32")

    assert whole(any_pixel_order=True).held.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert whole().held.first.weight.is_contiguous()

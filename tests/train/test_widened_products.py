"""bfloat16 on a CPU without instructions for it: the same products, faster, and nothing else touched."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

PROGRAM = """
import warnings
warnings.simplefilter("error")
import torch
from torch import nn
from pipelines.train.widened_products import widen_products

torch.manual_seed(0)
one, other, added = torch.randn(33, 17), torch.randn(17, 9), torch.randn(33, 9)
ones, others, addeds = torch.randn(3, 33, 17), torch.randn(3, 17, 9), torch.randn(3, 33, 9)

def products(dtype):
    a, b, c, d, e, f = (each.to(dtype) for each in (one, other, added, ones, others, addeds))
    into = torch.mm(a, b, out=torch.empty(33, 9, dtype=dtype)), torch.bmm(d, e, out=torch.empty(3, 33, 9, dtype=dtype))
    return [*into, a @ b, torch.addmm(c, a, b, beta=0.5, alpha=2.0), d @ e, torch.baddbmm(f, d, e, alpha=0.25),
            torch.addmm(c[0], a, b), b.T @ a.T, d @ b]

def trained_step():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4, bias=False))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(8, 5, 16)).float().square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]

before = [products(dtype) for dtype in (torch.float32, torch.float64, torch.int64)], products(torch.bfloat16), trained_step()
widen_products()
widen_products()
after = [products(dtype) for dtype in (torch.float32, torch.float64, torch.int64)], products(torch.bfloat16), trained_step()
for dtypes in zip(before[0], after[0]):
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*dtypes))
for a, b in zip(before[1], after[1]):
    assert b.dtype == torch.bfloat16 and torch.allclose(a.float(), b.float(), rtol=2**-7, atol=2**-6)
exact = (one.bfloat16().double() @ other.bfloat16().double())
assert (after[1][0].double() - exact).abs().max() <= exact.abs().max() * 2**-8
for a, b in zip(before[2], after[2]):
    assert a.dtype == b.dtype and (a - b).norm() <= 0.02 * a.norm()
long, longer = torch.randn(256, 1024).bfloat16(), torch.randn(1024, 128).bfloat16()  # torch itself rounds some elsewhere
for into in (torch.empty(256, 128).bfloat16(), torch.empty(0).bfloat16()):  # what is compiled gives the first
    assert torch.equal(torch.mm(long, longer, out=into), (long.float() @ longer.float()).bfloat16())
try:
    torch.mm(long, longer, out=torch.empty(256, 128))
except RuntimeError as error:
    assert "dtype" in str(error)
else:
    raise AssertionError("another type of out is accepted")
print("same")
"""


def test_products_are_the_same_up_to_their_rounding_and_those_of_other_types_bit_by_bit():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout == "same\n", done.stderr

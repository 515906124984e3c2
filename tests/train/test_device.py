"""Which GPU a rank takes, and when it refuses. There is none where the tests run."""

import pytest

from pipelines.config.platform import Layout
from pipelines.errors import ResourceError
from pipelines.train.device import gpu_index, training_device


def test_each_rank_of_a_host_takes_a_gpu_of_its_own():
    assert [gpu_index(rank, 4) for rank in range(4)] == [0, 1, 2, 3]


def test_more_ranks_on_a_host_than_gpus_are_refused_with_the_remedy():
    with pytest.raises(ResourceError, match=r"layout.device: cuda: rank 2 of this host .* finds 2 GPUs here; .*gpu.amount: 1"):
        gpu_index(2, 2)
    with pytest.raises(ResourceError, match="no usable GPU; set layout.device: cpu"):
        gpu_index(0, 0)


def test_a_rank_on_the_cpu_asks_for_no_gpu():
    assert training_device(Layout(device="cpu")).type == "cpu"

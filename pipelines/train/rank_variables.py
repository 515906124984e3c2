"""What a rank is told in its environment beside ``HOROVOD_*``, which name its place in its segment's ring.

Runs on: executors (``launch`` sets them) and ranks.
Takes:   nothing.
Gives:   the variables' names. A rank started by hand has none of them and trains alone.
"""

PARENT = "SPARKRING_PARENT_PID"
SEGMENT_INDEX = "SPARKRING_SEGMENT_INDEX"
GPU_INDEX = "SPARKRING_GPU_INDEX"  # among the GPUs that the rank sees

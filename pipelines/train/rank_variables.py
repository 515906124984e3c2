"""What a rank is told in its environment beside ``HOROVOD_*``, which name its place in its segment's ring.

Runs on: executors (``launch`` sets them) and ranks.
Takes:   nothing.
Gives:   the variables' names. A rank started by hand has none of them and trains alone.
"""

PARENT = "SPARKRING_PARENT_PID"
SEGMENT_INDEX = "SPARKRING_SEGMENT_INDEX"
LOCAL_RANK = "SPARKRING_LOCAL_RANK"  # among all ranks of the host: which of its GPUs is this rank's

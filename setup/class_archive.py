"""Makes the archive of Spark's classes from which its Java process starts quickly (``pipelines/spark/jvm.py``).

Takes: the environment's Python, which runs this, and its Spark.
Gives: ``share/sparkring/spark-classes.jsa`` in the environment (140 MB), whole or not at all. Where Java cannot make one
       the environment works without; the exit code is then 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from pipelines.spark.jvm import CLASS_ARCHIVE, OPTIONS_VARIABLE

WRITE_TIMEOUT_S = 300.0


def load_classes(log: Path, new: Path) -> None:
    """Runs in Spark what prepare and train do; Java writes the archive when it ends."""
    os.environ[OPTIONS_VARIABLE] = f'-XX:TieredStopAtLevel=1 "-XX:ArchiveClassesAtExit={new}"'
    with open(log, "ab") as output:
        conf = SparkConf(loadDefaults=False).setAppName("classes").setMaster("local[2]").setAll([
            ("spark.ui.enabled", "false"), ("spark.ui.showConsoleProgress", "false"),
            ("spark.driver.host", "127.0.0.1"), ("spark.driver.bindAddress", "127.0.0.1")])
        gateway = launch_gateway(conf, {"stdout": output, "stderr": subprocess.STDOUT})
        spark = SparkSession(SparkContext(conf=conf, gateway=gateway))
        rows = spark.range(0, 8, 1, 8).mapInArrow(lambda batches: batches, "id BIGINT")
        rows.repartition(8, "id").sortWithinPartitions("id").mapInArrow(lambda batches: batches, "id BIGINT").collect()
        spark.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(lambda part: part).collect()
        spark.stop()
        gateway.shutdown()
        gateway.proc.stdin.close()  # the process ends when its input does
        gateway.proc.wait(WRITE_TIMEOUT_S)


def main() -> int:
    CLASS_ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CLASS_ARCHIVE.parent) as folder:
        new = Path(folder) / "new.jsa"
        load_classes(Path(folder) / "log", new)
        if not new.exists():
            print((Path(folder) / "log").read_text(errors="replace"))
            return 1
        with open(new, "rb") as written:
            os.fsync(written.fileno())  # Java does not survive an archive that is cut short
        os.replace(new, CLASS_ARCHIVE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

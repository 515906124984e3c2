"""sparkring: data in a lake to a trained model and metrics tables, with Spark and Horovod."""

__version__ = "0.1.0"

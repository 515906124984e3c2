"""Border 2 to tables to report: what the ranks recorded, made queryable and readable."""

from pipelines.track.live import LiveLoader
from pipelines.track.report.page import write_report
from pipelines.track.summary import find_run, summarize
from pipelines.track.tables import load_run
from pipelines.track.views import register_tables

__all__ = ["LiveLoader", "find_run", "load_run", "register_tables", "summarize", "write_report"]

"""The report: results as one page to read."""

from retina_codec.report.numbers import summarize
from retina_codec.report.writing import write_report

__all__ = ["summarize", "write_report"]

"""The report: results as one page to read."""

from retina_codec.report.numbers import summarize
from retina_codec.report.nwb_results import export_results, import_results
from retina_codec.report.writing import write_report

__all__ = ["export_results", "import_results", "summarize", "write_report"]

"""Run records, and what is made of them: tables, plots and one self-contained page. Computes no model."""

from corank.reports.html import write_report
from corank.reports.record import read_record, write_record
from corank.reports.study import write_study
from corank.reports.table import comparison_table, layer_table, markdown_table

__all__ = [
    "comparison_table",
    "layer_table",
    "markdown_table",
    "read_record",
    "write_record",
    "write_report",
    "write_study",
]

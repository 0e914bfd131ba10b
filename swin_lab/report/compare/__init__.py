"""Compares runs: a table in the terminal, a CSV file, or one HTML page that needs no network."""

from swin_lab.report.compare.page import write_page
from swin_lab.report.compare.runs import Run, read_runs
from swin_lab.report.compare.table import print_runs, write_csv

__all__ = ["Run", "print_runs", "read_runs", "write_csv", "write_page"]

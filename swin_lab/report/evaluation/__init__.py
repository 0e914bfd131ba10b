"""An evaluation as one HTML page that needs no network."""

from swin_lab.report.evaluation.page import Curve, Matrix, Sheet, Table, write_page

__all__ = ["Curve", "Matrix", "Sheet", "Table", "write_page"]

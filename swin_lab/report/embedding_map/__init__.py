"""A two-dimensional map of images as one HTML page, with images on hover."""

from swin_lab.report.embedding_map.page import Point, write_map

__all__ = ["Point", "write_map"]

"""Reads configuration files of the official code as overrides of train.py."""

from swin_lab.run.official.read import OfficialConfig, read_official

__all__ = ["OfficialConfig", "read_official"]

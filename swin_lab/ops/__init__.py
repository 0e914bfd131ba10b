"""The window-attention operator and the geometry of windows."""

from swin_lab.ops.window_attention import window_attention

__all__ = ["window_attention"]

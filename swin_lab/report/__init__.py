"""The output of a finished run: tables and figures."""

from swin_lab.report.architecture import ArchitectureDrawing, StageDrawing, draw_architecture
from swin_lab.report.attention import BiasMaps, HeatMap, draw_attention, draw_position_bias
from swin_lab.report.blocks import BlockDrawing
from swin_lab.report.heatmap import draw_heatmap
from swin_lab.report.images import draw_images
from swin_lab.report.rates import draw_learning_rates
from swin_lab.report.summary import SweepJob, print_command, print_evaluation, print_sweep, print_training, shorter
from swin_lab.report.tables import print_lines, print_rows, print_table

__all__ = [
    "ArchitectureDrawing",
    "BiasMaps",
    "BlockDrawing",
    "HeatMap",
    "StageDrawing",
    "SweepJob",
    "draw_architecture",
    "draw_attention",
    "draw_heatmap",
    "draw_images",
    "draw_learning_rates",
    "draw_position_bias",
    "print_command",
    "print_evaluation",
    "print_lines",
    "print_rows",
    "print_sweep",
    "print_table",
    "print_training",
    "shorter",
]

"""What a finished run looks like: tables and images."""

from swin_lab.report.evaluation import ClassResults
from swin_lab.report.rates import draw_rates
from swin_lab.report.summary import print_evaluation, print_sweep, print_training, shorter

__all__ = ["ClassResults", "draw_rates", "print_evaluation", "print_sweep", "print_training", "shorter"]

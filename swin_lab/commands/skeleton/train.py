"""Trains a model: `python train.py [group=choice] [key=value] ...`; `--help` lists the choices, `-m` sweeps over values."""

import sys
from pathlib import Path

from swin_lab.run.entry import main

if __name__ == "__main__":
    sys.exit(main("train", config_dir=Path(__file__).parent / "conf"))

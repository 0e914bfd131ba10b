"""Evaluates a checkpoint: `python eval.py checkpoint=FILE-OR-RUN-DIR [data=...]`; `--help` lists the choices."""

import sys
from pathlib import Path

from swin_lab.run.entry import main

if __name__ == "__main__":
    sys.exit(main("eval", config_dir=Path(__file__).parent / "conf"))

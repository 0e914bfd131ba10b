"""`python -m swin_lab ...` is the command `swin-lab`."""

import sys

from swin_lab.commands.app import main

if __name__ == "__main__":
    sys.exit(main())

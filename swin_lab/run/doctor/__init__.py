"""`swin-lab doctor`: checks of the machine and the installation before a run."""

"""The command line `swin-lab`: one typed function per command, one file per topic."""

"""How files of this project describe themselves."""

CARD = "swin_lab"
"""Key of a checkpoint, or of a weight file's metadata, under which it says what it holds: model, class_names, preprocessing."""

NETWORK = "network."
"""In front of the network's tensors in a checkpoint of a run."""

EMA = "ema"
"""Key under which a checkpoint of a run holds the moving average of the weights, named like the weights themselves."""

"""`swin-lab models`."""

from typing import Annotated

import typer

from swin_lab.commands.arguments import complete_model
from swin_lab.errors import UserError


def models(
    pattern: Annotated[
        str, typer.Argument(help="A shell wildcard, such as 'swinv2*'.", autocompletion=complete_model, show_default=False)
    ] = "*",
) -> None:
    """List the variants with parameters, cost and published accuracy.

    Example: [bold]swin-lab models 'swinv2*'[/bold]
    """
    import torch

    from swin_lab.models import count_macs, create_model, list_models
    from swin_lab.models.published import TOP1, Published
    from swin_lab.report import print_table

    names = list_models(pattern)
    if not names:
        raise UserError(f"no model is named {pattern}; 'swin-lab models' lists all")
    rows = []
    for name in names:
        with torch.device("meta"):
            model = create_model(name)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        top1 = TOP1.get(name, Published())
        accuracies = (f"{value:.1f}" if value is not None else "" for value in (top1.from_1k, top1.from_22k))
        pixels = str(model.img_size[0])
        rows.append([name, f"{parameters / 1e6:.2f} M", f"{count_macs(model.config) / 1e9:.2f}", pixels, *accuracies])
    print_table(["model", "params", "GMACs", "pixels", "1k", "22k-1k"], rows, framed=False)
    print(
        "\nGMACs: multiply-accumulates of one image by the papers' formula. 1k, 22k-1k: published top-1 on ImageNet-1k\n"
        "in percent, of weights trained on ImageNet-1k alone and of weights pre-trained on ImageNet-22k."
    )

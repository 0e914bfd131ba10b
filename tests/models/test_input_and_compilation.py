"""Images that are no input of a network are refused, and a compiled network reads images of any size."""

import pytest
import torch

from swin_lab import Backbone, SwinConfig, SwinTransformer
from swin_lab.errors import UserError

TINY = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 5}
USES = {
    "forward": lambda model: model,
    "embedding": lambda model: model.embedding,
    "features": lambda model: model.features,
    "Backbone": Backbone,
}
both_versions = pytest.mark.parametrize("version", [1, 2])


def tiny(**changes):
    torch.manual_seed(0)
    return SwinTransformer(SwinConfig(**TINY | changes)).eval()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (torch.rand(3, 32, 32), r"have the shape \(3, 32, 32\); .*image\[None\]"),
        (torch.rand(32, 32), r"have the shape \(32, 32\)"),
        (torch.rand(1, 1, 32, 32), r"have the shape \(1, 1, 32, 32\)"),
        (torch.rand(1, 32, 32, 3), r"have the shape \(1, 32, 32, 3\)"),
        (torch.rand(1, 3, 0, 32), r"have the shape \(1, 3, 0, 32\)"),
        (torch.rand(1, 3, 32, 0), r"have the shape \(1, 3, 32, 0\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "are of dtype uint8"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "are of dtype int64"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "are of dtype float64"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float16), "are of dtype float16"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16), "are of dtype bfloat16"),
        (torch.zeros(1, 3, 32, 32).numpy(), "are a ndarray"),
        ([torch.rand(3, 32, 32)], "are a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_batch_of_images_is_refused_with_the_expected_shape_and_dtype(use, image, complaint):
    with pytest.raises(UserError, match=rf"images {complaint}") as refusal:
        USES[use](tiny())(image)
    assert "(batch, 3, height, width) of float32" in str(refusal.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_reads_images_of_that_precision(dtype):
    assert tiny().to(dtype)(torch.rand(1, 3, 32, 32, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_mixed_precision_reads_images_of_other_precisions(dtype):
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny()(torch.rand(1, 3, 32, 32).to(dtype)).shape == (1, 5)


def test_a_network_of_half_precision_names_its_own():
    with pytest.raises(UserError, match=r"float32; they must be .* of bfloat16"):
        tiny().bfloat16()(torch.rand(1, 3, 32, 32))


def test_an_empty_batch_gives_no_logits():
    assert tiny()(torch.rand(0, 3, 32, 32)).shape == (0, 5)


def sizes_compiled(compiled_by, model):
    """Returns a function that runs a compiled model and returns the image sizes for which it was compiled in that run."""
    graphs = []

    def backend(graph, _):
        inputs = {node.name: node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"}
        graphs.append(next(tuple(map(str, x.shape[2:])) for name, x in inputs.items() if "image" in name))
        return graph.forward

    if compiled_by == "function":
        compiled = torch.compile(model, backend=backend)
    else:
        model.compile(backend=backend)
        compiled = model

    def run(*shape):
        graphs.clear()
        image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(compiled(image), model.forward(image))
        return list(graphs)

    return run


@pytest.mark.parametrize("compiled_by", ["function", "method"])
@both_versions
def test_another_image_size_is_compiled_once_and_without_symbolic_sizes(compiled_by, version):
    """With symbolic sizes, the second size would take minutes to compile, and not as long as the first one."""
    torch._dynamo.reset()
    run = sizes_compiled(compiled_by, tiny(version=version))
    for size in ((32, 32), (48, 48), (64, 40)):
        assert run(2, 3, *size) == [tuple(map(str, size))]
    assert run(2, 3, 48, 48) == []


def test_a_compiled_network_refuses_wrong_images_too():
    torch._dynamo.reset()
    compiled = torch.compile(tiny(), backend="eager")
    with pytest.raises(UserError, match=r"have the shape \(3, 32, 32\)"):
        compiled(torch.rand(3, 32, 32))

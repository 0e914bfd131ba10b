"""Indices and masks that are kept between forward passes: how many bytes they take, and that compiled graphs contain them."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_lab import create_model
from swin_lab.ops import constants, geometry, window_attention
from swin_lab.ops.constants import Constants

CPU = torch.device("cpu")
META = torch.device("meta")
"""Stands in for a GPU: a device that is not the CPU."""
NAME = "swin_micro_patch4_window4_32"
SHAPE = {"depths": [2], "num_heads": [2], "embed_dim": 12, "num_classes": 3}


@pytest.fixture
def limited(monkeypatch):
    """Replaces the constants of the process by an empty store of 100 kB."""
    store = Constants(100_000)
    monkeypatch.setattr(constants, "CONSTANTS", store)
    return store


def test_forward_passes_of_many_sizes_keep_no_more_bytes_than_the_limit(limited):
    model, seen = create_model(NAME, **SHAPE).eval(), []
    for size in range(32, 192, 4):
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size))
        kept = [tensor.untyped_storage().nbytes() for tensor in limited._kept.values()]
        assert sum(kept) == limited.used_bytes
        seen.append(limited.used_bytes)
    assert 50_000 < max(seen) <= 100_000


def test_outputs_do_not_depend_on_what_is_kept(monkeypatch):
    qkv, table = torch.randn(1, 10, 15, 12), torch.randn(49, 2)
    geometry = {"num_heads": 2, "window": (4, 4), "shift": (2, 2), "backend": "sdpa"}
    expected = window_attention(qkv, table, **geometry)
    monkeypatch.setattr(constants, "CONSTANTS", Constants(0))
    assert torch.equal(window_attention(qkv, table, **geometry), expected)
    assert constants.CONSTANTS.used_bytes == 0


def test_the_constants_that_were_used_last_are_kept():
    store = Constants(100)
    for key, count in (("a", 10), ("b", 10)):
        store.keep(key, torch.zeros(count))
    store.find("a")
    store.keep("c", torch.zeros(10))
    assert [store.find(key) is not None for key in "abc"] == [True, False, True]
    store.keep("larger than all", torch.zeros(26))
    assert [store.find(key) is not None for key in "abc"] == [True, False, True]
    assert store.used_bytes == 80


def test_a_training_step_of_a_large_model_needs_less_than_the_limit(limited):
    """Of Swin-L on 800x1333 pixels; its maps are computed here without its channels."""
    limited.max_bytes = 2**40
    size, heads = [200, 334], 6
    for _ in range(4):
        padded = tuple(-(-side // 7) * 7 for side in size)
        for shift in ((0, 0), (3, 3)):
            geometry.rows_of_windows(padded, (7, 7), shift, heads, 64, CPU)
            geometry.windows_of_rows(padded, (7, 7), shift, heads, 64, CPU)
            geometry.outputs_of_map(padded, (7, 7), shift, heads, CPU)
            geometry.rows_of_outputs(padded, (7, 7), shift, heads, CPU)
            geometry.window_kinds(padded, (7, 7), shift, CPU)
        size, heads = [-(-side // 2) for side in size], heads * 2
    assert 2 * 10**7 < limited.used_bytes < constants.MAX_BYTES


def nodes_of_compiled(model, images):
    """Returns the nodes of the graph that the compiler traces, and of the graphs inside it."""
    nodes = []

    def inspect(graph, inputs):
        nodes.extend(node for part in graph.modules() if isinstance(part, torch.fx.GraphModule) for node in part.graph.nodes)
        return graph.forward

    torch._dynamo.reset()
    torch.compile(model, backend=inspect, fullgraph=True)(images)
    return nodes


def values(nodes):
    """Returns the tensors that nodes give."""
    found = [node.meta.get("val", node.meta.get("example_value")) for node in nodes]
    return [
        x for value in found for x in (value if isinstance(value, tuple | list) else [value]) if isinstance(x, torch.Tensor)
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_compiled_graph_contains_no_arithmetic_of_indices_and_no_tensor_on_the_cpu():
    model = create_model(NAME, **SHAPE).to(META)
    nodes = nodes_of_compiled(model, torch.zeros(2, 3, 40, 40, device=META))
    assert {x.device for x in values(nodes)} == {META}
    targets = {getattr(node.target, "__name__", str(node.target)) for node in nodes}
    assert "index_select" in targets
    assert not targets & {"arange", "roll", "meshgrid", "stack", "ne"}


def test_an_exported_program_has_no_tensor_on_the_cpu():
    model = create_model(NAME, version=2, **SHAPE).eval().to(META)
    program = torch.export.export(model, (torch.zeros(2, 3, 40, 40, device=META),))
    assert {x.device for x in values(program.graph.nodes)} == {META}


@pytest.mark.parametrize("backend", ["reference", "sdpa", "products"])
def test_fake_tensors_of_a_gpu_meet_no_tensor_of_the_cpu(backend):
    with FakeTensorMode():
        qkv, table = torch.randn(2, 10, 10, 12, device="cuda"), torch.randn(49, 2, device="cuda", requires_grad=True)
        out = window_attention(qkv, table, num_heads=2, window=(4, 4), shift=(2, 2), backend=backend)
    assert out.device.type == "cuda"


def test_the_compiled_operator_reads_maps_of_several_sizes():
    """Sizes are constants of a graph, also where the compiler is told to take them for symbolic. Within 1e-6."""
    table = torch.randn(49, 2)

    def attend(qkv):
        return window_attention(qkv, table, num_heads=2, window=(4, 4), shift=(2, 2))

    torch._dynamo.reset()
    compiled = torch.compile(attend, backend="eager", fullgraph=True, dynamic=True)
    for size in ((8, 8), (7, 9)):
        qkv = torch.randn(1, *size, 12)
        torch.testing.assert_close(compiled(qkv), attend(qkv), atol=1e-6, rtol=1e-5)

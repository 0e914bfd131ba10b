"""The gather between a map and its windows, the masks per kind of window, and the products that work on them."""

import pytest
import torch
import torch.nn.functional as F
from test_backends_match_reference import cosine_inputs, cosine_operator, with_all_gradients

from swin_lab import create_model
from swin_lab.ops import geometry, window_attention

CPU = torch.device("cpu")
MAPS = {
    "plain": ((8, 12), (4, 4), (0, 0)),
    "shifted": ((8, 12), (4, 4), (2, 2)),
    "along one axis": ((6, 8), (3, 4), (0, 2)),
    "non-square": ((6, 12), (3, 4), (1, 2)),
}
every_map = pytest.mark.parametrize(("size", "window", "shift"), MAPS.values(), ids=MAPS.keys())


@every_map
def test_gathering_a_map_and_gathering_back_restores_it(size, window, shift):
    rows = torch.randn(2, size[0] * size[1] * 3 * 2, 5)
    parts = [rows[:, index] for index in geometry.rows_of_windows(size, window, shift, 2, 20, CPU)]
    inverse = geometry.windows_of_rows(size, window, shift, 2, 20, CPU)
    assert torch.equal(torch.cat(parts, dim=1)[:, inverse], rows)


@every_map
def test_the_index_of_outputs_and_its_inverse_undo_each_other(size, window, shift):
    forth = geometry.outputs_of_map(size, window, shift, 3, CPU)
    back = geometry.rows_of_outputs(size, window, shift, 3, CPU)
    assert torch.equal(forth[back], torch.arange(len(forth)))


@every_map
def test_each_window_has_the_mask_of_its_kind(size, window, shift):
    """The masks of `shift_mask`, window by window, are those of the kinds, up to the order of the windows."""
    T = window[0] * window[1]
    labels = geometry.region_labels(size, window, shift, CPU).flatten()
    tokens = geometry.rows_of_outputs(size, window, shift, 1, CPU).reshape(-1, T)
    rolled = torch.arange(size[0] * size[1]).reshape(size).roll((-shift[0], -shift[1]), (0, 1)).flatten().argsort()
    regions = labels[rolled[tokens]]
    masks = [kind.mask for kind in geometry.window_kinds(size, window, shift, CPU) for _ in range(kind.count)]
    assert len(masks) == len(tokens)
    assert len({id(mask) for mask in masks}) <= 4
    for regions_T, mask_TT in zip(regions, masks, strict=True):
        expected = torch.where(regions_T[:, None] == regions_T, 0.0, geometry.MASKED)
        assert torch.equal(torch.zeros(T, T) if mask_TT is None else mask_TT, expected)


@pytest.mark.parametrize("backend", ["products", "sdpa"])
def test_masked_tokens_count_as_in_the_reference_even_if_their_logits_are_large(backend):
    """The mask is -100, not minus infinity: with cosines times 100, masked tokens can have an effect. Within 1e-4."""
    qkv, table, pad, _ = cosine_inputs((8, 8), (4, 4), torch.float32)
    tensors = [qkv, table, pad, torch.full((2, 1, 1), 100.0, requires_grad=True)]
    expected = with_all_gradients(cosine_operator((4, 4), (2, 2), "reference"), tensors)
    actual = with_all_gradients(cosine_operator((4, 4), (2, 2), backend), tensors)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-3)


def test_no_gradient_of_masked_tokens_is_subnormal():
    """Subnormal numbers make products ten times slower on a CPU."""
    seen = []
    qkv = torch.randn(1, 8, 8, 12, requires_grad=True)
    table = torch.zeros(49, 2)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x) or x, lambda x: x):
        window_attention(qkv, table, num_heads=2, window=(4, 4), shift=(2, 2), backend="products")
    tiny = torch.finfo(torch.float32).tiny
    floats = [x.detach().abs() for x in seen if x.is_floating_point()]
    assert any(x.shape == (8, 16, 16) for x in floats), "the weights are saved"
    assert not any(((x > 0) & (x < tiny)).any() for x in floats)


def test_added_keys_have_no_weight_even_if_logits_are_large():
    """In bfloat16, 75 below -302 is -376, which is 74 below it: too much for the threshold of negligible weights."""
    seen, table = [], torch.full((121, 1), -500.0)
    table[60] = -302.0  # the offset of a token to itself
    qkv = torch.zeros(1, 12, 12, 48, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x) or x, lambda x: x):
        window_attention(qkv, table, num_heads=1, window=(6, 6), shift=(3, 3), backend="products")
    (weights,) = (x for x in seen if x.shape == (4, 36, 64))
    assert weights[..., 36:].count_nonzero() == 0


@pytest.mark.parametrize("length", [0.0, 1e-14, 1.0], ids=["zero", "too short", "usual"])
def test_the_gradient_of_unit_vectors_is_that_of_normalize(length):
    """In double precision, within 1e-9 relative to the largest gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 4, 12, generator=generator, dtype=torch.float64)
    x[..., 4:8] *= length  # keys
    gradients = []
    for backend in ("reference", "sdpa"):
        qkv = x.clone().requires_grad_()
        scale = torch.full((2, 1, 1), 5.0, dtype=torch.float64)
        table = torch.zeros(49, 2, dtype=torch.float64)
        out = window_attention(qkv, table, num_heads=2, window=(4, 4), cosine_scale=scale, backend=backend)
        gradients.append(torch.autograd.grad(out.square().sum(), qkv)[0])
    tolerance = 1e-6 * float(gradients[0].abs().max())  # the softmax of the reference is in single precision
    torch.testing.assert_close(gradients[1], gradients[0], atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize(("backend", "version"), [("reference", 1), ("sdpa", 2), ("products", 1), ("products", 2)])
def test_the_model_is_one_graph_for_the_compiler(backend, version):
    """Forward and backward, within 1e-5 of the uncompiled model."""
    torch.manual_seed(0)
    name, shape = "swin_micro_patch4_window4_32", {"depths": [2], "num_heads": [2]}
    model = create_model(name, num_classes=5, version=version, attention_backend=backend, **shape)
    model.eval()
    images = torch.randn(2, 3, 32, 32)
    labels = torch.tensor([1, 2])
    results = []
    for network in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        logits = network(images)
        F.cross_entropy(logits, labels).backward()
        results.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)

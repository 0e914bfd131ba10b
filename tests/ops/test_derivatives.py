"""Gradients of gradients and transforms of torch.func through models, compared with the reference in values."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, vmap

from swin_lab import create_model
from swin_lab.errors import UserError
from swin_lab.ops import window_attention

GATHERED = ["products", "sdpa"]
"""Backends with autograd functions of their own."""
TOLERANCE = 1e-4
"""Relative to the largest value: first-order gradients in fp32 differ by 1e-6, and a second derivative loses a digit or two."""
both_versions = pytest.mark.parametrize("version", [1, 2], ids=["V1", "V2"])


def network(version, backend):
    """Returns a network with shifted windows, whose weights all matter: the norms of V2 start at 0."""
    shape = {"depths": [2, 2], "num_heads": [2, 2], "embed_dim": 12, "num_classes": 3}
    model = create_model("swin_micro_patch4_window4_32", version=version, attention_backend=backend, **shape).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = 0.3 * torch.randn(parameter.shape, generator=generator)
        parameter.data = noise + 1 if parameter.ndim == 1 else noise
    return model


@pytest.fixture(params=[32, 40], ids=["whole windows", "padded"])
def batch(request):
    images = torch.randn(2, 3, request.param, request.param, generator=torch.Generator().manual_seed(1))
    return images, torch.tensor([0, 2])


def assert_close(actual, expected):
    for found, exact in zip(actual, expected, strict=True):
        assert exact.isfinite().all()
        scale = exact.abs().max().item()
        torch.testing.assert_close(found, exact, atol=TOLERANCE * scale, rtol=TOLERANCE)


def gradients_of_penalty(model, images, labels):
    """Returns the gradients of a gradient penalty with respect to all weights."""
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), labels), images, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    weights = [parameter for name, parameter in model.named_parameters() if name != "head.bias"]
    return [penalty.detach(), *torch.autograd.grad(penalty, weights)]


def gradients_per_image(model, images, labels):
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(weights, image, label):
        return F.cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    return list(vmap(grad(loss), (None, 0, 0))(weights, images, labels).values())


def jacobian(model, images, labels):
    return [jacrev(model)(images[:1])]


def batch_of_gradients(model, images, labels):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(model(images).sum(0), images, torch.eye(3), is_grads_batched=True)


def mapped_gradients(model, images, labels):
    """Returns one gradient per class, by vmap over a backward pass whose forward pass was an ordinary one."""
    images = images.clone().requires_grad_()
    logits = model(images).sum(0)
    return [vmap(lambda one: torch.autograd.grad(logits, images, one, retain_graph=True)[0])(torch.eye(3))]


def directional_derivative(model, images, labels):
    with forward_ad.dual_level():
        return [forward_ad.unpack_dual(model(forward_ad.make_dual(images, images.flip(0)))).tangent]


@both_versions
@pytest.mark.parametrize("backend", ["auto", *GATHERED])
def test_a_gradient_penalty_has_the_gradients_of_the_reference(backend, version, batch):
    expected = gradients_of_penalty(network(version, "reference"), *batch)
    assert_close(gradients_of_penalty(network(version, backend), *batch), expected)


@both_versions
@pytest.mark.parametrize("derivatives", [gradients_per_image, jacobian, directional_derivative])
def test_by_default_torch_func_and_forward_mode_give_what_the_reference_gives(derivatives, version, batch):
    assert_close(derivatives(network(version, "auto"), *batch), derivatives(network(version, "reference"), *batch))


@both_versions
def test_gradients_per_image_are_those_of_one_image_after_the_other(version, batch):
    model, expected = network(version, "auto"), []
    for image, label in zip(*batch, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        expected.append(torch.autograd.grad(loss, list(model.parameters())))
    assert_close(gradients_per_image(model, *batch), [torch.stack(pair) for pair in zip(*expected, strict=True)])


@both_versions
@pytest.mark.parametrize("backend", ["auto", *GATHERED])
@pytest.mark.parametrize("derivatives", [batch_of_gradients, mapped_gradients])
def test_a_batch_of_gradients_is_computed_at_once(derivatives, backend, version, batch):
    model = network(version, backend)
    assert_close(derivatives(model, *batch), derivatives(network(version, "reference"), *batch))


def test_a_hessian_is_that_of_two_backward_passes():
    """Of the operator, with respect to the scale of V2; forward over reverse mode, within 1e-5."""
    generator = torch.Generator().manual_seed(0)
    qkv, table = (torch.randn(shape, generator=generator) for shape in ((1, 8, 8, 12), (49, 2)))

    def loss(scale):
        geometry = {"num_heads": 2, "window": (4, 4), "shift": (2, 2)}
        return window_attention(qkv, table, cosine_scale=scale.reshape(2, 1, 1), **geometry).square().sum()

    scale = torch.tensor([3.0, 5.0], requires_grad=True)
    (first,) = torch.autograd.grad(loss(scale), scale, create_graph=True)
    expected = torch.stack([torch.autograd.grad(one, scale, retain_graph=True)[0] for one in first])
    torch.testing.assert_close(hessian(loss)(scale.detach()), expected, atol=1e-5, rtol=1e-4)


def test_a_constant_made_inside_a_transform_does_not_outlive_it():
    """A tensor made there belongs to the transform; afterwards, the same window on a map of a new size must train as usual."""
    qkv, table = torch.randn(1, 10, 15, 12), torch.randn(81, 2, requires_grad=True)
    attend = {"num_heads": 2, "window": (5, 5), "shift": (2, 2), "backend": "reference"}
    jacrev(lambda x: window_attention(x, table, **attend).sum())(qkv)
    out = window_attention(qkv, table, **attend)
    out.sum().backward()
    assert table.grad.isfinite().all()


@pytest.mark.parametrize("backend", [*GATHERED, "triton"])
@pytest.mark.parametrize("derivatives", [gradients_per_image, jacobian, directional_derivative])
def test_a_backend_without_a_rule_for_a_transform_says_which_one_has_it(derivatives, backend, batch):
    model = network(1, "reference")
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = backend
    with pytest.raises(UserError, match="attention_backend=reference"):
        derivatives(model, *batch)


def test_differentiating_a_fused_kernel_twice_says_what_to_do():
    """Without a gradient of the bias, a CPU takes torch's fused kernel, whose gradients torch cannot differentiate."""
    qkv = torch.randn(1, 8, 8, 12, requires_grad=True)
    out = window_attention(qkv, torch.zeros(49, 2), num_heads=2, window=(4, 4), shift=(2, 2), backend="sdpa")
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv, create_graph=True)
    with pytest.raises(UserError, match="attention_backend=reference"):
        gradient.square().sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("version", "grad_mode"), [(1, True), (2, False)])
def test_a_traced_model_can_be_saved_and_gives_the_same_logits(version, grad_mode, tmp_path):
    """At another batch size than the traced one, with gradients, within 1e-5."""
    shape = {"depths": [2], "num_heads": [2], "embed_dim": 12, "num_classes": 3}
    model = create_model("swin_micro_patch4_window4_32", version=version, **shape).eval()
    with torch.set_grad_enabled(grad_mode):
        torch.jit.save(torch.jit.trace(model, (torch.randn(2, 3, 40, 40),)), tmp_path / "traced.pt")
    loaded = torch.jit.load(tmp_path / "traced.pt")
    images = torch.randn(3, 3, 40, 40, requires_grad=True)
    (expected,) = torch.autograd.grad(model(images).square().sum(), images)
    (actual,) = torch.autograd.grad(loaded(images).square().sum(), images)
    torch.testing.assert_close(loaded(images), model(images), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(actual, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)

"""`compile=true` and `compile=blocks`: what is compiled, how often, and that training and evaluation compute the same."""

from pathlib import Path

import lightning
import pytest
import torch
from conftest import TINY as TINY_RUN
from conftest import Command, only_run, recorded
from engines import adamw, classification_engine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.errors import UserError
from swin_lab.run.compilation import MAX_GRAPHS, compiler, repeated_blocks
from swin_lab.training import Constant, EmaConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

TINY = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 5}
CHOICES = pytest.mark.parametrize("choice", [True, "blocks"])


@pytest.fixture(autouse=True)
def _new_compiler():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=MAX_GRAPHS):
        yield
    torch._dynamo.reset()


def tiny(**changes):
    torch.manual_seed(0)
    return SwinTransformer(SwinConfig(**TINY | changes))


def parts(network, choice):
    return [network] if choice is True else repeated_blocks(network)


def compiled_by(choice, backend):
    """Returns a function that compiles like a run, with a backend that needs no C++ compiler, and refuses graph breaks."""

    def compile_network(network):
        for part in parts(network, choice):
            part.compile(backend=backend, fullgraph=True)

    return compile_network


class Counting:
    """Compiles nothing, and counts the graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, _):
        self.graphs += 1
        return graph.forward


def trained(compile_network, **changes):
    """Trains for four updates of two accumulated batches, with an EMA, and evaluates both networks at two batch sizes."""
    schedule, ema = Constant(warmup_epochs=0, warmup_lr_ratio=1.0), EmaConfig(decay=0.5)
    options = {"optimizer": adamw(lr=1e-2), "schedule": schedule, "ema": ema, "compile_network": compile_network}
    module = classification_engine(tiny(**changes), 5, **options)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.arange(16) % 5)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    run = lightning.Trainer(
        max_epochs=1, accelerator="cpu", accumulate_grad_batches=2, gradient_clip_val=1.0, num_sanity_val_steps=0, **quiet
    )
    run.fit(module, DataLoader(data, batch_size=2), DataLoader(data, batch_size=6))
    return module


@pytest.mark.parametrize(("choice", "backend"), [(True, "aot_eager"), ("blocks", "eager")])
def test_a_compiled_run_with_accumulation_clipping_and_ema_computes_what_a_plain_one_does(choice, backend):
    """Eager kernels under the compiler's decompositions: weights of order one differ by 2e-4 at most after four updates."""
    plain = trained(None, drop_path_rate=0.0)
    compiled = trained(compiled_by(choice, backend), drop_path_rate=0.0)
    assert all(part._compiled_call_impl is not None for part in parts(compiled.ema.network, choice))
    for networks in ("network", "ema"):
        expected, found = (getattr(module, networks).state_dict() for module in (plain, compiled))
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=2e-4, rtol=0)
    assert compiled.result.metrics == pytest.approx(plain.result.metrics, abs=1e-3)


@pytest.mark.parametrize(("precision", "checkpointing"), [("fp32", False), ("bf16", True)])
def test_blocks_of_one_kind_share_a_graph_whatever_their_drop_path_rate(precision, checkpointing):
    """The kinds: regular and shifted windows in both stages; the first block of all, which drops nothing, is one more."""
    counting = Counting()
    model = tiny(drop_path_rate=0.5, depths=(2, 6), img_size=64, activation_checkpointing=checkpointing).train()
    compiled_by("blocks", counting)(model)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            model(torch.rand(4, 3, 64, 64)).sum().backward()
    assert counting.graphs <= 5


def test_a_compiled_drop_path_drops_at_the_rate_and_scales_up_what_it_keeps():
    """Of 4,000 images, the share of dropped ones differs from the rate by at most 5 standard deviations."""
    from swin_lab.models.drop_path import DropPath

    drop = DropPath(0.3, "mask").train()
    compiled = torch.compile(lambda x: drop(x, torch.ones_like), backend="eager", fullgraph=True)
    added = compiled(torch.zeros(4000, 1, 1, 1)).flatten()
    assert added.unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-6)
    assert (added == 0).float().mean().item() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 4000) ** 0.5)


def test_without_compilation_there_is_nothing_to_do():
    assert compiler(False, "default") is None


def test_a_mode_without_compilation_is_refused():
    with pytest.raises(UserError, match="compile_mode=max-autotune has no effect without compilation; add compile=true"):
        compiler(False, "max-autotune")


def test_cuda_graphs_are_refused_on_a_device_without_them_and_other_modes_are_not():
    for device in ("cpu", "mps"):
        with pytest.raises(UserError, match=f"compile_mode=reduce-overhead has no effect on the device {device}"):
            compiler(True, "reduce-overhead", device)
    assert compiler("blocks", "reduce-overhead", "cuda") is not None
    assert compiler(True, "max-autotune", "cpu") is not None


def test_a_network_without_swin_blocks_has_no_blocks_to_compile():
    compile_network = compiler("blocks", "default")
    assert compile_network is not None
    with pytest.raises(UserError, match="compile=blocks is for a SwinTransformer; for a Linear, set compile=true"):
        compile_network(nn.Linear(2, 2))


@CHOICES
def test_a_machine_without_a_compiler_is_named_before_anything_is_compiled(choice, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=f"compile={str(choice).lower()} needs a C"):
        compiler(choice, "default")


@pytest.mark.slow
def test_a_compiled_run_records_it_and_its_checkpoint_evaluates_without_compilation(command: Command, tmp_path: Path) -> None:
    """Compiled kernels and those of torch differ by rounding: the loss by 1e-4 at most."""
    small = ["model.depths=[1]", "model.num_heads=[1]", "data.val_images=32"]  # one batch size, few kernels
    assert command("train", *TINY_RUN, *small, "compile=true").code == 0
    run = only_run(tmp_path)
    result = recorded(run)
    assert result["config.compile"] is True
    assert "compile: true" in (run / "config.yaml").read_text()
    assert command("eval", f"checkpoint={run}", f"out={tmp_path / 'evaluation'}").code == 0
    found = recorded(tmp_path / "evaluation")
    assert found["config.compile"] is False
    assert found["metrics.final.loss"] == pytest.approx(result["metrics.final.loss"], abs=1e-4)

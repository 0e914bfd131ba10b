"""`swin-lab bench model` on a tiny network: the same network in every library, refused arguments."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Command
from torch import nn

from swin_lab.bench.device import peak_bytes
from swin_lab.bench.peers import LeftOutError, PeerChoice, build_peer, choose_peers
from swin_lab.bench.steps import Inference, TrainingStep
from swin_lab.models import create_model

MICRO = "swin_micro_patch4_window4_32"
QUICK = [
    "--device",
    "cpu",
    "--rounds",
    "1",
    "--seconds",
    "0",
    "--batch",
    "2",
    "--set",
    "embed_dim=16",
    "--set",
    "num_heads=[1,2]",
]
QUICK += ["--set", "depths=[1,1]"]


def test_a_comparison_prints_and_writes_every_library_with_the_same_parameters(cli: Command, tmp_path: Path) -> None:
    options = [*QUICK, "--precision", "bf16", "--peers", "timm,timm-fused,torchvision", "--stages"]
    outcome = cli("bench", "model", MICRO, *options, "--out", tmp_path / "results")
    assert outcome.code == 0, outcome.err
    written = json.loads((tmp_path / "results" / "model.json").read_text())
    networks = written["networks"][MICRO]["networks"]
    assert [network["name"] for network in networks] == ["swin_lab", "timm", "timm-fused", "torchvision"]
    assert len({network["parameters"] for network in networks}) == 1
    assert max(network["difference"] for network in networks) < 1e-5
    assert [(table["work"], len(table["rows"])) for table in written["tables"]] == [("inference", 5), ("training", 4)]
    assert all(row["seconds"][0] > 0 and row["peak_bytes"] > 0 for table in written["tables"] for row in table["rows"])
    assert [row["section"] for row in written["stages"][1]["rows"] if not row["part"]] == [
        "embed",
        "stage 1",
        "stage 2",
        "head",
    ]
    assert written["machine"]["versions"]["timm"]
    assert "ours / best peer" in outcome.out
    assert "ours / best peer" in (tmp_path / "results" / "model.md").read_text()
    assert (tmp_path / "results" / "model.png").stat().st_size > 1000
    again = cli("bench", "model", MICRO, *options, "--out", tmp_path / "results")
    assert (again.code, "model.json exists" in again.err) == (2, True)


def test_version_2_is_compared_as_well_and_timm_has_no_fused_attention_for_it() -> None:
    ours = create_model(MICRO, version=2, embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    network, library = build_peer("timm", ours, PeerChoice(("timm",)))
    assert library.startswith("timm ")
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, network)]
    assert count[0] == count[1]
    with pytest.raises(LeftOutError, match="no fused attention"):
        build_peer("timm-fused", ours, PeerChoice(("timm-fused",)))


def test_a_library_that_cannot_express_the_network_is_left_out_with_the_reason() -> None:
    ours = create_model(MICRO, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=(4, 2))
    with pytest.raises(LeftOutError, match="one window for all stages"):
        build_peer("torchvision", ours, PeerChoice(("torchvision",)))


def test_peers_drop_paths_at_our_rate() -> None:
    ours = create_model(MICRO, embed_dim=16, depths=(1, 1), num_heads=(1, 2), drop_path_rate=0.3)
    timm, _ = build_peer("timm", ours, PeerChoice(("timm",)))
    torchvision, _ = build_peer("torchvision", ours, PeerChoice(("torchvision",)))
    assert max(getattr(module, "drop_prob", 0.0) for module in timm.modules()) == pytest.approx(0.3)
    assert max(getattr(module, "p", 0.0) for module in torchvision.modules()) == pytest.approx(0.3)


def test_a_training_step_changes_weights_and_average_and_keeps_no_gradient() -> None:
    network = create_model(MICRO, embed_dim=16, depths=(1, 1), num_heads=(1, 2), num_classes=5)
    before = network.head.weight.detach().clone()
    step = TrainingStep(network, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), "bf16-true")
    averaged = step.ema.network.head.weight.clone()
    assert torch.isfinite(step())
    assert not torch.equal(network.head.weight.float(), before)
    assert not torch.equal(step.ema.network.head.weight, averaged)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert step.held_bytes > 4 * 2 * sum(parameter.numel() for parameter in network.parameters()) * 0.9  # two averages of AdamW


def test_the_memory_of_an_inference_holds_its_largest_tensor() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))
    step = Inference(network, torch.randn(8, 64), "fp32")
    assert peak_bytes(step, "cpu") >= 8 * 1000 * 4
    assert step.held_bytes == (64 * 1000 + 1000) * 4


def test_the_official_code_is_imported_from_its_folder_and_its_failure_is_a_line(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "swin_transformer.py").write_text("print('hello')\nclass SwinTransformer:\n    pass\n")
    outcome = cli(
        "bench", "model", MICRO, *QUICK, "--precision", "fp32", "--work", "inference", "--peers", f"official={tmp_path}"
    )
    assert outcome.code == 0, outcome.err
    assert "left out: official: fails: TypeError" in outcome.out
    assert "hello" not in outcome.printed


def test_peers_are_a_list_without_repetitions() -> None:
    assert choose_peers("timm,all").names == ("timm", "timm-fused", "torchvision", "transformers")
    assert choose_peers("none").names == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swin_tny"], "model 'swin_tny' is unknown"),
        ([], "missing argument 'NAME...'"),
        ([MICRO, "--peers", "tim"], "'tim' is unknown; did you mean timm?"),
        ([MICRO, "--peers", "none,timm"], "'none' is unknown"),
        ([MICRO, "--peers", "official"], "official=DIR, a checkout"),
        ([MICRO, "--peers", "official=/nowhere"], "official=/nowhere is no checkout"),
        ([MICRO, "--precision", "bf17"], "'bf17' is unknown; did you mean bf16?"),
        ([MICRO, "--precision", ""], "an argument is empty"),
        ([MICRO, "--compile", "al"], "al is unknown; choose one of both, model, none"),
        ([MICRO, "--work", "train"], "train is unknown; did you mean training?"),
        ([MICRO, "--device", "gpu"], "gpu is unknown"),
        ([MICRO, "--backend", "spda"], "attention_backend='spda' is unknown; did you mean sdpa?"),
        ([MICRO, "--set", "depht=[1]"], "'depht' is no hyper-parameter; did you mean depths?"),
        ([MICRO, "--set", "depths"], "'depths' is no hyper-parameter"),
        ([MICRO, "--set", "depths=["], "is no value in YAML"),
        ([MICRO, "--set", "depths=x"], "depths="),
        ([MICRO, "--set", "img_size=64"], "use --img-size"),
        ([MICRO, "--set", "num_classes=0"], "has no loss"),
        ([MICRO, "--batch", "0"], "--batch=0 must be an integer of at least 1"),
        ([MICRO, "--batch", "1e9"], "--batch=1e9 must be an integer"),
        ([MICRO, "--img-size", "-1"], "--img-size=-1 must be an integer of at least 1"),
        ([MICRO, "--rounds", "0"], "--rounds=0 must be an integer of at least 1"),
        ([MICRO, "--seconds", "nan"], "--seconds=nan must be a number of at most 600"),
        ([MICRO, "--seconds", "x"], "--seconds=x must be a number"),
        ([MICRO, "--threads", "2", "--clock", "cpu"], "adds up the time of all 2 threads"),
        ([MICRO, "--clock", "cuda", "--device", "cpu"], "--clock=cuda needs --device cuda"),
        ([MICRO, "--overwrite"], "--overwrite has no effect without --out DIR"),
        ([MICRO, "--out", "/dev/null/x"], "/dev/null/x"),
        ([MICRO, "--out", "results", "--name", "a/b"], "--name=a/b cannot be the name of a file"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_an_argument_without_sense_is_refused(cli: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    outcome = cli("bench", "model", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 3
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named(cli: Command) -> None:
    assert "torch sees no CUDA device" in cli("bench", "model", MICRO, "--device", "cuda").err

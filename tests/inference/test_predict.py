"""`swin-lab predict`: rows in order, in every format, whatever the images are."""

import csv
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Command, Outcome
from PIL import Image, PngImagePlugin
from small_classifier import classifier, write_image, write_photos

import swin_lab

SAMPLE = ROOT.parent / "shared/data/imagenet-sample/val"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contains tiny.safetensors and photos/."""
    folder = tmp_path_factory.mktemp("predict")
    swin_lab.save_weights(classifier(), folder / "tiny.safetensors")
    write_photos(folder / "photos")
    return folder


@pytest.fixture
def predict(cli: Command, folder: Path):
    """Runs the command on the CPU with the weights of `folder`."""

    def run(*arguments: object, weights: Path = folder / "tiny.safetensors", workers: int = 0) -> Outcome:
        return cli("predict", weights, *arguments, "--device", "cpu", "--workers", workers)

    return run


def rows_of(file: Path) -> list[dict[str, object]]:
    """Reads a table with probabilities as numbers and unknown labels as None."""
    if file.suffix == ".json":
        return json.loads(file.read_text())
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    return [{k: float(v) if k.startswith("prob") else v or None for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_every_format_has_the_rows_of_a_predictor(predict, folder, ending):
    outcome = predict(folder / "photos", "-o", f"out.{ending}", "--top", 2, "--batch", 7)
    assert outcome.code == 1, outcome.err  # One image cannot be read.
    assert "29 images, 1 could not be read" in outcome.out
    files = [file for file in sorted((folder / "photos").rglob("*.png")) if file.name != "13.png"]
    expected = swin_lab.Predictor(folder / "tiny.safetensors", device="cpu")(files)
    rows = rows_of(Path(f"out.{ending}"))
    assert [row["path"] for row in rows] == list(map(str, files))
    assert [row["label"] for row in rows] == [file.parent.name for file in files]
    for row, found in zip(rows, expected, strict=True):
        assert (row["class_1"], row["class_2"]) == found.names[:2]
        assert (row["probability_1"], row["probability_2"]) == pytest.approx(found.probabilities[:2], abs=2e-6)


def test_workers_change_nothing(predict, folder):
    for workers in (0, 2):
        assert predict(folder / "photos", "-o", f"{workers}.csv", "--batch", 4, workers=workers).code == 1
    assert Path("0.csv").read_bytes() == Path("2.csv").read_bytes()


def test_without_a_file_a_table_is_printed(predict, folder):
    outcome = predict(folder / "photos" / "ant" / "00.png", folder / "photos" / "ant" / "03.png", "--top", "2")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["image", "class", "probability"]
    assert sum(line.rstrip().endswith("%") for line in lines) == 4
    assert "2 images" in outcome.err
    assert "weights" in outcome.err


def test_flip_gives_what_the_task_of_an_evaluation_gives(predict, folder, tmp_path):
    image = folder / "photos" / "ant" / "00.png"
    Image.open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    assert predict(image, "mirrored.png", "-o", "out.json", "--flip").code == 0
    one, other = rows_of(Path("out.json"))
    assert one["class_1"] == other["class_1"]
    assert one["probability_1"] == pytest.approx(other["probability_1"], abs=1e-4)


def test_labels_that_are_wordnet_ids_are_in_words_like_the_classes(predict, tmp_path):
    weights = swin_lab.save_weights(classifier(None, 1000), tmp_path / "1k.safetensors")
    write_image(tmp_path / "val" / "n02012849" / "a.png", 0)
    assert predict("val", "-o", "out.json", weights=weights).code == 0
    (row,) = rows_of(Path("out.json"))
    assert row["label"] == "crane (n02012849)"
    assert row["class_1"] in swin_lab.Predictor(weights, device="cpu").class_names


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode: str, size: tuple[int, int] = (30, 40)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], channels), dtype=np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG")


def long_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 8 * 2**20, zip=True)
    return encoded(noise("RGB"), "PNG", pnginfo=info)


def bomb() -> bytes:
    """A valid PNG of 400 million black pixels."""
    return encoded(Image.new("1", (20_000, 20_000)), "PNG", compress_level=1)


READABLE = {
    "grey.jpg": lambda: encoded(noise("L"), "JPEG"),
    "cmyk.jpg": lambda: encoded(noise("CMYK"), "JPEG"),
    "alpha.png": lambda: encoded(noise("RGBA"), "PNG"),
    "palette.png": lambda: encoded(noise("RGB").quantize(7), "PNG"),
    "sixteen.png": sixteen_bits,
    "one_pixel.png": lambda: encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "wide.png": lambda: encoded(noise("RGB", (20_000, 1)), "PNG"),
    "tall.png": lambda: encoded(noise("RGB", (2, 20_000)), "PNG"),
    "animated.gif": lambda: encoded(noise("P"), "GIF", save_all=True, append_images=[noise("P")]),
    "wrong_name.png": lambda: encoded(noise("RGB"), "JPEG"),
    "rotated.jpg": lambda: encoded(noise("RGB"), "JPEG", exif=Image.Exif()),
}
UNREADABLE = {
    "truncated.jpg": lambda: encoded(noise("RGB"), "JPEG")[:600],
    "truncated.png": lambda: encoded(noise("RGB"), "PNG")[:-900],
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"not an image\n" * 9,
    "null.bmp": lambda: bytes(1000),
    "bomb.png": bomb,
    "long_text.png": long_text,
}


def test_the_worst_images_are_read_or_named_in_one_line_each(predict, tmp_path):
    (tmp_path / "worst" / "folder.png" / "deeper").mkdir(parents=True)
    for name, content in (READABLE | UNREADABLE).items():
        (tmp_path / "worst" / name).write_bytes(content())
    (tmp_path / "worst" / "missing.png").symlink_to("nowhere")
    (tmp_path / "worst" / "denied\nname.png").write_bytes(b"")
    outcome = predict("worst", tmp_path / "worst" / "animated.gif", "-o", "out.json", "--batch", 4)
    assert outcome.code == 1
    in_folder = {name for name in READABLE if not name.endswith("gif")}  # A folder is searched for the usual kinds.
    rows = rows_of(Path("out.json"))
    assert [row["path"] for row in rows] == [*(f"worst/{name}" for name in sorted(in_folder)), f"{tmp_path}/worst/animated.gif"]
    assert all(0 < row["probability_1"] <= 1 for row in rows)
    named = [line for line in outcome.err.splitlines() if line.startswith("unreadable image")]
    assert [line.split(": ")[0].removeprefix("unreadable image worst/") for line in named] == sorted(
        [*UNREADABLE, r"denied\nname.png"]
    )
    assert f"{len(rows)} images, {len(named)} could not be read" in outcome.out


def test_a_wrong_name_and_a_rotation_are_handled_as_in_training(predict, tmp_path):
    image = noise("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.png").write_bytes(encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif))
    (tmp_path / "b.bmp").write_bytes(encoded(image, "PNG"))
    assert predict("a.png", "b.bmp", "-o", "out.json").code == 0
    one, other = rows_of(Path("out.json"))
    assert one["probability_1"] == pytest.approx(other["probability_1"], abs=1e-6)


def test_only_unreadable_images_give_an_empty_table(predict, tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(300):
        (tmp_path / "many" / f"{i}.jpg").touch()
    outcome = predict("many", "-o", "out.csv", workers=2)
    assert outcome.code == 1
    assert outcome.err.count("unreadable image") == 300
    assert Path("out.csv").read_text().splitlines() == [
        "path,label," + ",".join(f"class_{i},probability_{i}" for i in (1, 2, 3))
    ]


def test_an_existing_file_is_refused_unless_it_may_be_replaced(predict, folder):
    image = folder / "photos" / "ant" / "00.png"
    Path("out.csv").write_text("precious")
    outcome = predict(image, "-o", "out.csv")
    assert (outcome.code, Path("out.csv").read_text()) == (2, "precious")
    assert "exists already" in outcome.err
    assert predict(image, "-o", "out.csv", "--overwrite").code == 0
    assert len(rows_of(Path("out.csv"))) == 1


def test_a_failure_leaves_no_file(predict, folder, monkeypatch):
    monkeypatch.setattr("swin_lab.inference.model.InferenceModel.chosen", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(folder / "photos", "-o", "out.csv")
    assert list(Path().iterdir()) == []


def test_a_full_disk_is_an_error_in_one_line(predict, folder, monkeypatch):
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swin_lab.inference.whole_files.os.fsync", full)
    outcome = predict(folder / "photos" / "ant", "-o", "out.csv")
    assert (outcome.code, list(Path().iterdir())) == (2, [])
    assert "out.csv cannot be written: No space left on device" in outcome.err


def test_predict_refuses_several_processes(predict, folder, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = predict(folder / "photos")
    assert outcome.code == 2
    assert "predict runs in one process" in outcome.err


def test_a_network_without_classes_is_refused(predict, folder, tmp_path):
    weights = swin_lab.save_weights(classifier(None, 0), tmp_path / "headless.safetensors")
    outcome = predict(folder / "photos", weights=weights)
    assert outcome.code == 2
    assert "has no head" in outcome.err


def test_the_checkpoint_of_a_run_predicts_its_own_classes(cli, trained, folder):
    outcome = cli("predict", trained, folder / "photos" / "ant", "-o", "out.json", "--device", "cpu", "--workers", "0")
    assert outcome.code == 0, outcome.err
    assert len(rows_of(Path("out.json"))) == 10


def test_a_run_with_the_weights_of_another_library_predicts(cli, run_script, tmp_path, folder):
    outcome = run_script(
        "train", "model=timm", "name=convnext_atto", "model.img_size=32", "data=synthetic", "data.num_classes=3",
        "data.train_images=32", "data.val_images=6", "global_batch=16", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "schedule.warmup_epochs=0", f"out={tmp_path}/runs",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    (run,) = (tmp_path / "runs").glob("*/*")
    outcome = cli("predict", run, folder / "photos" / "cat", "-o", "out.json", "--device", "cpu", "--workers", "0")
    assert outcome.code == 0, outcome.err
    assert len(rows_of(Path("out.json"))) == 10


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="../shared/data has no sample of ImageNet here")
def test_500_images_of_imagenet_have_their_labels_in_order(predict, tmp_path):
    weights = swin_lab.save_weights(classifier(None, 1000), tmp_path / "1k.safetensors")
    outcome = predict(SAMPLE, "-o", "out.parquet", weights=weights, workers=2)
    assert outcome.code == 0, outcome.err
    rows = rows_of(Path("out.parquet"))
    assert [row["path"] for row in rows] == list(map(str, sorted(SAMPLE.rglob("*.JPEG"))))
    assert len({row["label"] for row in rows}) == 500
    assert rows[0]["label"] == "tench, Tinca tinca"


def test_the_command_offers_the_precisions_of_a_predictor():
    from swin_lab.commands import inference
    from swin_lab.inference import model

    assert inference.PrecisionName == model.PrecisionName

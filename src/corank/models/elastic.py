"""Networks that hold many: blocks whose kernel and expansion, stages whose depth can be chosen (after OFA's MobileNetV3
space, arXiv 1908.09791, as OQAT, arXiv 2010.04354, quantizes it)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from corank.data.preprocessing import Preprocessing
from corank.errors import ConfigError, ModelError
from corank.models.elastic_shape import EXAMPLE, ElasticShape
from corank.models.loader import LoadedModel, Request
from corank.training.elastic import ConvNorm, ConvShape, Elastic, ElasticConv

__all__ = [
    "ElasticBlock",
    "ElasticStage",
    "MobileBlock",
    "MobileSubnet",
    "MobileSupernet",
    "elastic_network",
    "load_elastic",
]


class MobileBlock(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, a 1x1 convolution back without ReLU, beside a shortcut.

    Args:
        expand, spatial, project: those convolutions, with norms.
        shortcut: whether the images are added to the result, which then has their shape.
    """

    def __init__(self, expand: nn.Module, spatial: nn.Module, project: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.expand, self.spatial, self.project, self.shortcut = expand, spatial, project, shortcut

    def forward(self, images: Tensor) -> Tensor:
        found = self.project(self.spatial(self.expand(images)))
        return images + found if self.shortcut else found


class ElasticBlock(Elastic):
    """A :class:`MobileBlock` with a choice of ``kernel`` and ``expansion`` (inner channels over input channels).

    Args:
        inputs, outputs: channels.
        kernels, expansions: that can be chosen, ascending.
        stride: of the depthwise convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, kernels: tuple[int, ...], expansions: tuple[int, ...], stride: int = 1
    ) -> None:
        super().__init__()
        self._choices, inner = {"expansion": expansions, "kernel": kernels}, inputs * expansions[-1]
        self.expand = ElasticConv(ConvShape(inputs, inner))
        self.spatial = ElasticConv(ConvShape(inner, inner, kernels[-1], stride, depthwise=True), kernels)
        self.project = ElasticConv(ConvShape(inner, outputs, relu=False))
        self.shortcut = stride == 1 and inputs == outputs

    @property
    def choices(self) -> dict[str, tuple[int, ...]]:
        return self._choices

    def choose(self, chosen: Mapping[str, int]) -> None:
        inputs, outputs = self.expand.shape.inputs, self.project.shape.outputs
        inner = inputs * chosen["expansion"]
        self.expand.take(inputs, inner, 1)
        self.spatial.take(inner, inner, chosen["kernel"])
        self.project.take(inner, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        found = self.project(self.spatial(self.expand(images)))
        return images + found if self.shortcut else found

    def plain(self) -> nn.Module:
        parts = [ConvNorm(one.now) for one in (self.expand, self.spatial, self.project)]
        return MobileBlock(*parts, shortcut=self.shortcut)


class ElasticStage(Elastic):
    """Blocks one after the other, with a choice of ``depth``: the first so many run.

    Args:
        blocks: any elastic modules; those behind the least depth keep the images' shape.
        depths: that can be chosen, ascending; the last is the number of blocks.
    """

    def __init__(self, blocks: Sequence[Elastic], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.depths, self.depth = depths, depths[-1]
        for place, block in enumerate(blocks):
            self.add_module(str(place), block)

    @property
    def choices(self) -> dict[str, tuple[int, ...]]:
        return {"depth": self.depths}

    def choose(self, chosen: Mapping[str, int]) -> None:
        self.depth = chosen["depth"]

    @property
    def resting(self) -> tuple[nn.Module, ...]:
        return tuple(self.children())[self.depth :]

    def forward(self, images: Tensor) -> Tensor:
        for block in list(self.children())[: self.depth]:
            images = block(images)
        return images

    def plain(self) -> nn.Module:
        return nn.Sequential(*(cast(Elastic, block).plain() for block in list(self.children())[: self.depth]))


class MobileSubnet(nn.Module):
    """Images ``(N, 3, H, W)`` to logits: a stem, stages, the mean over the image, a 1x1 convolution as classifier."""

    def __init__(self, stem: nn.Module, stages: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.stages, self.head = stem, stages, head

    def forward(self, images: Tensor) -> Tensor:
        images = self.stages(self.stem(images))
        return self.head(images.mean((2, 3), keepdim=True)).flatten(1)


class MobileSupernet(Elastic):
    """All the :class:`MobileSubnet` of a shape, with a choice of ``resolution`` beside those of its stages and blocks.

    Images are resized to the resolution that is chosen (bilinear, antialiased); a subnet that was taken out is fed
    images of that size.

    Args:
        shape: what there is to choose.
    """

    def __init__(self, shape: ElasticShape) -> None:
        super().__init__()
        self.shape, self.resolution = shape, shape.resolution[-1]
        widths, strides = shape.widths, shape.strides
        self.stem = ElasticConv(ConvShape(3, widths[0], 3, strides[0], edge=True))
        self.stages = nn.Sequential(*_stages(shape))
        self.head = ElasticConv(ConvShape(widths[-1], shape.classes, norm=False, relu=False, edge=True))
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    @property
    def choices(self) -> dict[str, tuple[int, ...]]:
        return {"resolution": self.shape.resolution}

    def choose(self, chosen: Mapping[str, int]) -> None:
        self.resolution = chosen["resolution"]

    def forward(self, images: Tensor) -> Tensor:
        size = (self.resolution, self.resolution)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        images = self.stages(self.stem(images))
        return self.head(images.mean((2, 3), keepdim=True)).flatten(1)

    def plain(self) -> MobileSubnet:
        stages = nn.Sequential(*(cast(Elastic, stage).plain() for stage in self.stages))
        return MobileSubnet(ConvNorm(self.stem.now), stages, ConvNorm(self.head.now))

    @property
    def reference(self) -> str:
        """The name of what is chosen, as :func:`corank.models.resolve` takes it."""
        stages = [cast(ElasticStage, stage) for stage in self.stages]
        blocks = [cast(ElasticBlock, one) for stage in stages for one in list(stage.children())[: stage.depth]]
        return self.shape.chosen(
            [stage.depth for stage in stages],
            [one.spatial.now.kernel for one in blocks],
            [one.expand.now.outputs // one.expand.now.inputs for one in blocks],
            self.resolution,
        ).reference

    def chosen_by(self, reference: str) -> dict[str, int]:
        """The choices that such a name stands for; those of blocks that do not run are left out.

        Raises:
            ConfigError: for the name of a network that is none of its subnets.
        """
        shape = ElasticShape.of(reference.removeprefix("elastic:"))
        mine = (self.shape.classes, self.shape.widths, self.shape.strides)
        if shape.has_choices or (shape.classes, shape.widths, shape.strides) != mine:
            raise ConfigError(f"{reference[:200]} is no subnet of {self.shape.reference}; a subnet is {self.reference}")
        if len(shape.depths) != len(self.shape.depths):
            raise ConfigError(f"{reference[:200]} has {len(shape.depths)} stages, not {len(self.shape.depths)}")
        found, place = {"resolution": shape.resolution[0]}, 0
        for stage, depths in enumerate(shape.depths):
            found[f"stages.{stage}.depth"] = depths[0]
            for number in range(depths[0]):
                block = f"stages.{stage}.{number}"
                found[f"{block}.expansion"] = shape.expansions[place][0]
                found[f"{block}.kernel"] = shape.kernels[place][0]
                place += 1
        return found


def elastic_network(shape: ElasticShape) -> MobileSupernet | MobileSubnet:
    """The supernet of a shape; the one network, where there is nothing to choose. Freshly initialised."""
    found = MobileSupernet(shape)
    return found if shape.has_choices else found.plain()


def load_elastic(request: Request) -> LoadedModel:
    """An untrained supernet, or one network where the name leaves nothing to choose; see :class:`ElasticShape`.

    Raises:
        ModelError: for a name that is none.
    """
    try:
        shape = ElasticShape.of(request.name)
    except ConfigError as error:
        raise ModelError(f"elastic:{request.name[:200]}: {error}; give {EXAMPLE}") from error
    return LoadedModel(elastic_network(shape), Preprocessing(image_size=shape.resolution[-1]))


def _stages(shape: ElasticShape) -> Iterator[ElasticStage]:
    place, inputs = 0, shape.widths[0]
    for width, stride, depths in zip(shape.widths[1:], shape.strides[1:], shape.depths, strict=True):
        blocks: list[Elastic] = []
        for number in range(depths[-1]):
            here = stride if number == 0 else 1
            blocks.append(ElasticBlock(inputs, width, shape.kernels[place], shape.expansions[place], here))
            place, inputs = place + 1, width
        yield ElasticStage(blocks, depths)

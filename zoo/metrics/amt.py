"""AMT-S, a network that interpolates the frame halfway between two (Li et al. 2023, "AMT: All-Pairs Multi-Field
Transforms"), with the parameter names of its published file.

    correlation   all pairs of features at 1/8 of the size, in a pyramid of 4 levels, looked up around the motion (§3.1)
    decoders      features and flows to both frames, from 1/16 to 1/2 of the size; after each of the first three, an
                  update of both from the correlation (§3.2)
    fields        3 pairs of flows, masks and residuals at full size, fused to one frame (§3.3)

The convolutional parts are IFRNet's (Kong et al. 2022), feature encoder and correlation RAFT's (Teed & Deng 2020).
Only the halfway frame is implemented: the network also takes other times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.metrics.backbones import Folder, load_network

CHANNELS = (20, 32, 44, 56)  # of the pyramids at 1/2, 1/4, 1/8 and 1/16 of the size
SIDE_CHANNELS = 20  # of the residual blocks, which are convolved a second time
FIELDS = 3
RADIUS, LEVELS = 3, 4  # of the correlation look-up, in cells; of its pyramid
FEATURES = 84
MULTIPLE, SMALLEST = (
    16,
    128,
)  # sides of the input; smaller ones leave a level of the pyramid with a single cell
BATCH = 4
SLOPE = 0.1  # of the leaky ReLUs


@torch.no_grad()
def interpolate_halfway(before: Tensor, after: Tensor, weights: Folder | None = None) -> Tensor:
    """The frames halfway between two, images [N, 3, H, W] in 0..1, by AMT-S with its published weights.

    Raises:
        NotComputed: the published weights of AMT-S are missing.
        ValueError: a side is shorter than 128 pixels.
    """
    if min(before.shape[2:]) < SMALLEST:
        raise ValueError(
            f"interpolate_halfway: frames: expected sides of at least {SMALLEST} pixels, got "
            f"{before.shape[3]}x{before.shape[2]}"
        )
    network = load_network("amt-s", AMTS, weights, before.device)
    height, width = before.shape[2:]
    extra = [-size % MULTIPLE for size in (width, height)]
    border = [part for more in extra for part in (more // 2, more - more // 2)]  # left, right, top, bottom
    padded = [F.pad(each.float(), border, mode="replicate").split(BATCH) for each in (before, after)]
    frames = torch.cat([network(a, b) for a, b in zip(*padded, strict=True)])
    return frames[..., border[2] : border[2] + height, border[0] : border[0] + width]


class AMTS(nn.Module):
    """The network; its input is two images [N, 3, H, W] in 0..1, with sides that are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = CHANNELS
        self.feat_encoder = _FeatureEncoder()
        self.encoder = _Pyramid()
        self.decoder4 = _Decoder(2 * sixteenth + 1, 2 * sixteenth, eighth + 4)
        self.decoder3 = _Decoder(3 * eighth + 4, 3 * eighth, quarter + 4)
        self.decoder2 = _Decoder(3 * quarter + 4, 3 * quarter, half + 4)
        self.decoder1 = _Decoder(3 * half + 4, 3 * half, 8 * FIELDS)
        self.update4, self.update3, self.update2 = (
            _Update(channels, stride) for channels, stride in ((eighth, 1), (quarter, 2), (half, 4))
        )
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * FIELDS, 6 * FIELDS, 3, padding=1),
            nn.PReLU(6 * FIELDS),
            nn.Conv2d(6 * FIELDS, 3, 3, padding=1),
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """The halfway frames, [N, 3, H, W] in 0..1."""
        mean = (before + after).mean((1, 2, 3), keepdim=True) / 2
        before, after = before - mean, after - mean
        correlation = _Correlation(*self.feat_encoder(torch.cat([before, after])).chunk(2))
        pyramids = [each.chunk(2) for each in self.encoder(torch.cat([before, after]))]
        coarse0, coarse1 = pyramids[3]
        time = coarse0.new_full((len(coarse0), 1, *coarse0.shape[2:]), 0.5)
        flow, features = self.decoder4(torch.cat([coarse0, coarse1, time], 1)).split([4, CHANNELS[2]], 1)
        flow, features = self.update4(flow, features, correlation)
        stages = ((self.decoder3, self.update3, pyramids[2]), (self.decoder2, self.update2, pyramids[1]))
        for decoder, update, (level0, level1) in stages:
            out = decoder(_gather(features, level0, level1, flow))
            flow, features = out[:, :4] + 2 * _resize(flow, 2), out[:, 4:]
            flow, features = update(flow, features, correlation)
        level0, level1 = pyramids[0]
        return self._fuse(before, after, mean, flow, self.decoder1(_gather(features, level0, level1, flow)))

    def _fuse(self, before: Tensor, after: Tensor, mean: Tensor, flow: Tensor, out: Tensor) -> Tensor:
        """Warp both frames with all pairs of flows and blend the results (§3.3).

        Args:
            before, after: images [N, 3, H, W] without their mean [N, 1, 1, 1].
            mean: see above.
            flow: to both frames, [N, 4, H/2, W/2].
            out: of the last decoder, [N, 8 F, H, W]: flows to either frame, masks and residuals of F fields.
        """
        changes = out.split([2 * FIELDS, 2 * FIELDS, FIELDS, 3 * FIELDS], 1)
        flow0, flow1 = (
            (change + (2 * _resize(each, 2)).repeat(1, FIELDS, 1, 1)).unflatten(1, (FIELDS, 2)).flatten(0, 1)
            for change, each in zip(changes, flow.chunk(2, 1), strict=False)
        )
        mask = changes[2].sigmoid()[:, :, None]
        warped0, warped1 = (
            _warp(image.repeat_interleave(FIELDS, 0), each).unflatten(0, (-1, FIELDS))
            for image, each in ((before, flow0), (after, flow1))
        )
        fields = mask * warped0 + (1 - mask) * warped1 + mean[:, None] + changes[3].unflatten(1, (FIELDS, 3))
        return (fields.mean(1) + self.comb_block(fields.flatten(1, 2))).clamp(0, 1)


class _Correlation:
    """Correlations of all pairs of features of two frames [N, C, h, w], and look-ups in either direction (§3.1)."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        count, channels, height, width = first.shape
        self._size = (count, height, width)
        pairs = first.flatten(2).transpose(1, 2) @ second.flatten(2) / channels**0.5
        self._pyramids = []
        for table in (pairs, pairs.transpose(1, 2)):
            levels = [table.reshape(-1, 1, height, width)]
            for _ in range(LEVELS - 1):
                levels.append(F.avg_pool2d(levels[-1], 2))
            self._pyramids.append(levels)

    def look_up(self, flow: Tensor) -> Tensor:
        """Correlations around where each cell moves to, [N, 2 · 4 · 49, h, w].

        Args:
            flow: from the halfway frame to both frames, [N, 4, h, w]. Assuming constant speed, the motion from the
                first frame to the second is twice the flow to the second, and vice versa.
        """
        count, height, width = self._size
        y, x = torch.meshgrid(*(torch.arange(n, device=flow.device) for n in (height, width)), indexing="ij")
        cells = torch.stack([x, y]).to(flow)
        offsets = torch.arange(-RADIUS, RADIUS + 1, device=flow.device, dtype=flow.dtype)
        # As published, the first of both coordinates of the window is that of its rows.
        window = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), -1)
        found = []
        for levels, motion in zip(self._pyramids, (flow[:, 2:], flow[:, :2]), strict=True):
            centres = (cells + 2 * motion).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
            for level, table in enumerate(levels):
                values = _sample(table, centres / 2**level + window)
                found.append(values.reshape(count, height, width, -1))
        return torch.cat(found, -1).permute(0, 3, 1, 2)


class _Update(nn.Module):
    """Change of the flows and features at one decoder from the correlations, which are 1/8 of the size (§3.2)."""

    def __init__(self, channels: int, stride: int, hidden: int = 76, flows: int = 20) -> None:
        super().__init__()
        self.stride = stride  # of the correlations' cells against the decoder's
        planes = 2 * LEVELS * (2 * RADIUS + 1) ** 2
        self.convc1 = nn.Conv2d(planes, 64, 1)
        self.convf1 = nn.Conv2d(4, 2 * flows, 7, padding=3)
        self.convf2 = nn.Conv2d(2 * flows, flows, 3, padding=1)
        self.conv = nn.Conv2d(64 + flows, 68, 3, padding=1)
        self.gru = _head(68 + 4 + channels, hidden, hidden)
        self.feat_head = _head(hidden, hidden, channels)
        self.flow_head = _head(hidden, hidden, 4)

    def forward(self, flow: Tensor, features: Tensor, correlation: _Correlation) -> tuple[Tensor, Tensor]:
        """Flows [N, 4, h, w] and features [N, C, h, w], changed."""
        stride = self.stride
        coarse, inputs = (
            (flow, features)
            if stride == 1
            else (_resize(flow, 1 / stride) / stride, _resize(features, 1 / stride))
        )
        matches = F.leaky_relu(self.convc1(correlation.look_up(coarse)), SLOPE)
        motions = F.leaky_relu(self.convf2(F.leaky_relu(self.convf1(coarse), SLOPE)), SLOPE)
        joined = F.leaky_relu(self.conv(torch.cat([matches, motions], 1)), SLOPE)
        state = self.gru(torch.cat([joined, coarse, inputs], 1))
        change, flow_change = self.feat_head(state), self.flow_head(state)
        if stride != 1:
            change, flow_change = _resize(change, stride), stride * _resize(flow_change, stride)
        return flow + flow_change, features + change


class _Decoder(nn.Module):
    """Convolution, residual block, and transposed convolution to twice the size."""

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.convblock = nn.Sequential(
            _convolution(channels, hidden), _Residual(hidden), nn.ConvTranspose2d(hidden, out, 4, 2, 1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.convblock(inputs)
        return result


class _Residual(nn.Module):
    """IFRNet's residual block: every second convolution changes the last `SIDE_CHANNELS` channels alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = _convolution(channels, channels), _convolution(channels, channels)
        self.conv2, self.conv4 = (_convolution(SIDE_CHANNELS, SIDE_CHANNELS) for _ in range(2))
        self.conv5 = nn.Conv2d(channels, channels, 3, padding=1)
        self.prelu = nn.PReLU(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        out = inputs
        for whole, side in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            kept, changed = whole(out).tensor_split([-SIDE_CHANNELS], 1)
            out = torch.cat([kept, side(changed)], 1)
        result: Tensor = self.prelu(inputs + self.conv5(out))
        return result


class _Pyramid(nn.Module):
    """Features of the decoders at 1/2, 1/4, 1/8 and 1/16 of the size."""

    def __init__(self) -> None:
        super().__init__()
        for level, (channels, out) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False), 1):
            stage = nn.Sequential(_convolution(channels, out, stride=2), _convolution(out, out))
            self.add_module(f"pyramid{level}", stage)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        for stage in self.children():
            features.append(stage(features[-1]))
        return features[1:]


class _FeatureEncoder(nn.Module):
    """RAFT's small encoder with instance normalisation: features for the correlation, 1/8 of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3)
        for level, (channels, out, stride) in enumerate(((32, 32, 1), (32, 64, 2), (64, 96, 2)), 1):
            stage = nn.Sequential(_Bottleneck(channels, out, stride), _Bottleneck(out, out, 1))
            self.add_module(f"layer{level}", stage)
        self.conv2 = nn.Conv2d(96, FEATURES, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(F.instance_norm(self.conv1(images)))
        for level in (1, 2, 3):
            features = self.get_submodule(f"layer{level}")(features)
        result: Tensor = self.conv2(features)
        return result


class _Bottleneck(nn.Module):
    """Bottleneck block of three convolutions (He et al. 2016), normalised per image and channel."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out // 4, 1)
        self.conv2 = nn.Conv2d(out // 4, out // 4, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(out // 4, out, 1)
        self.downsample = None if stride == 1 else nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride))

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs
        for convolution in (self.conv1, self.conv2, self.conv3):
            features = F.relu(F.instance_norm(convolution(features)))
        if self.downsample is not None:
            inputs = F.instance_norm(self.downsample(inputs))
        return F.relu(inputs + features)


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride=stride, padding=1), nn.PReLU(out))


def _head(channels: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(hidden, out, 3, padding=1)
    )


def _gather(features: Tensor, level0: Tensor, level1: Tensor, flow: Tensor) -> Tensor:
    """A decoder's input: its features, both frames' warped to the halfway frame, and the flows."""
    return torch.cat([features, _warp(level0, flow[:, :2]), _warp(level1, flow[:, 2:]), flow], 1)


def _resize(values: Tensor, factor: float) -> Tensor:
    return F.interpolate(values, scale_factor=factor, mode="bilinear", align_corners=False)


def _warp(images: Tensor, flow: Tensor) -> Tensor:
    """Images [N, C, H, W] sampled at each pixel plus its flow [N, 2, H, W], the border repeated."""
    height, width = images.shape[2:]
    y, x = torch.meshgrid(*(torch.arange(n, device=flow.device) for n in (height, width)), indexing="ij")
    return _sample(images, (torch.stack([x, y]) + flow).permute(0, 2, 3, 1), "border")


def _sample(images: Tensor, pixels: Tensor, padding: str = "zeros") -> Tensor:
    """Images [N, C, H, W] at positions [N, h, w, 2] in pixels, x first, 0 at the centre of the first pixel."""
    sizes = pixels.new_tensor([images.shape[3] - 1, images.shape[2] - 1])
    return F.grid_sample(images, 2 * pixels / sizes - 1, padding_mode=padding, align_corners=True)

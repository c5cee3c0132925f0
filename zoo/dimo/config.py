"""What a DIMO is made of and how it is trained: one frozen, JSON-able record, with presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

Rate = tuple[float, float]  # learning rate at a stage's first and last step, exponential between


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses (methods §4.5); a weight of 0 leaves a loss out. `zoo.dimo.losses` says what each is.

    `between`, which the paper has not, is that of motions between two of the step's being less rigid than both.
    """

    rgb: float = 5000.0
    lpips: float = 1000.0
    ssim: float = 500.0
    mask: float = 500.0
    depth: float = 100.0
    normal: float = 0.05
    kl: float = 0.05
    arap: float = 10.0
    chamfer: float = 10.0
    between: float = 0.0


@dataclass(frozen=True)
class Pretraining:
    """Stage 1: key points, drawn as isotropic Gaussians of one radius, learn the motions.

    Attributes:
        steps: 0 skips the stage. batch: motions, views and frames of a step; motions share views and frames.
        resolutions: (first step, pixels) pairs.
        initial: "ball" (uniform in a ball of radius 0.5) or "hull" (inside the visual hull of one frame).
        alpha_only: learn from silhouettes alone, which takes a third of the time; needs no colours.
        densify_every, densify_until: clone or split key points whose screen gradient is above `densify_gradient`
            (per unit of normalised device coordinates), except in the first `densify_pause` steps after an annealing.
        prune_opacity, prune_scale: key points fainter or larger are taken away at each densification.
        anneal_at: steps at which farthest-point sampling goes back to the wanted number of key points.
        smooth_from: first step of depth and normal smoothness. arap_from: first step of the rigidity loss.
        decoder, latents, points, radius, color, opacity: learning rates. points_steps: over how many steps
            `points` decays, None for the whole stage.
    """

    steps: int = 2800
    batch: tuple[int, int, int] = (4, 3, 2)
    resolutions: tuple[tuple[int, int], ...] = ((0, 128), (300, 256), (450, 512))
    initial: str = "ball"
    alpha_only: bool = False
    densify_every: int = 100
    densify_until: int = 2000
    densify_pause: int = 200
    densify_gradient: float = 0.02
    clone_scale: float = 0.04
    prune_opacity: float = 0.02
    prune_scale: float = 0.4
    anneal_at: tuple[int, ...] = (1000, 2000)
    final_opacity: float = 0.01
    smooth_from: int = 200
    arap_from: int = 2000
    decoder: Rate = (2e-4, 2e-4)
    latents: Rate = (5e-3, 5e-3)
    points: Rate = (1e-2, 2e-4)
    points_steps: int | None = 500
    radius: Rate = (1e-2, 1e-2)
    color: Rate = (1e-2, 1e-2)
    opacity: Rate = (5e-2, 5e-2)


@dataclass(frozen=True)
class Joint:
    """Stage 2: canonical Gaussians, key points, latents and decoder together.

    Attributes:
        steps, batch, resolutions: as in stage 1.
        prune_every, prune_until, prune_opacity, prune_scale: Gaussians fainter or larger are taken away.
        smooth_from: first step of depth and normal smoothness. arap_until: last step of the rigidity loss.
        graph_every: how often the motion graph and each Gaussian's neighbours are computed anew.
        means_hold: steps before the rate of `means` begins to fall.
        decoder … quats: learning rates.
    """

    steps: int = 8000
    batch: tuple[int, int, int] = (4, 3, 2)
    resolutions: tuple[tuple[int, int], ...] = ((0, 128), (300, 256), (450, 512))
    prune_every: int = 1000
    prune_until: int = 5000
    prune_opacity: float = 0.01
    prune_scale: float = 0.4
    smooth_from: int = 200
    arap_until: int = 5000
    graph_every: int = 100
    means_hold: int = 1000
    decoder: Rate = (2e-4, 2e-6)
    latents: Rate = (5e-3, 2e-4)
    key_points: Rate = (2e-6, 2e-6)
    radii: Rate = (5e-3, 5e-3)
    means: Rate = (2e-4, 2e-6)
    colors: Rate = (1e-2, 1e-2)
    opacities: Rate = (5e-2, 5e-2)
    scales: Rate = (5e-3, 5e-3)
    quats: Rate = (5e-3, 5e-3)


@dataclass(frozen=True)
class LatentFit:
    """How an unseen motion is found: its latent alone is learnt, from its videos."""

    steps: int = 300
    batch: tuple[int, int] = (3, 2)
    resolutions: tuple[tuple[int, int], ...] = ((0, 128), (100, 256), (200, 512))
    latents: Rate = (5e-3, 2e-4)


@dataclass(frozen=True)
class DIMOConfig:
    """A DIMO and its training.

    Attributes:
        key_points: K. gaussians: N at the beginning of stage 2; pruning leaves fewer. latent: Z.
        width, depth, skip: of the decoder's trunk; after layer `skip` (0-based) the input is appended again.
        position_frequencies, phase_frequencies: octaves of the two encodings.
        neighbours: key points that move one Gaussian. graph: those in a row of the motion graph, itself among them.
        frames, views, resolution: of the videos it is meant for: T, V and pixels. Sampling draws `frames` frames;
            training uses no more than `views` views and `resolution` pixels.
        latent_distribution: learn mean and variance of every motion's latent; otherwise the latent itself.
        latent_spread, latent_log_var: standard deviation of the means, and the log variance, before training.
        arap: "rotations" (neighbourhoods turn rigidly, at 8 moments that are decoded for it) or "distances" (eq. 9
            of the paper, between the moments that the step renders and the canonical pose).
        factorised, latent_space: switch off for the ablations (the paper's Table 5): without the first the decoder
            moves every Gaussian by itself, without the second it is given the motion's number, which is not learnt.
            Without pre-training is `pretraining.steps = 0`; without joint training is `train` on one motion at a time.
    """

    key_points: int = 512
    gaussians: int = 80_000
    latent: int = 32
    width: int = 256
    depth: int = 8
    skip: int = 4
    position_frequencies: int = 10
    phase_frequencies: int = 6
    neighbours: int = 4
    graph: int = 8
    frames: int = 21
    views: int = 8
    resolution: int = 512
    latent_distribution: bool = True
    latent_spread: float = 0.0
    latent_log_var: float = 0.0
    arap: str = "rotations"
    factorised: bool = True
    latent_space: bool = True
    losses: LossWeights = field(default_factory=LossWeights)
    pretraining: Pretraining = field(default_factory=Pretraining)
    joint: Joint = field(default_factory=Joint)
    fit: LatentFit = field(default_factory=LatentFit)

    def __post_init__(self) -> None:
        # From JSON the parts come as dictionaries, and their tuples as lists.
        for name, kind in (
            ("losses", LossWeights),
            ("pretraining", Pretraining),
            ("joint", Joint),
            ("fit", LatentFit),
        ):
            value = getattr(self, name)
            if isinstance(value, dict):
                fields: dict[str, Any] = {key: _tuples(each) for key, each in value.items()}
                object.__setattr__(self, name, kind(**fields))
        if not 0 <= self.skip < self.depth - 1:
            raise ValueError(
                f"DIMOConfig.skip: expected 0..{self.depth - 2} with depth {self.depth}, got {self.skip}"
            )
        if self.pretraining.initial not in ("ball", "hull"):
            raise ValueError(
                f"Pretraining.initial: expected 'ball' or 'hull', got {self.pretraining.initial!r}"
            )

    @staticmethod
    def paper() -> DIMOConfig:
        """As published: for a GPU with 40 GB."""
        return DIMOConfig()

    @staticmethod
    def laptop() -> DIMOConfig:
        """A few motions at 128 px in two minutes of one CPU core."""
        return _on_cpu(
            DIMOConfig(key_points=64, gaussians=3000, resolution=128),
            Pretraining(steps=500, resolutions=((0, 64),)),
            Joint(steps=700, resolutions=((0, 64), (400, 128))),
        )

    @staticmethod
    def bundled() -> DIMOConfig:
        """Fifty motions at 256 px in half an hour of one CPU core, in a file under 5 MB: the bundled models."""
        return _on_cpu(
            DIMOConfig(key_points=96, gaussians=6000, resolution=256),
            Pretraining(steps=3000, resolutions=((0, 64),)),
            Joint(steps=5700, resolutions=((0, 64), (3500, 128), (5000, 256))),
        )


def _on_cpu(config: DIMOConfig, pretraining: Pretraining, joint: Joint) -> DIMOConfig:
    """What a CPU needs: a first pose from the visual hull, silhouettes alone in stage 1, quick rates, no networks."""
    return replace(
        config,
        arap="distances",
        latent_spread=0.5,
        latent_log_var=-5.0,
        losses=LossWeights(lpips=0.0, ssim=0.0, depth=0.0, normal=0.0, arap=1.0, between=20.0),
        pretraining=replace(
            pretraining,
            initial="hull",
            alpha_only=True,
            densify_every=0,
            anneal_at=(),
            final_opacity=0.0,
            arap_from=0,
            decoder=(1e-3, 5e-4),
            latents=(5e-3, 5e-3),
            points=(1e-3, 2e-4),
            points_steps=None,
        ),
        joint=replace(
            joint,
            prune_every=0,
            arap_until=joint.steps,
            means_hold=0,
            decoder=(1e-3, 1e-4),
            latents=(5e-3, 5e-4),
            key_points=(1e-4, 1e-5),
            radii=(5e-3, 5e-4),
            means=(1e-3, 1e-4),
            colors=(2e-2, 2e-3),
            opacities=(3e-2, 3e-3),
            scales=(8e-3, 8e-4),
            quats=(5e-3, 5e-4),
        ),
        fit=LatentFit(resolutions=((0, 64), (100, 128), (200, 256)), latents=(1e-1, 3e-3)),
    )


def _tuples(value: object) -> object:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value

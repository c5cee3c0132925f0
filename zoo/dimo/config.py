"""Configuration of a DIMO model and its training: one frozen, JSON-serialisable dataclass, with presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

Rate = tuple[float, float]  # learning rates at a stage's first and last step, interpolated exponentially


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in `zoo.dimo.losses` (methods §4.5); a weight of 0 disables a loss.

    The defaults are those of the published code. `between` is not in the paper: it penalises interpolated motions that
    are less rigid than both of the motions they interpolate.
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
    """Stage 1, motion pre-training: the key points are rendered as isotropic Gaussians that share one radius.

    Defaults follow methods §4.6.

    Attributes:
        steps: number of steps; 0 skips the stage.
        batch: motions, views and frames per step. The motions of a step share its views and frames.
        resolutions: (first step, image size in pixels) pairs.
        initial: "ball" (uniform in a ball of radius 0.5) or "hull" (inside the visual hull of one frame).
        alpha_only: train on silhouettes only, which takes a third of the time.
        densify_every: steps between two densifications, which clone or split key points; 0 disables them.
        densify_until: last step of densification.
        densify_pause: steps after an annealing without densification.
        densify_gradient: threshold on the view-space gradient, per unit of normalised device coordinates.
        clone_scale: key points up to this radius are cloned, larger ones are split; world units.
        prune_opacity, prune_scale: at each densification, key points below this opacity or above this radius are
            removed.
        anneal_at: steps at which farthest-point sampling reduces the key points to `DIMOConfig.key_points`.
        final_opacity: key points below this opacity are removed at the end of the stage.
        smooth_from: first step of the depth and normal smoothness losses.
        arap_from: first step of the ARAP loss.
        decoder, latents, points, radius, color, opacity: learning rates.
        points_steps: number of steps over which the rate `points` decays; None = the whole stage.
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
    """Stage 2, joint training of canonical Gaussians, key points, latents and decoder.

    Defaults follow methods §4.6.

    Attributes:
        steps, batch, resolutions: as in `Pretraining`.
        prune_every, prune_until: steps between two prunings (0 disables them), and the last step of pruning.
        prune_opacity, prune_scale: Gaussians below this opacity or above this scale (world units) are removed.
        smooth_from: first step of the depth and normal smoothness losses.
        arap_until: the ARAP loss is used in steps before this one.
        graph_every: steps between two updates of the motion graph and of each Gaussian's key points.
        means_hold: steps before the rate `means` starts to decay.
        decoder, latents, key_points, radii, means, colors, opacities, scales, quats: learning rates.
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
    """Fitting of an unseen motion: only its latent is optimised, against its videos (methods §4.7).

    Attributes:
        steps: number of steps.
        batch: views and frames per step.
        resolutions: (first step, image size in pixels) pairs.
        latents: learning rate.
    """

    steps: int = 300
    batch: tuple[int, int] = (3, 2)
    resolutions: tuple[tuple[int, int], ...] = ((0, 128), (100, 256), (200, 512))
    latents: Rate = (5e-3, 2e-4)


@dataclass(frozen=True)
class DIMOConfig:
    """Architecture and training schedule of a DIMO model.

    Attributes:
        key_points: K.
        gaussians: N at the start of stage 2; pruning reduces it.
        latent: Z.
        width, depth, skip: width and number of layers of the decoder's trunk; the input is concatenated again to the
            output of layer `skip` (0-based).
        position_frequencies, phase_frequencies: octaves of the two positional encodings.
        neighbours: J, key points that drive one Gaussian.
        graph: G, length of a row of the motion graph, which includes the key point itself.
        frames, views, resolution: T, V and image size in pixels of the training videos. A sample has `frames` frames;
            training uses at most `views` views.
        latent_distribution: optimise mean and log variance of each motion's latent (paper eq. 5); False = the latent
            itself.
        latent_spread, latent_log_var: standard deviation of the means, and the log variance, at initialisation.
        arap: "rotations" (deviation from the best rigid rotation, at 8 phases decoded for this loss) or "distances"
            (paper eq. 9, between the rendered phases and the canonical pose).
        factorised: False = ablation without motion factorisation (paper, Table 5): the decoder moves every Gaussian.
        latent_space: False = ablation without latent space: the decoder receives the motion's index, a constant. The
            other two ablations are `pretraining.steps = 0` and one call of `train` per motion.
        losses, pretraining, joint, fit: see their classes.
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
        # JSON gives nested dataclasses as dictionaries and tuples as lists.
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
        """The published configuration, for a GPU with 40 GB."""
        return DIMOConfig()

    @staticmethod
    def laptop() -> DIMOConfig:
        """A few motions at 128 px; trains in two minutes on one CPU core."""
        return _on_cpu(
            DIMOConfig(key_points=64, gaussians=3000, resolution=128),
            Pretraining(steps=500, resolutions=((0, 64),)),
            Joint(steps=700, resolutions=((0, 64), (400, 128))),
        )

    @staticmethod
    def bundled() -> DIMOConfig:
        """The bundled models: fifty motions at 256 px, half an hour on one CPU core, a file under 5 MB."""
        return _on_cpu(
            DIMOConfig(key_points=96, gaussians=6000, resolution=256),
            Pretraining(steps=3000, resolutions=((0, 64),)),
            Joint(steps=5700, resolutions=((0, 64), (3500, 128), (5000, 256))),
        )


def _on_cpu(config: DIMOConfig, pretraining: Pretraining, joint: Joint) -> DIMOConfig:
    """Adapt a configuration to a CPU: visual-hull start, silhouettes only in stage 1, higher rates, no LPIPS."""
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

"""Configuration of a DIMO model and its training: one frozen, JSON-serialisable dataclass, with presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from renderers.fields import Count, Fraction, NotNegative, OneOf, Positive, Range, Whole, check_fields

Pixels = Annotated[int, Range(low=8, high=4096)]
Schedule = tuple[tuple[Whole, Pixels], ...]
Rate = tuple[
    Positive, Positive
]  # learning rates at a stage's first and last step, interpolated exponentially


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in `zoo.dimo.losses` (methods §4.5); a weight of 0 disables a loss.

    The defaults are those of the published code. Two losses are not in the paper: `between` penalises interpolated
    motions that are less rigid than both of the motions they interpolate, and `tracks` the distance of key points from
    tracked surface points, where the videos have them (`zoo.dimo.tracks`).
    """

    rgb: NotNegative = 5000.0
    lpips: NotNegative = 1000.0
    ssim: NotNegative = 500.0
    mask: NotNegative = 500.0
    depth: NotNegative = 100.0
    normal: NotNegative = 0.05
    kl: NotNegative = 0.05
    arap: NotNegative = 10.0
    chamfer: NotNegative = 10.0
    between: NotNegative = 0.0
    tracks: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Pretraining:
    """Stage 1, motion pre-training: the key points are rendered as isotropic Gaussians that share one radius.

    Defaults follow methods §4.6.

    Attributes:
        steps: number of steps; 0 skips the stage.
        untracked_steps: as many more where the videos have no tracks (`LossWeights.tracks`; not in the paper).
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

    steps: Whole = 2800
    untracked_steps: Whole = 0
    batch: tuple[Count, Count, Count] = (4, 3, 2)
    resolutions: Schedule = ((0, 128), (300, 256), (450, 512))
    initial: Annotated[str, OneOf("ball", "hull")] = "ball"
    alpha_only: bool = False
    densify_every: Whole = 100
    densify_until: Whole = 2000
    densify_pause: Whole = 200
    densify_gradient: NotNegative = 0.02
    clone_scale: Positive = 0.04
    prune_opacity: Fraction = 0.02
    prune_scale: Positive = 0.4
    anneal_at: tuple[Whole, ...] = (1000, 2000)
    final_opacity: Fraction = 0.01
    smooth_from: Whole = 200
    arap_from: Whole = 2000
    decoder: Rate = (2e-4, 2e-4)
    latents: Rate = (5e-3, 5e-3)
    points: Rate = (1e-2, 2e-4)
    points_steps: Count | None = 500
    radius: Rate = (1e-2, 1e-2)
    color: Rate = (1e-2, 1e-2)
    opacity: Rate = (5e-2, 5e-2)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_schedule(self.resolutions, type(self).__name__)


@dataclass(frozen=True)
class Joint:
    """Stage 2, joint training of canonical Gaussians, key points, latents and decoder.

    Defaults follow methods §4.6.

    Attributes:
        steps, untracked_steps, batch, resolutions: as in `Pretraining`.
        prune_every, prune_until: steps between two prunings (0 disables them), and the last step of pruning.
        prune_opacity, prune_scale: Gaussians below this opacity or above this scale (world units) are removed.
        remove_strays: at the end, remove Gaussians that come off the object (`zoo.dimo.strays`; not in the paper).
        polish_steps: at the end, steps on tracks alone (`zoo.dimo.polish`; not in the paper).
        surface_steps: at the end, steps in which new Gaussians on the surface replace those of before
            (`zoo.dimo.surface`; not in the paper).
        prior_steps: at the end, steps in which the latents' coordinates are fitted to N(0, I), so that draws hold
            together (`zoo.dimo.prior`; not in the paper).
        smooth_from: first step of the depth and normal smoothness losses.
        arap_until: the ARAP loss is used in steps before this one.
        graph_every: steps between two updates of the motion graph and of each Gaussian's key points.
        means_hold: steps before the rate `means` starts to decay.
        decoder, latents, key_points, radii, means, colors, opacities, scales, quats: learning rates.
    """

    steps: Count = 8000
    untracked_steps: Whole = 0
    batch: tuple[Count, Count, Count] = (4, 3, 2)
    resolutions: Schedule = ((0, 128), (300, 256), (450, 512))
    prune_every: Whole = 1000
    prune_until: Whole = 5000
    prune_opacity: Fraction = 0.01
    prune_scale: Positive = 0.4
    remove_strays: bool = False
    polish_steps: Whole = 0
    surface_steps: Whole = 0
    prior_steps: Whole = 0
    smooth_from: Whole = 200
    arap_until: Whole = 5000
    graph_every: Count = 100
    means_hold: Whole = 1000
    decoder: Rate = (2e-4, 2e-6)
    latents: Rate = (5e-3, 2e-4)
    key_points: Rate = (2e-6, 2e-6)
    radii: Rate = (5e-3, 5e-3)
    means: Rate = (2e-4, 2e-6)
    colors: Rate = (1e-2, 1e-2)
    opacities: Rate = (5e-2, 5e-2)
    scales: Rate = (5e-3, 5e-3)
    quats: Rate = (5e-3, 5e-3)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_schedule(self.resolutions, type(self).__name__)


@dataclass(frozen=True)
class LatentFit:
    """Fitting of an unseen motion: only its latent is optimised, against its videos (methods §4.7).

    Attributes:
        steps: number of steps.
        batch: views and frames per step.
        resolutions: (first step, image size in pixels) pairs.
        latents: learning rate.
    """

    steps: Count = 300
    batch: tuple[Count, Count] = (3, 2)
    resolutions: Schedule = ((0, 128), (100, 256), (200, 512))
    latents: Rate = (5e-3, 2e-4)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_schedule(self.resolutions, type(self).__name__)


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
        blending: of the key points' rotations: "aligned" normalises the quaternions and gives them a common sign before
            they are averaged. "linear" averages them as they are, as the published code does (methods §4.4), and is
            how models of files without this field were trained.
        root: the decoder also predicts a rigid motion of the whole object from phase and latent, on which the key
            points' own motions are based (not in the paper). Between two motions that turn by different angles, the
            object then turns by an angle in between, instead of being deformed.
        stretching: skinning stretches the object where its key points move apart, with the Gaussians on it (not in the
            paper, whose skinning moves and turns them only: a body that swells then shows gaps). Training with tracks
            turns this off where it does not help (`zoo.dimo.binding`).
        discs: Gaussians are discs, carried along as tangents of the deformed surface (not in the paper, whose skinning
            turns them as the blend of the key points' rotations). With `joint.surface_steps`, they become discs in
            these steps.
        smoothing: standard deviation of a 3D filter that enlarges every Gaussian, world units, so that it covers the
            same part of the object in images of every size; images have no other blur. None = as large as the blur of
            0.3 pixels² in the training images, set when training begins. 0 = none: images have that blur in pixels at
            every size, as with the published code and with models of files without this field. A model trained at
            256 pixels is then drawn too large at 128 and too small at 512.
        factorised: False = ablation without motion factorisation (paper, Table 5): the decoder moves every Gaussian.
        latent_space: False = ablation without latent space: the decoder receives the motion's index, a constant. The
            other two ablations are `pretraining.steps = 0` and one call of `train` per motion.
        losses, pretraining, joint, fit: see their classes.
    """

    key_points: Count = 512
    gaussians: Count = 80_000
    latent: Count = 32
    width: Count = 256
    depth: Annotated[int, Range(low=2)] = 8
    skip: Whole = 4
    position_frequencies: Whole = 10
    phase_frequencies: Whole = 6
    neighbours: Count = 4
    graph: Count = 8
    frames: Count = 21
    views: Count = 8
    resolution: Pixels = 512
    latent_distribution: bool = True
    latent_spread: NotNegative = 0.0
    latent_log_var: float = 0.0
    arap: Annotated[str, OneOf("rotations", "distances")] = "rotations"
    blending: Annotated[str, OneOf("linear", "aligned")] = "linear"
    root: bool = False
    stretching: bool = False
    discs: bool = False
    smoothing: NotNegative | None = 0.0
    factorised: bool = True
    latent_space: bool = True
    losses: LossWeights = field(default_factory=LossWeights)
    pretraining: Pretraining = field(default_factory=Pretraining)
    joint: Joint = field(default_factory=Joint)
    fit: LatentFit = field(default_factory=LatentFit)

    def __post_init__(self) -> None:
        check_fields(self)  # also converts what JSON gives: dictionaries to dataclasses, lists to tuples
        if not 0 <= self.skip < self.depth - 1:
            raise ValueError(
                f"DIMOConfig.skip: expected 0..{self.depth - 2} with depth {self.depth}, got {self.skip}"
            )

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values, which are arguments of the class.

        Fields that version 0.1 did not have are left out where they have their defaults, so that a model of that
        version, saved again, is the same file.
        """
        values = asdict(self)
        for part, defaults, added in (
            (values, DIMOConfig, ("blending", "root", "stretching", "discs", "smoothing")),
            (values["losses"], LossWeights, ("tracks",)),
            (values["pretraining"], Pretraining, ("untracked_steps",)),
            (
                values["joint"],
                Joint,
                ("untracked_steps", "remove_strays", "polish_steps", "surface_steps", "prior_steps"),
            ),
        ):
            for name in added:
                if part[name] == getattr(defaults, name):
                    del part[name]
        return values

    def untracked(self) -> DIMOConfig:
        """This configuration for videos without tracks: `untracked_steps` are added to the steps of both stages.

        If stage 2 has any, they take the place of the steps that make a skin, whose discs would start on the hull.
        """
        first, second, discs = self.pretraining, self.joint, self.discs
        first = replace(first, steps=first.steps + first.untracked_steps, untracked_steps=0)
        if second.untracked_steps:
            steps = second.steps + second.untracked_steps
            second, discs = replace(second, steps=steps, untracked_steps=0, surface_steps=0), False
        return replace(self, pretraining=first, joint=second, discs=discs)

    @staticmethod
    def paper() -> DIMOConfig:
        """The published configuration, for a GPU with 40 GB."""
        return DIMOConfig(blending="aligned")

    @staticmethod
    def laptop() -> DIMOConfig:
        """A few motions at 128 px; trains in a minute on one CPU core, in two if the videos have no tracks.

        Where they have, both stages are replaced by steps on tracks and steps that make a skin.
        """
        return _on_cpu(
            DIMOConfig(key_points=64, gaussians=3000, resolution=128),
            Pretraining(steps=0, untracked_steps=500, resolutions=((0, 64),)),
            Joint(
                steps=1,
                untracked_steps=699,
                resolutions=((0, 64), (400, 128)),
                polish_steps=300,
                surface_steps=180,
            ),
        )

    @staticmethod
    def bundled() -> DIMOConfig:
        """The bundled models: fifty motions at 256 px, half an hour on one CPU core, a file under 5 MB."""
        return _on_cpu(
            DIMOConfig(key_points=96, neighbours=8, discs=True, gaussians=6000, resolution=256),
            Pretraining(steps=3000, resolutions=((0, 64),)),
            Joint(
                steps=5700,
                untracked_steps=400,
                resolutions=((0, 64), (3500, 128), (5000, 256)),
                polish_steps=3000,
                surface_steps=400,
                prior_steps=300,
            ),
        )


def _on_cpu(config: DIMOConfig, pretraining: Pretraining, joint: Joint) -> DIMOConfig:
    """Adapt a configuration to a CPU: visual-hull start, silhouettes only in stage 1, higher rates, no LPIPS."""
    return replace(
        config,
        arap="distances",
        blending="aligned",
        root=True,
        stretching=True,
        smoothing=None,
        latent_spread=0.5,
        latent_log_var=-5.0,
        losses=LossWeights(lpips=0.0, ssim=0.0, depth=0.0, normal=0.0, arap=1.0, between=20.0, tracks=5000.0),
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
            remove_strays=True,
            arap_until=joint.steps + joint.untracked_steps,
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


def _check_schedule(resolutions: Schedule, name: str) -> None:
    """Check that the resolution of every step is defined.

    Raises:
        ValueError: the first entry does not start at step 0, or the steps do not increase.
    """
    steps = [first for first, _ in resolutions]
    if not steps or steps[0] != 0 or steps != sorted(set(steps)):
        raise ValueError(
            f"{name}.resolutions: expected (first step, pixels) pairs with increasing steps from 0, such as "
            f"((0, 64), (300, 128)), got {resolutions}"
        )

"""Learning a DIMO from motion videos: motions first, on key points alone, then everything together (paper §3.3).

    videos = MotionVideos.open("kangaroo").select("train")
    model = train(videos, DIMOConfig.laptop(), checkpoint=Path("run.safetensors"))

Every step's randomness follows from (seed, stage, step), and a checkpoint holds everything else, so a run that was
killed and resumed ends with the bits of an undisturbed one. Nothing in a step waits for the device.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from renderers.gaussians import Gaussians, Rendered, render
from zoo.dimo import losses
from zoo.dimo.config import DIMOConfig, LossWeights, Rate
from zoo.dimo.data import MotionVideos, over
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.model import DIMO, rbf_weights
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.points import calmest_frame, farthest_points, spacing, visual_hull

Progress = dict[str, object]
FORMAT = "dimo-checkpoint-1"
REPORT_EVERY = 25  # steps between two reports: each waits for the device once


class Outcome(NamedTuple):
    """What one step gives: the loss that was descended, and the squared error of the picture for reports."""

    loss: Tensor
    error: Tensor


def train(
    videos: MotionVideos,
    config: DIMOConfig,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[Progress], object] | None = None,
    save_every: int = 500,
) -> DIMO:
    """Learn a model of all motions in `videos` from their training views.

    Args:
        checkpoint: a .safetensors file; an existing one is resumed, and it is written every `save_every` steps.
        on_step: called now and then with step, steps, stage, loss, psnr (on training pictures, of silhouettes where
            those alone are learnt from) and seconds; a true answer asks for a checkpoint at once.
    Raises:
        ValueError: the videos do not fit the configuration, or the checkpoint is of another run.
    """
    run = _Run(videos, config, seed, torch.device(device))
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    while (stage := run.stage()) is not None:
        for batch in stage.feed.batches(run.step - stage.first, stage.steps):
            started = time.perf_counter()
            outcome = stage.advance(run.step - stage.first, batch.to(run.device))
            run.step += 1
            if run.step % REPORT_EVERY == 0 or run.step in (1, run.steps):
                progress = run.progress(stage, outcome)
                wanted = on_step(progress) if on_step else False
            else:
                wanted = False
            run.seconds += time.perf_counter() - started
            if checkpoint is not None and (wanted or run.step % save_every == 0 or run.step == run.steps):
                run.save(checkpoint)
    return run.model.eval()


class _Run:
    """A training under way: its model, its stage and how far it is."""

    def __init__(self, videos: MotionVideos, config: DIMOConfig, seed: int, device: torch.device) -> None:
        if not len(videos):
            raise ValueError(f"{videos.folder}: there is no motion to learn")
        self.videos, self.config, self.seed, self.device = videos, config, seed, device
        self.views = list(videos.train_views[: config.views])
        self.step, self.seconds = 0, 0.0
        self.steps = config.pretraining.steps + config.joint.steps
        if config.losses.lpips:
            losses.lpips_network(device)  # refuse before the work, not after it
        self.model = self._fresh_model()
        self._stage: _Pretrain | _Together | None = None

    def stage(self) -> _Pretrain | _Together | None:
        """The stage that the next step belongs to, begun where it has to be; None at the end."""
        if self.step >= self.steps:
            return None
        first = self.config.pretraining.steps
        if self.step < first:
            self._stage = self._stage or _Pretrain(self)
        elif not isinstance(self._stage, _Together):
            guide = self._stage.finish() if self._stage is not None else None
            self._stage = _Together(self, guide)
        return self._stage

    def progress(self, stage: _Pretrain | _Together, outcome: Outcome) -> Progress:
        loss, error = torch.stack([outcome.loss.detach(), outcome.error.detach()]).tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(f"{self.videos.object}: the loss is {loss} at step {self.step}")
        return {
            "step": self.step, "steps": self.steps, "stage": stage.name, "loss": loss,
            "psnr": -10 * math.log10(max(error, 1e-10)), "seconds": self.seconds,
        }  # fmt: skip

    @cached_property
    def pose(self) -> tuple[int, int]:
        """Motion and frame whose hull training begins with."""
        return calmest_frame(self.videos, self.views)

    def rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])

    def _fresh_model(self) -> DIMO:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = DIMO(self.config, len(self.videos))
        rng, shape = self.rng(0), model.mu.shape
        with torch.no_grad():
            if not self.config.latent_space:
                model.mu[:, 0] = torch.linspace(-1, 1, len(self.videos))
            else:
                model.mu += self.config.latent_spread * torch.from_numpy(
                    rng.standard_normal(shape, np.float32)
                )
            model.log_var.fill_(self.config.latent_log_var)
        return model.to(self.device)

    # --- checkpoints ---

    def save(self, path: Path) -> None:
        """Write everything the next step depends on, whole or not at all."""
        from safetensors.torch import save_file

        stage = self._stage
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"stage.{k}": v for k, v in stage.tensors().items()}
        tensors |= {f"adam.{k}": v for k, v in stage.adam.state().items()}
        about = {
            "format": FORMAT, "run": self._identity(), "step": self.step, "seconds": self.seconds,
            "stage": stage.name,
        }  # fmt: skip
        part = path.with_name(path.name + ".part")
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, {"dimo": json.dumps(about)}
        )
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of this very run."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                about = json.loads((file.metadata() or {}).get("dimo", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path}: not a checkpoint ({error}); delete it to begin anew") from error
        if about.get("format") != FORMAT or about["run"] != self._identity():
            raise ValueError(
                f"{path} is the checkpoint of another training (object, motions, configuration and seed must be the "
                "same); give another path, or delete it to begin anew"
            )
        parts = {"model": {}, "stage": {}, "adam": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.step, self.seconds = about["step"], about["seconds"]
        self.model = DIMO.from_state(self.config, parts["model"]).to(self.device)
        kind = {kind.name: kind for kind in (_Pretrain, _Together)}[about["stage"]]
        self._stage = kind.restored(self, parts["stage"])
        self._stage.adam.load(parts["adam"])

    def _identity(self) -> dict[str, object]:
        about = {"object": self.videos.object, "motions": self.videos.names, "seed": self.seed}
        return json.loads(json.dumps(about | {"config": asdict(self.config)}))


# --- stage 1: key points alone ----------------------------------------------------------------------


class _Pretrain:
    """Key points drawn as isotropic Gaussians of one radius learn where they are at each moment of each motion."""

    name = "motion"

    def __init__(self, run: _Run, tensors: dict[str, Tensor] | None = None) -> None:
        self.run, self.plan = run, run.config.pretraining
        self.first, self.steps = 0, self.plan.steps
        self.feed = Feed(
            run.videos,
            run.views,
            self.plan.batch,
            self.plan.resolutions,
            run.config.latent,
            (run.seed, 1),
        )
        begin = self._begin() if tensors is None else tensors
        self.points, self.radius, self.colors, self.opacities = (
            nn.Parameter(begin[name]) for name in ("points", "radius", "colors", "opacities")
        )
        self.moved = begin.get("moved", torch.zeros(len(self.points), device=run.device))
        self.adam = NamedAdam(
            {
                "decoder": list(run.model.decoder.parameters()),
                "latents": [run.model.mu, run.model.log_var],
                "points": [self.points],
                "radius": [self.radius],
                "color": [self.colors],
                "opacity": [self.opacities],
            }
        )

    @classmethod
    def restored(cls, run: _Run, tensors: dict[str, Tensor]) -> _Pretrain:
        return cls(run, tensors)

    def tensors(self) -> dict[str, Tensor]:
        return {
            "points": self.points, "radius": self.radius, "colors": self.colors, "opacities": self.opacities,
            "moved": self.moved,
        }  # fmt: skip

    def advance(self, step: int, batch: Batch) -> Outcome:
        """One step of learning, and what the schedule has after it."""
        model, plan, weights = self.run.model, self.plan, self.run.config.losses
        z = latents(model, batch)
        offsets, _ = model.decoder(self.points, batch.phases, z)
        positions = self.points + offsets
        picture = render(
            self._gaussians(positions.flatten(0, 1)),
            batch.cameras,
            background=None if plan.alpha_only else torch.ones(3, device=z.device),
            want=("alpha",) if plan.alpha_only else _wanted(weights, step >= plan.smooth_from),
        )
        if plan.alpha_only:
            error = losses.squared_error(picture.alpha, over(batch.targets)[1]) * batch.share
            loss = (weights.mask + _renders(batch) * weights.rgb) * error
        else:
            loss, error = photometric(self.run.config, picture, batch)
        loss = loss + latent_loss(self.run.config, model, batch)
        if step >= plan.arap_from:
            loss = loss + rigidity_loss(model, self.points, self.radius, positions, z, batch)
        loss.backward()
        if plan.densify_every and step <= plan.densify_until:
            self._watch(picture, batch)
        self.adam.step(self._rates(step))
        self._grow(step)
        return Outcome(loss, error)

    def finish(self) -> Tensor:
        """Hand the key points to the model; the guide of stage 2: their positions in all frames, [M, T, K, 3]."""
        self._keep((self.opacities.detach().sigmoid() >= self.plan.final_opacity).nonzero()[:, 0])
        run, config = self.run, self.run.config
        old = run.model
        run.model = DIMO(config, old.num_motions, num_key_points=len(self.points)).to(run.device)
        run.model.decoder, run.model.mu, run.model.log_var = old.decoder, old.mu, old.log_var
        with torch.no_grad():
            run.model.key_points.copy_(self.points)
            run.model.log_radii.copy_(self.radius.expand(len(self.points)))
        return _positions(run.model, run.videos)

    def _begin(self) -> dict[str, Tensor]:
        run, K = self.run, self.run.config.key_points
        rng = run.rng(1)
        if self.plan.initial == "hull":
            many, colors = _hull(run, 16 * K, rng)
            chosen = farthest_points(many, K)
            points, colors, opacity = many[chosen], colors[chosen], 0.5
        else:
            points = _ball(rng, K, 0.5).to(run.device)
            colors, opacity = torch.full((K, 3), 0.5, device=run.device), 0.05
        return {
            "points": points,
            "radius": spacing(points).mean().log()[None],
            "colors": colors,
            "opacities": torch.full((K,), opacity, device=run.device).logit(),
        }

    def _gaussians(self, means: Tensor) -> Gaussians:
        N = means.shape[1]
        return Gaussians(
            means=means,
            quats=torch.tensor([1.0, 0, 0, 0], device=means.device).expand(1, N, 4),
            scales=self.radius.exp().expand(1, N, 3),
            opacities=self.opacities.sigmoid()[None],
            colors=self.colors[None],
        )

    def _rates(self, step: int) -> dict[str, float]:
        plan = self.plan
        names = ("decoder", "latents", "radius", "color", "opacity")
        rates = {name: _rate(getattr(plan, name), step, plan.steps) for name in names}
        rates["points"] = _rate(plan.points, step, plan.points_steps or plan.steps)
        return rates

    def _watch(self, picture: Rendered, batch: Batch) -> None:
        """Add up how strongly the pictures pull at each key point, per unit of normalised device coordinates."""
        whole = (batch.cameras.width * batch.cameras.height / batch.share) ** 0.5
        self.moved += (picture.means2d.grad.norm(dim=-1) * (whole / 2)).sum((0, 1))

    def _grow(self, step: int) -> None:
        """Densify and prune; at the annealing steps, back to the wanted number by farthest-point sampling."""
        plan, done = self.plan, step + 1
        since = done - max((at for at in plan.anneal_at if at <= done), default=0)
        if (
            plan.densify_every
            and done % plan.densify_every == 0
            and done <= plan.densify_until
            and since >= plan.densify_pause
        ):
            radius = self.radius.detach().exp()
            pulled = (self.moved / plan.densify_every >= plan.densify_gradient).nonzero()[:, 0]
            # A small key point is doubled where it is, a large one into two that lie apart.
            apart = torch.from_numpy(self.run.rng(1, 1, done).standard_normal((len(pulled), 3), np.float32))
            shift = apart.to(self.points.device) * radius * (radius > plan.clone_scale)
            with torch.no_grad():
                self.points[pulled] -= shift
            added = (self.points.detach()[pulled] + 2 * shift, self.colors.detach()[pulled])
            self.points = self.adam.append("points", added[0])
            self.colors = self.adam.append("color", added[1])
            self.opacities = self.adam.append("opacity", self.opacities.detach()[pulled])
            solid = self.opacities.detach().sigmoid() >= plan.prune_opacity
            self._keep((solid & (radius <= plan.prune_scale)).nonzero()[:, 0])
        if done in plan.anneal_at:
            self._keep(farthest_points(self.points.detach(), self.run.config.key_points))

    def _keep(self, rows: Tensor) -> None:
        if not len(rows):
            raise RuntimeError(
                f"{self.run.videos.object}: no key point is left; are masks and cameras those of these frames?"
            )
        self.points = self.adam.select("points", rows)
        self.colors = self.adam.select("color", rows)
        self.opacities = self.adam.select("opacity", rows)
        self.moved = torch.zeros(len(rows), device=rows.device)


# --- stage 2: everything ----------------------------------------------------------------------------


class _Together:
    """Gaussians, key points, latents and decoder learn together, guided by the key points of stage 1."""

    name = "joint"
    learnt = ("means", "log_scales", "quats", "opacity_logits", "colors")

    def __init__(self, run: _Run, guide: Tensor | None, fresh: bool = True) -> None:
        self.run, self.plan, self.guide = run, run.config.joint, guide
        self.first, self.steps = run.config.pretraining.steps, self.plan.steps
        self.feed = Feed(
            run.videos,
            run.views,
            self.plan.batch,
            self.plan.resolutions,
            run.config.latent,
            (run.seed, 2),
        )
        if fresh:
            self._begin()
        model = run.model
        groups = {name: [getattr(model, name)] for name in self.learnt}
        groups |= {"decoder": list(model.decoder.parameters()), "latents": [model.mu, model.log_var]}
        groups |= {"key_points": [model.key_points], "log_radii": [model.log_radii]}
        self.adam = NamedAdam(groups)

    @classmethod
    def restored(cls, run: _Run, tensors: dict[str, Tensor]) -> _Together:
        return cls(run, tensors.get("guide"), fresh=False)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.guide is None else {"guide": self.guide}

    def advance(self, step: int, batch: Batch) -> Outcome:
        """One step of learning, and what the schedule has after it."""
        model, config, plan = self.run.model, self.run.config, self.plan
        weights = config.losses
        if step % plan.graph_every == 0:
            model.refresh()
        z = latents(model, batch)
        motion = model.trajectories(z, batch.phases)
        picture = render(
            model.skin(motion),
            batch.cameras,
            background=torch.ones(3, device=z.device),
            want=_wanted(weights, step >= plan.smooth_from),
        )
        loss, error = photometric(config, picture, batch)
        loss = loss + latent_loss(config, model, batch)
        if config.factorised and step < plan.arap_until:
            loss = loss + rigidity_loss(
                model, model.key_points, model.log_radii, motion.positions, z, batch, model.graph
            )
        if self.guide is not None and config.factorised and weights.chamfer:
            known = self.guide[batch.motions][:, batch.frames]
            loss = loss + weights.chamfer * losses.chamfer(motion.positions, known).sum() * _views(
                batch
            ) / len(z)
        loss.backward()
        self.adam.step(self._rates(step))
        done = step + 1
        if plan.prune_every and done % plan.prune_every == 0 and done <= plan.prune_until:
            self._prune()
        return Outcome(loss, error)

    def _rates(self, step: int) -> dict[str, float]:
        plan = self.plan
        names = ("decoder", "latents", "key_points", "colors", "quats")
        rates = {name: _rate(getattr(plan, name), step, plan.steps) for name in names}
        held = max(0, step - plan.means_hold)
        rates["means"] = _rate(plan.means, held, max(1, plan.steps - plan.means_hold))
        for name, rate in (
            ("log_scales", plan.scales),
            ("opacity_logits", plan.opacities),
            ("log_radii", plan.radii),
        ):
            rates[name] = _rate(rate, step, plan.steps)
        return rates

    @torch.no_grad()
    def _prune(self) -> None:
        model, plan = self.run.model, self.plan
        good = (model.opacity_logits.sigmoid() >= plan.prune_opacity) & (
            model.log_scales.exp().amax(-1) <= plan.prune_scale
        )
        rows = good.nonzero()[:, 0]
        if not len(rows):
            raise RuntimeError(f"{self.run.videos.object}: no Gaussian is left at step {self.run.step}")
        for name in self.learnt:
            setattr(model, name, self.adam.select(name, rows))
        model.neighbours = model.neighbours[rows]

    @torch.no_grad()
    def _begin(self) -> None:
        """Gaussians around the key points, or on the hull of one frame carried back to the canonical pose."""
        run, model, N = self.run, self.run.model, self.run.config.gaussians
        rng = run.rng(2)
        if self.guide is None:  # there was no stage 1
            points = _hull(run, 16 * len(model.key_points), rng)[0] if self._hull else None
            if points is None:
                points = _ball(rng, len(model.key_points), 0.5).to(run.device)
            model.key_points.copy_(points[farthest_points(points, len(model.key_points))])
            model.log_radii.fill_(spacing(model.key_points).mean().log())
        if self._hull:
            places, colors = _hull(run, N, rng)
            means = _carried_back(run, places) if self.guide is not None else places
            opacity = 0.5
        else:
            around = torch.arange(N, device=run.device) % len(model.key_points)
            offsets = _ball(rng, N, 1.0).to(run.device) * model.log_radii.exp().mean()
            means, colors, opacity = model.key_points[around] + offsets, torch.full((N, 3), 0.5), 0.05
        model.means.copy_(means)
        model.colors.copy_(colors)
        model.opacity_logits.fill_(math.log(opacity / (1 - opacity)))
        model.log_scales.copy_(spacing(model.means).log()[:, None].expand(-1, 3))

    @property
    def _hull(self) -> bool:
        return self.run.config.pretraining.initial == "hull"


# --- what both stages share -------------------------------------------------------------------------


def latents(model: DIMO, batch: Batch) -> Tensor:
    """One z per motion of the step, [M', Z]: drawn from its distribution, or the latent itself."""
    mu = model.mu[batch.motions]
    if not model.config.latent_space:
        return mu.detach()
    if not model.config.latent_distribution:
        return mu
    return mu + (0.5 * model.log_var[batch.motions]).exp() * batch.noise


def photometric(config: DIMOConfig, picture: Rendered, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted sum of the losses on pictures, and the squared error of their colours."""
    weights, share = config.losses, batch.share
    target, mask = over(batch.targets)
    error = losses.squared_error(picture.rgb, target) * share
    loss = weights.rgb * _renders(batch) * error
    loss = loss + weights.mask * share * losses.squared_error(picture.alpha, mask)
    if weights.ssim:
        loss = loss + weights.ssim * share * (1 - losses.ssim(picture.rgb, target)).mean()
    if weights.lpips:
        loss = loss + weights.lpips * share * losses.lpips(picture.rgb, target)
    if picture.depth is not None:
        depth = picture.depth * picture.alpha
        loss = loss + weights.depth * share * losses.depth_smoothness(depth, picture.rgb.detach())
    if picture.normal is not None:
        loss = loss + weights.normal * share * losses.normal_smoothness(picture.normal, picture.rgb.detach())
    return loss, error


def latent_loss(config: DIMOConfig, model: DIMO, batch: Batch) -> Tensor | float:
    """The weighted divergence of the step's latents from the standard normal."""
    if not (config.latent_space and config.latent_distribution and config.losses.kl):
        return 0.0
    divergence = losses.kl_divergence(model.mu[batch.motions], model.log_var[batch.motions])
    return config.losses.kl * divergence.mean()


def rigidity_loss(
    model: DIMO,
    points: Tensor,
    log_radii: Tensor,
    positions: Tensor,
    z: Tensor,
    batch: Batch,
    graph: Tensor | None = None,
) -> Tensor | float:
    """The weighted rigidity of the step's motions, in the configured form, and of motions between them.

    See `losses.arap_distances` and `losses.arap_rotations`. Without a graph, neighbours are the nearest at rest.
    """
    config, weights, loss = model.config, model.config.losses, 0.0
    if graph is None:
        with torch.no_grad():
            size = min(config.graph, len(points))
            graph = torch.cdist(points, points).topk(size, largest=False).indices
    radii = log_radii.exp().expand(len(points))
    if weights.arap and config.arap == "distances":
        loss = loss + weights.arap * losses.arap_distances(positions, points, graph, radii).mean()
    elif weights.arap:
        moments = torch.arange(8, device=z.device) / 8
        offsets, _ = model.decoder(points.detach(), moments, z)
        loss = loss + weights.arap * losses.arap_rotations(points.detach() + offsets, graph).mean()
    if weights.between and len(z) > 1:
        loss = (
            loss + weights.between * excess_between(model, points, positions, z, batch, graph, radii).mean()
        )
    return loss


def excess_between(
    model: DIMO, points: Tensor, positions: Tensor, z: Tensor, batch: Batch, graph: Tensor, radii: Tensor
) -> Tensor:
    """By how much motions somewhere between pairs of the step's are less rigid than both, [M' // 2].

    Rigidity is `losses.arap_distances`. As a share of the less rigid end's, since what shows between two quiet motions
    would be nothing beside a lively one; 0 where it is no larger.
    """
    pairs = len(z) // 2
    first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    mixed = torch.lerp(z[first], z[second], batch.blend[first, None])
    offsets, _ = model.decoder(points, batch.phases, mixed)
    between = losses.arap_distances(points + offsets, points, graph, radii)
    with torch.no_grad():
        ends = losses.arap_distances(positions, points, graph, radii)
        ends = torch.maximum(ends[first], ends[second])
    return (between / ends.clamp(min=1e-6) - 1).relu()


def _wanted(weights: LossWeights, smooth: bool) -> tuple[str, ...]:
    extra = [name for name in ("depth", "normal") if smooth and getattr(weights, name)]
    return "rgb", "alpha", *extra


def _renders(batch: Batch) -> int:
    """Pictures of one motion in the step: the published colour loss is their sum."""
    return batch.targets.shape[1] * len(batch.frames)


def _views(batch: Batch) -> int:
    return batch.targets.shape[1]


def _rate(rate: Rate, step: int, steps: int) -> float:
    start, end = rate
    return start * (end / start) ** min(1.0, step / max(1, steps))


def _ball(rng: np.random.Generator, count: int, radius: float) -> Tensor:
    """Points uniform in a ball, [count, 3]."""
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return torch.from_numpy(
        (radius * directions * rng.uniform(size=(count, 1)) ** (1 / 3)).astype(np.float32)
    )


def _hull(run: _Run, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    motion, frame = run.pose
    points, colors = visual_hull(run.videos, motion, frame, run.views, count, rng)
    return torch.from_numpy(points).to(run.device), torch.from_numpy(colors).to(run.device)


def _carried_back(run: _Run, places: Tensor) -> Tensor:
    """Points seen in the frame of the hull, in the canonical pose: moved with the key points around them there."""
    model, videos = run.model, run.videos
    motion, frame = run.pose
    phase = torch.tensor([videos.phases[frame]], device=run.device)
    posed = model.paths(model.mu[motion : motion + 1], phase)[0, 0]
    nearest = torch.cdist(places, posed).topk(min(4, len(posed)), largest=False)
    weights = rbf_weights(nearest.values.square(), model.log_radii.exp()[nearest.indices])
    return places - ((posed - model.key_points)[nearest.indices] * weights[..., None]).sum(1)


@torch.no_grad()
def _positions(model: DIMO, videos: MotionVideos) -> Tensor:
    """Key points in every frame of every motion, [M, T, K, 3], decoded from the means of the latents."""
    phases = torch.tensor(videos.phases, device=model.mu.device)
    return torch.cat([model.paths(z, phases) for z in model.mu.split(4)])


# --- unseen motions ---------------------------------------------------------------------------------


def fit_latent(
    model: DIMO,
    videos: MotionVideos,
    *,
    steps: int | None = None,
    seed: int = 0,
    on_step: Callable[[Progress], object] | None = None,
) -> Tensor:
    """The latents [M, Z] with which a trained model shows the motions of `videos`; nothing else is learnt.

    Each motion begins at the best of 0 and the latents that the model knows.

    Args:
        steps: those of `config.fit` unless given.
    """
    plan, device = model.config.fit, model.mu.device
    steps = plan.steps if steps is None else steps
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        found = []
        for index in range(len(videos)):
            one, started = videos.select([index]), time.perf_counter()
            feed = Feed(
                one,
                one.train_views[: model.config.views],
                (1, *plan.batch),
                plan.resolutions,
                model.config.latent,
                (seed, 3, index),
            )
            z = nn.Parameter(nearest_latent(model, feed.batch(0).to(device)))
            adam = NamedAdam({"latents": [z]})
            for step, batch in enumerate(feed.batches(0, steps)):
                batch = batch.to(device)
                loss, error = photometric(model.config, _show(model, z, batch), batch)
                loss.backward()
                adam.step({"latents": _rate(plan.latents, step, steps)})
                if on_step and ((step + 1) % REPORT_EVERY == 0 or step + 1 == steps):
                    psnr = -10 * math.log10(max(error.item(), 1e-10))
                    on_step(
                        {
                            "step": step + 1, "steps": steps, "stage": one.names[0], "loss": loss.item(),
                            "psnr": psnr, "seconds": time.perf_counter() - started,
                        }
                    )  # fmt: skip
            found.append(z.detach())
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
    return torch.cat(found)


@torch.no_grad()
def nearest_latent(model: DIMO, batch: Batch) -> Tensor:
    """Which of 0 and the known latents shows a batch of one motion best, [1, Z]."""
    known = torch.cat([torch.zeros_like(model.mu[:1]), model.mu])
    errors = [photometric(model.config, _show(model, z[None], batch), batch)[1] for z in known]
    return known[torch.stack(errors).argmin()][None]


def _show(model: DIMO, z: Tensor, batch: Batch) -> Rendered:
    white = torch.ones(3, device=z.device)
    return render(model.skin(model.trajectories(z, batch.phases)), batch.cameras, background=white)

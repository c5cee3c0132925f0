"""Stage 2, joint optimisation of Gaussians, key points, latents and decoder (paper §3.3; methods §4.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.dimo import losses
from zoo.dimo.context import TrainingContext
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.initial import carry_back, hull_points, points_in_ball
from zoo.dimo.objective import (
    StepLoss,
    decayed_rate,
    latent_loss,
    latents,
    photometric,
    rigidity_loss,
    track_loss,
    views_per_motion,
    wanted_outputs,
)
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.points import farthest_points, spacing


class JointStage:
    """Joint optimisation. A Chamfer loss keeps the key points near `guide`, their stage 1 positions [M, T, G, 3].

    Args:
        run: the training, whose model is that of stage 1.
        guide: those positions; None if stage 1 was skipped.
        tensors: those of a checkpoint; None to begin, which initialises the Gaussians.
    """

    name = "joint"
    learnt = ("means", "log_scales", "quats", "opacity_logits", "colors")

    def __init__(
        self, run: TrainingContext, guide: Tensor | None, tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        self.run, self.plan = run, run.config.joint
        self.guide = guide if tensors is None else tensors.get("guide")
        self.steps = self.plan.steps
        self.feed = Feed(
            run.videos,
            run.views,
            self.plan.batch,
            self.plan.resolutions,
            run.config.latent,
            (run.seed, 2),
        )
        if tensors is None:
            self._begin()
        model = run.model
        groups = {name: [getattr(model, name)] for name in self.learnt}
        groups |= {"decoder": list(model.decoder.parameters()), "latents": [model.mu, model.log_var]}
        groups |= {"key_points": [model.key_points], "log_radii": [model.log_radii]}
        self.adam = NamedAdam(groups)

    def tensors(self) -> dict[str, Tensor]:
        """State to be stored in a checkpoint, besides the model and the optimiser."""
        return {} if self.guide is None else {"guide": self.guide}

    def advance(self, step: int, batch: Batch) -> StepLoss:
        """Take one optimiser step, then prune Gaussians if the schedule requires it.

        Args:
            step: index within this stage, from 0.
            batch: data of the step, on the training device.
        """
        model, config, plan = self.run.model, self.run.config, self.plan
        weights = config.losses
        if step % plan.graph_every == 0:
            model.refresh()
        z = latents(model, batch)
        motion = model.trajectories(z, batch.phases)
        picture = model.draw(
            model.skin(motion),
            batch.cameras,
            background=torch.ones(3, device=z.device),
            want=wanted_outputs(weights, step >= plan.smooth_from),
        )
        loss, error = photometric(config, picture, batch)
        loss = loss + latent_loss(config, model, batch)
        if config.factorised and step < plan.arap_until:
            loss = loss + rigidity_loss(
                model, model.key_points, model.log_radii, motion.positions, z, batch, model.graph
            )
        if self.run.tracks is not None:
            reach = model.log_radii.detach().exp().mean()
            loss = loss + track_loss(model, self.run.tracks, motion, z, batch, reach)
        elif self.guide is not None and config.factorised and weights.chamfer:
            # L_chamfer (paper §3.3): Σ_k min_j ‖p_k(t) − p̃_j(t)‖², summed over a motion's renders (methods §4.5).
            # It does not depend on the view, hence the factor; the mean is over motions.
            guide = self.guide[batch.motions][:, batch.frames]
            loss = loss + weights.chamfer * losses.chamfer(motion.positions, guide).sum() * views_per_motion(
                batch
            ) / len(z)
        loss.backward()
        self.adam.step(self._rates(step))
        done = step + 1
        if plan.prune_every and done % plan.prune_every == 0 and done <= plan.prune_until:
            self._prune(done)
        return StepLoss(loss, error)

    def finish(self) -> None:
        """Nothing is left to do."""

    def _rates(self, step: int) -> dict[str, float]:
        plan = self.plan
        names = ("decoder", "latents", "key_points", "colors", "quats")
        rates = {name: decayed_rate(getattr(plan, name), step, plan.steps) for name in names}
        held = max(0, step - plan.means_hold)
        rates["means"] = decayed_rate(plan.means, held, max(1, plan.steps - plan.means_hold))
        for name, rate in (
            ("log_scales", plan.scales),
            ("opacity_logits", plan.opacities),
            ("log_radii", plan.radii),
        ):
            rates[name] = decayed_rate(rate, step, plan.steps)
        return rates if self.run.tracks is None else rates | {"key_points": 0.0}

    @torch.no_grad()
    def _prune(self, done: int) -> None:
        """Remove Gaussians that are too transparent or too large (methods §4.6)."""
        model, plan = self.run.model, self.plan
        good = (model.opacity_logits.sigmoid() >= plan.prune_opacity) & (
            model.log_scales.exp().amax(-1) <= plan.prune_scale
        )
        rows = good.nonzero()[:, 0]
        if not len(rows):
            raise RuntimeError(
                f"{self.run.videos.object}: all Gaussians were pruned after {done} steps of the joint stage; "
                "lower Joint.prune_opacity or raise "
                "Joint.prune_scale"
            )
        for name in self.learnt:
            setattr(model, name, self.adam.select(name, rows))
        model.neighbours = model.neighbours[rows]

    @torch.no_grad()
    def _begin(self) -> None:
        """Initialise the Gaussians around the key points, or on one frame's visual hull moved to the canonical pose."""
        run, model, N = self.run, self.run.model, self.run.config.gaussians
        rng = run.rng(2)
        if self.guide is None:  # stage 1 was skipped
            if run.tracks is not None:
                points = run.tracks.points
            elif self._on_hull:
                points = hull_points(run, 16 * len(model.key_points), rng)[0]
            else:
                points = points_in_ball(rng, len(model.key_points), 0.5).to(run.device)
            model.key_points.copy_(points[farthest_points(points, len(model.key_points))])
            model.log_radii.fill_(spacing(model.key_points).mean().log())
        if self._on_hull:
            places, colors = hull_points(run, N, rng)
            means = carry_back(run, places) if self.guide is not None else places
            opacity = 0.5
        else:
            around = torch.arange(N, device=run.device) % len(model.key_points)
            offsets = points_in_ball(rng, N, 1.0).to(run.device) * model.log_radii.exp().mean()
            means, colors, opacity = model.key_points[around] + offsets, torch.full((N, 3), 0.5), 0.05
        model.means.copy_(means)
        model.colors.copy_(colors)
        model.opacity_logits.fill_(math.log(opacity / (1 - opacity)))
        model.log_scales.copy_(spacing(model.means).log()[:, None].expand(-1, 3))

    @property
    def _on_hull(self) -> bool:
        return self.run.config.pretraining.initial == "hull"

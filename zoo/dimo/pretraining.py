"""Stage 1, motion pre-training: optimises key points, latents and decoder without Gaussians (paper §3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from renderers.gaussians import Gaussians, Rendered, render
from zoo.dimo import losses
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import over
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.initial import decode_positions, hull_points, points_in_ball
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.objective import (
    StepLoss,
    decayed_rate,
    latent_loss,
    latents,
    photometric,
    renders_per_motion,
    rigidity_loss,
    track_loss,
    wanted_outputs,
)
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.points import farthest_points, spacing
from zoo.seeds import untouched


class KeyPointStage:
    """Motion pre-training. The key points are rendered as isotropic Gaussians of one shared radius, at p_k + Δ_k(t).

    Schedule and defaults: methods §4.6. The decoder's rotations q_k are not used in this stage.
    """

    name = "motion"

    def __init__(self, run: TrainingContext, tensors: Mapping[str, Tensor] | None = None) -> None:
        self.run, self.plan = run, run.config.pretraining
        self.steps = self.plan.steps
        self.feed = Feed(
            run.videos,
            run.views,
            self.plan.batch,
            self.plan.resolutions,
            run.config.latent,
            (run.seed, 1),
            pictures=run.tracks is None,
        )
        begin = self._begin() if tensors is None else tensors
        self.points, self.radius, self.colors, self.opacities = (
            nn.Parameter(begin[name]) for name in ("points", "radius", "colors", "opacities")
        )
        # Checkpoints of 0.1 have no `seen` and another statistic in `moved`: it starts again.
        none = torch.zeros(len(self.points), device=run.device)
        self.moved, self.seen = (
            begin[name] if "seen" in begin else none.clone() for name in ("moved", "seen")
        )
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

    def tensors(self) -> dict[str, Tensor]:
        """State to be stored in a checkpoint, besides the model and the optimiser."""
        return {
            "points": self.points, "radius": self.radius, "colors": self.colors, "opacities": self.opacities,
            "moved": self.moved, "seen": self.seen,
        }  # fmt: skip

    def advance(self, step: int, batch: Batch) -> StepLoss:
        """Take one optimiser step, then densify, prune or resample the key points if the schedule requires it.

        Args:
            step: index within this stage, from 0.
            batch: data of the step, on the training device.
        """
        model, plan = self.run.model, self.plan
        z = latents(model, batch)
        offsets, rotations = model.decoder(self.points, batch.phases, z)
        positions = self.points + offsets
        picture = error = None
        if (tracks := self.run.tracks) is not None:
            motion = KeyPointMotion(positions, rotations)
            loss = track_loss(model, tracks, motion, z, batch, self.radius.detach().exp())
        else:
            picture = self._render(positions, step, batch)
            loss, error = self._image_loss(picture, batch)
        loss = loss + latent_loss(self.run.config, model, batch)
        if step >= plan.arap_from:
            loss = loss + rigidity_loss(model, self.points, self.radius, positions, z, batch)
        loss.backward()
        if picture is not None:
            if plan.densify_every and step <= plan.densify_until:
                self._watch(picture, batch)
        self.adam.step(self._rates(step))
        if picture is not None:
            self._grow(step)
        return StepLoss(loss, error)

    def _render(self, positions: Tensor, step: int, batch: Batch) -> Rendered:
        """Render the key points at p_k(t), [M', T', K, 3], as the losses of this step need it."""
        plan = self.plan
        return render(
            self._gaussians(positions.flatten(0, 1)),
            batch.cameras,
            background=None if plan.alpha_only else torch.ones(3, device=positions.device),
            want=("alpha",)
            if plan.alpha_only
            else wanted_outputs(self.run.config.losses, step >= plan.smooth_from),
        )

    def _image_loss(self, picture: Rendered, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted image losses and the unweighted mean squared error, of colour or of alpha, both scalars."""
        if not self.plan.alpha_only:
            return photometric(self.run.config, picture, batch)
        weights = self.run.config.losses
        error = losses.squared_error(picture.output("alpha"), over(batch.targets)[1]) * batch.share
        return (weights.mask + renders_per_motion(batch) * weights.rgb) * error, error

    def finish(self) -> Tensor:
        """Remove transparent key points and copy the others into a new model, which replaces `run.model`.

        Returns:
            p̃_k, the targets of stage 2's Chamfer loss: key-point positions in all frames, [M, T, K, 3].
        """
        self._keep((self.opacities.detach().sigmoid() >= self.plan.final_opacity).nonzero()[:, 0])
        run, config = self.run, self.run.config
        old = run.model
        with untouched():  # the decoder, which is initialised at random, is replaced by the trained one
            run.model = DIMO(config, old.num_motions, num_key_points=len(self.points)).to(run.device)
        run.model.decoder, run.model.mu, run.model.log_var = old.decoder, old.mu, old.log_var
        with torch.no_grad():
            run.model.key_points.copy_(self.points)
            run.model.log_radii.copy_(self.radius.expand(len(self.points)))
        return decode_positions(run.model, run.videos)

    def _begin(self) -> dict[str, Tensor]:
        """Initial key points: in a ball (methods §4.6) or farthest-point samples of a visual hull."""
        run, K = self.run, self.run.config.key_points
        rng = run.rng(1)
        if run.tracks is not None:
            points, opacity = run.tracks.points.clone(), 0.5
            colors = torch.full_like(points, 0.5)
        elif self.plan.initial == "hull":
            many, colors = hull_points(run, 16 * K, rng)
            chosen = farthest_points(many, K)
            points, colors, opacity = many[chosen], colors[chosen], 0.5
        else:
            points = points_in_ball(rng, K, 0.5).to(run.device)
            colors, opacity = torch.full((K, 3), 0.5, device=run.device), 0.05
        return {
            "points": points,
            "radius": spacing(points).mean().log()[None],
            "colors": colors,
            "opacities": torch.full((len(points),), opacity, device=run.device).logit(),
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
        rates = {name: decayed_rate(getattr(plan, name), step, plan.steps) for name in names}
        rates["points"] = decayed_rate(plan.points, step, plan.points_steps or plan.steps)
        return rates if self.run.tracks is None else rates | {"points": 0.0}

    def _watch(self, picture: Rendered, batch: Batch) -> None:
        """Add the renders of a step to the statistic of densification (3DGS, §5.2; methods §4.6).

        The statistic is the norm of ∂L/∂(projected centre) in normalised device coordinates, averaged over the renders
        in which a key point is visible: `moved` / `seen`. L is that of the published code, which sums over the motions
        of a step where ours is their mean, hence the factor; the threshold belongs to that scale. Deviation from the
        published code, which evaluates only the last render of each step: all renders count.
        """
        whole = (batch.cameras.width * batch.cameras.height / batch.share) ** 0.5
        gradient = picture.means2d.grad
        if gradient is None:
            raise RuntimeError("means2d has no gradient: call backward() before densification")
        visible = (picture.radii > 0).all(-1)
        norms = gradient.norm(dim=-1) * (whole / 2) * len(batch.motions)
        self.moved += (norms * visible).sum((0, 1))
        self.seen += visible.sum((0, 1))

    def _grow(self, step: int) -> None:
        """Densify and prune; at the annealing steps, resample to the configured number by farthest-point sampling."""
        plan, done = self.plan, step + 1
        since = done - max((at for at in plan.anneal_at if at <= done), default=0)
        if (
            plan.densify_every
            and done % plan.densify_every == 0
            and done <= plan.densify_until
            and since >= plan.densify_pause
        ):
            radius = self.radius.detach().exp()
            pulled = (self.moved / self.seen.clamp(min=1) >= plan.densify_gradient).nonzero()[:, 0]
            # As in 3DGS, points up to `clone_scale` are cloned in place; larger ones are split into two at ± an offset
            # drawn from N(0, r²). The shared radius is not reduced, where 3DGS divides the scale by 1.6.
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
        """Keep these key points and reset the statistic of densification."""
        if not len(rows):
            raise RuntimeError(
                f"{self.run.videos.object}: all key points were pruned; check that the masks and "
                "cameras belong to these frames"
            )
        self.points = self.adam.select("points", rows)
        self.colors = self.adam.select("color", rows)
        self.opacities = self.adam.select("opacity", rows)
        self.moved, self.seen = (torch.zeros(len(rows), device=rows.device) for _ in range(2))

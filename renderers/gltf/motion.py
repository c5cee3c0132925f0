"""Evaluation of one animation: animated parts are evaluated at every time, everything else once.

Interpolation, skinning and morphing follow the glTF 2.0 specification (§3.7.2.2, §3.7.3, §3.11 and appendix C).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from renderers import fixed
from renderers.gltf.animations import Channel, KeyTimes
from renderers.gltf.kernel_code import load_kernels
from renderers.gltf.nodes import compose, unit_quaternions
from renderers.gltf.rig import Morph, Rig, Skin, far_centre

Arrays = tuple[np.ndarray, np.ndarray]  # positions and normals, float32 [3, N]


@dataclass(frozen=True)
class _Tracks:
    """c node channels with one formula, evaluated together: one gather and one interpolation for all of them.

    Attributes:
        rows: int [c], the row of the state (`_rotation` or `_translation_scale`) that each channel writes.
        lines: int [c], index of its key times in `Motion._times`.
        first: int [c], row of its first key in `values`.
        moves: float64 [c], 0 for STEP and 1 otherwise; multiplies the phase.
        values: the values of all channels, concatenated.
        arcs: float64 [keys, 2], of rotations: the angle between each key and the next (after the last, the first), and
            its sine. Computed once, since they cost more than the rest of the interpolation.
    """

    rows: np.ndarray
    lines: np.ndarray
    first: np.ndarray
    moves: np.ndarray
    values: np.ndarray
    arcs: np.ndarray

    @classmethod
    def of(cls, members: list[tuple[int, int, Channel]], slerp: bool) -> _Tracks:
        """Concatenate channels, each given with its row and the index of its key times."""
        rows, lines, channels = zip(*members, strict=True)
        counts = [len(channel.times) for channel in channels]
        values = [channel.values for channel in channels]
        arcs = [_arcs(keys) for keys in values] if slerp else [np.zeros((0, 2))]
        return cls(
            np.array(rows),
            np.array(lines),
            np.concatenate([[0], np.cumsum(counts)[:-1]]),
            np.array([channel.interpolation != "STEP" for channel in channels], np.float64),
            np.concatenate(values),
            np.concatenate(arcs),
        )


class Motion:
    """A rig driven by the channels of one animation; without channels, the rest pose.

    Attributes:
        origin: float64 [3], the point of the file's world that positions are relative to. It is 0 unless the asset is
            so far from the world's origin at `start` that float32 would not resolve its shape.
    """

    def __init__(self, rig: Rig, channels: tuple[Channel, ...], start: float) -> None:
        self._rig = rig
        self.origin = np.zeros(3)
        self._translation_scale = rig.nodes.translation_scale.copy()
        self._rotation = rig.nodes.rotation.copy()
        self._weights = dict(rig.weights)
        self._shown = rig.nodes.shown.copy()
        moving = self._sort_channels(channels)
        self._split_nodes({c.node for c in channels if c.path not in ("weights", "visible")}, moving)
        self._pose_rest()
        self.origin = far_centre(self.pose(start, normals=False)[0])
        if self.origin.any():
            self._pose_rest()

    def pose(
        self, time: float, normals: bool = True, closing: tuple[float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate the pose at a time in seconds.

        Args:
            time: seconds.
            normals: whether to evaluate the normals, too.
            closing: phase (0-1) and length in seconds of an interval from the last keys back to the first ones. The
                pose is inside this interval, and `time` is ignored; None for a pose at `time`.
        Returns:
            positions float32 [N, 3] in world space relative to `origin`, normals float32 [N, 3], and bool [P] whether
            each part is mirrored. Without `normals`, the normals and `mirrored` are those of the rest pose.
        """
        keys = self._keys_at(time) if closing is None else self._keys_between_end_and_start(*closing)
        self._move_nodes(keys)
        shape: Arrays = self._shape
        if self._morphs:
            shape = (shape[0].copy(), shape[1].copy())
            for morph in self._morphs:
                for values, base in zip(shape, (self._rig.positions, self._rig.normals), strict=True):
                    values[:, morph.vertices] = base[:, morph.vertices]
            self._add_morphs(self._morphs, self._weights_at(keys), shape)
        out: Arrays = (self._rest[0].copy(), self._rest[1].copy())
        mirrored = self._mirrored.copy()
        self._place(self._rigid, self._skins, self._flat, shape, out, mirrored, normals)
        if self._visibility_tracks or not self._shown.all():
            self._hide(out[0], keys)
        return np.ascontiguousarray(out[0].T), np.ascontiguousarray(out[1].T), mirrored

    # --- preparation ---

    def _sort_channels(self, channels: tuple[Channel, ...]) -> set[int]:
        """Group varying channels by formula and apply constant ones to the state; return the nodes that move."""
        count = len(self._rig.nodes)
        lines: dict[int, int] = {}
        groups: dict[tuple[bool, bool], list[tuple[int, int, Channel]]] = {}
        self._times: list[KeyTimes] = []
        self._weight_tracks: list[tuple[int, Channel]] = []
        self._visibility_tracks: list[tuple[int, Channel]] = []
        moving: set[int] = set()
        for channel in channels:
            line = lines.setdefault(id(channel.times), len(lines))
            if line == len(self._times):
                self._times.append(channel.times)
            if channel.path == "visible":
                self._visibility_tracks.append((line, channel))
                continue
            spline = channel.interpolation == "CUBICSPLINE"
            rotates = channel.path == "rotation"
            keys = channel.values[:, 1] if spline else channel.values
            constant = (keys == keys[0]).all() and not (spline and channel.values[:, ::2].any())
            row = channel.node + (count if channel.path == "scale" else 0)
            if channel.path == "weights":
                self._weights[channel.node] = _weights(self._weights[channel.node], channel, keys[0])
                if not constant:
                    self._weight_tracks.append((line, channel))
            elif constant and rotates:
                self._rotation[row] = unit_quaternions(keys[0])
            elif constant:
                self._translation_scale[row] = keys[0]
            else:
                moving.add(channel.node)
                if rotates and not spline:
                    channel = replace(channel, values=unit_quaternions(channel.values))
                groups.setdefault((rotates, spline), []).append((row, line, channel))
        self._all_times = np.array([time for times in self._times for time in times], np.float64)
        self._line_starts = np.cumsum([0, *(len(times) for times in self._times)])
        self._tracks = [
            (rotates, spline, _Tracks.of(members, rotates and not spline))
            for (rotates, spline), members in groups.items()
        ]
        return moving

    def _split_nodes(self, driven: set[int], moving: set[int]) -> None:
        """Compute the world matrices of static nodes, and list the nodes below an animated one by level."""
        nodes = self._rig.nodes
        self._local = nodes.local.copy()
        self._compose(np.array(sorted(driven), int))
        self._world = nodes.world(self._local)
        self._moving = np.array(sorted(moving), int)
        self._dynamic = np.zeros(len(nodes) + 1, bool)  # the last row is the world, which is static
        self._dynamic[self._moving] = True
        below = [np.zeros(0, np.int64)]
        for level in nodes.levels:
            self._dynamic[level] |= self._dynamic[nodes.parents[level]]
            below.append(level[self._dynamic[level]])
        self._below = np.concatenate(below)
        self._parents = nodes.parents[self._below] % len(self._dynamic)  # -1 is the last row

    def _pose_rest(self) -> None:
        """Pose everything once, and list the parts and skins that have to be posed at every time."""
        rig = self._rig
        self._shape = rig.positions.copy(), rig.normals.copy()
        self._add_morphs(rig.morphs, self._weights, self._shape)
        self._rest = np.empty_like(rig.positions), np.empty_like(rig.normals)
        self._mirrored = np.zeros(len(rig.parts), bool)
        self._place(rig.rigid, rig.skins, rig.flat, self._shape, self._rest, self._mirrored)

        morphing = {channel.node for _, channel in self._weight_tracks}
        self._morphs = [morph for morph in rig.morphs if morph.node in morphing]
        live = np.array([part.node in morphing for part in rig.parts])
        live[rig.rigid] |= self._dynamic[[rig.parts[part].node for part in rig.rigid]]
        self._skins = []
        for skin in rig.skins:
            moves = self._dynamic[skin.joints]
            blocks = [b for b in skin.blocks if live[b.parts].any() or moves[b.near].any()]
            for block in blocks:
                live[block.parts] = True
            if blocks:
                self._skins.append(replace(skin, blocks=blocks))
        self._rigid = [part for part in rig.rigid if live[part]]
        self._flat = [part for part in rig.flat if live[part]]

    # --- channels to node matrices and morph weights ---

    def _keys_at(self, time: float) -> tuple[np.ndarray, ...]:
        """For each of `_times`: keys before and after `time`, phase between them (0-1), their distance in seconds."""
        lines = len(self._times)
        (low, high), (phase, step) = np.empty((2, lines), np.int64), np.empty((2, lines))
        kernels = load_kernels()  # no attribute, as machine code cannot be pickled
        kernels.find_keys(float(time), self._line_starts, self._all_times, low, high, phase, step)
        return low, high, phase, step

    def _keys_between_end_and_start(self, phase: float, length: float) -> tuple[np.ndarray, ...]:
        """As `_keys_at`, in an interval that follows the last keys and ends in the first ones."""
        lines = len(self._times)
        last = np.array([len(times) - 1 for times in self._times], int)
        return last, np.zeros(lines, int), np.full(lines, float(phase)), np.full(lines, float(length))

    def _move_nodes(self, keys: tuple[np.ndarray, ...]) -> None:
        """Evaluate the animated node transforms and the world matrices that depend on them."""
        kernels, (low, high, phase, step) = load_kernels(), keys
        for rotates, spline, tracks in self._tracks:
            state = self._rotation if rotates else self._translation_scale
            if spline:
                a = tracks.values[tracks.first + low[tracks.lines]]
                b = tracks.values[tracks.first + high[tracks.lines]]
                values = _spline(a, b, phase[tracks.lines, None], step[tracks.lines, None])
                state[tracks.rows] = unit_quaternions(values) if rotates else values
                continue
            where = (tracks.first, tracks.lines, tracks.moves, tracks.rows, low, high, phase, state)
            if rotates:
                kernels.interpolate_rotations(tracks.values, tracks.arcs, *where)
            else:
                kernels.interpolate(tracks.values, *where)
        if len(self._moving):
            kernels.place_nodes(
                self._moving, self._below, self._parents, self._translation_scale, self._rotation, self._local,
                self._world,
            )  # fmt: skip

    def _weights_at(self, keys: tuple[np.ndarray, ...]) -> dict[int, np.ndarray]:
        """Evaluate the morph weights of all nodes that have them."""
        low, high, phase, step = keys
        weights = dict(self._weights)
        for line, channel in self._weight_tracks:
            a, b = channel.values[low[line]], channel.values[high[line]]
            if channel.interpolation == "CUBICSPLINE":
                values = _spline(a, b, phase[line], step[line])
            else:
                values = _lerp(a, b, phase[line] if channel.interpolation == "LINEAR" else 0.0)
            weights[channel.node] = _weights(weights[channel.node], channel, values)
        return weights

    def _hide(self, positions: np.ndarray, keys: tuple[np.ndarray, ...]) -> None:
        """Collapse the parts that are hidden at this time (KHR_node_visibility) to points [3, N], which are not drawn.

        The points are inside the bounding box of the visible parts, so that they do not affect framing.
        """
        nodes, ranges = self._rig.nodes, self._rig.ranges
        shown = np.append(self._shown, True)  # the last row is the world
        for line, channel in self._visibility_tracks:
            value = channel.values[keys[0][line]].reshape(-1)
            shown[channel.node] = value[len(value) // 2] != 0  # of a spline: its value, not its tangents
        for level in nodes.levels:
            shown[level] &= shown[nodes.parents[level]]
        visible = shown[[part.node for part in self._rig.parts]]
        hidden = [ranges[part] for part in np.flatnonzero(~visible)]
        drawn = [positions[:, ranges[part]] for part in np.flatnonzero(visible)]
        if drawn:
            low = np.min([points.min(1) for points in drawn], 0)
            high = np.max([points.max(1) for points in drawn], 0)
        else:
            low = high = positions.mean(1, dtype=np.float64)
        for vertices in hidden:
            centre = positions[:, vertices].mean(1, dtype=np.float64)
            positions[:, vertices] = np.clip(centre, low, high)[:, None]

    def _compose(self, nodes: np.ndarray) -> None:
        """Recompute the local matrices of some nodes from the state."""
        translation = self._translation_scale[nodes]
        scale = self._translation_scale[len(self._rig.nodes) + nodes]
        self._local[nodes] = compose(translation, self._rotation[nodes], scale)

    # --- vertices ---

    @staticmethod
    def _add_morphs(morphs: list[Morph], weights: dict[int, np.ndarray], shape: Arrays) -> None:
        """Add the weighted morph targets to positions and normals in mesh space."""
        for morph in morphs:
            active = np.flatnonzero(weights[morph.node])
            factors = weights[morph.node][active].astype(np.float32)
            for differences, out in zip((morph.positions, morph.normals), shape, strict=True):
                if differences is not None and len(active):
                    moved = fixed.fused_product(factors[None], differences[active].reshape(len(active), -1))
                    out[:, morph.vertices] += moved.reshape(3, -1)

    def _place(
        self,
        rigid: list[int],
        skins: list[Skin],
        flat: list[int],
        shape: Arrays,
        out: Arrays,
        mirrored: np.ndarray,
        normals: bool = True,
    ) -> None:
        """Transform parts from mesh space (`shape`) to world space (`out`).

        Normals are transformed by the cofactor matrix (the inverse transpose up to a factor). Without `normals`, they
        and `mirrored` are left unchanged, which saves half the time.
        """
        kernels, (positions, directions) = load_kernels(), out
        determinants = np.zeros(len(mirrored))
        if rigid:
            matrices = self._world[[self._rig.parts[part].node for part in rigid], :3]
            matrices = self._centred(matrices, self._rig.offsets[rigid])
            cofactors, determinants[rigid] = _normal_matrices(matrices[:, :, :3])
            for part, matrix, cofactor in zip(rigid, matrices.astype(np.float32), cofactors, strict=True):
                vertices = self._rig.ranges[part]
                ends = (vertices.start, vertices.stop)
                if not kernels.place_rigid(matrix, cofactor, *shape, *ends, positions, directions, normals):
                    directions[:, vertices] = _unit(directions[:, vertices])
        for skin in skins:
            # The weights of a vertex add up to 1, so that the origin may be subtracted from every joint.
            offset, joints = (
                self._rig.offsets[skin.blocks[0].parts[0]],
                np.empty((len(skin.joints), 12), np.float32),
            )
            moved = bool(offset.any() or self.origin.any())
            largest = kernels.place_joints(
                self._world, skin.joints, skin.inverse_bind, offset, self.origin, moved, joints
            )
            # Cofactors grow with the square of the scale: `small` keeps them within the range of float32.
            small = float(np.float32(1 / max(largest, 1e-18) ** 2))
            for block in skin.blocks:
                vertices = block.vertices
                determinant, row = np.empty(len(block.starts) - 1, np.float32), np.empty(12, np.float32)
                unit = kernels.skin(
                    joints, block.starts, block.joints, block.weights, *shape, small, vertices.start, row, positions,
                    directions, determinant, normals,
                )  # fmt: skip
                if normals:
                    determinants[block.parts] += np.add.reduceat(determinant, block.offsets)
                if not unit:
                    directions[:, vertices] = _unit(directions[:, vertices])
        if not normals:
            return
        mirrored[rigid] = determinants[rigid] < 0
        for block in (block for skin in skins for block in skin.blocks):
            mirrored[block.parts] = determinants[block.parts] < 0
        for part in flat:
            vertices = self._rig.ranges[part]
            kernels.flat_normals(positions, vertices.start, vertices.stop, bool(mirrored[part]), directions)

    def _centred(self, matrices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Convert matrices float64 [n, 3, 4] to act on positions relative to `offsets` and to give them to `origin`.

        (M | t) becomes (M | t + M·offset - origin): large terms cancel here, before they are rounded to float32.
        """
        if not offsets.any() and not self.origin.any():
            return matrices
        matrices = matrices.copy()
        matrices[:, :, 3] += fixed.product(matrices[:, :, :3], offsets[:, :, None])[:, :, 0] - self.origin
        return matrices


def _weights(weights: np.ndarray, channel: Channel, values: np.ndarray) -> np.ndarray:
    """Return the morph weights of a node with those that a channel drives replaced."""
    if channel.element is None:
        return values
    weights = weights.copy()
    weights[channel.element] = values[0]
    return weights


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product along the first axis, [3, ...]."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _normal_matrices(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return matrices for normals, float32 [n, 3, 3], and determinants of matrices [n, 3, 3] scaled to at most 1.

    A normal matrix is the cofactor matrix, negated for reflections so that normals keep pointing outward.
    """
    size = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    m = (matrices / np.maximum(size, 1e-30)).transpose(1, 2, 0)
    cofactors = _cofactor(m)
    determinants = (m[0] * cofactors[0]).sum(0)
    normals = np.where(determinants < 0, -cofactors, cofactors)
    return normals.transpose(2, 0, 1).astype(np.float32, order="C"), determinants


def _cofactor(m: np.ndarray) -> np.ndarray:
    """Cofactor matrices of [3, 3, ...]: the inverse transpose up to a factor, defined for singular matrices, too."""
    return np.stack([_cross(m[1], m[2]), _cross(m[2], m[0]), _cross(m[0], m[1])])


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Normalise columns [3, n]; zero and infinite ones become +Y, so that every normal is usable."""
    size = np.abs(vectors).max(axis=0)
    if size.max(initial=0) > 1e18:  # squares would overflow; scaling each vector by a power of two is exact
        vectors = np.ldexp(vectors, -np.frexp(size)[1])
    length = np.sqrt(vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2)
    valid = (length > 0) & (length < np.inf)
    if not valid.all():
        vectors = np.where(valid, vectors, np.array([[0], [1], [0]], np.float32))
        length = np.where(valid, length, np.float32(1))
    return vectors / length


def _lerp(a: np.ndarray, b: np.ndarray, u: np.ndarray | float) -> np.ndarray:
    """Interpolate linearly; u in 0-1."""
    return a + (b - a) * u


def _arcs(keys: np.ndarray) -> np.ndarray:
    """Return the angle between each unit quaternion [k, 4] and the next, the first after the last, and its sine [k, 2].

    Of a quaternion and its negative, which are the same rotation, the nearer one counts: the angles are 0 to π/2.
    """
    angle = fixed.arccos(np.minimum(np.abs(fixed.dot(keys, np.roll(keys, -1, axis=0))), 1.0))
    return np.stack([angle, fixed.sin_quarter(angle)], axis=1)


def _spline(a: np.ndarray, b: np.ndarray, u: np.ndarray | float, step: np.ndarray | float) -> np.ndarray:
    """Evaluate the cubic Hermite spline of glTF (appendix C.5) between keys a and b.

    Args:
        a, b: [..., 3, width]: in-tangent, value, out-tangent.
        u: phase between the keys, 0-1.
        step: distance of the keys in seconds, which scales the tangents.
    """
    u2, u3 = u * u, u * u * u
    start, out_tangent = a[..., 1, :], a[..., 2, :] * step
    in_tangent, end = b[..., 0, :] * step, b[..., 1, :]
    return (
        (2 * u3 - 3 * u2 + 1) * start
        + (u3 - 2 * u2 + u) * out_tangent
        + (3 * u2 - 2 * u3) * end
        + (u3 - u2) * in_tangent
    )

"""Kernels of the photometric fit: z-buffer, shading, blur, and the normal equations of image and graph.

Symbols: x a point in unit space, c = E [x; 1] its camera coordinates, z = c_z its depth, u = (K c)_xy / z its pixel.
Images are float32 [V, H, W, 4], premultiplied RGBA. The z-buffer has SUPER × SUPER samples per pixel.
"""

from __future__ import annotations

import numpy as np

from renderers.kernel_cache import compiler

SUPER = 2
SOURCES = (__file__,)
_NEAR = 1e-3  # unit space
kernel = compiler(SOURCES)


@kernel
def rasterise(points, faces, extrinsics, intrinsics, depth, face, weights):
    """Fill a z-buffer with the nearest face of every sample. Faces are two-sided.

    Args:
        points: float64 [n, 3].
        faces: int32 [F, 3].
        extrinsics: float64 [V, 3, 4], E.
        intrinsics: float64 [V, 3, 3], K in samples.
        depth: float32 [V, h, w], output.
        face: int32 [V, h, w], output; -1 where there is none.
        weights: float32 [V, h, w, 2], output: perspective-correct barycentric weights of corners 0 and 1.
    """
    V, h, w = depth.shape
    n = len(points)
    u = np.empty((n, 2))
    z = np.empty(n)
    for v in range(V):
        E, K = extrinsics[v], intrinsics[v]
        for i in range(n):
            a, b, c = points[i, 0], points[i, 1], points[i, 2]
            X = E[0, 0] * a + E[0, 1] * b + E[0, 2] * c + E[0, 3]
            Y = E[1, 0] * a + E[1, 1] * b + E[1, 2] * c + E[1, 3]
            Z = E[2, 0] * a + E[2, 1] * b + E[2, 2] * c + E[2, 3]
            z[i] = Z
            if Z > _NEAR:
                u[i, 0] = (K[0, 0] * X + K[0, 1] * Y) / Z + K[0, 2]
                u[i, 1] = (K[1, 0] * X + K[1, 1] * Y) / Z + K[1, 2]
        for y in range(h):
            for x in range(w):
                depth[v, y, x] = np.inf
                face[v, y, x] = -1
        for f in range(len(faces)):
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            if z[i] <= _NEAR or z[j] <= _NEAR or z[k] <= _NEAR:
                continue
            x0, y0, x1, y1, x2, y2 = u[i, 0], u[i, 1], u[j, 0], u[j, 1], u[k, 0], u[k, 1]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            if area == 0.0 or not np.isfinite(area):
                continue
            left = max(int(np.ceil(min(x0, x1, x2) - 0.5)), 0)
            right = min(int(np.floor(max(x0, x1, x2) - 0.5)), w - 1)
            top = max(int(np.ceil(min(y0, y1, y2) - 0.5)), 0)
            bottom = min(int(np.floor(max(y0, y1, y2) - 0.5)), h - 1)
            q0, q1, q2 = 1.0 / z[i], 1.0 / z[j], 1.0 / z[k]
            for y in range(top, bottom + 1):
                py = y + 0.5
                for x in range(left, right + 1):
                    px = x + 0.5
                    b0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                    b1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                    b2 = 1.0 - b0 - b1
                    if b0 < 0.0 or b1 < 0.0 or b2 < 0.0:
                        continue
                    # 1/z is affine on the screen; barycentric weights on the surface are b_i (1/z_i) / (1/z).
                    q = b0 * q0 + b1 * q1 + b2 * q2
                    if 1.0 / q < depth[v, y, x]:
                        depth[v, y, x] = 1.0 / q
                        face[v, y, x] = f
                        weights[v, y, x, 0] = b0 * q0 / q
                        weights[v, y, x, 1] = b1 * q1 / q


@kernel
def shade(depth, face, weights, color_faces, colors, image, sample):
    """Box-filter the samples to pixels, and name the nearest sample of every covered pixel.

    Args:
        depth, face, weights: the z-buffer of `rasterise`.
        color_faces: int32 [F, 3], indices into `colors`.
        colors: float32 [N, 3].
        image: float32 [V, H, W, 4], output, premultiplied.
        sample: int32 [V, H, W], output: y * w + x of the nearest covered sample, -1 where none is covered.
    """
    V, H, W, _ = image.shape
    share = np.float32(1.0 / (SUPER * SUPER))
    for v in range(V):
        for y in range(H):
            for x in range(W):
                r = g = b = a = np.float32(0.0)
                best = -1
                nearest = np.float32(np.inf)
                for dy in range(SUPER):
                    for dx in range(SUPER):
                        sy, sx = SUPER * y + dy, SUPER * x + dx
                        f = face[v, sy, sx]
                        if f < 0:
                            continue
                        i, j, k = color_faces[f, 0], color_faces[f, 1], color_faces[f, 2]
                        b0, b1 = weights[v, sy, sx, 0], weights[v, sy, sx, 1]
                        b2 = np.float32(1.0) - b0 - b1
                        r += b0 * colors[i, 0] + b1 * colors[j, 0] + b2 * colors[k, 0]
                        g += b0 * colors[i, 1] + b1 * colors[j, 1] + b2 * colors[k, 1]
                        b += b0 * colors[i, 2] + b1 * colors[j, 2] + b2 * colors[k, 2]
                        a += np.float32(1.0)
                        if depth[v, sy, sx] < nearest:
                            nearest = depth[v, sy, sx]
                            best = sy * W * SUPER + sx
                image[v, y, x, 0] = r * share
                image[v, y, x, 1] = g * share
                image[v, y, x, 2] = b * share
                image[v, y, x, 3] = a * share
                sample[v, y, x] = best


@kernel
def fill_halo(sample, radius):
    """Give uncovered pixels the sample of (nearly) the nearest covered pixel within a radius.

    Offsets to the nearest covered pixel are propagated in two sweeps (Danielsson 1980, 8SED).
    """
    V, H, W = sample.shape
    far = 1 << 14
    oy = np.empty((H, W), np.int32)
    ox = np.empty((H, W), np.int32)
    for v in range(V):
        for y in range(H):
            for x in range(W):
                covered = sample[v, y, x] >= 0
                oy[y, x] = 0 if covered else far
                ox[y, x] = 0 if covered else far
        for sweep in range(2):
            step = 1 if sweep == 0 else -1
            for row in range(H):
                y = row if sweep == 0 else H - 1 - row
                for back in range(2):
                    side = step if back == 0 else -step
                    for column in range(W):
                        x = column if side > 0 else W - 1 - column
                        best = oy[y, x] ** 2 + ox[y, x] ** 2
                        for neighbour in range(4 if back == 0 else 1):
                            ny = y if neighbour == 0 else y - step
                            nx = x - side if neighbour == 0 else x + neighbour - 2
                            if ny < 0 or ny >= H or nx < 0 or nx >= W:
                                continue
                            cy, cx = oy[ny, nx] + ny - y, ox[ny, nx] + nx - x
                            if cy * cy + cx * cx < best:
                                best = cy * cy + cx * cx
                                oy[y, x], ox[y, x] = cy, cx
        for y in range(H):
            for x in range(W):
                if sample[v, y, x] < 0 and oy[y, x] ** 2 + ox[y, x] ** 2 <= radius * radius:
                    # Covered pixels keep their own sample, so reading them while writing is safe.
                    sample[v, y, x] = sample[v, y + oy[y, x], x + ox[y, x]]


@kernel
def blur(image, taps, out):
    """Convolve [V, H, W, 4] with a symmetric separable kernel; outside the image is 0.

    Args:
        image: float32 [V, H, W, 4].
        taps: float32 [r + 1], the kernel from its centre outwards.
        out: float32 [V, H, W, 4], output.
    """
    V, H, W, C = image.shape
    r = len(taps) - 1
    rows = np.empty((H, W * C), np.float32)
    for v in range(V):
        source = image[v].reshape(H, W * C)
        target = out[v].reshape(H, W * C)
        for y in range(H):
            for i in range(W * C):
                rows[y, i] = taps[0] * source[y, i]
            for d in range(1, r + 1):
                t = taps[d]
                if y - d >= 0:
                    for i in range(W * C):
                        rows[y, i] += t * source[y - d, i]
                if y + d < H:
                    for i in range(W * C):
                        rows[y, i] += t * source[y + d, i]
        for y in range(H):
            for i in range(W * C):
                target[y, i] = taps[0] * rows[y, i]
            for d in range(1, r + 1):
                t = taps[d]
                shift = d * C
                for i in range(shift, W * C):
                    target[y, i] += t * rows[y, i - shift]
                for i in range(W * C - shift):
                    target[y, i] += t * rows[y, i + shift]


@kernel
def image_terms(
    model,
    target,
    sample,
    face,
    weights,
    faces,
    points,
    extrinsics,
    intrinsics,
    channel,
    delta,
    M,
    m,
    per_view,
):
    """Linearise the image term at every pixel and add it to the surface points.

    A pixel has the residual r_c = I_c - J_c between model I and target J. Moving its surface point by du pixels
    changes r_c by -g_c · du, with g the mean of both images' gradients (efficient second-order minimisation, Malis
    2004). With du = P dx, P = ∂u/∂x, the pixel adds P^T (ρ' Σ_c ω_c g_c g_c^T) P to M and P^T (ρ' Σ_c ω_c g_c r_c) to
    m of its three corners, weighted barycentrically (the lumped M is an upper bound of the exact one; m is exact). ρ'
    is the weight of Huber's function of s² = Σ_c ω_c r_c².

    Args:
        model, target: float32 [V, H, W, 4], I and J, blurred.
        sample: int32 [V, H, W], of `shade` and `fill_halo`.
        face, weights: the z-buffer.
        faces: int32 [F, 3]. points: float64 [n, 3].
        extrinsics: float64 [V, 3, 4]. intrinsics: float64 [V, 3, 3], in pixels.
        channel: float64 [4], ω. delta: Huber's threshold.
        M: float64 [n, 6], output, added to: symmetric 3×3 as xx, xy, xz, yy, yz, zz.
        m: float64 [n, 3], output, added to.
        per_view: float64 [V], output: Σ ρ.
    """
    V, H, W, _ = model.shape
    w = face.shape[2]
    for v in range(V):
        E, K = extrinsics[v], intrinsics[v]
        total = 0.0
        for y in range(H):
            up, down = max(y - 1, 0), min(y + 1, H - 1)
            for x in range(W):
                s2 = 0.0
                for c in range(4):
                    r = model[v, y, x, c] - target[v, y, x, c]
                    s2 += channel[c] * r * r
                s = np.sqrt(s2)
                total += s2 if s <= delta else 2.0 * delta * s - delta * delta
                index = sample[v, y, x]
                if index < 0 or x == 0 or y == 0 or x == W - 1 or y == H - 1:
                    continue
                rho = 1.0 if s <= delta else delta / s
                left, right = x - 1, x + 1
                axx = axy = ayy = bx = by = 0.0
                for c in range(4):
                    r = model[v, y, x, c] - target[v, y, x, c]
                    gx = 0.25 * (
                        model[v, y, right, c]
                        - model[v, y, left, c]
                        + target[v, y, right, c]
                        - target[v, y, left, c]
                    )
                    gy = 0.25 * (
                        model[v, down, x, c]
                        - model[v, up, x, c]
                        + target[v, down, x, c]
                        - target[v, up, x, c]
                    )
                    o = rho * channel[c]
                    axx += o * gx * gx
                    axy += o * gx * gy
                    ayy += o * gy * gy
                    bx += o * gx * r
                    by += o * gy * r
                if axx + ayy == 0.0:
                    continue
                sy, sx = index // w, index % w
                f = face[v, sy, sx]
                b0, b1 = weights[v, sy, sx, 0], weights[v, sy, sx, 1]
                b2 = 1.0 - b0 - b1
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                a0 = b0 * points[i, 0] + b1 * points[j, 0] + b2 * points[k, 0]
                a1 = b0 * points[i, 1] + b1 * points[j, 1] + b2 * points[k, 1]
                a2 = b0 * points[i, 2] + b1 * points[j, 2] + b2 * points[k, 2]
                X = E[0, 0] * a0 + E[0, 1] * a1 + E[0, 2] * a2 + E[0, 3]
                Y = E[1, 0] * a0 + E[1, 1] * a1 + E[1, 2] * a2 + E[1, 3]
                Z = E[2, 0] * a0 + E[2, 1] * a1 + E[2, 2] * a2 + E[2, 3]
                xz, yz = X / Z, Y / Z
                # ∂u/∂c for u = (K00 X + K01 Y) / Z + K02, likewise the second row.
                c00, c01 = K[0, 0] / Z, K[0, 1] / Z
                c02 = -(K[0, 0] * xz + K[0, 1] * yz) / Z
                c10, c11 = K[1, 0] / Z, K[1, 1] / Z
                c12 = -(K[1, 0] * xz + K[1, 1] * yz) / Z
                p00 = c00 * E[0, 0] + c01 * E[1, 0] + c02 * E[2, 0]
                p01 = c00 * E[0, 1] + c01 * E[1, 1] + c02 * E[2, 1]
                p02 = c00 * E[0, 2] + c01 * E[1, 2] + c02 * E[2, 2]
                p10 = c10 * E[0, 0] + c11 * E[1, 0] + c12 * E[2, 0]
                p11 = c10 * E[0, 1] + c11 * E[1, 1] + c12 * E[2, 1]
                p12 = c10 * E[0, 2] + c11 * E[1, 2] + c12 * E[2, 2]
                q00, q01, q02 = axx * p00 + axy * p10, axx * p01 + axy * p11, axx * p02 + axy * p12
                q10, q11, q12 = axy * p00 + ayy * p10, axy * p01 + ayy * p11, axy * p02 + ayy * p12
                m0, m1, m2 = p00 * bx + p10 * by, p01 * bx + p11 * by, p02 * bx + p12 * by
                M0, M1, M2 = p00 * q00 + p10 * q10, p00 * q01 + p10 * q11, p00 * q02 + p10 * q12
                M3, M4, M5 = p01 * q01 + p11 * q11, p01 * q02 + p11 * q12, p02 * q02 + p12 * q12
                for corner in range(3):
                    point = i if corner == 0 else (j if corner == 1 else k)
                    b = b0 if corner == 0 else (b1 if corner == 1 else b2)
                    M[point, 0] += b * M0
                    M[point, 1] += b * M1
                    M[point, 2] += b * M2
                    M[point, 3] += b * M3
                    M[point, 4] += b * M4
                    M[point, 5] += b * M5
                    m[point, 0] += b * m0
                    m[point, 1] += b * m1
                    m[point, 2] += b * m2
        per_view[v] = total


@kernel
def image_cost(model, target, channel, delta, per_view):
    """Only the sum Σ ρ of `image_terms`."""
    V, H, W, _ = model.shape
    for v in range(V):
        total = 0.0
        for y in range(H):
            for x in range(W):
                s2 = 0.0
                for c in range(4):
                    r = model[v, y, x, c] - target[v, y, x, c]
                    s2 += channel[c] * r * r
                s = np.sqrt(s2)
                total += s2 if s <= delta else 2.0 * delta * s - delta * delta
        per_view[v] = total


@kernel
def gather(M, m, nodes, weights, rest, centres, rotations, H, g):
    """Add the terms of the surface points to the normal equations H d = g of the graph.

    The step of node k is (ω_k, τ_k): R_k ← exp(ω_k) R_k, p_k ← p_k + τ_k. It moves a point by
    dx = Σ_k w_k (τ_k - [a_k]× ω_k) with the arm a_k = R_k (v - g_k), so the block of nodes k and l is

        w_k w_l [ -A_k M A_l   A_k M ]                    w_k [ A_k m ]
                [   -M A_l       M   ],   A = [a]×,  and      [   m   ]  on the right-hand side.

    Args:
        M, m: float64 [n, 6] and [n, 3], of `image_terms`.
        nodes: int32 [n, J]. weights: float64 [n, J].
        rest: float64 [n, 3], v. centres: float64 [K, 3], g. rotations: float64 [K, 3, 3], R.
        H: float64 [6K, 6K], output, added to; upper triangle of node pairs is mirrored by the caller.
        g: float64 [6K], output, added to.
    """
    n, J = nodes.shape
    arm = np.empty((J, 3))
    S = np.empty((3, 3))
    B = np.empty((3, 3))
    C = np.empty((3, 3))
    for i in range(n):
        if M[i, 0] + M[i, 3] + M[i, 5] == 0.0:
            continue
        S[0, 0], S[0, 1], S[0, 2] = M[i, 0], M[i, 1], M[i, 2]
        S[1, 0], S[1, 1], S[1, 2] = M[i, 1], M[i, 3], M[i, 4]
        S[2, 0], S[2, 1], S[2, 2] = M[i, 2], M[i, 4], M[i, 5]
        for j in range(J):
            k = nodes[i, j]
            d0, d1, d2 = rest[i, 0] - centres[k, 0], rest[i, 1] - centres[k, 1], rest[i, 2] - centres[k, 2]
            for r in range(3):
                arm[j, r] = rotations[k, r, 0] * d0 + rotations[k, r, 1] * d1 + rotations[k, r, 2] * d2
        for j in range(J):
            wj = weights[i, j]
            if wj == 0.0:
                continue
            k = 6 * nodes[i, j]
            a0, a1, a2 = arm[j, 0], arm[j, 1], arm[j, 2]
            # A_k m is the cross product a_k × m.
            g[k] += wj * (a1 * m[i, 2] - a2 * m[i, 1])
            g[k + 1] += wj * (a2 * m[i, 0] - a0 * m[i, 2])
            g[k + 2] += wj * (a0 * m[i, 1] - a1 * m[i, 0])
            for r in range(3):
                g[k + 3 + r] += wj * m[i, r]
                B[0, r] = a1 * S[2, r] - a2 * S[1, r]  # A_k M: a_k × the columns of M
                B[1, r] = a2 * S[0, r] - a0 * S[2, r]
                B[2, r] = a0 * S[1, r] - a1 * S[0, r]
            for l_ in range(J):
                l = 6 * nodes[i, l_]
                if l < k or weights[i, l_] == 0.0:
                    continue
                w = wj * weights[i, l_]
                c0, c1, c2 = arm[l_, 0], arm[l_, 1], arm[l_, 2]
                for r in range(3):
                    # Rows of -B A_l are a_l × (rows of B) with the sign of -(b^T [a]×) = (a × b)^T.
                    C[r, 0] = c1 * B[r, 2] - c2 * B[r, 1]
                    C[r, 1] = c2 * B[r, 0] - c0 * B[r, 2]
                    C[r, 2] = c0 * B[r, 1] - c1 * B[r, 0]
                for r in range(3):
                    for c in range(3):
                        H[k + r, l + c] += w * C[r, c]
                        H[k + r, l + 3 + c] += w * B[r, c]
                        H[k + 3 + r, l + 3 + c] += w * S[r, c]
                    H[k + 3 + r, l] += w * (c1 * S[r, 2] - c2 * S[r, 1])
                    H[k + 3 + r, l + 1] += w * (c2 * S[r, 0] - c0 * S[r, 2])
                    H[k + 3 + r, l + 2] += w * (c0 * S[r, 1] - c1 * S[r, 0])


@kernel
def graph_terms(
    edges,
    stiffness,
    loose,
    centres,
    positions,
    rotations,
    turns,
    bend,
    stretch,
    delta,
    turn_weight,
    turn_delta,
    H,
    g,
    add,
):
    """Energy of the graph, and with `add` its normal equations.

    Edge (k, l) with arm a = R_k (g_l - g_k), unit vector e along it: residual r = a + p_k - p_l is split into its part
    along e (stretch, quadratic) and across (bending, pseudo-Huber). Embedded deformation's term (Sumner et al. 2007,
    equation 7) has equal weights and no robust function. Rotations: angle vector of R_l R_k^T, pseudo-Huber. The terms
    of a loose edge have the function of Geman and McClure instead, which lets go.

    Args:
        edges: int32 [E, 2], directed. stiffness: float64 [E], multiplies all terms of an edge. loose: bool [E].
        centres, positions: float64 [K, 3]. rotations: float64 [K, 3, 3].
        turns: float64 [E, 3], angle vectors of R_l R_k^T.
        bend, stretch, turn_weight: weights. delta, turn_delta: thresholds of the pseudo-Huber functions.
        H: float64 [6K, 6K], g: float64 [6K], output, added to (upper triangle of node pairs).
        add: whether H and g are wanted.
    Returns:
        the energy.
    """
    energy = 0.0
    W = np.empty((3, 3))
    A = np.zeros((3, 3))
    for e in range(len(edges)):
        k, l, s = edges[e, 0], edges[e, 1], stiffness[e]
        a = np.empty(3)
        d0, d1, d2 = (
            centres[l, 0] - centres[k, 0],
            centres[l, 1] - centres[k, 1],
            centres[l, 2] - centres[k, 2],
        )
        length2 = d0 * d0 + d1 * d1 + d2 * d2
        r = np.empty(3)
        along = 0.0
        for i in range(3):
            a[i] = rotations[k, i, 0] * d0 + rotations[k, i, 1] * d1 + rotations[k, i, 2] * d2
            r[i] = a[i] + positions[k, i] - positions[l, i]
            along += a[i] * r[i]
        r2 = r[0] * r[0] + r[1] * r[1] + r[2] * r[2]
        along2 = along * along / length2 if length2 > 0.0 else 0.0
        across2 = max(r2 - along2, 0.0)
        root = np.sqrt(1.0 + across2 / (delta * delta))
        t2 = turns[e, 0] ** 2 + turns[e, 1] ** 2 + turns[e, 2] ** 2
        turn_root = np.sqrt(1.0 + t2 / (turn_delta * turn_delta))
        # Pseudo-Huber: 2 δ² (sqrt(1 + r²/δ²) - 1), which is r² for small r; its weight is 1 / sqrt(1 + r²/δ²).
        along_weight, across_weight, t = s * stretch, s * bend / root, s * turn_weight / turn_root
        if loose[e]:
            # Geman-McClure: x² / (1 + x²/δ²); its weight is 1 / (1 + x²/δ²)².
            fall, turn_fall = 1.0 + r2 / (delta * delta), 1.0 + t2 / (turn_delta * turn_delta)
            energy += s * ((stretch * along2 + bend * across2) / fall + turn_weight * t2 / turn_fall)
            along_weight = s * stretch / (fall * fall)
            across_weight = s * bend / (fall * fall)
            t = s * turn_weight / (turn_fall * turn_fall)
        else:
            energy += s * (
                stretch * along2
                + bend * 2.0 * delta * delta * (root - 1.0)
                + turn_weight * 2.0 * turn_delta * turn_delta * (turn_root - 1.0)
            )
        if not add:
            continue
        for i in range(3):
            for j in range(3):
                unit = a[i] * a[j] / length2 if length2 > 0.0 else 0.0
                W[i, j] = (along_weight - across_weight) * unit + (across_weight if i == j else 0.0)
        # dr = -[a]× ω_k + τ_k - τ_l
        A[0, 1], A[0, 2], A[1, 0], A[1, 2], A[2, 0], A[2, 1] = -a[2], a[1], a[2], -a[0], -a[1], a[0]
        AW = A @ W
        AWA = AW @ A
        Wr = W @ r
        AWr = A @ Wr
        kk, ll = 6 * k, 6 * l
        for i in range(3):
            for j in range(3):
                H[kk + i, kk + j] -= AWA[i, j]
                H[kk + i, kk + 3 + j] += AW[i, j]
                H[kk + 3 + i, kk + j] += AW[j, i]
                H[kk + 3 + i, kk + 3 + j] += W[i, j]
                H[ll + 3 + i, ll + 3 + j] += W[i, j]
                if k < l:
                    H[kk + i, ll + 3 + j] -= AW[i, j]
                    H[kk + 3 + i, ll + 3 + j] -= W[i, j]
                else:
                    H[ll + 3 + i, kk + j] -= AW[j, i]
                    H[ll + 3 + i, kk + 3 + j] -= W[i, j]
            g[kk + i] -= AWr[i]
            g[kk + 3 + i] -= Wr[i]
            g[ll + 3 + i] += Wr[i]
            # d turn ≈ ω_l - ω_k
            H[kk + i, kk + i] += t
            H[ll + i, ll + i] += t
            if k < l:
                H[kk + i, ll + i] -= t
            else:
                H[ll + i, kk + i] -= t
            g[kk + i] += t * turns[e, i]
            g[ll + i] -= t * turns[e, i]
    return energy

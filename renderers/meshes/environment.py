"""The lighting used by all back ends: a soft studio, fixed in the world.

Radiance from direction d (unit, world, +Y up), linear RGB:

    L(d) = AMBIENT + GRADIENT * d.y + sum over LIGHTS of colour * exp(sharpness * (dot(d, direction) - 1))

Irradiance under a linear gradient and under spherical Gaussians has a closed form, and glossy convolutions are
simple. So the rasteriser needs no environment texture, metals have something to reflect, and Cycles uses the same
function as its world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Light:
    """A spherical Gaussian of radiance: peak `colour` (linear RGB) in `direction`; lower `sharpness` is wider."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    sharpness: float

    @property
    def axis(self) -> np.ndarray:
        """The unit vector of `direction`."""
        axis = np.asarray(self.direction, np.float64)
        return axis / np.linalg.norm(axis)

    @property
    def integral(self) -> float:
        """Integral of exp(sharpness * (cos - 1)) over the sphere, steradians."""
        return 2.0 * np.pi * (1.0 - np.exp(-2.0 * self.sharpness)) / self.sharpness


AMBIENT = (0.35, 0.36, 0.38)
GRADIENT = (0.17, 0.18, 0.20)
LIGHTS = (
    Light((0.55, 0.75, 0.60), (1.70, 1.62, 1.48), 6.0),  # key: front right, above, slightly warm
    Light((-0.80, 0.30, 0.25), (0.30, 0.32, 0.36), 3.0),  # fill: left, cool
    Light(
        (-0.10, 0.45, -1.00), (0.62, 0.62, 0.66), 5.0
    ),  # rim: from behind, so that back views have contrast
)


def radiance(directions: np.ndarray) -> np.ndarray:
    """Evaluate the radiance, linear RGB [..., 3], in unit world directions [..., 3]."""
    directions = np.asarray(directions, np.float64)
    light = np.asarray(AMBIENT) + np.asarray(GRADIENT) * directions[..., 1:2]
    for lamp in LIGHTS:
        lobe = np.exp(lamp.sharpness * (directions @ lamp.axis - 1.0))
        light = light + np.asarray(lamp.colour) * lobe[..., None]
    return light


def irradiance_terms(light: Light) -> tuple[float, float, float, float]:
    """Return constants (scale, bias, knee, amplitude) of the diffuse irradiance of a spherical Gaussian.

    Fit by Stephen Hill ("SG irradiance", 2016): with c = dot(normal, axis) and y = clamp(c, 0, 1) smoothed by a
    parabola of half-width `knee` around 0, irradiance / pi = amplitude * (scale * y + bias).
    """
    decay = np.exp(-light.sharpness)
    decay2 = decay * decay
    scale = 1.0 + 2.0 * decay2 - 1.0 / light.sharpness
    bias = (decay - decay2) / light.sharpness - decay2
    return scale, bias, np.sqrt(1.0 - scale), light.integral / np.pi

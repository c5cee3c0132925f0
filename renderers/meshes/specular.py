"""The glossy reflection of the environment by a GGX surface, with all of its energy.

A rough surface reflects light several times between its facets. A model with a single reflection loses up to two thirds
of it; Kulla and Conty (2017, "Revisiting Physically Based Shading at Imageworks") and Cycles scale the lobe to make up
for that. With `c` = cosine between normal and view, roughness `r` (alpha = r²) and Schlick's Fresnel term:

    E(c, r) = A + B                          albedo of one reflection by a perfect mirror
    f0 * A + B                               albedo of one reflection (split sum)
    F = f0 + (1 - f0) / 21                   mean of the Fresnel term over the hemisphere
    M = F * Ē(r) / (1 - F * (1 - Ē(r)))      albedo of the further reflections, Ē = mean of E
    (f0 * A + B) * (1 + M * (1 - E) / E)     albedo with all reflections

The lobe is a von Mises-Fisher distribution with the mean direction of the GGX lobe, for which the environment of
`renderers.meshes.environment` is integrated in closed form. A, B and the mean direction are polynomials in c and r,
fitted by `python -m benchmarks.specular` to sampled integrals.
"""

from __future__ import annotations

LEAST_ROUGHNESS = (
    0.06  # smoother surfaces are shaded with this roughness: pixels cannot show their reflections
)
DEGREE_COSINE, DEGREE_ROUGHNESS = 5, 4
# Coefficients of c^i r^j: A, B, then the mean direction in units of the normal and of the mirrored view's tangent.
LOBE = (
    (
        (-0.1564, 1.2323, -0.1060, 0.9950),
        (1.6364, -3.8787, 1.2021, 0.4756),
        (4.3304, 4.4940, 2.3473, -5.3250),
        (-10.1526, -1.8693, -5.8752, 6.0951),
        (5.2824, 0.0580, 2.9626, -2.2459),
    ),
    (
        (7.8258, -7.4619, 2.7286, -0.8227),
        (-38.6319, 48.7135, -28.3366, 11.3569),
        (52.8626, -123.2822, 79.2084, -23.1775),
        (-18.9821, 133.3030, -84.0763, 15.3745),
        (-5.4548, -51.6306, 30.9889, -2.6659),
    ),
    (
        (-23.7763, 18.7258, -6.3629, 3.6258),
        (205.5449, -193.1552, 113.5854, -55.3630),
        (-484.8954, 595.5743, -382.8446, 160.3947),
        (446.4801, -713.4866, 462.1744, -173.3562),
        (-138.1134, 293.8847, -188.2738, 64.6683),
    ),
    (
        (37.3743, -24.0932, 10.2970, -6.4882),
        (-426.7955, 341.5341, -193.1098, 103.0907),
        (1184.7036, -1156.1169, 686.8214, -323.6794),
        (-1256.3532, 1447.8419, -866.8045, 377.3025),
        (454.1006, -612.2313, 365.8842, -150.4105),
    ),
    (
        (-29.1428, 15.7297, -8.0159, 5.3748),
        (386.4223, -281.0622, 155.5236, -87.3467),
        (-1153.8031, 1004.6894, -567.0798, 283.6010),
        (1294.5485, -1291.0109, 729.7036, -340.4660),
        (-493.2048, 554.4399, -312.7587, 139.1056),
    ),
    (
        (8.9057, -4.1331, 2.4304, -1.6973),
        (-128.7658, 87.8846, -48.3212, 27.9907),
        (400.0842, -325.5164, 178.6895, -92.4887),
        (-462.4141, 425.4459, -232.3515, 112.7092),
        (180.8493, -184.6232, 100.4019, -46.6218),
    ),
)
# Coefficients of r^j: Ē.
MEAN_ALBEDO = (0.99841, 0.00826, 0.25130, -2.09518, 1.24817)


def glsl(lights: str) -> str:
    """Return the GLSL of the lobe: `glossy(n, v, roughness)`, and `reflected(gloss, f0)`, its albedo.

    Args:
        lights: statements that set `l` to the radiance of the environment, averaged over a von Mises-Fisher
            distribution with mean `mu` (of length < 1), `concentrated` = its concentration `kappa` times its direction,
            and `peak` = kappa / (1 - exp(-2 kappa)).
    """
    powers = [_horner([_vec4(cell) for cell in row], "roughness") for row in LOBE]
    mean = _horner([f"{value:.6f}" for value in MEAN_ALBEDO], "roughness")
    return f"""
struct Gloss {{
    vec2 ab;      // A and B
    float mean;   // mean of E over the hemisphere
    vec3 light;   // radiance of the environment, averaged over the lobe
}};
Gloss glossy(vec3 n, vec3 v, float roughness) {{
    float nv = dot(n, v), c = clamp(abs(nv), 0.02, 1.0);
    vec4 k = {_horner(powers, "c")};
    vec3 mu = k.z * n + k.w * (nv * n - v);
    float length2 = min(dot(mu, mu), 0.999);
    // Approximate inverse of coth(kappa) - 1 / kappa = |mu| (Banerjee et al. 2005).
    float kappa = sqrt(length2) * (3.0 - length2) / (1.0 - length2), peak = kappa / (1.0 - exp(-2.0 * kappa));
    vec3 concentrated = mu * (kappa * inversesqrt(max(dot(mu, mu), 1e-6)));
    vec3 l;
{lights}
    vec2 ab = max(k.xy, vec2(0.0));
    return Gloss(ab / max(ab.x + ab.y, 1.0), {mean}, l);  // the fit exceeds 1 by up to 2 % for smooth surfaces
}}
vec3 reflected(Gloss gloss, vec3 f0) {{
    float e = max(gloss.ab.x + gloss.ab.y, 0.05);
    vec3 f = f0 * (20.0 / 21.0) + 1.0 / 21.0;
    vec3 further = f * gloss.mean / (1.0 - f * (1.0 - gloss.mean));
    return (f0 * gloss.ab.x + gloss.ab.y) * (1.0 + further * ((1.0 - e) / e));
}}
"""


def _horner(coefficients: list[str], variable: str) -> str:
    """The polynomial with these coefficients (of rising powers) as a GLSL expression."""
    expression = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        expression = f"({coefficient} + {variable} * {expression})"
    return expression


def _vec4(values: tuple[float, ...]) -> str:
    return "vec4(" + ", ".join(f"{value:.6f}" for value in values) + ")"

"""GLSL of the OpenGL back end, and the byte layout of its uniform blocks.

All materials share one vertex and one fragment shader. Features that a material does not use are removed by the
preprocessor, because on llvmpipe an unused texture fetch costs as much as a used one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from renderers.meshes import environment
from renderers.meshes import specular as specular_reflection
from renderers.meshes.opacity import FAINTEST_ALPHA, SOLID_ALPHA

# The textures that a material may have; each has its own texture coordinates, transformed on the CPU.
SLOTS = ("BASE_MAP", "METALLIC_ROUGHNESS_MAP", "EMISSIVE_MAP", "NORMAL_MAP", "OCCLUSION_MAP")
VIEW_BINDING, MATERIAL_BINDING = 0, 1
VIEW_BLOCK_BYTES = (16 + 16 + 4) * 4


def view_block(world_to_clip: np.ndarray, asset_to_world: np.ndarray, eye: np.ndarray) -> bytes:
    """std140 bytes of the uniform block `View`. Matrices are transposed, as GLSL is column-major."""
    matrices = np.stack([(world_to_clip @ asset_to_world).T, asset_to_world.T]).astype(np.float32)
    return matrices.tobytes() + np.append(eye, 1.0).astype(np.float32).tobytes()


_BLOCKS = """
layout(std140) uniform View { mat4 asset_to_clip; mat4 asset_to_world; vec4 eye; };
layout(std140) uniform Surface {
    vec4 base_colour;      // linear
    vec4 emissive_cutoff;  // linear emission, alpha cutoff
    vec4 factors;          // metallic, roughness, normal scale, occlusion strength
};
"""

_VERTEX = """
invariant gl_Position;  // depth must be bit-identical in every pass
in vec3 position;
#ifdef LIT
in vec3 normal;
out vec3 v_normal;
out vec3 v_to_eye;
#endif
#ifdef VERTEX_COLOUR
in vec4 colour;
out vec4 v_colour;
#endif
#ifdef GEOMETRY
in vec3 next_position;
out vec4 v_here;
out vec4 v_next;
#endif
%(slots_in)s
void main() {
    gl_Position = asset_to_clip * vec4(position, 1.0);
#ifdef GEOMETRY
    v_here = gl_Position;
    v_next = asset_to_clip * vec4(next_position, 1.0);
#endif
#ifdef LIT
    v_normal = mat3(asset_to_world) * normal;
    v_to_eye = eye.xyz - (asset_to_world * vec4(position, 1.0)).xyz;
#endif
#ifdef VERTEX_COLOUR
    v_colour = colour;
#endif
%(slots_pass)s
}
"""

_FRAGMENT = """
#ifdef LIT
in vec3 v_normal;
in vec3 v_to_eye;
#endif
#ifdef VERTEX_COLOUR
in vec4 v_colour;
#endif
#ifdef GEOMETRY
in vec4 v_here;  // clip space: interpolation must be perspective-correct, before the division
in vec4 v_next;
layout(location = 1) out vec4 motion;
#endif
%(slots_in)s
layout(location = 0) out vec4 result;

vec3 encode_srgb(vec3 linear) {
    linear = clamp(linear, 0.0, 1.0);
    return mix(12.92 * linear, 1.055 * pow(linear, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, linear));
}

#ifdef LIT
vec3 surface_normal() {
    vec3 n = normalize(v_normal);
#ifdef NORMAL_MAP
    // Cotangent frame from screen-space derivatives (Schueler 2013): needs no TANGENT attribute, follows deformation.
    vec3 px = dFdx(v_to_eye), py = dFdy(v_to_eye);
    vec2 ux = dFdx(v_uv_NORMAL_MAP), uy = dFdy(v_uv_NORMAL_MAP);
    vec3 qx = cross(n, px), qy = cross(py, n);
    vec3 tangent = -(qy * ux.x + qx * uy.x), bitangent = -(qy * ux.y + qx * uy.y);
    float size = max(dot(tangent, tangent), dot(bitangent, bitangent));
    if (size > 0.0) {
        vec3 local = texture(NORMAL_MAP, v_uv_NORMAL_MAP).xyz * 2.0 - 1.0;
        local.xy *= factors.z;
        // In glTF v points down in the image, so the bitangent is -dv.
        n = normalize((tangent * local.x - bitangent * local.y) * inversesqrt(size) + n * local.z);
    }
#endif
#ifdef DOUBLE_SIDED
    if (!gl_FrontFacing) n = -n;
#endif
    return n;
}
#endif

#ifdef SHADED
%(lights)s
#endif

void main() {
    vec4 base = base_colour;
#ifdef VERTEX_COLOUR
    base *= v_colour;
#endif
#ifdef BASE_MAP
    base *= texture(BASE_MAP, v_uv_BASE_MAP, -0.5);  // bias: the nearest mipmap level or the next finer one
#endif
    float alpha = 1.0;
#if defined(MASK)
    if (base.a < emissive_cutoff.w) discard;
#elif defined(HALF_MASK)
    if (base.a < 0.5) discard;
#elif defined(BLEND)
    alpha = min(base.a, 1.0);
#if defined(DEPTH_ONLY)
    if (alpha < %(solid)s) discard;
#else
    if (alpha < %(faintest)s) discard;
#endif
#endif

#if defined(DEPTH_ONLY)
    result = vec4(0.0);
#elif defined(GEOMETRY)
    result = vec4(surface_normal(), 1.0 / gl_FragCoord.w);
    // Motion in normalised device coordinates, NaN if it ends behind the camera; then the derivatives of 1/depth.
    vec2 moved = v_next.xy / v_next.w - v_here.xy / v_here.w;
    if (v_next.w <= 0.0) moved = vec2(uintBitsToFloat(0x7fc00000u));
    motion = vec4(moved, dFdx(gl_FragCoord.w), dFdy(gl_FragCoord.w));
#elif defined(UNLIT)
    result = vec4(encode_srgb(base.rgb) * alpha, alpha);
#else
    vec3 n = surface_normal();
    vec3 v = normalize(v_to_eye);
    float metallic = factors.x, roughness = factors.y;
#ifdef METALLIC_ROUGHNESS_MAP
    vec4 packed_map = texture(METALLIC_ROUGHNESS_MAP, v_uv_METALLIC_ROUGHNESS_MAP);
    roughness *= packed_map.g;
    metallic *= packed_map.b;
#endif
    float occlusion = 1.0;
#ifdef OCCLUSION_MAP
    occlusion = mix(1.0, texture(OCCLUSION_MAP, v_uv_OCCLUSION_MAP).r, factors.w);
#endif
    vec3 emission = emissive_cutoff.rgb;
#ifdef EMISSIVE_MAP
    emission *= texture(EMISSIVE_MAP, v_uv_EMISSIVE_MAP).rgb;
#endif
    // glTF 2.0, appendix B.2: the mixture of a dielectric and a metal, not of their reflectances at normal incidence.
    Gloss gloss = glossy(n, v, max(roughness, %(least_roughness)s));
    vec3 coat = reflected(gloss, vec3(0.04)), metal = reflected(gloss, base.rgb);
    vec3 dielectric = coat * gloss.light + (1.0 - coat) * base.rgb * irradiance(n);
    vec3 light = occlusion * mix(dielectric, metal * gloss.light, metallic);
    result = vec4(encode_srgb(light + emission) * alpha, alpha);
#endif
}
"""

FULL_SCREEN = """#version 330
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }
"""

# Input: premultiplied samples, bottom row first. Output: straight alpha, top row first.
RESOLVE = """#version 330
uniform sampler2D samples;
uniform int side;      // samples per pixel along each axis
uniform ivec2 corner;  // of the view in the atlas
uniform int height;
out vec4 result;
void main() {
    ivec2 pixel = ivec2(gl_FragCoord.xy) - corner;
    ivec2 first = ivec2(pixel.x, height - 1 - pixel.y) * side;
    vec4 sum = vec4(0.0);
    for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; ++x) sum += texelFetch(samples, first + ivec2(x, y), 0);
    result = sum.a > 0.0 ? vec4(sum.rgb / sum.a, sum.a / float(side * side)) : vec4(0.0);
}
"""


def mesh_vertex(features: frozenset[str]) -> str:
    """Return the source of the vertex shader for a set of material features."""
    slots = [slot for slot in SLOTS if slot in features]
    declared = "\n".join(f"in vec2 uv_{slot};\nout vec2 v_uv_{slot};" for slot in slots)
    passed = "\n".join(f"    v_uv_{slot} = uv_{slot};" for slot in slots)
    return _header(features) + _BLOCKS + _VERTEX % {"slots_in": declared, "slots_pass": passed}


def mesh_fragment(features: frozenset[str]) -> str:
    """Return the source of the fragment shader for a set of material features."""
    slots = [slot for slot in SLOTS if slot in features]
    declared = "\n".join(f"in vec2 v_uv_{slot};\nuniform sampler2D {slot};" for slot in slots)
    values = {"slots_in": declared, "lights": _lights(), "solid": SOLID_ALPHA, "faintest": FAINTEST_ALPHA}
    values["least_roughness"] = str(specular_reflection.LEAST_ROUGHNESS)
    body = _FRAGMENT % values
    return _header(features) + _BLOCKS + body


def _header(features: frozenset[str]) -> str:
    """Return the version line and the preprocessor definitions."""
    names = set(features)
    if not names & {"UNLIT", "DEPTH_ONLY"}:
        names.add("LIT")
    if not names & {"GEOMETRY", "UNLIT", "DEPTH_ONLY"}:
        names.add("SHADED")
    return (
        "#version 330\n"
        + "".join(f"#define {name}\n" for name in sorted(names - set(SLOTS)))
        + "".join(f"#define {name} {name}\n" for name in SLOTS if name in names)
    )


def _lights() -> str:
    """Return the GLSL functions `irradiance` (divided by pi) and `glossy`, with the constants of the environment."""
    diffuse, specular = [], []
    for light in environment.LIGHTS:
        scale, bias, knee, amplitude = environment.irradiance_terms(light)
        axis, colour = _vec3(light.axis), _vec3(light.colour)
        diffuse.append(
            f"    e += {colour} * ({amplitude:.8f} * ({scale:.8f} * soft_cosine(dot(n, {axis}), {knee:.8f})"
            f" + {bias:.8f}));"
        )
        # A von Mises-Fisher distribution times a spherical Gaussian is one again, with the sum of their axes.
        specular.append(
            f"    x = length(concentrated + {light.sharpness:.4f} * {axis});\n"
            f"    l += {colour} * (peak * exp(x - kappa - {light.sharpness:.4f}) * (1.0 - exp(-2.0 * x)) / x);"
        )
    ambient, gradient = _vec3(environment.AMBIENT), _vec3(environment.GRADIENT)
    newline = "\n"
    irradiance = f"""
float soft_cosine(float c, float knee) {{
    float x = 0.36 * c, edge = knee / 1.44, n = x + edge;
    return abs(x) <= edge ? n * n / knee : clamp(c, 0.0, 1.0);
}}
vec3 irradiance(vec3 n) {{
    vec3 e = {ambient} + {gradient} * (n.y * 0.66666667);
{newline.join(diffuse)}
    return max(e, vec3(0.0));
}}
"""
    lights = f"    l = {ambient} + {gradient} * mu.y;\n    float x;\n" + newline.join(specular)
    return irradiance + specular_reflection.glsl(lights)


def _vec3(values: Iterable[float]) -> str:
    return "vec3(" + ", ".join(f"{v:.8f}" for v in values) + ")"

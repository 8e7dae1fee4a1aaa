import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.data.retina import (
    WindowGeometry,
    cut_patches,
    normalise,
    patch_corner,
    render_scenes,
    render_windows,
)

GEOMETRIES = {
    "same scale": WindowGeometry((41, 53), (9, 7), 10.0, 10.0),
    "finer scenes": WindowGeometry((41, 53), (8, 5), 23.0, 10.0),
    "coarser scenes": WindowGeometry((41, 54), (9, 7), 4.0, 10.0),
    "scenes smaller than the window": WindowGeometry((6, 5), (9, 7), 10.0, 10.0),
}


def windows_pixel_by_pixel(scene, gaze, geometry):
    """The second formula: each pixel from its four neighbours, in float64, grey outside the scene."""
    (rows, columns), (height, width) = scene.shape[:2], geometry.window_shape
    zoom, scale = geometry.zoom, geometry.scene_pixels_per_degree
    padded = np.full((rows + 2, columns + 2, scene.shape[2]), 127.0)
    padded[1:-1, 1:-1] = scene
    window = np.full((height, width, scene.shape[2]), 127.0)
    for i in range(height):
        for j in range(width):
            y = (rows - 1) / 2 - float(gaze[1]) * scale + (i - (height - 1) / 2) * zoom
            x = (columns - 1) / 2 + float(gaze[0]) * scale + (j - (width - 1) / 2) * zoom
            if -1 < y < rows and -1 < x < columns:
                top, left = int(np.floor(y)), int(np.floor(x))
                down, right = y - top, x - left
                four = padded[top + 1 : top + 3, left + 1 : left + 3]
                weights = np.outer([1 - down, down], [1 - right, right])
                window[i, j] = (four * weights[..., None]).sum(axis=(0, 1))
    return (window - 127) / 255


@pytest.mark.parametrize("name", GEOMETRIES)
def test_windows_equal_the_pixel_by_pixel_formula_inside_and_outside_the_scene(name):
    geometry, random = GEOMETRIES[name], np.random.default_rng(0)
    scenes = random.integers(0, 256, (3, *geometry.scene_shape, 2), dtype=np.uint8)
    gaze = random.uniform(-4, 4, (24, 2)).astype(np.float32)
    gaze[:2] = [[0, 0], [40, -40]]
    index = random.integers(0, 3, 24).astype(np.int32)
    wanted = [windows_pixel_by_pixel(scenes[i], g, geometry) for i, g in zip(index, gaze, strict=True)]
    rendered = jax.jit(render_scenes, static_argnums=3)(scenes, index, gaze, geometry)
    np.testing.assert_allclose(rendered, wanted, atol=1e-5)
    corner = patch_corner(gaze, geometry)
    patches = jax.jit(cut_patches, static_argnums=3)(scenes, index, corner, geometry.patch_shape)
    cut = jax.jit(render_windows, static_argnums=3)(patches, corner, gaze, geometry)
    np.testing.assert_allclose(cut, wanted, atol=1e-5)


def test_gaze_to_the_right_and_up_shows_what_lies_right_and_above():
    scene = np.full((1, 41, 53, 1), 127, np.uint8)
    scene[0, 20 - 10, 26 + 10, 0] = 255
    render = jax.jit(render_scenes, static_argnums=3)
    shown = render(scene, np.zeros(1, np.int32), np.ones((1, 2), np.float32), GEOMETRIES["same scale"])
    assert np.argwhere(np.asarray(shown[0, ..., 0]) > 0).tolist() == [[4, 3]]


def test_windows_are_differentiable_in_gaze():
    geometry, random = GEOMETRIES["same scale"], np.random.default_rng(1)
    scene = random.integers(0, 256, (1, 41, 53, 1), dtype=np.uint8)
    weights = random.normal(size=(9, 7, 1))
    gaze = np.array([0.123, -0.234])

    def projection(where):
        shown = render_scenes(jnp.asarray(scene), jnp.zeros(1, jnp.int32), where[None], geometry)
        return jnp.sum(jnp.asarray(weights, jnp.float32)[None] * shown)

    def differences(step):
        ends = [windows_pixel_by_pixel(scene[0], gaze + sign * step, geometry) for sign in (1, -1)]
        return (weights * (ends[0] - ends[1])).sum() / 2e-5

    wanted = [differences(np.array([1e-5, 0])), differences(np.array([0, 1e-5]))]
    np.testing.assert_allclose(
        jax.jit(jax.grad(projection))(jnp.asarray(gaze, jnp.float32)), wanted, rtol=1e-3
    )


def test_bytes_are_cast_before_the_grey_is_taken_off():
    np.testing.assert_allclose(
        normalise(jnp.asarray([0, 127, 255], jnp.uint8)), [-127 / 255, 0, 128 / 255], atol=1e-7
    )

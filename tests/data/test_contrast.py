"""RMS contrast of what is seen: of windows, of patches under a gaze, cached, of sessions of any length."""

import dataclasses

import numpy as np
import pytest

from polarjax.data import contrast
from polarjax.data.assemble import corners
from polarjax.data.sessions import open_session


def frame_by_frame(session):
    """The second formula: cuts every frame out of its image."""
    found = []
    for index, corner in zip(session.frame_index, corners(session, slice(None)), strict=True):
        image = session.movie[index]
        if session.window is not None:
            rows, columns = session.window.patch_shape
            image = image[corner[0] : corner[0] + rows, corner[1] : corner[1] + columns]
        found.append(np.std(image.astype(np.float64) / 255))
    return np.asarray(found)


@pytest.mark.parametrize("kind", ["frames", "scenes"])
def test_contrast_is_the_deviation_of_luminance_in_what_is_seen(make_session, kind, monkeypatch):
    monkeypatch.setattr(contrast, "IMAGES_AT_A_TIME", 7)
    gaze = np.random.default_rng(3).normal(0, 0.1, (180, 2)).cumsum(0).astype(np.float32)
    session = open_session(make_session(kind=kind, gaze=gaze))
    found = contrast.frame_contrast(session)
    np.testing.assert_allclose(found, frame_by_frame(session), rtol=1e-5)
    assert found.dtype == np.float32
    assert found.std() > 0


def test_a_blank_and_an_image_shown_again_have_the_contrast_of_their_pixels(make_session):
    frames = np.full((2, 9, 7), 127, np.uint8)
    frames[1, :4] = 255
    index = np.arange(180, dtype=np.int32) % 2
    found = contrast.frame_contrast(open_session(make_session(frames=frames, frame_index=index)))
    np.testing.assert_array_equal(found[::2], 0)
    np.testing.assert_allclose(found[1::2], (frames[1] / 255).std(), rtol=1e-6)


def test_contrast_is_cached_for_the_window_it_is_of(make_session, tmp_path, monkeypatch):
    session, cache = open_session(make_session(kind="scenes")), tmp_path / "cache"
    first = contrast.session_contrast(session, cache)
    computed = []
    monkeypatch.setattr(contrast, "frame_contrast", lambda opened: computed.append(opened) or first)
    np.testing.assert_array_equal(contrast.session_contrast(session, cache), first)
    assert computed == []
    other = dataclasses.replace(session, window=dataclasses.replace(session.window, window_shape=(5, 5)))
    contrast.session_contrast(other, cache)
    assert computed == [other]
    for file in (cache / "statistics").glob("*-contrast-*.npy"):
        file.write_bytes(file.read_bytes()[:60])
    np.testing.assert_array_equal(contrast.session_contrast(session, cache), first)
    assert computed == [other, session]


def test_a_cache_that_cannot_be_written_is_not_used(make_session, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    session = open_session(make_session())
    assert contrast.session_contrast(session, tmp_path / "cache").shape == (180,)

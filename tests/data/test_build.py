import dataclasses
import logging

import ml_collections
import numpy as np
import pytest

from polarjax import data
from polarjax.core import ConfigError, DataError, DataInfo


def test_info_tells_what_a_model_needs(make_session, section):
    folders = [make_session("alpha", kind="scenes"), make_session("beta", units=5, seed=1)]
    built = data.build(ml_collections.ConfigDict(section(folders)))
    info = built.info
    assert [session.name for session in info.sessions] == ["alpha", "beta"]
    assert info.sessions[1].unit_ids == tuple(f"beta-{number}" for number in range(5))
    assert (info.rate_hz, info.pixels_per_degree, info.frame_shape, info.max_units) == (
        120.0,
        10.0,
        (9, 7, 1),
        5,
    )
    assert info.sessions[0].path == str(folders[0]) and len(info.sessions[0].fingerprint) == 64
    assert DataInfo.from_dict(dataclasses.asdict(info)) == info


def test_the_virtual_v1_is_used_where_no_session_is_named(make_session, section, monkeypatch):
    folder, asked = make_session("virtual"), []
    monkeypatch.setattr(
        data.virtual_v1, "ensure_virtual_v1", lambda *wanted: asked.append(wanted) or [folder]
    )
    built = data.build(section(""))
    assert built.info.sessions[0].path == ""
    assert asked[0][:2] == (0, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"burnin": 3}, "config.data.burnin is unknown; did you mean 'burn_in'"),
        ({"burn_in": -1}, "config.data.burn_in is -1; allowed are whole numbers >= 0"),
        ({"burn_in": 2.5}, "config.data.burn_in is 2.5; expected a value of type int"),
        ({"predicted": 0}, "config.data.predicted is 0; allowed are whole numbers >= 1"),
        ({"batch_size": "8"}, "config.data.batch_size is '8'; expected a value of type int"),
        ({"batch_size": True}, "config.data.batch_size is True"),
        ({"seed": -1}, "config.data.seed is -1"),
        ({"storage": "resdent"}, "config.data.storage is 'resdent'; did you mean 'resident'"),
        ({"sessions": None}, "config.data.sessions is None; expected a value of type str"),
        ({"drop_silent": 1}, "config.data.drop_silent is 1; expected a value of type bool"),
        ({"session_weights": (1.0, 2.0)}, "session_weights has 2 weights for 1 sessions"),
        ({"session_weights": (0.0,)}, "every weight is a number > 0"),
        ({"session_weights": ("a",)}, "session_weights is 'a'"),
        ({"equal_subjects": 1}, "config.data.equal_subjects is 1; expected a value of type bool"),
        (
            {"contrast_weight": 1.5, "contrast_anneal": 9},
            r"contrast_weight is 1.5 and .*allowed are numbers in \[0, 1",
        ),
        ({"contrast_weight": 0.5}, "contrast_weight is 0.5 and .contrast_anneal 0; allowed are"),
        ({"contrast_anneal": -1}, "config.data.contrast_anneal is -1; allowed are whole numbers >= 0"),
        ({"ignore_spikes": 0}, "config.data.ignore_spikes is 0; expected a value of type bool"),
        (
            {"spike_fraction": 0},
            r"spike_fraction is 0.0; allowed are numbers in \(0, 1\], .*set config.data.ignore",
        ),
        ({"spike_fraction": 1.01}, "spike_fraction is 1.01; allowed are"),
        ({"spike_fraction": float("nan")}, "spike_fraction is nan; allowed are"),
        ({"virtual": 3}, "config.data.virtual is 3; expected a section"),
        ({"virtual": {"sed": 0, "minutes": 1.0, "cache": ""}}, "virtual.sed is unknown; did you mean 'seed'"),
        ({"virtual": {"seed": 0, "minutes": 0.0, "cache": "", "gaze": ""}}, "minutes > 0"),
        ({"virtual": {"seed": 0}}, "config.data.virtual lacks minutes, cache, gaze"),
    ],
)
def test_a_wrong_config_value_is_named_with_what_is_allowed(make_session, section, changes, message):
    with pytest.raises(ConfigError, match=message):
        data.build(section([make_session()]) | changes)


@pytest.mark.parametrize(
    ("weights", "expected"), [((), (0.75, 0.75, 1.5)), ((1.0, 3.0, 2.0), (0.375, 1.125, 1.5))]
)
def test_every_subject_weighs_alike_however_many_sessions_it_has(make_session, section, weights, expected):
    subjects = {"alpha": "A", "beta": "A", "gamma": "B"}
    folders = [make_session(name, given={"subject": subject}) for name, subject in subjects.items()]
    for equal, wanted in ((True, expected), (False, weights or (1.0, 1.0, 1.0))):
        changes = {"session_weights": weights, "batch_size": 3, "equal_subjects": equal}
        counted = data.build(section(folders, **changes)).train(0)["counted"]
        np.testing.assert_allclose(counted[:, 0], np.asarray(wanted) / np.mean(wanted), rtol=1e-6)


def test_a_batch_that_the_sessions_cannot_share_is_refused(make_session, section):
    folders = [make_session("alpha"), make_session("beta")]
    with pytest.raises(ConfigError, match="batch size 7 is not a multiple of the 2 sessions"):
        data.build(section(folders, batch_size=7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"given": {"rate_hz": 60.0}}, "alpha and beta differ in rate_hz: 120.0 and 60.0"),
        ({"given": {"pixels_per_degree": 10.2}}, "differ in window pixels_per_degree: 10.0 and 10.2"),
        ({"shape": (9, 8)}, "differ in frame width: 7 and 8"),
        ({"shape": (8, 7)}, "differ in frame height: 9 and 8"),
        ({"frames": np.zeros((180, 9, 7, 2), np.uint8)}, "differ in channels: 1 and 2"),
    ],
)
def test_sessions_that_cannot_train_one_model_are_both_named(make_session, section, changes, message):
    folders = [make_session("alpha"), make_session("beta", **changes)]
    with pytest.raises(DataError, match=message):
        data.build(section(folders))


def test_pixels_per_degree_may_differ_by_a_percent(make_session, section):
    folders = [make_session("alpha"), make_session("beta", given={"pixels_per_degree": 10.05})]
    assert data.build(section(folders)).info.pixels_per_degree == 10.0


def test_windows_longer_than_every_trial_are_refused_at_once(make_session, section):
    with pytest.raises(DataError, match="windows longer than every trial"):
        data.build(section([make_session()], burn_in=40))


def test_silent_units_are_reported_and_a_silent_session_cannot_drop_them_all(make_session, section, caplog):
    folder = make_session(spikes=np.zeros((180, 3), np.uint8))
    with caplog.at_level(logging.INFO):
        data.build(section([folder]))
    assert "session alpha: 3 of 3 units without a spike" in caplog.text
    with pytest.raises(DataError, match="session alpha: no unit has a spike"):
        data.build(section([folder], drop_silent=True))

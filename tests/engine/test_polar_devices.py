"""A run of Polar-V1 in bfloat16, with its evaluation and its checkpoints, ends alike on one device and on two."""

import pytest

from polarjax.engine import interruption, loop
from tests.engine import tiny_polar
from tests.engine.runs import assert_same_bits, lines_of, without_times


def train(workdir, stop=None):
    config = tiny_polar.make_config("bfloat16")
    return loop.train(config, tiny_polar.make_system(config), tiny_polar.make_data(), workdir, stop=stop)


def test_a_run_on_two_devices_continues_on_one_to_the_bits_of_one_alone(tmp_path, use_devices):
    use_devices(1)
    whole = train(tmp_path / "one")
    use_devices(2)
    with pytest.raises(interruption.Interrupted):
        train(tmp_path / "other", stop=lambda step: step == 3)
    use_devices(1)
    assert_same_bits(train(tmp_path / "other"), whole)
    one, other = (without_times(lines_of(tmp_path / name)) for name in ("one", "other"))
    assert one == other and one[-1]["train/grad_norm"] > 0

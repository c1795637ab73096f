"""What the two processes are told, and how the front's process answers whoever starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from witness.cli.config import parse
from witness.cli.front_settings import FeedingProcessSettings, FrontProcessSettings
from witness.cli.run import core_settings, feeding_settings, front_settings
from witness.cli.shipped import shipped
from witness.core.layout import StateLayout
from witness.core.settings import CoreSettings

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = StateLayout(Path("/var/lib/witness"))


@pytest.fixture
def annotated():
    return parse(shipped("witness.yaml").read_bytes(), LAYOUT.config)


def test_the_settings_of_all_cross_as_one_line(annotated):
    front = front_settings(LAYOUT, annotated, None)
    assert "\n" not in front.to_json()
    assert FrontProcessSettings.from_json(front.to_json()) == front
    feeding = feeding_settings(LAYOUT, annotated)
    assert "\n" not in feeding.to_json()
    assert FeedingProcessSettings.from_json(feeding.to_json()) == feeding
    core = core_settings(LAYOUT, annotated)
    assert CoreSettings.from_json(core.to_json()) == core


def test_what_the_configuration_says_reaches_the_front(annotated):
    told = front_settings(LAYOUT, annotated, None)
    assert told.front.listen == ("127.0.0.1:7380",)
    assert told.front.operator_listen == ("127.0.0.1:7381",)
    assert told.front.core_socket == "/var/lib/witness/core.sock"
    assert told.front.operator_socket == "/var/lib/witness/front.sock"
    assert told.front.about.operator == "Example Organisation"
    assert told.front.about.more[0][0] == "Maintenance"
    assert told.feeders_socket == "/var/lib/witness/feed.sock"
    assert [(each.url, each.name) for each in told.distributors] == [
        ("https://distributor.example.com", "example")
    ]
    assert told.static_dir == "/var/lib/witness-static"
    assert front_settings(LAYOUT, annotated, "[::1]:80").front.listen == ("[::1]:80",)


def test_what_the_configuration_says_reaches_the_feeders(annotated):
    told = feeding_settings(LAYOUT, annotated)
    assert (told.core_socket, told.socket) == ("/var/lib/witness/core.sock", "/var/lib/witness/feed.sock")
    assert (told.name, told.contact) == (annotated.name, annotated.about.contact)
    assert (told.feeders.interval, told.feeders.per_host, told.feeders.rate) == (60.0, 4, 20)
    assert told.feeders.cache_dir == "/var/cache/witness/tiles"
    assert told.writes == (Path("/var/cache/witness/tiles"),)


def test_a_front_whose_feeders_are_off_asks_nobody():
    config = parse(b"name: x\nfeeders: {enabled: false}", LAYOUT.config)
    assert front_settings(LAYOUT, config, None).feeders_socket is None


def test_the_fronts_are_told_nothing_of_keys(annotated):
    for line in (
        front_settings(LAYOUT, annotated, None).to_json(),
        feeding_settings(LAYOUT, annotated).to_json(),
    ):
        for secret in ("passphrase", "softkey", "witness.db"):
            assert secret not in line


def test_relative_paths_start_from_the_configuration_s_folder():
    config = parse(b"name: x\nkeys: {passphrase_file: p}\nstatic: {dir: s}", LAYOUT.config)
    assert core_settings(LAYOUT, config).passphrase_file == "/var/lib/witness/p"
    assert front_settings(LAYOUT, config, None).static_dir == "/var/lib/witness/s"


def start(line: str, process: str = "front_process") -> subprocess.CompletedProcess[str]:
    """A front's process with one line on a standard input that then ends."""
    command = [sys.executable, "-P", "-m", f"witness.cli.{process}"]
    return subprocess.run(
        command, input=line, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


@pytest.mark.parametrize("line", ["", "\n", "nonsense\n", "{}\n", "[]\n", '{"front": "{}"}\n'])
def test_settings_that_are_none_are_told_in_one_line(line):
    for process, whose in (("front_process", "front"), ("feeding_process", "feeders")):
        outcome = start(line, process)
        assert outcome.returncode == 3
        assert f"not the {whose}'" in json.loads(outcome.stdout)["error"]
        assert outcome.stderr == ""


def test_it_ends_when_its_life_line_does(tmp_path):
    layout = StateLayout(tmp_path)
    config = parse(b"name: x\nlisten: 127.0.0.1:0", layout.config)
    outcome = start(front_settings(layout, config, None).to_json() + "\n")
    assert outcome.returncode == 0
    outcome = start(feeding_settings(layout, config).to_json() + "\n", "feeding_process")
    assert outcome.returncode == 0, outcome.stderr


def test_a_target_that_cannot_be_is_told(tmp_path):
    layout = StateLayout(tmp_path)
    config = parse(b"name: x\nlisten: 127.0.0.1:0\ndistributors: [{url: 'http://d'}]", layout.config)
    line = front_settings(layout, config, None).to_json().replace("http://d", "http://d?q")
    outcome = start(line + "\n")
    assert outcome.returncode == 3
    assert "nothing can be published so" in json.loads(outcome.stdout)["error"]
    assert "Traceback" not in outcome.stderr

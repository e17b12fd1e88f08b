"""What surrounds the peers: the limit, the manifest, environments, what a runner resumes from, tables, pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.chart import Bar, bars
from benchmarks.peers.bucket import Bucket
from benchmarks.peers.environments import NotInstallable, python_of
from benchmarks.peers.manifest import Peer, read_manifest
from benchmarks.peers.report import TABLES, picture, table
from benchmarks.peers.scenarios import contenders


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=20.0, burst=20.0, now=100.0)
    assert [bucket.take(100.0) for _ in range(21)] == [True] * 20 + [False]
    assert not bucket.take(100.04)
    assert bucket.take(100.06)
    assert not bucket.take(100.07)


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(rate=20.0, burst=3.0, now=0.0)
    assert [bucket.take(3600.0) for _ in range(4)] == [True, True, True, False]


def test_what_a_bucket_refuses_costs_nothing() -> None:
    bucket = Bucket(rate=1.0, burst=1.0, now=0.0)
    assert bucket.take(0.0)
    assert not any(bucket.take(0.5) for _ in range(100))
    assert bucket.take(1.0)


def test_every_peer_is_named_once_with_exact_versions_and_a_runner() -> None:
    peers = read_manifest()
    assert len({peer.name for peer in peers}) == len(peers) == 9
    for peer in peers:
        assert peer.script.exists(), peer
        assert all(requirement.count("==") == 1 for requirement in peer.requirements), peer
        assert peer.speaks, peer
        assert peer.made_for, peer


def test_no_environment_is_made_unless_peers_are_asked_for() -> None:
    assert all(peer is None or not peer.requirements for peer in contenders(tiny=False, peers=False))
    assert contenders(tiny=True, peers=False)[0] is None
    assert len(contenders(tiny=False, peers=True)) == 10
    (only,) = contenders(tiny=True, peers=False, only=["inspect-ai"])
    assert only is not None
    assert only.name == "inspect-ai"


def test_a_peer_without_requirements_runs_here() -> None:
    assert python_of(_peer()) == sys.executable


def test_what_cannot_be_installed_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKQ_PEERS_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = venv ] && exit 0\necho "no such version" >&2\nexit 1\n', "utf-8")
    uv.chmod(0o755)
    for _ in range(2):
        with pytest.raises(NotInstallable, match="no such version"):
            python_of(_peer("nothing==1"))
    uv.write_text("#!/bin/sh\nexit 0\n", "utf-8")
    with pytest.raises(FileNotFoundError):  # this uv made no folder to note the success in
        python_of(_peer("nothing==1"))


def test_a_list_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    """Given a file whose last line is half of one, then that question counts as unanswered and the half is gone."""
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"question": "one", "answer": "1"}\n{"question": "two", "ans', "utf-8")
    runners = read_manifest()[0].script.parent
    code = "import pathlib, sys, ask_sdk; print(ask_sdk.answered(pathlib.Path(sys.argv[1])))"
    told = subprocess.run(
        [sys.executable, "-c", code, str(answers)], cwd=runners, capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "{'one'}\n"
    assert answers.read_text("utf-8") == '{"question": "one", "answer": "1"}\n'


def test_bars_are_in_proportion_and_words_are_escaped() -> None:
    drawn = ET.fromstring(
        bars("a < b", [Bar("one & two", 10, "10"), Bar("half", 5, "5", ours=True), Bar("none", None)])
    )
    widths = [float(rect.attrib["width"]) for rect in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == [420.0, 210.0]
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["a < b", "one & two", "10", "half", "5", "none", None]


def test_who_has_done_less_is_an_outline_that_is_explained() -> None:
    rows = [Bar("all", 10, "10"), Bar("some", 1, "1", short=True)]
    assert bars("seconds", rows, short="not all").count('class="bar short"') == 2, "the bar, and the one that explains"
    assert "not all" not in bars("seconds", rows[:1], short="not all")


def test_bars_of_nothing_but_zeros() -> None:
    assert 'width="0.0"' in bars("all", [Bar("one", 0, "0")])


@pytest.mark.parametrize("scenario", TABLES)
def test_a_table_and_a_picture_have_everybody(scenario: str) -> None:
    row = {
        "answered": 3,
        "runs": 4,
        "paid_twice": 1,
        "unanswered_and_told": 0,
        "held_by_the_dead": 0,
        "seconds_of_the_second": 2.5,
        "requests": {"creates": 4, "others": 8},
        "first_request_to_last_answer_s": 1.5,
        "wall_s": 3.5,
        "cpu_ms_per_question": 6.0,
        "redis_cpu_ms_per_question": 0.5,
    }
    found = {"questions": 3, "rows": {"askq": row, "other": {"not_measured": "it would not install"}}}
    lines = table(scenario, found).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| askq | 3 |")
    assert lines[3].startswith("| other | not measured |")
    drawn = picture(scenario, found)
    assert "askq" in drawn
    assert "not measured" in drawn


def _peer(*requirements: str) -> Peer:
    return Peer(name="some", runner="ask_sdk.py", speaks="-", made_for="-", requirements=requirements)

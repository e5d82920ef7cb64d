"""What the progress of a training looks like in a log, in a terminal and in a notebook."""

from __future__ import annotations

import io
import re
import sys
import types

import pytest

from funcnets import train
from funcnets.errors import MissingExtraError
from funcnets.train import progress
from tests.train.helpers import Setting, batches


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Screen:
    """What is left on a terminal: understands the few codes that a bar uses, refuses others."""

    def __init__(self, text):
        self.lines, row = [""], 0
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n|\r)", text):
            if part == "\n":
                row += 1
                self.lines += [""] * (row + 1 - len(self.lines))
            elif part == "\x1b[1A":
                row -= 1
            elif part == "\x1b[2K":
                self.lines[row] = ""
            elif part and part != "\r" and not re.fullmatch(r"\x1b\[(\?25[lh]|[0-9;]*m)", part):
                assert not part.startswith("\x1b"), part
                self.lines[row] += part


@pytest.fixture(scope="module")
def shared():
    return Setting()


@pytest.fixture
def setting(shared):
    return shared.reset()


METRICS = {"error": lambda outputs, targets: abs(outputs - targets).mean()}
LINE = re.compile(
    r"epoch (\d+)/(\d+)  loss \S+  error \S+  val_loss \S+  val_error \S+  [\d,.]+ samples/s  [\d.]+ s"
)


def test_a_log_has_a_line_per_epoch_and_no_control_characters(setting, capsys):
    options = {"val_data": batches(10), "metrics": METRICS, "progress": True}
    setting.fit(epochs=2, **options)
    out = capsys.readouterr().out
    assert [LINE.fullmatch(line).groups() for line in out.splitlines()] == [("1", "2"), ("2", "2")]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out)
    setting.fit(epochs=2, **{**options, "progress": False})
    assert capsys.readouterr() == ("", "")


def test_a_long_epoch_has_lines_in_a_log(setting, monkeypatch):
    monkeypatch.setitem(progress._REFRESH, "plain", 0.0)
    file = io.StringIO()
    setting.fit(epochs=1, progress=train.Progress(file=file), metrics=METRICS)
    lines = file.getvalue().splitlines()
    assert len(lines) == 4
    pattern = r"epoch 1/1  \d/3  loss \S+  error \S+  [-\d,.]+ samples/s  .* left"
    assert re.fullmatch(pattern, lines[2]), lines[2]
    assert lines[2].endswith("0.0 s left")


def test_a_terminal_has_a_bar_and_keeps_a_line_per_epoch(setting, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setitem(progress._REFRESH, "bar", 0.0)
    file = Terminal()
    shown = train.Progress(file=file)
    assert shown.kind == "bar"
    refresh = train.LambdaCallback(on_step_end=lambda run: shown._shown.refresh())
    setting.fit(val_data=batches(10), epochs=2, metrics=METRICS, callbacks=refresh, progress=shown)
    text = file.getvalue()
    assert re.search(
        r"epoch 1/2.*━.*3/3.*loss \S+.*error \S+.*left", re.sub(r"\x1b\[[0-9;]*m", "", text)
    )
    left = [line.rstrip() for line in Screen(text).lines if line.strip()]
    assert [LINE.fullmatch(line).group(1) for line in left] == ["1", "2"]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back


def test_the_bar_goes_away_with_an_exception(setting, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    file = Terminal()

    def fail(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setting.fit(
            callbacks=train.LambdaCallback(on_step_end=fail), progress=train.Progress(file=file)
        )
    left = [line.rstrip() for line in Screen(file.getvalue()).lines if line.strip()]
    assert left == ["stopped in epoch 1/1 after step 1: KeyboardInterrupt"]
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h")


def test_a_notebook_has_one_output_per_epoch(setting, monkeypatch):
    outputs = []

    class Handle:
        def __init__(self, content):
            self.shown = [content]
            outputs.append(self.shown)

        def update(self, content, raw):
            assert raw
            self.shown.append(content)

    def display(content, raw, display_id):
        assert raw and display_id
        return Handle(content)

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(
        sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=None)
    )
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setitem(progress._REFRESH, "notebook", 0.0)
    stop = train.LambdaCallback(
        on_epoch_end=lambda run, logs: run.stop("<enough>") if run.epoch == 2 else None
    )
    setting.fit(val_data=batches(10), epochs=3, metrics=METRICS, callbacks=stop, progress=True)
    last = [shown[-1]["text/plain"] for shown in outputs]
    assert [LINE.fullmatch(text).group(1) for text in last[:2]] == ["1", "2"]
    assert last[2:] == ["stopped after epoch 2: <enough>"]
    assert outputs[2][-1]["text/html"] == "<pre>stopped after epoch 2: &lt;enough&gt;</pre>"
    assert any("[####################]  3/3" in content["text/plain"] for content in outputs[0])
    assert outputs[0][-2]["text/plain"] == "epoch 1/3  validation"


def test_without_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert train.Progress(file=Terminal()).kind == "plain"
    with pytest.raises(MissingExtraError, match="pip install 'funcnets\\[train\\]'"):
        train.Progress("bar")


def test_numbers_as_text():
    assert progress._duration(3.24) == "3.2 s" and progress._duration(75) == "1:15 min"
    assert progress._duration(3725) == "1:02:05"
    assert progress._rate(0) == "- samples/s" and progress._rate(1234.5) == "1,234 samples/s"
    assert progress._rate(1.234) == "1.23 samples/s"

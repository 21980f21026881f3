from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

np = pytest.importorskip("numpy", reason="needs the extra `examples`")
pytest.importorskip("sklearn", reason="needs the extra `examples`")

SCRIPT = Path(__file__).parents[3] / "scripts/examples/train_digits.py"


def command(*options: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *options]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "GPUQ_RUN_DIR": str(folder / "run"),
        "GPUQ_CHECKPOINT_DIR": str(folder / "checkpoint"),
        "CUDA_VISIBLE_DEVICES": "",
    }


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options), env=environment(folder), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_learns_to_read_digits_and_reports_how_it_went(tmp_path: Path) -> None:
    done = train(tmp_path, "--epochs", "60")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("accuracy ")
    assert float(last.split()[1]) >= 0.95
    result = json.loads((tmp_path / "checkpoint/result.json").read_text())
    assert result["accuracy"] == pytest.approx(float(last.split()[1]), abs=1e-4)
    assert (result["epochs"], result["resumed_after"], result["device"]) == (60, 0, "numpy")
    progress = json.loads((tmp_path / "run/progress.json").read_text())
    assert (progress["progress"], progress["step"], progress["total"]) == (1.0, 60, 60)
    assert sorted(os.listdir(tmp_path / "checkpoint")) == ["checkpoint.npz", "result.json"]


def test_a_run_that_crashed_and_resumed_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    options = ("--epochs", "12", "--checkpoint-every", "4", "--hidden", "32")
    crashed = train(tmp_path / "broken", *options, "--fail-at-epoch", "7")
    assert crashed.returncode == 1
    assert "told to fail at epoch 7" in crashed.stderr
    assert not (tmp_path / "broken/checkpoint/result.json").exists()
    resumed = train(tmp_path / "broken", *options)
    assert "resumed after epoch 4" in resumed.stdout
    unbroken = train(tmp_path / "unbroken", *options)
    assert resumed.stdout.splitlines()[-2:] == unbroken.stdout.splitlines()[-2:]


def test_a_checkpoint_of_another_network_is_not_used(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "2", "--hidden", "16", "--checkpoint-every", "1")
    other = train(tmp_path, "--epochs", "2", "--hidden", "24")
    assert other.returncode == 0
    assert "starting afresh" in other.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_makes_it_save_and_stop(tmp_path: Path, number: signal.Signals) -> None:
    options = ("--epochs", "100000", "--hidden", "8", "--checkpoint-every", "1")
    with subprocess.Popen(command(*options), env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("epoch 2/"):
                break
        running.send_signal(number)
        rest = running.stdout.read()
        assert running.wait(timeout=30) == 128 + number
    stopped_after = int(rest.splitlines()[-1].rpartition(" ")[2])
    assert f"stopped by {number.name}" in rest
    with np.load(tmp_path / "checkpoint/checkpoint.npz") as saved:
        assert int(saved["epoch"]) == stopped_after


def test_it_runs_outside_a_queue_and_then_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--epochs", "1", "--hidden", "8"), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].startswith("accuracy ")
    assert list(tmp_path.iterdir()) == []


def test_senseless_settings_are_a_usage_error(tmp_path: Path) -> None:
    assert train(tmp_path, "--epochs", "0").returncode == 2


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_torch_and_numpy_learn_the_same(script: ModuleType, device: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if device != "cpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x, y, _, _ = script.digits(seed=0)
    state = script.fresh_state(hidden=32, seed=0)
    one, other = script.NumpyNetwork(state), script.TorchNetwork(state, torch, device)
    for start in range(0, 320, 32):
        part = slice(start, start + 32)
        assert one.step(x[part], y[part], 0.05) == pytest.approx(other.step(x[part], y[part], 0.05), abs=1e-4)
    for name, value in other.state.items():
        np.testing.assert_allclose(one.state[name], value, atol=1e-3)
    assert (one.predict(x) == other.predict(x)).mean() > 0.99

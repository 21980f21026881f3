"""Trains a small classifier on scikit-learn's handwritten digits: real work for a queue, in a few seconds.

    gpuq submit -g 1 -- python scripts/examples/train_digits.py --hidden 128 --lr 0.1

With torch and a CUDA device it trains on the GPU, else with numpy on one core. It reports progress to
$GPUQ_RUN_DIR/progress.json, keeps a checkpoint in $GPUQ_CHECKPOINT_DIR and resumes from it, also in a later
attempt of the same job; on SIGTERM or SIGUSR1 it saves and ends with 128 + the signal's number. Without those two
variables it runs as well and writes nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

# One core per job: several of these share a machine. Has to be set before numpy is imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

MOMENTUM = 0.9
State = dict[str, np.ndarray]


class NumpyNetwork:
    """One hidden layer, softmax, cross-entropy, SGD with momentum; forward and backward by hand."""

    device = "numpy"

    def __init__(self, state: State) -> None:
        self.state = {name: value.copy() for name, value in state.items()}

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        """One batch; returns its mean loss."""
        s = self.state
        hidden = np.maximum(x @ s["w1"] + s["b1"], 0)
        scores = hidden @ s["w2"] + s["b2"]
        scores -= scores.max(axis=1, keepdims=True)
        chances = np.exp(scores)
        chances /= chances.sum(axis=1, keepdims=True)
        rows = np.arange(len(y))
        loss = float(-np.log(chances[rows, y] + 1e-12).mean())
        chances[rows, y] -= 1
        chances /= len(y)
        back = (chances @ s["w2"].T) * (hidden > 0)
        slopes = {"w1": x.T @ back, "b1": back.sum(axis=0), "w2": hidden.T @ chances, "b2": chances.sum(axis=0)}
        for name, slope in slopes.items():
            s["v" + name] = MOMENTUM * s["v" + name] - rate * slope
            s[name] += s["v" + name]
        return loss

    def predict(self, x: np.ndarray) -> np.ndarray:
        s = self.state
        return (np.maximum(x @ s["w1"] + s["b1"], 0) @ s["w2"] + s["b2"]).argmax(axis=1)


class TorchNetwork:
    """The same network with torch, on the first visible CUDA device unless told otherwise."""

    def __init__(self, state: State, torch: Any, device: str = "cuda:0") -> None:
        self.torch = torch
        self.device = device
        self.tensors = {name: torch.tensor(value, device=device) for name, value in state.items()}
        for name in ("w1", "b1", "w2", "b2"):
            self.tensors[name].requires_grad_()

    @property
    def state(self) -> State:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.tensors.items()}

    def _scores(self, x: np.ndarray) -> Any:
        t = self.tensors
        inputs = self.torch.tensor(x, device=self.device)
        return self.torch.relu(inputs @ t["w1"] + t["b1"]) @ t["w2"] + t["b2"]

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        target = self.torch.tensor(y, device=self.device)
        loss = self.torch.nn.functional.cross_entropy(self._scores(x), target)
        loss.backward()
        with self.torch.no_grad():
            for name in ("w1", "b1", "w2", "b2"):
                weight, speed = self.tensors[name], self.tensors["v" + name]
                speed.mul_(MOMENTUM).sub_(rate * weight.grad)
                weight.add_(speed)
                weight.grad = None
        return float(loss.item())

    def predict(self, x: np.ndarray) -> np.ndarray:
        with self.torch.no_grad():
            return self._scores(x).argmax(dim=1).cpu().numpy()


def fresh_state(hidden: int, seed: int) -> State:
    random = np.random.default_rng(seed)
    state = {
        "w1": random.normal(0, np.sqrt(2 / 64), (64, hidden)),
        "b1": np.zeros(hidden),
        "w2": random.normal(0, np.sqrt(2 / hidden), (hidden, 10)),
        "b2": np.zeros(10),
    }
    state |= {"v" + name: np.zeros_like(value) for name, value in state.items()}
    return {name: value.astype(np.float32) for name, value in state.items()}


def network(state: State) -> NumpyNetwork | TorchNetwork:
    try:
        import torch
    except ImportError:
        return NumpyNetwork(state)
    return TorchNetwork(state, torch) if torch.cuda.is_available() else NumpyNetwork(state)


def digits(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """1,797 images of 64 pixels scaled to 0..1, a fifth of them kept for the test."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int64)
    test = len(labels) // 5
    return images[test:], labels[test:], images[:test], labels[:test]


class Stopping:
    """Remembers a signal until the training loop is at a point where it can save."""

    def __init__(self) -> None:
        self.by: int | None = None
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.by = number


def write_atomically(path: Path, data: bytes) -> None:
    """A reader, or a crash, finds the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def save_checkpoint(folder: Path | None, epoch: int, settings: argparse.Namespace, state: State) -> None:
    if folder is None:
        return
    buffer = io.BytesIO()
    np.savez(buffer, epoch=epoch, hidden=settings.hidden, seed=settings.seed, **state)
    write_atomically(folder / "checkpoint.npz", buffer.getvalue())


def load_checkpoint(folder: Path | None, settings: argparse.Namespace) -> tuple[int, State]:
    """Finished epochs and weights; a fresh start without a checkpoint, or with one of another network."""
    if folder is not None and (folder / "checkpoint.npz").exists():
        with np.load(folder / "checkpoint.npz") as saved:
            if (int(saved["hidden"]), int(saved["seed"])) == (settings.hidden, settings.seed):
                epoch = int(saved["epoch"])
                print(f"resumed after epoch {epoch}", flush=True)
                return epoch, {name: saved[name] for name in saved.files if name not in ("epoch", "hidden", "seed")}
        print("the checkpoint is of another network, starting afresh", flush=True)
    return 0, fresh_state(settings.hidden, settings.seed)


def report(folder: Path | None, epoch: int, epochs: int, message: str) -> None:
    if folder is not None:
        progress = {"progress": epoch / epochs, "step": epoch, "total": epochs, "message": message}
        write_atomically(folder / "progress.json", json.dumps(progress).encode())


def train(settings: argparse.Namespace) -> int:
    stopping = Stopping()
    began = time.monotonic()
    first, state = load_checkpoint(settings.checkpoint_dir, settings)
    net = network(state)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(f"training on {net.device}, CUDA_VISIBLE_DEVICES={visible!r}", flush=True)
    train_x, train_y, test_x, test_y = digits(settings.seed)
    for epoch in range(first + 1, settings.epochs + 1):
        if epoch == settings.fail_at_epoch:
            raise RuntimeError(f"told to fail at epoch {epoch}")
        # The order depends on seed and epoch alone, so that a resumed run does what an unbroken one does.
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(train_y))
        losses = [
            net.step(train_x[part], train_y[part], settings.lr)
            for part in np.array_split(order, max(1, len(order) // settings.batch))
        ]
        time.sleep(settings.pause)
        last = epoch == settings.epochs
        if last or stopping.by is not None or epoch % settings.checkpoint_every == 0:
            accuracy = float((net.predict(test_x) == test_y).mean())
            message = f"epoch {epoch}/{settings.epochs} loss {np.mean(losses):.4f} accuracy {accuracy:.4f}"
            print(message, flush=True)
            save_checkpoint(settings.checkpoint_dir, epoch, settings, net.state)
            report(settings.run_dir, epoch, settings.epochs, message)
        if stopping.by is not None and not last:
            print(f"stopped by {signal.Signals(stopping.by).name} after epoch {epoch}", flush=True)
            return 128 + stopping.by
    accuracy = float((net.predict(test_x) == test_y).mean())
    if settings.checkpoint_dir is not None:
        result = {
            "accuracy": accuracy,
            "epochs": settings.epochs,
            "resumed_after": first,
            "device": net.device,
            "seconds": round(time.monotonic() - began, 3),
        }
        write_atomically(settings.checkpoint_dir / "result.json", json.dumps(result).encode())
    print(f"accuracy {accuracy:.4f}", flush=True)
    return 0


def folder_of(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a classifier on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--lr", type=float, default=0.05, help="learning rate")
    parser.add_argument("--hidden", type=int, default=256, help="units of the hidden layer")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to rest after each epoch")
    parser.add_argument("--checkpoint-every", type=int, default=10, metavar="EPOCHS")
    parser.add_argument("--fail-at-epoch", type=int, metavar="EPOCH", help="crash on purpose when this epoch begins")
    parser.add_argument("--run-dir", type=Path, default=folder_of("GPUQ_RUN_DIR"))
    parser.add_argument("--checkpoint-dir", type=Path, default=folder_of("GPUQ_CHECKPOINT_DIR"))
    settings = parser.parse_args()
    for name in ("epochs", "hidden", "batch", "checkpoint_every"):
        if getattr(settings, name) < 1:
            parser.error(f"--{name.replace('_', '-')} starts at 1")
    for folder in (settings.run_dir, settings.checkpoint_dir):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    return train(settings)


if __name__ == "__main__":
    sys.exit(main())

"""How well a small network reads handwritten digits, by its width and its learning rate.

One hidden layer on scikit-learn's digits: 1,797 images of 8 × 8 pixels, ten classes, no download.
Runs by itself (python train.py --width 32 --lr 0.1 --seed 3) and as a task of clusterkit.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, fields

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

try:
    from clusterkit import log
except ImportError:  # the script does not need it

    def log(**values: object) -> None:
        print(*(f"{name}={value}" for name, value in values.items()))


@dataclass(frozen=True)
class Arguments:
    width: int = 32  # units of the hidden layer
    lr: float = 0.1  # learning rate of plain SGD
    seed: int = 0  # of the initial weights and of the order of the batches
    epochs: int = 20
    batch: int = 32
    data_seed: int = 0  # of the split, the same for all points that are compared


def arguments() -> Arguments:
    """The command line; every field of `Arguments` is an option."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for field in fields(Arguments):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return Arguments(**vars(parser.parse_args()))


def digits(data_seed: int, device: torch.device) -> list[torch.Tensor]:
    """Training images (1,347 × 64), validation images (450 × 64), the labels of both, in order.

    Each class has the same share in both parts; pixels are standardised by the training part's
    mean and deviation (a pixel that is always 0 stays 0).
    """
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=data_seed
    )
    mean, deviation = parts[0].mean(axis=0), parts[0].std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    train, val = ((part - mean) / scale for part in parts[:2])
    return [
        torch.tensor(train, dtype=torch.float32, device=device),
        torch.tensor(val, dtype=torch.float32, device=device),
        torch.tensor(parts[2], device=device),
        torch.tensor(parts[3], device=device),
    ]


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images that get the right label."""
    with torch.no_grad():
        return (model(images).argmax(dim=1) == labels).double().mean().item()


def train(args: Arguments) -> None:
    torch.set_num_threads(1)  # many tasks share a machine; one core is enough for each
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_images, val_images, train_labels, val_labels = digits(args.data_seed, device)
    model = nn.Sequential(nn.Linear(64, args.width), nn.ReLU(), nn.Linear(args.width, 10))
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    begun = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        total = torch.zeros((), device=device)
        for batch in torch.randperm(len(train_images)).to(device).split(args.batch):
            loss = nn.functional.cross_entropy(model(train_images[batch]), train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        log(
            step=epoch,
            loss=total.item() / len(train_images),
            val_accuracy=accuracy(model, val_images, val_labels),
        )
    log(
        accuracy=accuracy(model, val_images, val_labels),
        train_accuracy=accuracy(model, train_images, train_labels),
        train_seconds=time.perf_counter() - begun,
        device=device.type,
    )


if __name__ == "__main__":
    train(arguments())

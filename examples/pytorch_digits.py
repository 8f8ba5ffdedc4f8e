"""PyTorch, from training to curl: train, save a state dict, look, convert, serve, ask.

    pip install 'infold[cpu,torch]' scikit-learn
    python examples/pytorch_digits.py

The state dict holds numbers only, so the code that builds the network is named beside it:
`pytorch_digits:Digits` with `--weights digits.pt`. An archive of `torch.export` holds both and is
converted as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from story import digits, fresh, infold, serve_and_ask
from torch import Tensor, nn
from torch.nn import functional


class Digits(nn.Module):
    """Images [N, 1, 8, 8] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(768, 48), nn.BatchNorm1d(48), nn.ReLU())
        self.classifier = nn.Linear(48, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.head(self.body(self.stem(image))))
        return logits


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Fit the model in place."""
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    for epoch in range(12):
        for batch in torch.randperm(len(images)).split(64)[
            :-1
        ]:  # a rest of three would disturb the statistics
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")


def main() -> None:
    """The whole story."""
    torch.manual_seed(0)
    train_x, train_y, test_x, test_y = digits()
    train_x, test_x = train_x[:, np.newaxis], test_x[:, np.newaxis]
    folder = fresh("pytorch")
    model = Digits()
    train(model, torch.from_numpy(train_x), torch.from_numpy(train_y))
    model.eval()
    torch.save(model.state_dict(), folder / "digits.pt")
    batch = torch.export.Dim("batch")
    example = (torch.from_numpy(test_x[:2]),)
    torch.export.save(
        torch.export.export(model, example, dynamic_shapes=({0: batch},)), folder / "digits.pt2"
    )
    np.savez(folder / "samples.npz", image=test_x[:32])
    np.savez(folder / "training.npz", image=train_x)

    os.chdir(Path(__file__).parent)  # where `pytorch_digits` can be imported
    samples = ("--samples", folder / "samples.npz")
    code = ("pytorch_digits:Digits", "--weights", folder / "digits.pt")
    infold("inspect", *code, *samples, "--calibration", folder / "training.npz")
    for source in (code, (folder / "digits.pt2",)):  # two ways to the same network
        infold("convert", *source, *samples, "--repository", folder / "models", "--name", "digits")
    serve_and_ask(folder / "models", "digits", test_x, test_y)


if __name__ == "__main__":
    main()

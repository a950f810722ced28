"""A network of every kind of weight, trained for some minutes on Shakespeare, at two bits: its file, its nats.

    python bench/every_weight.py --shared DIR [--steps 1500] [--folder build/every_weight] [--train 100]

A table of 5,000 pieces, a transformer and a bidirectional LSTM read 16 pieces, and a GRU, which starts from what they
say, predicts the next 32 one by one. Beside corank stands torch's own dynamic int8, both as bytes on disk. The trained
network is kept in the folder, and not trained again. ``--train`` distils the two-bit network that many steps further.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank

READ, TOLD, PIECES, WIDTH = 16, 32, 5000, 256


class Shakespeare(nn.Module):
    """Logits ``(N, 32, 5000)`` of the pieces that follow each of the last 32 of ``(N, 48)``."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Embedding(PIECES, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.reader = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.teller = nn.GRU(3 * WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, PIECES)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.pieces(ids)
        read = self.reader(self.encoder(embedded[:, :READ]))[0].mean(1, keepdim=True)
        told = embedded[:, READ:]
        return self.head(self.teller(torch.cat([told, read.expand(-1, told.shape[1], -1)], 2))[0])


def windows(shared: Path) -> tuple[Tensor, Tensor]:
    """Training and test windows ``(N, 49)`` of pieces; the last tenth of the text tests."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    text = (shared / "data" / "tinyshakespeare.txt").read_text()
    cut = len(text) * 9 // 10
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [text[:cut]], trainers.BpeTrainer(vocab_size=PIECES, show_progress=False, initial_alphabet=alphabet)
    )
    parts = (torch.tensor(tokenizer.encode(part).ids) for part in (text[:cut], text[cut:]))
    train, test = (part.unfold(0, READ + TOLD + 1, step) for part, step in zip(parts, (8, TOLD), strict=True))
    return train, test


def trained(train: Tensor, steps: int) -> nn.Module:
    torch.manual_seed(0)
    model = Shakespeare()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for step in range(steps):
        batch = train[torch.randint(len(train), (32,))]
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, READ + 1 :].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: {loss.item():.3f} nats", flush=True)
    return model.eval()


@torch.no_grad()
def scored(model: nn.Module, teacher: nn.Module, test: Tensor) -> tuple[float, float]:
    """Nats a piece, and KL to the float network."""
    nats, divergence = [], []
    for batch in test.split(64):
        chances, wanted = (F.log_softmax(one(batch[:, :-1].contiguous()).flatten(0, 1), 1) for one in (model, teacher))
        nats.append(F.nll_loss(chances, batch[:, READ + 1 :].flatten(), reduction="none"))
        divergence.append(F.kl_div(chances, wanted, log_target=True, reduction="none").sum(1))
    return float(torch.cat(nats).mean()), float(torch.cat(divergence).mean())


def dynamic_int8(model: nn.Module) -> nn.Module:
    """torch's own: linear and recurrent layers, and the table by rows."""
    from torch.ao.quantization import default_dynamic_qconfig, float_qparams_weight_only_qconfig, quantize_dynamic

    kinds = {nn.Linear: default_dynamic_qconfig, nn.LSTM: default_dynamic_qconfig, nn.GRU: default_dynamic_qconfig}
    torch.backends.mha.set_fastpath_enabled(False)  # it reads weights that are packed now
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(model, {**kinds, nn.Embedding: float_qparams_weight_only_qconfig})


def stored(model: nn.Module, folder: Path) -> int:
    torch.save(model.state_dict(), folder / "model.pt")
    return (folder / "model.pt").stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("build/every_weight"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, action="append")
    parser.add_argument("--train", type=int, default=0, help="steps that the two-bit network is distilled further")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = windows(options.shared)
    print(f"{len(train)} windows to train with, {len(test)} to test", flush=True)
    kept = options.folder / f"{options.steps}.pt"
    if not kept.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        torch.save(trained(train, options.steps).state_dict(), kept)
    model = Shakespeare().eval()
    model.load_state_dict(torch.load(kept, weights_only=True))
    numbers = sum(one.numel() for one in model.parameters())

    def row(name: str, one: nn.Module, size: int, seconds: float) -> None:
        nats, divergence = scored(one, model, test)
        line = f"{name}: {size:,} bytes, 1/{4 * numbers / size:.1f} of float32, {8 * size / numbers:.2f} bits a number"
        print(f"{line}; {nats:.4f} nats, KL {divergence:.4f}, {seconds:.0f} CPU s", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row("float", model, stored(model, folder), 0)
        calibration = train[:: max(1, len(train) // 512)][:512, :-1]
        for rate in options.rate or [2.0, 3.0]:
            started = time.process_time()
            small = corank.quantize(model, calibration, samples=512, rate=rate)
            size = corank.save(small, folder / "small.safetensors")
            back = corank.load(folder / "small.safetensors", Shakespeare().eval())
            row(f"rate {rate:g}", back, size, time.process_time() - started)
        for tensor in corank.inspect(small)["float_tensors"][:4]:
            print("  in float:", tensor)
        row("dynamic int8", *(lambda one: (one, stored(one, folder)))(dynamic_int8(model)), 0)
        torch.backends.mha.set_fastpath_enabled(True)
        if options.train:
            started = time.process_time()
            given = {"samples": 512, "iterations": options.train, "batch_size": 32}
            small = corank.train(model, train[:, :-1], "stats-2bit", **given)
            size = corank.save(small, folder / "trained.safetensors")
            row(f"stats-2bit, {options.train} steps", small, size, time.process_time() - started)


if __name__ == "__main__":
    main()

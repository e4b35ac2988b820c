"""A character-level language model: embedding, two transformer blocks, a head tied to the embedding.

The text is CPython's own documentation of its keywords (`pydoc_data.topics`, English): no download.
"""

from pydoc_data.topics import topics

import torch
from torch import nn
from torch.utils.data import Dataset

from backupsync_worker import Program


class Windows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Windows of `length` characters and the characters that follow each."""

    def __init__(self, text: torch.Tensor, length: int, stride: int) -> None:
        self.text, self.length = text, length
        self.starts = range(0, len(text) - length - 1, stride)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        window = self.text[self.starts[index] : self.starts[index] + self.length + 1]
        return window[:-1], window[1:]


class Transformer(nn.Module):
    """A causal transformer over characters."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.head.weight = self.embedding.weight
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(characters) + self.position
        for block in self.blocks:
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        return self.head(self.norm(hidden))


class CharacterModel(Program):
    """Predict the next character."""

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4, length: int = 64) -> None:
        text = "\n".join(topics[name] for name in sorted(topics))
        alphabet = sorted(set(text))
        codes = {character: code for code, character in enumerate(alphabet)}
        encoded = torch.tensor([codes[character] for character in text])
        split = int(len(encoded) * 0.95)
        self.shape = (len(alphabet), width, layers, heads, length)
        self.train = Windows(encoded[:split], length, stride=length // 2)
        self.held_out = Windows(encoded[split:], length, stride=length)

    def model(self) -> nn.Module:
        return Transformer(*self.shape)

    def dataset(self) -> Windows:
        return self.train

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        characters, following = batch
        return nn.functional.cross_entropy(model(characters).flatten(0, 1), following.flatten())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        windows = [self.held_out[i] for i in range(min(64, len(self.held_out)))]
        batch = [torch.stack(part).to(device) for part in zip(*windows, strict=True)]
        return {"test_loss": self.loss(model, batch).item()}

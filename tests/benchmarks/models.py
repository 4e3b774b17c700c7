"""The architectures that the benchmarks measure, with random weights: nothing to download, torch is enough.

torchvision's definitions are used where torchvision is installed; otherwise the same shapes of computation
are built here, as GPT-2 small always is, with the names, widths and depth of the original.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import torch
from torch import Tensor, nn


def resnet18() -> nn.Module:
    """ResNet-18 on 224 x 224 images, 1,000 classes."""
    return _torchvision("resnet18") or ResNet(Basic, (2, 2, 2, 2), expansion=1)


def resnet50() -> nn.Module:
    """ResNet-50 on 224 x 224 images, 1,000 classes."""
    return _torchvision("resnet50") or ResNet(Bottleneck, (3, 4, 6, 3), expansion=4)


def vit_b_16() -> nn.Module:
    """ViT-B/16 on 224 x 224 images, 1,000 classes."""
    return _torchvision("vit_b_16") or VisionTransformer()


def swin_t() -> nn.Module | None:
    """Swin-T on 224 x 224 images, or `None` where torchvision is not installed."""
    found: nn.Module | None = _torchvision("swin_t")
    return found


def bert() -> nn.Module | None:
    """BERT base as Hugging Face writes it, or `None` where transformers is not installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tests.torchvision_stub")  # transformers reads torchvision where it is there
        transformers = importlib.import_module("transformers")
        torch.manual_seed(0)
        model: nn.Module = transformers.BertModel(transformers.BertConfig())
        return model.eval()
    return None


def gpt2() -> nn.Module:
    """GPT-2 small: 12 blocks of width 768 over 50,257 tokens; takes token ids [N, T]."""
    return GPT2().eval()


def gpt2_transformers() -> nn.Module | None:
    """GPT-2 small as Hugging Face writes it, or `None` where transformers is not installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tests.torchvision_stub")  # transformers reads torchvision where it is there
        transformers = importlib.import_module("transformers")
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))
        return model.eval()
    return None


def _torchvision(name: str) -> Any:
    with contextlib.suppress(ImportError):
        torch.manual_seed(0)
        importlib.import_module("tests.torchvision_stub")
        return getattr(importlib.import_module("torchvision.models"), name)(weights=None).eval()
    return None


class Basic(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inside, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inside, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def shortcut(inside: int, outside: int, stride: int) -> nn.Module | None:
    """Return the 1 x 1 convolution of a skip that changes shape."""
    if inside == outside and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


class ResNet(nn.Module):
    def __init__(self, block: type[nn.Module], depths: tuple[int, ...], *, expansion: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inside = 64
        for number, depth in enumerate(depths):
            width, blocks = 64 << number, []
            for index in range(depth):
                blocks.append(block(inside, width, 2 if number and not index else 1))
                inside = width * expansion
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inside, 1000)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Encoder(nn.Module):
    """One pre-norm transformer block, as ViT has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, patch: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (224 // patch) ** 2 + 1, width) * 0.02)
        self.layers = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.ln = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1000)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.position
        return self.head(self.ln(self.layers(x))[:, 0])


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.attn_dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = (part.view(n, t, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(d, dim=2))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attn_dropout(self.c_proj(y.transpose(1, 2).reshape(n, t, d)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, vocabulary: int = 50_257) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(1024, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

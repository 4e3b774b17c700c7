"""Models that nobody trained: as large, or as tangled, as the benchmark of the graph needs them.

Real module trees with a real forward, so that everything on the way from `explore` to the picture is what it
is for a user's model. Their operations are as small as they get: what is measured is the graph, not torch.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

WIDTH = 8


class Block(nn.Module):
    """A residual block of five to eight operations; every `kind` is built in another way."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        inside = (1 + kind % 2) * WIDTH
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, inside)
        self.act = nn.SiLU() if kind % 3 else nn.ReLU()
        self.down = nn.Linear(inside, WIDTH)
        self.gate = None if kind % 5 else nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.act(self.up(self.norm(x))))
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(x))
        return x + y


class Stage(nn.Module):
    def __init__(self, depth: int, seed: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(seed + number) for number in range(depth))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.out(x) + 1


class Tower(nn.Module):
    def __init__(self, stages: int, depth: int, seed: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage(depth, 3 * number + seed) for number in range(stages))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x


class Deep(nn.Module):
    """About 10,000 operations in groups within groups: 10 towers of 10 stages of 18 blocks."""

    def __init__(self, towers: int = 10, stages: int = 10, depth: int = 18) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.towers = nn.ModuleList(Tower(stages, depth, number) for number in range(towers))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        for tower in self.towers:
            x = tower(x)
        return self.head(x)


class Flat(nn.Module):
    """About 10,000 operations in one forward, with a skip in every fourth of them."""

    def __init__(self, operations: int = 10_000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.operations = operations
        self.first = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        start = x = self.first(x)
        for number in range(self.operations // 4):
            x = torch.tanh(x) * 0.9
            side = torch.sin(x)
            x = x + (side if number % 7 else start)
        return self.head(x)


class Tangle(nn.Module):
    """One level of `nodes` operations, input and output included, with branches, joins and long skips."""

    def __init__(self, nodes: int = 60, seed: int = 0) -> None:
        super().__init__()
        self.nodes, self.seed = nodes, seed

    def forward(self, x: Tensor) -> Tensor:
        chance = random.Random(self.seed)
        made, loose = [torch.relu(x)], [0]
        while len(made) + len(loose) < self.nodes - 2:
            near = max(0, len(made) - 12)
            one, other = len(made) - 1, chance.randrange(near, len(made))
            kind = chance.random()
            if kind < 0.45:
                made.append(torch.tanh(made[one]))
                read = {one}
            elif kind < 0.65 or one == other:
                made.append(torch.sigmoid(made[other]))
                read = {other}
            else:
                made.append(made[one] + made[other])
                read = {one, other}
            loose = [index for index in loose if index not in read] + [len(made) - 1]
        total = made[loose[0]]
        for index in loose[1:]:
            total = total + made[index]
        return total


class Wide(nn.Module):
    """Eight tangled groups one after the other: a picture of 200 cards when all are open."""

    def __init__(self, groups: int = 8, nodes: int = 26) -> None:
        super().__init__()
        self.groups = nn.ModuleList(Tangle(nodes, seed) for seed in range(groups))

    def forward(self, x: Tensor) -> Tensor:
        for group in self.groups:
            x = group(x)
        return x

"""The nets that gromo grows, trained as every arm is. Does not know what they are compared with.

They grow as its tutorial does: at four times, spread over the first 55 % of the steps, one layer after the other,
statistics over the whole training set, all neurons that it finds significant, the scale by its line search on the
training set, then a fresh optimizer. The scales that it chooses from and the kind of convolution were chosen in its
favour on seeds 20 and 21.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.arms import Plan, Session, batches, prepared, training_step
from benchmarks.data import NUM_CLASSES, Rows, Split

MLP_SCALES = (0.0, 0.1, 0.5, 1.0)
CNN_SCALES = (*MLP_SCALES, 3.0, 10.0)
"""Larger ones serve its CNN and harm its MLPs."""
EVENTS = (0.1, 0.25, 0.4, 0.55)

Loader = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Peer:
    """A net that gromo has grown, its hidden widths, and the CPU seconds that all of it took."""

    model: nn.Module
    widths: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class _Growth:
    """How many layers grow in turn, and what the line search chooses from."""

    num_layers: int
    scales: tuple[float, ...]


def grown_mlp(widths: tuple[int, ...], rows: Rows, plan: Plan, seed: int) -> Peer:
    """``GrowingMLP`` with ReLU over vectors; ``widths`` are all the same."""
    from gromo.containers.growing_mlp import GrowingMLP

    torch.manual_seed(seed)
    cpu = torch.device("cpu")
    inputs = rows.x.shape[1]
    model = GrowingMLP(inputs, NUM_CLASSES, widths[0], len(widths), activation=nn.ReLU(), device=cpu)
    seconds = _grown(model, _Growth(len(widths), MLP_SCALES), rows, plan, seed)
    return Peer(model, tuple(layer.in_features for layer in model.layers[1:]), seconds)


def grown_cnn(widths: tuple[int, ...], rows: Rows, plan: Plan, seed: int) -> Peer:
    """``VGG`` over square images: two convolutions a stage, of which the first can grow, with batch norm.

    Of gromo's two kinds of growing convolution the one that adds whole kernels; drawn as torch draws.
    """
    from gromo.containers.vgg import VGG
    from gromo.modules.conv2d_growing_module import FullConv2dGrowingModule

    torch.manual_seed(seed)
    start: list[str | int] = []
    larger: list[str | int] = []  # only what has a larger target grows; how large it is plays no part here
    for first, second in zip(widths[::2], widths[1::2], strict=True):
        start += [first, second, "M"]
        larger += [first + 1, second, "M"]
    model = VGG(
        start,
        larger,
        in_features=rows.x.shape[1],
        activation=nn.ReLU(),
        num_classes=NUM_CLASSES,
        init_weights=False,
        number_of_fc_layers=1,
        input_spatial_shape=(rows.x.shape[2], rows.x.shape[3]),
        device=torch.device("cpu"),
        growing_conv_type=FullConv2dGrowingModule,
    )
    seconds = _grown(model, _Growth(len(widths) // 2, CNN_SCALES), rows, plan, seed)
    return Peer(model, tuple(layer.out_channels for layer in _convolutions(model)), seconds)


def _grown(model: Any, growth: _Growth, rows: Rows, plan: Plan, seed: int) -> float:
    """Trains and grows ``model``; the CPU seconds of it."""
    loader = list(zip(torch.split(rows.x, plan.batch), torch.split(rows.y, plan.batch), strict=True))
    session = prepared(model, Split(rows, rows), plan, seed)
    events = {round(share * plan.steps): number % growth.num_layers for number, share in enumerate(EVENTS)}
    start = process_time()
    for number, (x, y) in enumerate(batches(rows, plan, seed)):
        if number in events:
            _event(model, loader, events[number], growth.scales)
            session = _fresh(session, number)
        training_step(session, x, y)
    return process_time() - start


def _event(model: Any, loader: Loader, layer: int, scales: tuple[float, ...]) -> None:
    """``grow`` of gromo's GrowingContainer tutorial, with cross-entropy."""
    from gromo.utils.training_utils import compute_statistics

    model.set_growing_layers(index=layer)
    compute_statistics(model, loader, loss_function=nn.CrossEntropyLoss(reduction="sum"))
    with warnings.catch_warnings():
        # That inputs depend on each other, as pixels at the border do, and that a scale of zero adds nothing.
        warnings.simplefilter("ignore", UserWarning)
        model.compute_optimal_updates()
        model.reset_computation()
        model.dummy_select_update()
        model.set_scaling_factor(_best_scale(model, loader, scales))
        model.apply_change()
    _renew_statistics(model)
    model.train()


def _best_scale(model: Any, loader: Loader, scales: tuple[float, ...]) -> float:
    from gromo.utils.training_utils import evaluate_model

    losses = {}
    for scale in scales:
        model.set_scaling_factor(scale)
        losses[scale], _ = evaluate_model(model, loader, nn.CrossEntropyLoss(), use_extended_model=True)
    return min(losses, key=losses.__getitem__)


def _convolutions(model: nn.Module) -> list[Any]:
    from gromo.modules.conv2d_growing_module import Conv2dGrowingModule

    return [module for module in model.modules() if isinstance(module, Conv2dGrowingModule)]


def _renew_statistics(model: nn.Module) -> None:
    """A convolution with a bias that has grown once could not grow again.

    gromo 0.1.0 expects statistics of (channels + 1) x kernel size from then on; they are of channels x kernel size + 1.
    """
    from gromo.utils.tensor_statistic import TensorStatistic

    for layer in _convolutions(model):
        layer._tensor_s = TensorStatistic(None, update_function=layer.compute_s_update)
        layer.tensor_m = TensorStatistic(None, update_function=layer.compute_m_update)


def _fresh(session: Session, step: int) -> Session:
    """A fresh optimizer for what has grown; the schedule goes on where it was."""
    plan = session.plan
    optimizer = torch.optim.AdamW(session.model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    later = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: plan.factor(step + done))
    return replace(session, optimizer=optimizer, scheduler=later)

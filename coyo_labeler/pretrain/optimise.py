"""Loss, optimiser and schedule as in coyo-vit (configs/trainer/vit_l16_coyo300m.yaml)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from coyo_labeler.config.pretrain_vit import OptimiserSettings


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed over the classes, averaged over the images, in float32.

    logits, targets: (B, C). A target is in [0, 1]: a probability, if targets are soft.
    """
    summed = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")
    return summed / len(logits)


def build_optimiser(model: nn.Module, settings: OptimiserSettings) -> Optimizer:
    """AdamW, with the same settings for all parameters. `take_step` sets its rate."""
    return AdamW(
        model.parameters(),
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """The learning rate of a step, counted from 0, out of `steps`.

    Linear from 0 to learning_rate over warmup_steps, then linear down to end_learning_rate.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    left = 1 - (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.end_learning_rate + left * (settings.learning_rate - settings.end_learning_rate)


def take_step(optimiser: Optimizer, model: nn.Module, rate: float, clip: float | None) -> Tensor:
    """Take a step with the global norm of the gradients clipped; returns the norm before clipping.

    Clears the gradients. The norm stays on the device, so that nothing waits for it.
    """
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip if clip is not None else torch.inf)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm

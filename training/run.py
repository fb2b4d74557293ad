"""What every stage of training shares: the clock, averaged weights, workers that train copies, checkpoints, the log."""

import copy
import math
import os
import time

import numpy as np
import torch

CHECKPOINT_SECONDS = 120
REPORT_STEPS = 50
AVERAGING_STEPS = 8
EMA_STEPS = 4
WARM_UP_STEPS = 100
STEP_SECONDS_MAX = 30
# Muon's learning rate, against 1 of AdamW's.
MUON_RATE = 1.5


class Run:
    """What every stage shares: the clock over restarts, the averaged weights, the checkpoint and the log."""

    def __init__(self, name, modules, arguments, learning_rate, ema_decay, alike=False, orthogonal=lambda name: False):
        """Reads the stage's checkpoint if there is one.

        With `alike` the gradient of every batch is scaled to length 1, so that no kind of batch drowns another whose
        loss is small; without, only longer gradients are. The matrices whose names are `orthogonal` learn by Muon
        (Jordan et al. 2024), all other parameters by AdamW.
        """
        self.path = arguments.cache / "checkpoints" / f"{name}.pt"
        self.modules, self.budget, self.ema_decay = modules, arguments.minutes * 60, ema_decay
        self.learning_rate = arguments.learning_rate or learning_rate
        self.alike = alike
        self.parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
        named = [(name, parameter) for name, parameter in modules.named_parameters() if parameter.requires_grad]
        matrices = [parameter for name, parameter in named if parameter.ndim == 2 and orthogonal(name)]
        others = [parameter for name, parameter in named if parameter.ndim != 2 or not orthogonal(name)]
        self.optimizers = [torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.01, fused=True)]
        if matrices:
            muon = torch.optim.Muon(matrices, weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw")
            self.optimizers.append(muon)
        self.averaged = copy.deepcopy(modules).requires_grad_(False)
        self.step, self.spent, self.losses = 0, 0.0, {}
        if self.path.exists():
            state = torch.load(self.path, map_location=arguments.device, weights_only=True)
            modules.load_state_dict(state["modules"])
            self.averaged.load_state_dict(state["averaged"])
            # An imported checkpoint has weights alone.
            if not arguments.again and "optimizers" in state:
                for optimizer, was in zip(self.optimizers, state["optimizers"], strict=True):
                    optimizer.load_state_dict(was)
                self.step, self.spent = state["step"], state["spent"]
        self.rank, self.n_workers = arguments.rank, arguments.workers
        self.rng = np.random.default_rng([arguments.seed, self.step, self.rank])
        torch.manual_seed(arguments.seed + self.step + 1_000_000 * self.rank)
        self.seen, self.saved, self.progress = time.monotonic(), self.spent, self.spent / self.budget

    def update(self, loss):
        rate = (
            self.learning_rate
            * min(1, (self.step + 1) / WARM_UP_STEPS)
            * (0.02 + 0.98 * (1 + math.cos(math.pi * self.progress)) / 2)
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * (MUON_RATE if isinstance(optimizer, torch.optim.Muon) else 1)
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if self.alike and length < 1:
            torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], length + 1e-6)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        # A process that was stopped for a while has not trained meanwhile.
        now = time.monotonic()
        self.spent += min(now - self.seen, STEP_SECONDS_MAX)
        self.seen = now
        if self.n_workers == 1:
            self.progress = self.spent / self.budget
        elif self.step % AVERAGING_STEPS == 0:
            self.average_workers()
        if self.step % EMA_STEPS == 0:
            decay = min(self.ema_decay, self.step / (self.step + 9)) ** EMA_STEPS
            with torch.no_grad():
                torch._foreach_lerp_(list(self.averaged.parameters()), list(self.modules.parameters()), 1 - decay)

    @torch.no_grad()
    def average_workers(self):
        """Averages the weights of all workers, and their progress, so that all stop at the same step."""
        parameters = list(self.modules.parameters())
        progress = torch.tensor([self.spent / self.budget], device=parameters[0].device)
        flat = torch.cat([*(parameter.flatten() for parameter in parameters), progress])
        torch.distributed.all_reduce(flat)
        flat /= self.n_workers
        for parameter, value in zip(parameters, flat.split([parameter.numel() for parameter in parameters] + [1])):
            parameter.copy_(value.view_as(parameter))
        self.progress = float(flat[-1])

    def report(self, loss, note="", kind="loss"):
        """Prints the mean loss of each kind of batch now and then, and saves the checkpoint."""
        if self.rank != 0:
            return
        self.losses.setdefault(kind, []).append(float(loss))
        if self.step % REPORT_STEPS == 0:
            means = ", ".join(f"{kind} {np.mean(losses):.4f}" for kind, losses in sorted(self.losses.items()))
            print(f"step {self.step} {self.spent / 60:.1f} min {means} {note}", flush=True)
            self.losses = {}
        if self.spent - self.saved > CHECKPOINT_SECONDS:
            self.save()

    def save(self):
        if self.rank != 0:
            return
        self.saved = self.spent
        partial = self.path.with_suffix(".partial")
        torch.save(
            {
                "modules": self.modules.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": self.step,
                "spent": self.spent,
            },
            partial,
        )
        os.replace(partial, self.path)


def load_averaged(name, module, cache):
    module.load_state_dict(
        torch.load(cache / "checkpoints" / f"{name}.pt", map_location="cpu", weights_only=True)["averaged"]
    )
    return module.eval().requires_grad_(False)


def mixed_precision(device):
    """bfloat16 matrix products where these are fast, on GPUs and CPUs with AVX-512 BF16; the weights stay float32."""
    fast = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast)

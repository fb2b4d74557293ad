"""The encoder of the autoencoder, computed instead of trained: 16 principal components of each 8 x 8 block of pixels.

`AutoencoderKL`'s encoder can be exactly linear: its residual branches are zeroed, the three strided convolutions
gather 2 x 2 blocks, and the final normalization and SiLU are undone as described at `write_encoder`. What a program
loads is an ordinary encoder. A decoder learns against it much faster than both learn together.
"""

import numpy as np
import torch

N_LATENTS = 16
# Part of the way to equal variances: 0 keeps the components' own scale, 1 would make them equal.
WHITENING = 0.5


class PrincipalEncoder:
    """Three linear stages, each over 2 x 2 blocks of the one before: 12 -> 32 -> 64 channels, then `head` to 16."""

    def __init__(self, blocks):
        """Fits the stages to `blocks`, `(n, 8, 8, 3)` in -1..1."""
        stage1 = space_to_depth(blocks)  # (n, 4, 4, 12)
        self.stage2 = components(space_to_depth(stage1), 32)  # (32, 48)
        stage2 = space_to_depth(stage1) @ self.stage2.T  # (n, 2, 2, 32)
        self.stage3 = components(space_to_depth(stage2), 64)  # (64, 128)
        stage3 = (space_to_depth(stage2) @ self.stage3.T)[:, 0, 0]
        mean = stage3.mean(0)
        directions = components(stage3, N_LATENTS)
        deviation = ((stage3 - mean) @ directions.T).std(0)
        self.head = directions / deviation[:, None] ** WHITENING  # (16, 64)
        self.head /= ((stage3 - mean) @ self.head.T).std()
        self.offset = -self.head @ mean

    def encode(self, pictures):
        """Latents `(n, 16, h/8, w/8)` of pictures `(n, h, w, 3)` in -1..1; equals the written encoder's mean."""
        stage = space_to_depth(pictures)
        stage = space_to_depth(stage) @ self.stage2.T
        stage = space_to_depth(stage) @ self.stage3.T
        return (stage @ self.head.T + self.offset).transpose(0, 3, 1, 2)


def space_to_depth(pictures):
    """`(n, h, w, c)` to `(n, h/2, w/2, 4c)`, channels ordered by row, column, then channel."""
    n, h, w, c = pictures.shape
    return pictures.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def components(values, n):
    """The `n` directions of the largest variance, `(n, channels)`, orthonormal."""
    values = values.reshape(-1, values.shape[-1])
    return np.linalg.eigh(np.cov(values.T))[1][:, ::-1][:, :n].T.astype(np.float32)


@torch.no_grad()
def write_encoder(principal, encoder):
    """Sets the weights of diffusers' `Encoder` so that it computes `principal.encode`.

    The last stage carries each feature as `+f` and `-f`, because `silu(f) - silu(-f) = f`. Large constants beside them
    in each normalization group fix its variance, so that the normalization is a known constant factor.
    """
    for name, parameter in encoder.named_parameters():
        if ".conv2." in name or ".to_out." in name or "conv_shortcut" in name or "downsamplers" in name:
            parameter.zero_()
    encoder.conv_in.weight.zero_()
    encoder.conv_in.bias.zero_()
    encoder.conv_in.weight[range(3), range(3), 1, 1] = 1
    blocks = encoder.down_blocks
    gather(blocks[0], np.eye(12, dtype=np.float32))
    gather(blocks[1], principal.stage2)
    gather(blocks[2], principal.stage3)
    pass_through(blocks[1], 12)
    pass_through(blocks[2], 32)

    constant, n_channels = 100.0, encoder.conv_norm_out.num_channels
    group = n_channels // encoder.conv_norm_out.num_groups
    n_features = N_LATENTS // encoder.conv_norm_out.num_groups
    shortcut = blocks[3].resnets[0].conv_shortcut
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    encoder.conv_out.bias[N_LATENTS:] = -10  # The logarithm of the posterior's variance: nearly none.
    encoder.conv_norm_out.weight.zero_()
    encoder.conv_norm_out.bias.zero_()
    n_constants = group - 2 * n_features
    factor = constant * (n_constants / group) ** 0.5
    for channel in range(n_channels):
        place = channel % group
        if place < 2 * n_features:
            latent = channel // group * n_features + place // 2
            sign = 1 if place % 2 == 0 else -1
            shortcut.weight[channel, :, 0, 0] = sign * torch.from_numpy(principal.head[latent])
            shortcut.bias[channel] = sign * float(principal.offset[latent])
            encoder.conv_norm_out.weight[channel] = factor
            encoder.conv_out.weight[latent, channel, 1, 1] = sign
        else:
            shortcut.bias[channel] = constant if place % 2 == 0 else -constant


def gather(block, matrix):
    """Makes a block's strided convolution apply `matrix` to each 2 x 2 block of its input."""
    convolution = block.downsamplers[0].conv
    n_out, n_in = matrix.shape
    taps = torch.from_numpy(matrix.reshape(n_out, 2, 2, n_in // 4)).permute(0, 3, 1, 2)
    convolution.weight[:n_out, : n_in // 4, :2, :2] = taps


def pass_through(block, n_channels):
    block.resnets[0].conv_shortcut.weight[range(n_channels), range(n_channels), 0, 0] = 1

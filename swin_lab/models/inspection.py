"""What a network attends to, and where in an image its logits come from.

The network itself is run: during one forward pass, its attention layers call a backend that computes the reference maths and
keeps the attention weights. Padding, shift, mask and position bias are those of the pass.

References:
1. Swin Transformer, arXiv 2103.14030, section 3.2.
2. Attention rollout: Abnar and Zuidema 2020, arXiv 2005.00928, section 3.
3. Class activation maps: Zhou et al. 2016, arXiv 1512.04150, section 2.

Shapes: B batch · H, W map of a stage · Q queries · K classes · C channels · h heads · G windows · M, N window · T = M*N tokens
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.models.attention import CosineWindowAttention, WindowAttention
from swin_lab.models.swin import SwinTransformer
from swin_lab.ops.geometry import Size, pad_to_multiple, partition, reverse_partition
from swin_lab.ops.reference import attention_weights
from swin_lab.ops.windows import WindowLayout, attend_in_windows


@dataclass(frozen=True)
class BlockAttention:
    """Contains the attention weights of a block for a batch of images, and how its windows lie on the map."""

    stage: int
    """Counted from 0."""
    block: int
    """Counted from 0 within the stage."""
    weights_BGhTT: Tensor
    """[query, key] within each window, of float32; the rows sum to 1. Windows are those of the padded and shifted map."""
    bias_hMN: Tensor
    """Relative position bias, (h, 2M-1, 2N-1): that of a key for a query in the centre."""
    map_size: Size
    """(H, W), without padding."""
    window: Size
    """(M, N) in use."""
    shift: Size
    """How far windows are moved down and right, in use; 0 along an axis that one window covers."""

    @property
    def padded_size(self) -> Size:
        """Returns the size of the map with the padding that fills the last windows."""
        (H, W), (M, N) = self.map_size, self.window
        return H + -H % M, W + -W % N

    def weights(self, head: int | None = None) -> Tensor:
        """Returns the weights of a head, or their mean over heads, (B, G, T, T).

        Raises:
            UserError: the block does not have this head.
        """
        heads = self.weights_BGhTT.shape[2]
        if head is None:
            return self.weights_BGhTT.mean(dim=2)
        if not 0 <= head < heads:
            raise UserError(f"head {head + 1} does not exist; stage {self.stage + 1} has the heads 1 to {heads}")
        return self.weights_BGhTT[:, :, head]

    def pairs(self, head: int | None = None) -> Tensor:
        """Returns the weights of all pairs of tokens of the padded map, un-shifted and un-windowed.

        Returns:
            (B, P, P) with P = H' * W', tokens of the padded map row by row, [query, key]. Rows sum to 1; pairs in different
            windows, and pairs that only the cyclic shift brought into one window, are 0. For large maps, use `received`.
        """
        H, W = self.padded_size
        position_HW = torch.arange(H * W, device=self.weights_BGhTT.device).reshape(H, W)
        token_GT = self._to_windows(position_HW[None, :, :, None])[0, :, :, 0]
        weights_BGTT = self.weights(head)
        pairs_BPP = weights_BGTT.new_zeros(len(weights_BGTT), H * W, H * W)
        pairs_BPP[:, token_GT[:, :, None], token_GT[:, None, :]] = weights_BGTT
        return pairs_BPP

    def received(self, head: int | None = None) -> Tensor:
        """Returns the sum of the attention that each token gets from all tokens, (B, H, W).

        It would be 1 everywhere if attention were uniform, and less where tokens attend to padding.
        """
        B, (H, W) = len(self.weights_BGhTT), self.map_size
        return self._pull(self.weights_BGhTT.new_ones(B, 1, H, W), self.weights(head))[:, 0]

    def seen_from(self, row: int, column: int, head: int | None = None) -> Tensor:
        """Returns how much the token at a position of the map attends to each token, (B, H, W).

        Raises:
            UserError: the map does not have this position.
        """
        H, W = self.map_size
        if not (0 <= row < H and 0 <= column < W):
            raise UserError(f"token ({row}, {column}) is outside the {H}x{W} map of stage {self.stage + 1}")
        query_BQHW = self.weights_BGhTT.new_zeros(len(self.weights_BGhTT), 1, H, W)
        query_BQHW[:, :, row, column] = 1
        return self._pull(query_BQHW, self.weights(head))[:, 0]

    def roll_out(self, share_BQHW: Tensor) -> Tensor:
        """Distributes shares of the block's output among the tokens of its input (ref. 2): half stays, half follows attention.

        Attention to padding is left out, and rows are normalised again.

        Args:
            share_BQHW: (B, Q, H, W).

        Returns:
            (B, Q, H, W) with the same sums over the map.
        """
        is_token_GT = self._to_windows(self.weights_BGhTT.new_ones(1, *self.map_size, 1))[0, :, :, 0]
        weights_BGTT = self.weights() * is_token_GT[:, None, :]
        weights_BGTT = weights_BGTT / weights_BGTT.sum(dim=-1, keepdim=True)
        return (share_BQHW + self._pull(share_BQHW, weights_BGTT)) / 2

    def _pull(self, share_BQHW: Tensor, weights_BGTT: Tensor) -> Tensor:
        """Moves what is at each query to its keys, by their weights: (B, Q, H, W) -> (B, Q, H, W)."""
        share_BGTQ = self._to_windows(share_BQHW.permute(0, 2, 3, 1))
        share_BGTQ = weights_BGTT.transpose(-2, -1) @ share_BGTQ
        share_BHWQ = reverse_partition(share_BGTQ, self.window, self.padded_size).roll(self.shift, dims=(1, 2))
        return share_BHWQ[:, : self.map_size[0], : self.map_size[1]].permute(0, 3, 1, 2)

    def _to_windows(self, x_BHWC: Tensor) -> Tensor:
        """Pads with zeros, shifts and partitions a map as the block does: (B, H, W, C) -> (B, G, T, C)."""
        padded_BHWC = pad_to_multiple(x_BHWC, self.window)
        return partition(padded_BHWC.roll((-self.shift[0], -self.shift[1]), dims=(1, 2)), self.window)


@dataclass(frozen=True)
class Inspection:
    """Contains what one forward pass has shown."""

    logits_BK: Tensor
    attention: tuple[BlockAttention, ...]
    """One entry per block, in the order of the network."""
    features_BHWC: Tensor
    """The last map after the last norm, whose mean over positions is the input of the head."""
    head: nn.Module

    def rollout(self, share_BQHW: Tensor | None = None) -> Tensor:
        """Traces the last map back to the patches of the image, through all blocks and mergings (ref. 2).

        A merged token comes from its 2x2 neighbours in equal parts; norms and MLPs do not move information between tokens.

        Args:
            share_BQHW: what is traced, (B, Q, H, W) of the last map. If None, the average over the map, which the head sees.

        Returns:
            (B, Q, H, W) of the first map. The sums over the map are those of the argument, 1 by default.
        """
        if share_BQHW is None:
            B, H, W, _ = self.features_BHWC.shape
            share_BQHW = self.features_BHWC.new_full((B, 1, H, W), 1 / (H * W))
        for block, before in zip(reversed(self.attention), [*reversed(self.attention[:-1]), None], strict=True):
            share_BQHW = block.roll_out(share_BQHW)
            if before is not None and before.stage != block.stage:
                share_BQHW = _unmerge(share_BQHW, before.map_size)
        return share_BQHW

    def class_activation(self, classes: Sequence[int]) -> Tensor:
        """Returns what each position of the last map adds to the logit of a class, one class per image (ref. 3).

        The average over the map is the logit without the head's bias, because the head sees the average of the map.

        Args:
            classes: index of a class for every image of the batch.

        Returns:
            (B, H, W).

        Raises:
            UserError: the network has no head, or no such class.
        """
        if not isinstance(self.head, nn.Linear):
            raise UserError("the network has no head, so that there are no classes whose activation could be shown")
        for index in classes:
            if not 0 <= index < self.head.out_features:
                raise UserError(f"class {index} does not exist; the network has the classes 0 to {self.head.out_features - 1}")
        return torch.einsum("bhwc,bc->bhw", self.features_BHWC, self.head.weight.detach()[list(classes)])


def check_attention(network: SwinTransformer) -> None:
    """Raises UserError if a network has no attention."""
    if network.config.token_mixer == "mlp":
        raise UserError(
            "this network is a Swin-MLP, which has no attention to look at: the weights of its windows are the same for every "
            "image; swin-lab explain shows its steps"
        )


@torch.no_grad()
def inspect(network: SwinTransformer, image_BCHW: Tensor) -> Inspection:
    """Runs a network once in evaluation mode, without gradients, and returns the attention weights of all its blocks.

    The weights take 4 * G * h * T^2 bytes per block and image, for swin_large_patch4_window12_384 0.5 GB in all.

    Args:
        network: its mode and backends are restored afterwards; it must not be compiled.
        image_BCHW: normalised images of any size.

    Raises:
        UserError: the network is a Swin-MLP, or the images do not fit it, as in its forward pass.
    """
    features: list[Tensor] = []
    kept: list[BlockAttention] = []
    check_attention(network)
    layers = _attention_layers(network)
    backends, was_training = [layer.backend for _, _, layer in layers], network.training
    hook = network.norm.register_forward_hook(lambda _module, _arguments, output: features.append(output))
    try:
        network.eval()
        for stage, block, layer in layers:
            layer.backend = _Recorder(stage, block, kept)
        logits_BK = network(image_BCHW)
    finally:
        hook.remove()
        network.train(was_training)
        for (_, _, layer), backend in zip(layers, backends, strict=True):
            layer.backend = backend
    return Inspection(logits_BK, tuple(kept), features[0], network.head)


class _Recorder:
    """Computes window attention like the backend "reference", and keeps the weights."""

    def __init__(self, stage: int, block: int, kept: list[BlockAttention]) -> None:
        self.stage, self.block, self.kept = stage, block, kept

    def __call__(
        self,
        qkv_BHWC: Tensor,
        bias_table: Tensor,
        layout: WindowLayout,
        pad_value: Tensor | None,
        cosine_scale: Tensor | None,
    ) -> Tensor:
        weights: list[Tensor] = []

        def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
            weights.append(attention_weights(q, k, bias, scale))
            return weights[0].to(v.dtype) @ v

        out_BHWC = attend_in_windows(qkv_BHWC, bias_table, layout, pad_value, cosine_scale, attend)
        (M, N), map_size = layout.window, (qkv_BHWC.shape[1], qkv_BHWC.shape[2])
        # A row of the table belongs to an offset query - key; reversed, it is the position of the key.
        bias_hMN = bias_table.detach().float().T.reshape(-1, 2 * M - 1, 2 * N - 1).flip(1, 2)
        self.kept.append(BlockAttention(self.stage, self.block, weights[0], bias_hMN, map_size, layout.window, layout.shift))
        return out_BHWC


def _attention_layers(network: SwinTransformer) -> list[tuple[int, int, WindowAttention | CosineWindowAttention]]:
    """Returns stage, block and attention layer of every block, in the order of the network."""
    return [
        (i, j, block.attn)
        for i, stage in enumerate(network.stages)
        for j, block in enumerate(stage.blocks)  # type: ignore[arg-type]
    ]


def _unmerge(share_BQHW: Tensor, map_size: Size) -> Tensor:
    """Distributes the share of each merged token among the 2x2 tokens that it was made from; padding gets nothing."""
    H, W = map_size
    rows, columns = (torch.arange(size, device=share_BQHW.device) // 2 for size in map_size)
    tokens_HW = rows.bincount()[:, None] * columns.bincount()[None, :]
    return (share_BQHW / tokens_HW)[..., rows, :][..., columns].reshape(*share_BQHW.shape[:2], H, W)

"""The training objectives: predicting the next token, or hidden tokens."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ..backbone import MaskPlan
from ..backbone.unmask import unmask_layers

# (model, blocks, seed) -> the mean loss in nats. Blocks have the shape (batch, length + 1).
Objective = Callable[[LlamaForCausalLM, Tensor, int], Tensor]


def next_token(model: LlamaForCausalLM, blocks: Tensor, seed: int) -> Tensor:
    """The mean cross-entropy of the tokens of each block, except its first; the seed is not used."""
    states = model.model(input_ids=blocks[:, :-1], use_cache=False).last_hidden_state
    return token_nats(states.flatten(0, 1), model.lm_head.weight, blocks[:, 1:].flatten())


def hidden_tokens(mask_id: int, rate: float) -> Objective:
    """The mean cross-entropy of hidden tokens, each of which is replaced by the mask token.

    Devlin et al. (2019), section 3.1, but without leaving a tenth of them unchanged and replacing a tenth by random
    tokens, and with a higher rate: Wettig et al. (2023), "Should You Mask 15% in Masked Language Modeling?",
    sections 3 and 5.
    """

    def loss(model: LlamaForCausalLM, blocks: Tensor, seed: int) -> Tensor:
        ids = blocks[:, :-1]
        # The same number in each block, so that shapes are fixed; drawn on the CPU, so that devices agree.
        count = max(1, round(rate * ids.shape[1]))
        draws = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed))
        chosen = draws.topk(count, dim=1).indices.to(ids.device)
        states = model.model(input_ids=ids.scatter(1, chosen, mask_id), use_cache=False).last_hidden_state
        picked = states.gather(1, chosen.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        return token_nats(picked.flatten(0, 1), model.lm_head.weight, ids.gather(1, chosen).flatten())

    return loss


def see_both_ways(model: LlamaForCausalLM) -> None:
    """Remove the causal mask from every layer, which the masked objective needs."""
    layers: list[nn.Module] = list(model.model.layers)
    unmask_layers(layers, MaskPlan.parse("all", len(layers)))


def token_nats(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of states, shape (n, width), projected on the vocabulary."""
    logits = (states @ weight.T).float()
    if states.is_cuda:
        return nn.functional.cross_entropy(logits, targets)
    # On a CPU the backward pass of cross_entropy through the picked logit is slow, but not through a product of rows.
    picked = (states.float() * weight[targets]).sum(-1)
    return (torch.logsumexp(logits, -1) - picked).mean()

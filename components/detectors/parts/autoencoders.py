"""The five kinds of patch autoencoder of NLN behind one interface: encode, decode, error, players.

Networks after the publication's for patches of 128, with fewer halvings for smaller ones. What is rebuilt is compared
by binary cross-entropy on [0, 1], as published, or by one of the other MEASURES; to it come the adversarial steps of
each kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.contract import Player
from components.detectors.parts.convolutions import double, halve
from components.detectors.parts.similarity import structural_difference

Patches = Callable[[Tensor], Tensor]
leaky = partial(nn.LeakyReLU, 0.2)


def _plain(_: int) -> nn.Module:
    return nn.Identity()


def _same(entering: int, leaving: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(entering, leaving, 3, padding=1), leaky()


def structure(logits: Tensor, patches: Tensor) -> Tensor:
    """Mean absolute difference and 1 - SSIM, which sees what a grey patch looks like."""
    rebuilt = torch.sigmoid(logits)
    return (rebuilt - patches).abs().mean() + structural_difference(rebuilt, patches).mean()


# Of logits against patches, (N, 3, patch, patch) both. Cross-entropy of a grey pixel is .6 and more at its best, and
# its slope there is small: most of what a patch shows moves it little.
MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "entropy": F.binary_cross_entropy_with_logits,
    "structure": structure,
}


class PatchEncoder(nn.Sequential):
    """(N, 3, patch, patch) -> (N, latent): halvings down to a side of 8, then one convolution over all of it."""

    def __init__(self, patch: int, width: int, latent: int) -> None:
        steps: list[nn.Module] = []
        for number in range((patch // 8).bit_length() - 2):
            steps += halve(width if number else 3, width, _plain, leaky)
        steps += [*_same(width if steps else 3, width), *halve(width, 2 * width, _plain, leaky)]
        steps += [*_same(2 * width, 2 * width), *_same(2 * width, 2 * width), *_same(2 * width, width)]
        super().__init__(*steps, nn.Conv2d(width, latent, 8), nn.Flatten())


class PatchDecoder(nn.Sequential):
    """(N, latent) -> (N, 3, patch, patch) logits."""

    def __init__(self, patch: int, width: int, latent: int) -> None:
        steps: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1)), nn.ConvTranspose2d(latent, width, 8), leaky()]
        steps += [*_same(width, 2 * width), *_same(2 * width, 4 * width), *_same(4 * width, 2 * width)]
        entering = 2 * width
        for number in range((patch // 8).bit_length() - 2):
            steps += double(entering, width, _plain, leaky)
            steps += _same(width, width) if number == 0 else ()
            entering = width
        super().__init__(*steps, nn.ConvTranspose2d(entering, 3, 4, 2, 1))


class Critic(nn.Module):
    """An encoder whose embedding also says by one logit whether a patch is real."""

    def __init__(self, patch: int, width: int, latent: int) -> None:
        super().__init__()
        self.embed = PatchEncoder(patch, width, latent)
        self.judge = nn.Linear(latent, 1)

    def forward(self, patches: Tensor) -> Tensor:
        return self.judge(self.embed(patches))  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """The plain kind, ``ae``, and what the others share."""

    rates: ClassVar[tuple[float, float]] = (1e-3, 1e-5)  # of the autoencoder and of the adversarial steps, published

    def __init__(self, patch: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder, self.decoder = PatchEncoder(patch, width, latent), PatchDecoder(patch, width, latent)
        self.measure = MEASURES["entropy"]  # of what is rebuilt

    def encode(self, patches: Tensor) -> Tensor:
        """(N, 3, patch, patch) -> (N, latent)."""
        return self.encoder(patches)  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        """(N, latent) -> (N, 3, patch, patch) in [0, 1]."""
        return torch.sigmoid(self.decoder(latents))

    def error(self, patches: Tensor, latents: Tensor, rebuilt: Tensor) -> Tensor:  # noqa: ARG002  (of some kinds)
        """How much *rebuilt* differs from *patches* with *latents*: (N, 1, patch, patch)."""
        return (patches - rebuilt).abs().mean(1, keepdim=True)

    def loss(self, patches: Tensor) -> Tensor:
        return self.measure(self.decoder(self.encode(patches)), patches)

    def adversaries(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Sequence[nn.Module]]]:
        """Losses of patches with what each trains, in the order of their steps."""
        yield from ()

    def trained(self) -> Sequence[nn.Module]:
        """What ``loss`` trains."""
        return [self.encoder, self.decoder]

    def players(self, patches: Patches, rate: float | None, adversary_rate: float | None) -> list[Player]:
        """The sides of the training, which draw *patches* from a batch of images; rates of None are the published."""
        own, other = (
            self.rates[0] if rate is None else rate,
            self.rates[1] if adversary_rate is None else adversary_rate,
        )
        sides = [(self.loss, self.trained(), own), *((loss, parts, other) for loss, parts in self.adversaries())]
        return [
            Player(
                lambda images, loss=loss: loss(patches(images)),  # type: ignore[misc]
                [p for part in parts for p in part.parameters()],
                partial(torch.optim.Adam, lr=lr),
            )
            for loss, parts, lr in sides
        ]


class Variational(Autoencoder):
    """``vae``: latents are drawn from a normal distribution around the encoder's mean in training, never in scoring."""

    def __init__(self, patch: int, width: int, latent: int) -> None:
        super().__init__(patch, width, latent)
        self.mean, self.spread = nn.Linear(latent, latent), nn.Linear(latent, latent)

    def encode(self, patches: Tensor) -> Tensor:
        return self.mean(F.leaky_relu(self.encoder(patches), 0.2))  # type: ignore[no-any-return]

    def trained(self) -> Sequence[nn.Module]:
        return [*super().trained(), self.mean, self.spread]

    def loss(self, patches: Tensor) -> Tensor:
        """The evidence bound per pixel: the measure, and the divergence from N(0, I) by the number of pixels."""
        hidden = F.leaky_relu(self.encoder(patches), 0.2)
        mean, logarithm = self.mean(hidden), self.spread(hidden)
        drawn = mean + torch.exp(0.5 * logarithm) * torch.randn_like(mean)
        divergence = -0.5 * (1 + logarithm - mean.square() - logarithm.exp()).sum(1).mean()
        return self.measure(self.decoder(drawn), patches) + divergence / patches[0, 0].numel()


class Adversarial(Autoencoder):
    """``aae``: a critic of latents, which the encoder learns to make look drawn from N(0, I)."""

    rates = (1e-5, 1e-5)

    def __init__(self, patch: int, width: int, latent: int) -> None:
        super().__init__(patch, width, latent)
        steps = [(nn.Linear(a, b), leaky(), nn.Dropout(0.3)) for a, b in ((latent, 64), (64, 128), (128, 256))]
        self.critic = nn.Sequential(*(layer for step in steps for layer in step), nn.Linear(256, 1))

    def adversaries(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Sequence[nn.Module]]]:
        yield self.critic_loss, [self.critic]
        yield self.encoder_loss, [self.encoder]

    def critic_loss(self, patches: Tensor) -> Tensor:
        latents = self.encode(patches).detach()
        return judged(self.critic(torch.randn_like(latents)), 1) + judged(self.critic(latents), 0)

    def encoder_loss(self, patches: Tensor) -> Tensor:
        return judged(self.critic(self.encode(patches)), 1)


class Embedded(Autoencoder, ABC):
    """What the kinds share whose error is between vectors: a critic of patches, and where in a patch an error lies."""

    def __init__(self, patch: int, width: int, latent: int) -> None:
        super().__init__(patch, width, latent)
        self.critic = Critic(patch, width, latent)

    @abstractmethod
    def distance(self, patches: Tensor, latents: Tensor, rebuilt: Tensor) -> Tensor:
        """Between vectors of what is and what should be, (N,)."""

    def error(self, patches: Tensor, latents: Tensor, rebuilt: Tensor) -> Tensor:
        """One number per patch, spread over its pixels like their difference: its mean is the number."""
        pixels = super().error(patches, latents, rebuilt)
        share = pixels / (pixels.mean((2, 3), keepdim=True) + 1e-6)
        return share * self.distance(patches, latents, rebuilt).view(-1, 1, 1, 1)

    def critic_loss(self, patches: Tensor) -> Tensor:
        with torch.no_grad():
            rebuilt = self.decode(self.encode(patches))
        return judged(self.critic(patches), 1) + judged(self.critic(rebuilt), 0)


class Discriminative(Embedded):
    """``dae_disc``: a critic of patches whose embeddings the error is measured between."""

    def adversaries(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Sequence[nn.Module]]]:
        yield self.critic_loss, [self.critic]
        yield self.generator_loss, self.trained()

    def generator_loss(self, patches: Tensor) -> Tensor:
        return judged(self.critic(self.decode(self.encode(patches))), 1)

    def distance(self, patches: Tensor, latents: Tensor, rebuilt: Tensor) -> Tensor:  # noqa: ARG002
        return (self.critic.embed(patches) - self.critic.embed(rebuilt)).abs().mean(1)


class Ganomaly(Embedded):
    """``ganomaly`` (Akcay et al., ACCV 2018): a second encoder reads what was rebuilt; errors are between latents."""

    rates = (1e-4, 1e-4)

    def __init__(self, patch: int, width: int, latent: int) -> None:
        super().__init__(patch, width, latent)
        self.second = PatchEncoder(patch, width, latent)

    def trained(self) -> Sequence[nn.Module]:
        return [*super().trained(), self.second]

    def adversaries(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Sequence[nn.Module]]]:
        yield self.critic_loss, [self.critic]

    def loss(self, patches: Tensor) -> Tensor:
        """Weights 50, 1 and 1 of reconstruction, the critic's embedding of it, and the latent of it."""
        latents = self.encode(patches)
        logits = self.decoder(latents)
        rebuilt = torch.sigmoid(logits)
        fooled = (self.critic.embed(patches) - self.critic.embed(rebuilt)).square().mean()
        apart = (latents - self.second(rebuilt)).square().mean()
        return 50 * self.measure(logits, patches) + fooled + apart

    def distance(self, patches: Tensor, latents: Tensor, rebuilt: Tensor) -> Tensor:  # noqa: ARG002
        return (latents - self.second(rebuilt)).abs().mean(1)


def judged(logits: Tensor, real: int) -> Tensor:
    """How far a critic's verdict is from *real* (1) or not (0)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


KINDS: dict[str, type[Autoencoder]] = {
    "ae": Autoencoder,
    "vae": Variational,
    "aae": Adversarial,
    "dae_disc": Discriminative,
    "ganomaly": Ganomaly,
}

"""Several trained detectors as one: the mean of their standardised scores, with frozen backbones shared.

What is learned is the members' and is not touched; a member's score and map are brought to one scale by a centre and a
spread of its own. Members that read the same frozen network share it: its weights are kept once, and in one forward
pass it runs once for each size of picture, whichever taps each member reads.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from components.backbones.extractor import Backbone, computing_once
from components.core.errors import SettingsError
from components.core.settings import build, plain
from components.detectors.catalogue import create, detector_class
from components.detectors.contract import Detector, Images, MethodInfo, Phase, Scores, Table, Together, TrainingData


class Scale(NamedTuple):
    """Where a member's values lie on normal pictures, and how far they spread there."""

    centre: float
    spread: float


class Scales(NamedTuple):
    """The scale of a member's image scores and that of its maps."""

    image: Scale
    map: Scale


@dataclass(frozen=True)
class Member:
    """One detector; *backbones* says which of the ensemble's each of its own is, in the order of its modules."""

    detector: str
    settings: dict[str, Any]
    backbones: tuple[int, ...] = ()


@dataclass(frozen=True)
class Composition:
    """What an ensemble is made of; *size* is that of its largest member."""

    members: tuple[Member, ...]
    size: int


class Ensemble(Detector):
    """Raw image score and map: the mean over the members of (value - centre) / spread."""

    name = "ensemble"
    settings_type = Composition
    presets: ClassVar[dict[str, Any]] = {}  # none of its own: it is made of detectors that are trained already
    scales: Tensor
    settings: Composition

    def __init__(self, settings: Composition, pretrained: bool = True) -> None:
        super().__init__()
        self.settings = settings
        self.members = nn.ModuleList(_created(member, pretrained) for member in settings.members)
        self.backbones = nn.ModuleList()
        self._share([number for member in settings.members for number in member.backbones], pretrained)
        self.register_buffer("scales", torch.tensor([[[0.0, 1.0]] * 2] * len(self.members)))  # (members, 2, 2)
        self.info = _info(self._detectors())  # type: ignore[misc]  # of these members

    def _share(self, numbers: list[int], pretrained: bool) -> None:
        """Make the networks that *numbers* name for the members' own, in order, and put their parts in place."""
        uses = list(zip([use for member in self._detectors() for use in _uses(member)], numbers, strict=True))
        for shared in range(max(numbers, default=-1) + 1):
            own = [use for use, number in uses if number == shared]
            taps = {tap for use in own for tap in use.backbone.settings.taps}
            whole = Backbone(replace(own[0].backbone.settings, taps=tuple(sorted(taps))), pretrained)
            self.backbones.append(whole)
            for use in own:
                use.put(whole.part(use.backbone.settings.taps, use.backbone.settings.size))

    @property
    def size(self) -> int:
        return self.settings.size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those of all members, each once."""
        return tuple(dict.fromkeys(size for member in self._detectors() for size in member.sizes))

    def phases(self, data: TrainingData) -> Iterable[Phase]:  # noqa: ARG002
        """None: its members have learned."""
        return ()

    def inputs(self, data: Images) -> Table:
        return Together(*(member.inputs(data) for member in self._detectors()))

    def prepare(self, pictures: Sequence[Tensor]) -> tuple[Any, ...]:
        """What each member needs, every shared network run once for each size; *pictures*: at each of ``sizes``."""
        at = dict(zip(self.sizes, pictures, strict=True))
        with computing_once():
            return tuple(member.prepare([at[size] for size in member.sizes]) for member in self._detectors())

    def score(self, inputs: Sequence[Any], size: tuple[int, int]) -> Scores:
        found = [member.score(own, size) for member, own in zip(self._detectors(), inputs, strict=True)]
        (images, maps), scales = zip(*found, strict=True), self.scales
        each = [
            ((i - s[0, 0]) / s[0, 1], (m - s[1, 0]) / s[1, 1]) for i, m, s in zip(images, maps, scales, strict=True)
        ]
        return Scores(*(torch.stack(values).mean(0) for values in zip(*each, strict=True)))

    def _detectors(self) -> list[Detector]:
        return list(self.members)  # type: ignore[arg-type]


def together(members: Sequence[Detector], scales: Sequence[Scales]) -> Ensemble:
    """The ensemble of trained *members*, whose values *scales* bring to one scale. Raises SettingsError.

    A member that is an ensemble itself has one voice, as any other: its own members come in its place, with scales by
    which their values have the same part in the mean as they have through it.
    """
    if len(members) < 2:
        raise SettingsError("an ensemble is made of two or more detectors; name two or more runs")
    if any(member.frames > 1 for member in members):
        raise SettingsError("a detector of clips cannot be a member of an ensemble; leave it out")
    members, scales = _flat(members, scales)
    uses = [list(_uses(member)) for member in members]
    numbers = iter(_alike([use.backbone for own in uses for use in own]))
    parts = [
        Member(member.name, plain(member.settings), tuple(next(numbers) for _ in own))
        for member, own in zip(members, uses, strict=True)
    ]
    made = Ensemble(Composition(tuple(parts), max(member.size for member in members)), pretrained=False)
    state = {"scales": torch.tensor([[list(scale) for scale in scaled] for scaled in scales])}
    for number, (member, part, own) in enumerate(zip(members, parts, uses, strict=True)):
        state |= _moved(member, f"members.{number}.", [use.path for use in own], part.backbones)
    made.load_state_dict(state)
    return made.eval()


def _flat(members: Sequence[Detector], scales: Sequence[Scales]) -> tuple[list[Detector], list[Scales]]:
    """Members that are no ensembles, and the scales under which their mean is that of *members* under *scales*."""
    parts = [(_apart(member), member, whole) for member, whole in zip(members, scales, strict=True)]
    count, flat, found = sum(len(own) for own, *_ in parts), [], []
    for own, member, whole in parts:
        weight = len(members) * len(own) / count
        known = member.scales.tolist() if isinstance(member, Ensemble) else [[[0.0, 1.0]] * 2]
        flat += own
        found += [
            Scales(*(_within(Scale(*inner), outer, weight) for inner, outer in zip(each, whole, strict=True)))
            for each in known
        ]
    return flat, found


def _within(inner: Scale, outer: Scale, weight: float) -> Scale:
    """Of ((value - centre) / spread of *inner* - centre) / spread of *outer*, divided by *weight*."""
    return Scale(inner.centre + outer.centre * inner.spread, inner.spread * outer.spread * weight)


def _apart(member: Detector) -> list[Detector]:
    """The detectors of an ensemble, each with networks of its own again; any other detector as it is."""
    if not isinstance(member, Ensemble):
        return [member]
    state, found = member.state_dict(), []
    for number, part in enumerate(member.settings.members):
        made = _created(part, pretrained=False)
        paths = [use.path for use in _uses(made)]
        names = {key: _name(key, f"members.{number}.", paths, part.backbones) for key in made.state_dict()}
        made.load_state_dict({key: state[name] for key, name in names.items()})
        found.append(made.eval())
    return found


def _moved(member: Detector, prefix: str, paths: list[str], numbers: tuple[int, ...]) -> dict[str, Tensor]:
    """A member's state by the names that it has in the ensemble."""
    return {_name(key, prefix, paths, numbers): value for key, value in member.state_dict().items()}


def _name(key: str, prefix: str, paths: list[str], numbers: tuple[int, ...]) -> str:
    """What *key* of a member is called in the ensemble: its backbones' belongs to those that are shared."""
    at = next((i for i, path in enumerate(paths) if key.startswith(f"{path}.")), None)
    return f"{prefix}{key}" if at is None else f"backbones.{numbers[at]}.{key.removeprefix(f'{paths[at]}.')}"


class _Use(NamedTuple):
    """A backbone of a detector, and where it is."""

    detector: Detector
    path: str
    backbone: Backbone

    def put(self, other: Backbone) -> None:
        """Have *other* in its place. It is no submodule there: its state is the ensemble's, and there once."""
        parent, _, name = self.path.rpartition(".")
        where = self.detector.get_submodule(parent)
        delattr(where, name)
        where.__dict__[name] = other


def _uses(detector: Detector) -> Iterator[_Use]:
    for path, part in detector.named_modules():
        if isinstance(part, Backbone):
            yield _Use(detector, path, part)


def _alike(backbones: Sequence[Backbone]) -> list[int]:
    """For each backbone the number of the network that it is, with others of the same weights."""
    groups: list[list[Backbone]] = []
    numbers = []
    for one in backbones:
        at = next((i for i, group in enumerate(groups) if all(one.same(other) for other in group)), len(groups))
        groups.extend([[]] if at == len(groups) else [])
        groups[at].append(one)
        numbers.append(at)
    return numbers


def _created(member: Member, pretrained: bool) -> Detector:
    settings: Any = build(detector_class(member.detector).settings_type, member.settings, member.detector)
    return create(member.detector, settings, pretrained)


def _title(members: Sequence[Detector]) -> str:
    """Each method once, with its sizes or how often it is trained."""
    sizes: dict[str, list[int]] = {}
    for member in members:
        sizes.setdefault(member.info.title, []).append(member.size)
    names = [title + _times(own) for title, own in sizes.items()]
    return names[0] if len(names) == 1 else f"Ensemble of {', '.join(names)}"


def _times(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return ""
    if len(set(sizes)) == 1:
        return f" trained {len(sizes)} times"
    return f" at {', '.join(map(str, sizes[:-1]))} and {sizes[-1]} pixels"


def _info(members: Sequence[Detector]) -> MethodInfo:
    infos = list({member.name: member.info for member in members}.values())
    return MethodInfo(
        title=_title(members),
        paper="the mean of the standardised scores of "
        + "; ".join(f"{info.title}: {info.paper} ({info.venue} {info.year})" for info in infos),
        year=max(info.year for info in infos),
        venue="Loupe",
        family="ensemble",
        needs=tuple(dict.fromkeys(need for info in infos for need in info.needs)),
        reconstructed=("the average", *(f"{info.title}: {said}" for info in infos for said in info.reconstructed)),
    )

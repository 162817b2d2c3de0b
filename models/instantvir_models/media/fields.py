"""Interlaced video: which field comes first, found in the pictures, and one picture for each field.

A field holds every other row of a picture, at a moment of its own. What a stream says of its fields
is often wrong, so what counts is what moves: rows of two fields fit best where they were seen one
after the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError
from instantvir_models.media.color import luma_of

Luma = NDArray[np.uint8]
"""[h, w] rows as they are stored."""

Scan = Literal["progressive", "interlaced", "telecined", "unknown"]
Order = Literal["top", "bottom"]

CHOICES = ("auto", "none", "top", "bottom", "telecine")
"""What may be said of the fields of a video: found in it, whole pictures, which field comes first, or
film at 3:2."""

LOOKED_AT = 24
"""Pictures that the order of the fields is found in."""

TALLEST = 1152
"""Rows; no video with more of them is interlaced, and two dozen of its pictures are much memory."""

SMALLEST = 96 * 64
"""Pixels; in smaller pictures single lines that move pass for fields, so what the stream says counts."""

FEWEST_PICTURES = 3
FILM_RATE = Fraction(24000, 1001)
"""Frames per second of film on television."""

CYCLE = 5
"""Pictures after which the pattern of a telecine repeats."""

WHOLE = 1.3
"""How much worse fields of different moments fit than those of one picture, at least, where that is
surely whole."""

LEANS, SURELY, LEAST_SPREAD = 1.1, 4.0, 0.05
"""How much worse the wrong order of the fields fits than the right one, at least, on average; standard
errors that it is beyond no difference; and what it varies by from picture to picture, at least. The
order makes no difference to whole pictures: of 141 files of H.264 none was taken for interlaced, and 64
of 71 that were woven were found; counting single pictures had found 25 of 73, and one that was
whole. The rule was set on these clips."""

WOVEN = 1.8
"""Product of two numbers that is less where pictures hold two moments. How much worse the nearest field of
the picture before fits than the other one of its own, on average: in interlaced video both are half a
picture away (0.95 to 1.28 in 58 woven clips). And how much more every other row differs from the one below
it than the rows between do: in pictures that were drawn or enlarged in pairs of rows, or in letters, what
moves fits one order better by chance, in each picture again. The product comes to 0.96 to 1.66 in 56 of those
clips (to 4.7 and 9.7 in the others, in which little moves) and to 2.16 in a page of text that scrolls by two
rows a picture, which had been taken for fields."""

FEWEST_MOVING = 0.002
"""Part of the pixels that have to move for a pair of pictures to tell anything."""

MOVES = 6.0
"""Levels of 255 by which a pixel differs from the picture before where something moves."""

LEAST_MISFIT = 0.5
"""Levels that are added to what rows differ by before they are compared: less is rounding."""


@dataclass(frozen=True, kw_only=True)
class Fields:
    """How the rows of a video came about."""

    scan: Scan
    """`unknown` where too little moves to tell."""
    first: Order | None = None
    """The field that comes first, where there are fields."""
    votes: tuple[int, int] = (0, 0)
    """Pictures that fit better with the top field first, and with the bottom field first."""

    @property
    def sentence(self) -> str:
        """The same for a person."""
        if self.scan == "interlaced":
            return f"interlaced, {self.first} field first"
        if self.scan == "telecined":
            return f"telecined film (3:2), {self.first} field first"
        return "progressive" if self.scan == "progressive" else "hardly anything moves"

    @property
    def choice(self) -> FieldChoice:
        """What makes the same of other places of the video, one picture for each field."""
        if self.first is None:
            return WEAVE
        return FieldChoice(fields="telecine" if self.scan == "telecined" else self.first)


@dataclass(frozen=True, kw_only=True)
class FieldChoice:
    """How pictures of two fields become whole ones.

    Raises:
        UsageError: for a name that is none of `CHOICES`.
    """

    fields: str = "auto"
    """One of `CHOICES`."""
    each_field: bool = True
    """One picture for each field, at its own time; else one for two."""

    def __post_init__(self) -> None:
        if self.fields not in CHOICES:
            raise UsageError(f"`--fields` is `{self.fields}`", hint=f"it is {', '.join(CHOICES)}")


WEAVE = FieldChoice(fields="none")
"""Pictures as they are stored."""


@dataclass(frozen=True)
class WholePictures:
    """Pictures without fields, and how they came about."""

    pictures: Iterator[av.VideoFrame]
    time_base: Fraction
    """Of their time stamps."""
    rate_factor: Fraction
    """How many there are for each that was stored."""
    fields: Fields | None
    """What was found; None where nobody looked."""
    measured_rows: Order | None = None
    """Which rows of the first picture were measured, and by turns of the others; None for all."""

    @property
    def are_whole(self) -> bool:
        """Whether it is known that no picture holds two fields, as they are shown or made so."""
        return self.fields is not None and self.fields.scan != "unknown"

    def guessed(self, index: int, height: int, width: int) -> NDArray[np.bool_]:
        """[h, w], True where picture `index`, of fields, shows what was computed."""
        assert self.measured_rows is not None
        out = np.ones((height, width), np.bool_)
        out[(index % 2) ^ (self.measured_rows == "bottom") :: 2] = False
        return out


@dataclass(frozen=True)
class _Fit:
    """How badly rows fit those above and below them, where something moves."""

    within: float
    """Of the picture itself."""
    top_first: float
    """Of its top field and the bottom field before: neighbours in time if the top comes first."""
    bottom_first: float
    paired: float
    """Logarithm of how much more every other row differs from the one below it than those between."""

    @property
    def lean(self) -> float:
        """Logarithm of how much better it fits with the top field first."""
        return math.log((self.bottom_first + LEAST_MISFIT) / (self.top_first + LEAST_MISFIT))

    @property
    def apart(self) -> float:
        """Logarithm of how much worse the nearest field of the picture before fits than its own."""
        nearest = min(self.top_first, self.bottom_first)
        return math.log((nearest + LEAST_MISFIT) / (self.within + LEAST_MISFIT))


def find_fields(pictures: Sequence[Luma]) -> Fields:
    """How the rows of consecutive pictures came about; a dozen suffice where something moves."""
    pairs = list(itertools.pairwise(pictures))
    fits = [fit for fit in itertools.starmap(_fit, pairs) if fit is not None]
    leans = [fit.lean for fit in fits]
    votes = (sum(lean > 0 for lean in leans), sum(lean < 0 for lean in leans))
    first: Order = "top" if sum(leans) >= 0 else "bottom"
    if len(pairs) >= 2 * CYCLE and _repeats_like_film(pairs):
        return Fields(scan="telecined", first=first, votes=votes)
    if _is_order_sure(leans) and _may_be_woven(fits):
        return Fields(scan="interlaced", first=first, votes=votes)
    whole = sum(fit.apart > math.log(WHOLE) for fit in fits)
    is_seen = whole >= FEWEST_PICTURES - 1
    return Fields(scan="progressive" if is_seen else "unknown", votes=votes)


def _is_order_sure(leans: Sequence[float]) -> bool:
    """Whether one order of the fields fits better all the time."""
    if len(leans) < FEWEST_PICTURES:
        return False
    error = max(float(np.std(leans)), LEAST_SPREAD) / math.sqrt(len(leans))
    return bool(abs(np.mean(leans)) > max(math.log(LEANS), SURELY * error))


def _may_be_woven(fits: Sequence[_Fit]) -> bool:
    """Whether rows of one picture fit each other no better than those of two, and no two are alike."""
    apart = float(np.mean([fit.apart for fit in fits]))
    paired = float(np.mean([fit.paired for fit in fits]))
    return max(apart, 0.0) + abs(paired) < math.log(WOVEN)


def _fit(before: Luma, here: Luma) -> _Fit | None:
    """None where too little moves."""
    a, b = (picture.astype(np.float32) for picture in (before, here))
    moved = _rows_blurred(np.abs(b - a)) > MOVES
    if moved.mean() < FEWEST_MOVING:
        return None
    return _Fit(
        within=_misfit(b, b, moved),
        top_first=_misfit(b, a, moved),
        bottom_first=_misfit(a, b, moved),
        paired=_paired(b, moved),
    )


def _misfit(
    top: NDArray[np.float32], bottom: NDArray[np.float32], moved: NDArray[np.bool_]
) -> float:
    """How far rows of the top field of one picture and the bottom field of another are from the mean
    of those above and below, both fields alike, so that stripes of the picture itself favour neither."""
    woven = top.copy()
    woven[1::2] = bottom[1::2]
    off = np.abs(2 * woven[1:-1] - woven[:-2] - woven[2:])
    return float(off[moved[1:-1]].mean()) if moved[1:-1].any() else 0.0


def _paired(picture: NDArray[np.float32], moved: NDArray[np.bool_]) -> float:
    below, is_there = np.abs(np.diff(picture, axis=0)), moved[1:]
    even, odd = (
        float(below[n::2][is_there[n::2]].mean()) if is_there[n::2].any() else 0.0 for n in (0, 1)
    )
    return math.log((odd + LEAST_MISFIT) / (even + LEAST_MISFIT))


def _rows_blurred(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each row, the one above and the one below, so that both fields count."""
    out = x.copy()
    out[1:-1] = (x[:-2] + x[1:-1] + x[2:]) / 3
    return out


def _repeats_like_film(pairs: Sequence[tuple[Luma, Luma]]) -> bool:
    """Whether in each cycle one top field and, elsewhere, one bottom field is that of the picture
    before."""
    quietest = []
    for parity in (0, 1):
        change = np.array(
            [np.abs(b[parity::2].astype(np.float32) - a[parity::2]).mean() + 1e-3 for a, b in pairs]
        )
        phases = np.array([np.median(change[phase::CYCLE]) for phase in range(CYCLE)])
        order = np.argsort(phases)
        if phases[order[0]] > 0.4 * phases[order[1]]:
            return False
        quietest.append(int(order[0]))
    return (quietest[0] - quietest[1]) % CYCLE in (2, 3)


def whole_pictures(
    pictures: Iterator[av.VideoFrame],
    choice: FieldChoice,
    *,
    time_base: Fraction,
    look_elsewhere: Callable[[], Fields | None] = lambda: None,
) -> WholePictures:
    """The pictures without fields; to find out about fields it looks at the first `LOOKED_AT`.

    Args:
        time_base: of the pictures' time stamps.
        look_elsewhere: what is found later in the video; asked where these tell nothing.
    """
    found = None
    if choice.fields == "auto":
        first = list(itertools.islice(pictures, LOOKED_AT))
        pictures = itertools.chain(first, pictures)
        found = fields_in(first)
        if found is not None and found.scan == "unknown":
            found = look_elsewhere() or found
    elif choice.fields != "none":
        found = _said(choice.fields)
    if found is None or found.first is None:
        return WholePictures(pictures, time_base, Fraction(1), found)
    if found.scan == "telecined":
        film = without_telecine(pictures, found.first, time_base=time_base)
        return WholePictures(film, time_base / 2, Fraction(4, 5), found)
    whole = deinterlaced(pictures, found.first, time_base=time_base, each_field=choice.each_field)
    if not choice.each_field:
        return WholePictures(whole, time_base / 2, Fraction(1), found)
    return WholePictures(whole, time_base / 2, Fraction(2), found, measured_rows=found.first)


def _said(fields: str) -> Fields:
    if fields == "telecine":
        return Fields(scan="telecined", first="top")
    return Fields(scan="interlaced", first="top" if fields == "top" else "bottom")


def fields_in(pictures: Sequence[av.VideoFrame]) -> Fields | None:
    """What consecutive pictures tell; None where nobody looks: none is so large, or so small."""
    if not pictures or pictures[0].height > TALLEST:
        return None
    size = (pictures[0].width, pictures[0].height)
    if size[0] * size[1] < SMALLEST and not pictures[0].interlaced_frame:
        return None
    same = itertools.takewhile(lambda p: (p.width, p.height) == size, pictures)
    return find_fields([luma_of(picture) for picture in same])


def deinterlaced(
    pictures: Iterable[av.VideoFrame], first: Order, *, time_base: Fraction, each_field: bool
) -> Iterator[av.VideoFrame]:
    """A whole picture for each field, or for each two, by FFmpeg's bwdif.

    Args:
        first: the field that comes first; what the pictures say of it is ignored.
        time_base: of the pictures' time stamps; those that come out count in half of it.
        each_field: twice as many pictures, each at its own time.
    """
    options = f"mode={'send_field' if each_field else 'send_frame'}:deint=all:"
    options += f"parity={'tff' if first == 'top' else 'bff'}"
    return _filtered(pictures, [("bwdif", options)], time_base)


def without_telecine(
    pictures: Iterable[av.VideoFrame], first: Order, *, time_base: Fraction
) -> Iterator[av.VideoFrame]:
    """The pictures of a film that was shown at 3:2, four for each five, by FFmpeg's fieldmatch."""
    order = "tff" if first == "top" else "bff"
    filters = [("fieldmatch", f"order={order}:combmatch=full"), ("decimate", None)]
    return _filtered(pictures, filters, time_base)


def _filtered(
    pictures: Iterable[av.VideoFrame],
    filters: Sequence[tuple[str, str | None]],
    time_base: Fraction,
) -> Iterator[av.VideoFrame]:
    """What FFmpeg makes of the pictures, their time stamps in half of `time_base`."""
    graph: av.filter.Graph | None = None
    kind = None
    for picture in pictures:
        if graph is None or kind != (picture.width, picture.height, picture.format.name):
            if graph is not None:
                graph.push(None)
                yield from _pulled(graph, time_base / 2)
            graph = _graph(picture, filters, time_base)
            kind = (picture.width, picture.height, picture.format.name)
        picture.time_base = time_base
        graph.push(picture)
        yield from _pulled(graph, time_base / 2)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph, time_base / 2)


def _graph(
    like: av.VideoFrame,
    filters: Sequence[tuple[str, str | None]],
    time_base: Fraction,
) -> av.filter.Graph:
    graph = av.filter.Graph()
    # not `add_buffer`, which has no frame rate: `decimate` asks for one
    last = graph.add(
        "buffer",
        f"video_size={like.width}x{like.height}:pix_fmt={like.format.name}:"
        f"time_base={time_base}:frame_rate={FILM_RATE * 5 / 4}",
    )
    for name, options in (*filters, ("buffersink", None)):
        node = graph.add(name, options)
        last.link_to(node)
        last = node
    graph.configure()
    return graph


def _pulled(graph: av.filter.Graph, time_base: Fraction) -> Iterator[av.VideoFrame]:
    while True:
        try:
            picture = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(picture, av.VideoFrame)
        assert picture.time_base is not None
        unit = picture.time_base / time_base
        picture.duration = round(picture.duration * unit)
        picture.pts = round((picture.pts or 0) * unit)
        picture.time_base = time_base
        yield picture

"""From the confidence of every frame: when an object was lost, and where another mask would help most."""

from __future__ import annotations

LOST = 0.1  # below this an object counts as lost
DOUBTFUL = 0.7  # times an object's usual confidence: below this another mask is worth it


class ConfidenceLog:
    """Collects the confidence of objects over a video; a few bytes a frame."""

    def __init__(self):
        self.names: list[str] = []
        self.given: list[bool] = []
        self.by_object: dict[int, list[float]] = {}

    def add(self, name: str, confidence: dict[int, float], given: bool) -> None:
        """The next frame: its name, 0..1 by object, and whether its mask was given."""
        for label in confidence.keys() - self.by_object.keys():
            self.by_object[label] = [float("nan")] * len(self.names)
        for label, values in self.by_object.items():
            values.append(confidence.get(label, 0.0))
        self.names.append(name)
        self.given.append(given)

    def lost(self) -> dict[int, list[tuple[str, str]]]:
        """By object, the (first, last) frames of each stretch where it is lost."""
        stretches: dict[int, list[list[int]]] = {}
        for label, values in self.by_object.items():
            for t, value in enumerate(values):
                if value < LOST:
                    found = stretches.setdefault(label, [])
                    if found and found[-1][1] == t - 1:
                        found[-1][1] = t
                    else:
                        found.append([t, t])
        named = self.names.__getitem__
        return {label: [(named(a), named(b)) for a, b in found] for label, found in stretches.items()}

    def worth_a_mask(self, most: int = 3) -> list[str]:
        """At most so many frames, where the confidence of an object is lowest against its own usual one."""
        if len(self.names) < 3:
            return []
        doubt = [self._least(t) for t in range(len(self.names))]
        apart = max(5, len(doubt) // 10)
        chosen: list[int] = []
        for t in sorted(range(len(doubt)), key=doubt.__getitem__):
            masks_near = any(self.given[max(0, t - 2) : t + 3])
            if doubt[t] < DOUBTFUL and not masks_near and all(abs(t - other) >= apart for other in chosen):
                chosen.append(t)
            if len(chosen) == most:
                break
        return [self.names[t] for t in sorted(chosen)]

    def _least(self, t: int) -> float:
        """The lowest confidence at frame t of an object that is there, over that object's upper quartile."""
        ratios = [1.0]
        for values in self.by_object.values():
            known = sorted(value for value in values if value >= LOST)
            if known and values[t] >= LOST:
                ratios.append(values[t] / known[3 * len(known) // 4])
        return min(ratios)

    def findings(self) -> list[str]:
        """Lines for the log."""
        lines = [
            f"object {label} is lost in {', '.join(a if a == b else f'{a} to {b}' for a, b in stretches)}"
            for label, stretches in sorted(self.lost().items())
        ]
        worth = self.worth_a_mask()
        return lines + ([f"frames worth a mask next: {', '.join(worth)}"] if worth else [])

"""Standard normal numbers that have an address: the same wherever and whenever they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 1024
"""Numbers that one key gives; to set a key costs as much as some hundred of them."""

Counter = tuple[int, int, int]
"""Three words of 64 bits, all but the lowest one of Philox's counter."""


class Normals:
    """Arrays of standard normals, each a pure function of seed, entry and counter.

    Entries are counted in blocks of 1,024, and entry e of a seed belongs to the key
    `(seed, e // 1024)` of Philox (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC
    2011). Whoever needs some entries only draws the blocks that they lie in. The bits are those of
    numpy's Philox and `standard_normal`, whatever the device and the number of threads.

    Args:
        seed: A number from 0 to 2^64 - 1 for all entries, or one for each run, whose entries are
            then counted from 0.
        runs: How many entries, graph by graph.
        first: The first entry of one seed.

    Raises:
        ValueError: For seeds out of range or of another number than runs.

    >>> whole, rest = Normals(7, [2000]), Normals(7, [500], first=1500)
    >>> bool((whole.draw((0, 0, 0))[1500:] == rest.draw((0, 0, 0))).all())
    True
    """

    def __init__(self, seed: int | Sequence[int], runs: Sequence[int], first: int = 0) -> None:
        check_seed(seed, len(runs))
        self._bits = np.random.Philox(key=0)
        self._normal = np.random.Generator(self._bits)
        self._state = self._bits.state
        self._numbers = np.empty(sum(runs))
        self._before = np.empty(BLOCK)
        self._blocks: list[tuple[tuple[int, int], int, slice]] = []
        if isinstance(seed, int):
            self._cut(seed, first, 0, sum(runs))
        else:
            for one, start, count in zip(seed, np.cumsum([0, *runs]).tolist(), runs, strict=False):
                self._cut(int(one), 0, start, count)

    def _cut(self, seed: int, entry: int, place: int, count: int) -> None:
        """Note the blocks of one seed: key, how many entries are skipped, where the others go."""
        end = place + count
        while place < end:
            block, skipped = divmod(entry, BLOCK)
            taken = min(BLOCK - skipped, end - place)
            self._blocks.append(((seed, block), skipped, slice(place, place + taken)))
            entry, place = entry + taken, place + taken

    def draw(self, counter: Counter) -> np.ndarray:
        """The numbers at a counter, in a buffer that the next draw overwrites."""
        out, state = self._numbers, self._state
        for key, skipped, places in self._blocks:
            state["state"]["key"][:] = key
            state["state"]["counter"][:] = (0, *counter)
            # The generator's buffer is empty: its numbers start with the counter.
            state["buffer_pos"] = 4
            self._bits.state = state
            if skipped:
                self._normal.standard_normal(out=self._before[:skipped])
            self._normal.standard_normal(out=out[places])
        return out


def check_seed(seed: int | Sequence[int], graphs: int) -> None:
    """Refuse seeds that are out of range, or of another number than graphs.

    Raises:
        ValueError: With what came.

    >>> check_seed([7, 8], 2)
    """
    one_each = [seed] if isinstance(seed, int) else seed
    if not isinstance(seed, int) and len(seed) != graphs:
        raise ValueError(f"{len(seed)} seeds for {graphs} graphs; give one each, or one for all")
    for one in one_each:
        if not 0 <= one < 2**64:
            raise ValueError(f"seed {one} is out of range; give a whole number from 0 to 2^64 - 1")

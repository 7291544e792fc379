"""Butcher tableaus of explicit Runge-Kutta methods."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Tableau:
    """The coefficients of an explicit Runge-Kutta method, as exact fractions.

    ``k_i = f(t + c_i h, x + h sum_{j<i} a_ij k_j)``, ``x(t + h) = x + h sum_i b_i k_i``.

    Attributes:
        name: how users ask for it.
        order: order of ``b``.
        c: nodes, ``[stages]``.
        a: rows of the strictly lower triangle; row ``i`` has ``i`` entries.
        b: weights.
        b_hat: weights of the embedded method, or None.
        embedded_order: order of ``b_hat``; 0 without one.
        mid: weights that give ``x(t + h/2)`` to order 4, or None.
        stability: the largest s with ``|R(z)| <= 1`` for all z in [-s, 0].
        source: where the coefficients were published.

    Example:
        >>> TABLEAUS["heun"].a
        ((), (Fraction(1, 1),))
    """

    name: str
    order: int
    c: tuple[Fraction, ...]
    a: tuple[tuple[Fraction, ...], ...]
    b: tuple[Fraction, ...]
    b_hat: tuple[Fraction, ...] | None
    embedded_order: int
    mid: tuple[Fraction, ...] | None
    stability: float
    source: str

    @property
    def fsal(self) -> bool:
        """Whether the last stage is the field at the new point.

        Example:
            >>> [name for name, tableau in TABLEAUS.items() if tableau.fsal]
            ['bosh3', 'dopri5', 'tsit5']
        """
        return len(self.c) > 1 and (*self.a[-1], Fraction(0)) == self.b

    @property
    def error_order(self) -> int:
        """Order of the local error estimate, torchdiffeq's ``order``; ``order`` without one.

        Example:
            >>> TABLEAUS["dopri5"].error_order
            5
        """
        return self.embedded_order + 1 if self.b_hat is not None else self.order

    @property
    def dense_order(self) -> int:
        """Order of the interpolant: the quartic through ``mid``, or the cubic of Hermite.

        Example:
            >>> TABLEAUS["tsit5"].dense_order, TABLEAUS["bosh3"].dense_order
            (4, 3)
        """
        return 3 if self.mid is None else 4

    @property
    def dense(self) -> bool:
        """Whether the interpolant keeps up with the method, at most one order below it.

        Example:
            >>> [name for name, tableau in TABLEAUS.items() if not tableau.dense]
            ['dopri8']
        """
        return self.dense_order >= self.order - 1


def _q(*numbers: str) -> tuple[Fraction, ...]:
    return tuple(Fraction(number) for number in numbers)


def _rows(*rows: str) -> tuple[tuple[Fraction, ...], ...]:
    return ((), *(_q(*row.split()) for row in rows))


_EULER = Tableau(
    name="euler",
    order=1,
    c=_q("0"),
    a=_rows(),
    b=_q("1"),
    b_hat=None,
    embedded_order=0,
    mid=None,
    stability=2.0,
    source="Euler, Institutiones calculi integralis (1768)",
)

_MIDPOINT = Tableau(
    name="midpoint",
    order=2,
    c=_q("0", "1/2"),
    a=_rows("1/2"),
    b=_q("0", "1"),
    b_hat=None,
    embedded_order=0,
    mid=None,
    stability=2.0,
    source="Runge, Math. Ann. 46 (1895)",
)

_HEUN = Tableau(
    name="heun",
    order=2,
    c=_q("0", "1"),
    a=_rows("1"),
    b=_q("1/2", "1/2"),
    b_hat=_q("1", "0"),
    embedded_order=1,
    mid=None,
    stability=2.0,
    source="explicit trapezoid: Heun, Z. Math. Phys. 45 (1900); Euler embedded",
)

_RK4 = Tableau(
    name="rk4",
    order=4,
    c=_q("0", "1/2", "1/2", "1"),
    a=_rows("1/2", "0 1/2", "0 0 1"),
    b=_q("1/6", "1/3", "1/3", "1/6"),
    b_hat=None,
    embedded_order=0,
    mid=None,
    stability=2.7852935634052816,
    source="Kutta, Z. Math. Phys. 46 (1901)",
)

_BOSH3 = Tableau(
    name="bosh3",
    order=3,
    c=_q("0", "1/2", "3/4", "1"),
    a=_rows("1/2", "0 3/4", "2/9 1/3 4/9"),
    b=_q("2/9", "1/3", "4/9", "0"),
    b_hat=_q("7/24", "1/4", "1/3", "1/8"),
    embedded_order=2,
    mid=None,
    stability=2.5127453266183286,
    source="Bogacki and Shampine, Appl. Math. Lett. 2 (1989)",
)

_DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    c=_q("0", "1/5", "3/10", "4/5", "8/9", "1", "1"),
    a=_rows(
        "1/5",
        "3/40 9/40",
        "44/45 -56/15 32/9",
        "19372/6561 -25360/2187 64448/6561 -212/729",
        "9017/3168 -355/33 46732/5247 49/176 -5103/18656",
        "35/384 0 500/1113 125/192 -2187/6784 11/84",
    ),
    b=_q("35/384", "0", "500/1113", "125/192", "-2187/6784", "11/84", "0"),
    # Two thirds of Dormand and Prince's own error estimate, so that counts match torchdiffeq's.
    b_hat=_q("1951/21600", "0", "22642/50085", "451/720", "-12231/42400", "649/6300", "1/60"),
    embedded_order=4,
    mid=_q(
        "6025192743/60171106304",
        "0",
        "51252292925/130801643196",
        "-2691868925/90256659456",
        "187940372067/3189068634112",
        "-1776094331/39487288512",
        "11237099/470086768",
    ),
    stability=3.3065678926349467,
    source="Dormand and Prince, J. Comput. Appl. Math. 6 (1980); b_hat and mid: Shampine, "
    "Math. Comp. 46 (1986)",
)

_TSIT5_A = (
    (),
    _q("0.161"),
    _q(
        "-0.0084806554923569885444268742502307746751",
        "0.3354806554923569885444268742502307746751",
    ),
    _q(
        "2.8971530571054934321304325941929387649249",
        "-6.3594484899750748431481599123838256259527",
        "4.3622954328695814110177273181908868610278",
    ),
    _q(
        "5.3258648284392566044288779208405113178365",
        "-11.7488835640628278777471703397857729618874",
        "7.4955393428898362083046047845643581556587",
        "-0.0924950663617552492565020793320719161135",
    ),
    _q(
        "5.8614554429464200286592514869826478903943",
        "-12.9209693178471092917061186817833593954178",
        "8.1593678985761586431804007945392534851819",
        "-0.0715849732814009972245305425258297386913",
        "-0.0282690503940683829090030572127122414672",
    ),
    _q(
        "0.0964607668180652295181673131651287633371",
        "0.01",
        "0.479889650414499574775249532290596519913",
        "1.3790085741037418931922748218568727707565",
        "-3.2900695154360806799010475857113638501157",
        "2.3247105240997739824153559183987657961091",
    ),
)

_TSIT5 = Tableau(
    name="tsit5",
    order=5,
    c=_q("0", "0.161", "0.327", "0.9", "0.9800255409045096857298102862870245954942", "1", "1"),
    a=_TSIT5_A,
    b=(*_TSIT5_A[-1], Fraction(0)),
    b_hat=_q(
        "0.0946807557658394580747887625575892285612",
        "0.0091835655403432530967763639366453137598",
        "0.4877705284247615707855642599631228241517",
        "1.2342975669304789856551096738842376540355",
        "-2.7077123499835254548811099750593216706896",
        "1.8666284181705870357537193995662114986663",
        "1/66",
    ),
    embedded_order=4,
    mid=_q(
        "0.1074123523009687674323655126748725972971",
        "0.01135625",
        "0.3956090305604530869553463331820605061033",
        "-0.3447521435259354732980687054642181926891",
        "1.3161853649581647362170750739067451250864",
        "-1.0170608542936511173067182142994600357977",
        "1/32",
    ),
    stability=3.5068469938049294,
    source="Tsitouras, Comput. Math. Appl. 62 (2011), to 40 decimals by his order conditions; "
    "mid: his interpolant at 1/2",
)

_DOPRI8_A = _rows(
    "1/18",
    "1/48 1/16",
    "1/32 0 3/32",
    "5/16 0 -75/64 75/64",
    "3/80 0 0 3/16 3/20",
    "29443841/614563906 0 0 77736538/692538347 -28693883/1125000000 23124283/1800000000",
    "16016141/946692911 0 0 61564180/158732637 22789713/633445777 545815736/2771057229 "
    "-180193667/1043307555",
    "39632708/573591083 0 0 -433636366/683701615 -421739975/2616292301 100302831/723423059 "
    "790204164/839813087 800635310/3783071287",
    "246121993/1340847787 0 0 -37695042795/15268766246 -309121744/1061227803 "
    "-12992083/490766935 6005943493/2108947869 393006217/1396673457 123872331/1001029789",
    "-1028468189/846180014 0 0 8478235783/508512852 1311729495/1432422823 "
    "-10304129995/1701304382 -48777925059/3047939560 15336726248/1032824649 "
    "-45442868181/3398467696 3065993473/597172653",
    "185892177/718116043 0 0 -3185094517/667107341 -477755414/1098053517 "
    "-703635378/230739211 5731566787/1027545527 5232866602/850066563 -4093664535/808688257 "
    "3962137247/1805957418 65686358/487910083",
    "403863854/491063109 0 0 -5068492393/434740067 -411421997/543043805 652783627/914296604 "
    "11173962825/925320556 -13158990841/6184727034 3936647629/1978049680 "
    "-160528059/685178525 248638103/1413531060 0",
)

_DOPRI8_B = _q(
    "14005451/335480064",
    "0",
    "0",
    "0",
    "0",
    "-59238493/1068277825",
    "181606767/758867731",
    "561292985/797845732",
    "-1041891430/1371343529",
    "760417239/1151165299",
    "118820643/751138087",
    "-528747749/2220607170",
    "1/4",
)

_DOPRI8 = Tableau(
    name="dopri8",
    order=8,
    c=_q(
        "0",
        "1/18",
        "1/12",
        "1/8",
        "5/16",
        "3/8",
        "59/400",
        "93/200",
        "5490023248/9719169821",
        "13/20",
        "1201146811/1299019798",
        "1",
        "1",
    ),
    a=_DOPRI8_A,
    b=_DOPRI8_B,
    b_hat=_q(
        "13451932/455176623",
        "0",
        "0",
        "0",
        "0",
        "-808719846/976000145",
        "1757004468/5645159321",
        "656045339/265891186",
        "-3867574721/1518517206",
        "465885868/322736535",
        "53011238/667516719",
        "2/45",
        "0",
    ),
    embedded_order=7,
    mid=None,
    stability=5.166633619968107,
    source="Prince and Dormand, J. Comput. Appl. Math. 7 (1981), RK8(7)13M",
)

TABLEAUS: dict[str, Tableau] = {
    tableau.name: tableau
    for tableau in (_EULER, _MIDPOINT, _HEUN, _RK4, _BOSH3, _DOPRI5, _TSIT5, _DOPRI8)
}
"""All tableaus by name."""

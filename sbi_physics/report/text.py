"""Numbers, units and symbols as HTML."""

from __future__ import annotations

import re
from math import floor, log10
from typing import Final

from markupsafe import Markup, escape

from sbi_physics.parameters import Parameter

_GREEK: Final = {
    **{
        name: letter
        for letters in (
            "alpha=α beta=β gamma=γ delta=δ epsilon=ε zeta=ζ eta=η theta=θ kappa=κ lambda=λ mu=μ",
            "nu=ν xi=ξ pi=π rho=ρ sigma=σ tau=τ phi=φ chi=χ psi=ψ omega=ω varepsilon=ε "
            "ell=\N{SCRIPT SMALL L}",
            "Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ Omega=Ω",
        )
        for name, _, letter in (pair.partition("=") for pair in letters.split())
    }
}


def symbol(parameter: Parameter) -> Markup:
    """Return a parameter's LaTeX label as HTML, or its name where that is beyond simple LaTeX."""
    if not parameter.label:
        return escape(parameter.name)
    text = re.sub(r"\\(?:mathrm|rm|text|mathit|mathbf|operatorname)\s*", "", parameter.label)
    text = re.sub(r"\\[,;:! ]", " ", text)
    text = re.sub(r"\\([A-Za-z]+)\s?", lambda m: _GREEK.get(m[1], m[0]), text)
    if "\\" in text:
        return escape(parameter.name)
    html = str(escape(text))
    for mark, tag in (("_", "sub"), ("^", "sup")):
        pattern = re.escape(mark) + r"(?:\{([^{}]*)\}|([^{}_^]))"
        html = re.sub(pattern, lambda m, t=tag: f"<{t}>{m[1] or m[2]}</{t}>", html)  # type: ignore[misc]
    if re.search(r"[{}_^$]", html):
        return escape(parameter.name)
    return Markup("<i>{}</i>").format(Markup(html))


def unit(text: str) -> Markup:
    """Return a unit as HTML.

    Examples:
        >>> unit("1e-11 GeV-1")
        Markup('10<sup>−11</sup> GeV<sup>−1</sup>')
    """
    html = str(escape(text))
    html = re.sub(r"\b1e([+-]?\d+)", lambda m: f"10<sup>{int(m[1])}</sup>", html)
    html = re.sub(r"(?<=[A-Za-z)])(?:\^|\*\*)?(-?\d+)", r"<sup>\1</sup>", html)
    html = re.sub(r"\bu(?=[A-Z])", "µ", html)
    return Markup(html.replace(">-", ">−"))


def number(value: float, error: float | None = None) -> Markup:
    """Return a number with the digits its error justifies (three significant ones without).

    Examples:
        >>> number(12.345, 0.21)
        Markup('12.35')
        >>> number(3.2e-9)
        Markup('3.20×10<sup>−9</sup>')
    """
    digits = 3
    if error is not None and error > 0 and value != 0:
        digits = max(2, floor(log10(abs(value))) - floor(log10(error)) + 2)
    digits = min(digits, 8)
    plain = f"{value:#.{digits}g}".rstrip(".")
    if "e" not in plain:
        return Markup(plain.replace("-", "−"))
    mantissa, _, power = plain.partition("e")
    return Markup(f"{mantissa.rstrip('.')}×10<sup>{int(power)}</sup>".replace("-", "−"))


def p_value(value: float) -> Markup:
    """Return a p-value: two digits, powers of ten below 0.001."""
    if value >= 0.9995:
        return Markup("1")
    if value >= 1e-3:
        return Markup(f"{value:.2g}")
    if value < 1e-300:
        return Markup("&lt;10<sup>−300</sup>")
    mantissa, _, power = f"{value:.1e}".partition("e")
    return Markup(f"{mantissa}×10<sup>−{-int(power)}</sup>")


def duration(seconds: float) -> str:
    """Return a time span in the units a person would use.

    Examples:
        >>> duration(75.4)
        '1 min 15 s'
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"

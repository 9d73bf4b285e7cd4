"""What must hold of a page in a browser."""

import dataclasses
import pathlib

# Smallest text that is read without effort, in CSS pixels; of drawings as they are scaled.
TEXT_MIN = 11
# WCAG 2.2 for text: the ratio of luminances between it and what lies behind it.
CONTRAST_MIN = 4.5

LAYERS = """() => {
    const heading = [...document.querySelectorAll('h2')].find(h => h.textContent === 'All layers');
    let table = heading;
    while (table.tagName !== 'TABLE') table = table.nextElementSibling;
    return [...table.querySelectorAll('tbody tr')].map(row => {
        const box = row.getBoundingClientRect();
        return {name: row.querySelector('th').textContent, height: box.height, width: box.width};
    });
}"""

OVERFLOWING = """() => {
    const width = document.documentElement.clientWidth;
    return [...document.querySelectorAll('body *')]
        .filter(of => !of.closest('svg') && of.getBoundingClientRect().right > width + 1)
        .map(of => of.outerHTML.slice(0, 120));
}"""

# Of each element with text of its own: its size, its colour, and the nearest ground behind it. What
# a drawing has is scaled as the drawing is.
TEXTS = """() => {
    const ground = of => {
        for (; of; of = of.parentElement) {
            const colour = getComputedStyle(of).backgroundColor;
            if (colour !== 'rgba(0, 0, 0, 0)') return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const own = of => [...of.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    return [...document.querySelectorAll('body *')]
        .filter(of => own(of) && getComputedStyle(of).display !== 'none')
        .map(of => {
            const style = getComputedStyle(of), svg = of.closest('svg');
            const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
            return {
                text: of.textContent.trim().slice(0, 60), size: parseFloat(style.fontSize) * scale,
                colour: svg ? style.fill : style.color, ground: ground(svg ?? of),
            };
        });
}"""


@dataclasses.dataclass
class ReportPage:
    file: pathlib.Path
    layers: list


def luminance(colour):
    values = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def check(view, page, width, scheme):
    assert page.file.stat().st_size < 1_000_000
    assert view.evaluate("document.compatMode") == "CSS1Compat"
    shown = view.evaluate(LAYERS)
    assert sorted(row["name"] for row in shown) == sorted(page.layers), "layers are missing"
    assert all(row["height"] > 8 and row["width"] > 100 for row in shown), "rows are not visible"
    assert view.evaluate("document.documentElement.scrollWidth") <= width, "wider than the window"
    overflowing = view.evaluate(OVERFLOWING)
    assert not overflowing, overflowing
    drawings = view.evaluate("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
    assert drawings and all(drawn > 200 for drawn in drawings), drawings
    texts = view.evaluate(TEXTS)
    assert len(texts) > 50, "texts are not seen"
    small = [text for text in texts if text["size"] < TEXT_MIN]
    assert not small, small[:5]
    pale = [text for text in texts if contrast(text["colour"], text["ground"]) < CONTRAST_MIN]
    assert not pale, pale[:5]
    ground = luminance(view.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (ground < 0.1) == (scheme == "dark"), f"the ground is not {scheme}"

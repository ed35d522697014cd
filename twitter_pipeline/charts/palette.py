"""Colours that can be told from white, from nearly black and from each other, whichever way a person sees colours.

Each has a contrast of 3:1 and more (WCAG 2) against both backgrounds, so that one picture serves both themes of the UI.
No library's palette does; these were searched for the largest distance between any two (OKLab), as seen with normal
sight and with protanopia, deuteranopia and tritanopia (Machado et al. 2009).
"""

INK = "#757a80"
"""Text, axes and limits."""

BLUE = "#164ef2"
AMBER = "#d27e23"
MAGENTA = "#be28b7"
GREEN = "#07a971"
RUST = "#a93e03"
LAVENDER = "#8f86e8"
STEEL = "#306289"

SERIES = (BLUE, AMBER, MAGENTA, GREEN, RUST, LAVENDER, STEEL)
"""What has a name, in this order."""

REST = "#777777"
"""What has none: the others together."""

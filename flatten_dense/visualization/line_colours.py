"""The colours of lines in plots."""

LINE_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
    "#882255",
    "#999933",
    "#6a3d9a",
)
"""The first six are Okabe and Ito's, told apart by all eyes; what comes after the tenth takes the first again."""

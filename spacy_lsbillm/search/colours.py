"""The meaning of colours in the plots of a search."""

from ..pages import BLUE, GREY, ORANGE

BIDIRECTIONAL, CAUSAL, CHOSEN = BLUE, GREY, ORANGE

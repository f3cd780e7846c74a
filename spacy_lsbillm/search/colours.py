"""What colours stand for in the pictures of a search."""

from ..pages import BLUE, GREY, ORANGE

BIDIRECTIONAL, CAUSAL, CHOSEN = BLUE, GREY, ORANGE

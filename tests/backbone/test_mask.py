import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_lsbillm.backbone import MaskPlan, check_notation
from spacy_lsbillm.errors import MaskError


@pytest.mark.parametrize(
    ("notation", "unmasked"),
    [
        ("all", range(8)),
        ("none", []),
        ("0011", [4, 5, 6, 7]),
        ("bits:0011", [4, 5, 6, 7]),
        ("1000", [0, 1]),
        ("01010101", [1, 3, 5, 7]),
        ("1", range(8)),
        ("from:6", [6, 7]),
        ("from:0", range(8)),
        ("layers:2-4,7", [2, 3, 4, 7]),
        ("layers:0", [0]),
    ],
)
def test_notation_for_eight_layers(notation, unmasked):
    plan = MaskPlan.parse(notation, 8)
    assert [i for i, flag in enumerate(plan.unmasked) if flag] == list(unmasked)
    assert plan.unmasks_any == bool(list(unmasked))


@pytest.mark.parametrize(
    ("notation", "named"),
    [
        ("al", "al"),
        ("", "''"),
        ("012", "012"),
        ("bits:", "bits:"),
        ("from:", "from:"),
        ("from:-1", "from:-1"),
        ("layers:", "layers:"),
        ("layers:3-", "layers:3-"),
        ("layers:5-3", "3-5"),
        (11, "bits:11"),
        (1100, "bits:1100"),
        (True, "True"),
        (None, "None"),
        ("000", "1, 2, 4, 8"),
        ("from:8", "0 to 7"),
        ("layers:4-8", "0 to 7"),
        ("from:" + "9" * 5000, "from:999"),
    ],
)
def test_unreadable_or_unfitting_notation_is_refused_with_the_remedy(notation, named):
    with pytest.raises(MaskError) as caught:
        MaskPlan.parse(notation, 8)
    assert named in str(caught.value)


def test_words_name_every_layer_from_the_input():
    assert MaskPlan.parse("0110", 8).words == (
        "layers 0-1 causal, layers 2-5 bidirectional, layers 6-7 causal (layer 0 is next to the input)"
    )
    assert MaskPlan.parse("layers:0", 2).words.startswith("layer 0 bidirectional, layer 1 causal")


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 4))
def test_bits_and_layers_say_the_same(bits, size):
    n_layers = len(bits) * size
    by_bits = MaskPlan.parse("bits:" + "".join("01"[bit] for bit in bits), n_layers)
    chosen = [str(i) for i in range(n_layers) if bits[i // size]]
    by_layers = MaskPlan.parse("layers:" + ",".join(chosen) if chosen else "none", n_layers)
    assert by_bits.unmasked == by_layers.unmasked
    assert check_notation(by_bits.notation) == by_bits.notation

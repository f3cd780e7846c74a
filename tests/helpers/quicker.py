"""Parts of libraries that take much of the tests' time, replaced by what gives the same and is faster."""

import sys


def quicken_registries() -> None:
    """Find entry points at once.

    Registries search the entry points of all installed packages for every name that they look up, which takes a
    twentieth of the suite's time. Grouped, which catalogue accepts as well, they are found at once.
    """
    try:
        import catalogue
    except ImportError:
        # The tests of the backbone run without spaCy.
        return
    entry_points = catalogue.AVAILABLE_ENTRY_POINTS
    catalogue.AVAILABLE_ENTRY_POINTS = {group: list(entry_points.select(group=group)) for group in entry_points.groups}

    def get_all(self: catalogue.Registry) -> dict:
        """The same as catalogue's method, in a seventh of the time.

        srsly calls it for each msgpack message that it reads, which is most of the time for reading a document from a
        DocBin.
        """
        found = self.get_entry_points() if self.entry_points else {}
        namespace = tuple(self.namespace)
        return found | {keys[-1]: value for keys, value in catalogue.REGISTRY.items() if keys[:-1] == namespace}

    catalogue.Registry.get_all = get_all


# The only words of the tests' texts that spaCy's tokenizers have a rule for.
RULES = ("don't", "Don't", "cannot", "Cannot")


def quicken_tokenizers() -> None:
    """Leave a few rules for single words to the tokenizers of pipelines that are made from now on.

    The 1,347 rules for English take ten times as long as the rest of a small pipeline when it is made, and again
    when it is loaded; the 176 for any language take twice as long.
    """
    if "spacy.language" not in sys.modules:
        return
    from spacy.lang.en import EnglishDefaults
    from spacy.language import BaseDefaults

    for defaults in (BaseDefaults, EnglishDefaults):
        rules = defaults.tokenizer_exceptions
        defaults.tokenizer_exceptions = {word: rules[word] for word in RULES if word in rules}

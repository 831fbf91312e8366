"""The file of all sentences against the source."""

from tests.sentences import differences, sentences


def test_the_file_has_every_sentence_and_no_other() -> None:
    """A sentence that is new, changed or gone is in sentences.txt, where it is reviewed."""
    found = "\n".join(differences())
    assert not found, f"run `python -m tests.sentences --write` and review the change:\n{found}"


def test_what_a_sentence_is() -> None:
    """Strings of several words count, docstrings and regular expressions do not."""
    source = '''
"""Docstring of the module."""
def speak(name, count):
    """Docstring of a function."""
    print("plain words", "word", "UPPER CASE", f"{name} {count}")
    print(f"{count:.1f} of {len(name)} are " "here", end="last\\nline here")
    return re.compile("a pattern")
'''
    assert sentences(source) == [
        "last\\nline here",
        "plain words",
        "{count} of {len(name)} are here",
    ]

"""How far a text is from what was said."""


def word_errors(reference: str, hypothesis: str) -> int:
    """Words to change, put in or leave out; neither case nor punctuation counts."""
    wanted, found = (
        "".join(c for c in text.lower() if c.isalnum() or c == " ").split()
        for text in (reference, hypothesis)
    )
    row = list(range(len(found) + 1))
    for count, word in enumerate(wanted, 1):
        before, row = row, [count]
        for column, other in enumerate(found, 1):
            best = min(before[column] + 1, row[-1] + 1, before[column - 1] + (word != other))
            row.append(best)
    return row[-1]

"""What happens to bytes on their way: some are changed, lost, doubled, or claim to be many."""

import random


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """The same with a few accidents, most of them near its begin, where the headers are."""
    data = bytearray(raw)
    for _ in range(chance.choice([1, 1, 2, 4])):
        start = chance.randrange(max(1, min(len(data), chance.choice([200, 1 << 20]))))
        end = min(len(data), start + chance.choice([1, 1, 8, 64]))
        match chance.randrange(7):
            case 0:
                data[start:end] = chance.randbytes(end - start)
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = chance.randbytes(chance.randint(1, 16))
            case 3:
                data[start:start] = data[start:end] * chance.choice([1, 8])
            case 4:
                data[start:end] = bytes(end - start)
            case 5:
                data[start:end] = data[start:end][::-1]
            case _:
                data[start : start + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)

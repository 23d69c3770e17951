"""Which nodes there are, what all of them are to have, and who may load now: in the database.

By its clock. Each says in one row that it is there, which is what every other rule goes by.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sidecar import errors
from sidecar.database.schema import NODES_CHANNEL
from sidecar.jobs.claims import LEASE_S
from sidecar.jobs.postgres.store import PostgresStore
from sidecar.jobs.strays import ALIVE_S
from sidecar.workers.desired import Desired, NodeStanding, Reached, wish_of_values, wish_values
from sidecar.workers.models import Wish

WATCH_S = 5.0
"""So often it is looked how far all nodes are, by whoever shows it."""
_NOTIFY = f"NOTIFY {NODES_CHANNEL}"


class PostgresNodes:
    """`jobs.steering.Nodes` in the database of ``store``."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._told = asyncio.Event()
        self.seen: tuple[Desired | None, Sequence[NodeStanding]] = (None, ())
        """The last wish and the nodes as they were last looked at (`watch`)."""
        store.hear(NODES_CHANNEL, self._told.set)

    async def want(self, wish: Wish, at_once: int) -> Desired:
        """Have all nodes have this; the last wish counts."""
        values = {"wanted": json.dumps(wish_values(wish)), "at_once": at_once}

        def put(cursor: Any) -> int:
            cursor.execute(
                """INSERT INTO vibevoice.desired AS old (generation, wanted, at_once)
                    VALUES (1, %(wanted)s, %(at_once)s)
                    ON CONFLICT (single) DO UPDATE SET generation = old.generation + 1,
                        wanted = excluded.wanted, at_once = excluded.at_once
                    RETURNING generation""",
                values,
            )
            (generation,) = cursor.fetchone()
            cursor.execute(_NOTIFY)
            return int(generation)

        return Desired(await self._store.ask(put), wish, at_once)

    async def desired(self) -> Desired | None:
        """The last wish; None where nobody said one."""
        self._told.clear()
        return await self._store.ask(_desired)

    async def all(self) -> Sequence[NodeStanding]:
        """The nodes that there are."""
        return await self._store.ask(_all)

    async def watch(self) -> None:
        """Look again and again, for who shows it."""
        while True:
            with suppress(errors.JournalUnreachable):
                self.seen = await self._store.ask(lambda cursor: (_desired(cursor), _all(cursor)))
            await asyncio.sleep(WATCH_S)

    async def here(self, node: NodeStanding) -> None:
        """Say that a node is there, and how far it is; a turn that it has is as it was."""

        def put(cursor: Any) -> None:
            cursor.execute(
                """DELETE FROM vibevoice.nodes WHERE NOT vibevoice.there(seen, %(alive_s)s)
                    AND NOT vibevoice.held(turn, turn_until, %(lease_s)s)""",
                {"alive_s": ALIVE_S, "lease_s": LEASE_S},
            )
            cursor.execute(
                """INSERT INTO vibevoice.nodes
                    (id, name, seen, generation, state, code, model, precision)
                    VALUES (%(id)s, %(name)s, clock_timestamp(), %(generation)s, %(state)s,
                        %(code)s, %(model)s, %(precision)s)
                    ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, name = excluded.name,
                        generation = excluded.generation, state = excluded.state,
                        code = excluded.code, model = excluded.model,
                        precision = excluded.precision""",
                _values(node),
            )

        await self._store.ask(put)

    async def take_turn(self, node_id: str, turn: str, generation: int) -> bool:
        """Have a turn, if the wish is the last and fewer have one than may."""
        values = {"id": node_id, "turn": turn, "state": Reached.LOADING, "lease_s": LEASE_S}

        def reach(cursor: Any) -> bool:
            cursor.execute("SELECT generation, at_once FROM vibevoice.desired FOR UPDATE")
            last, at_once = cursor.fetchone() or (0, 0)
            cursor.execute(
                """SELECT count(*) FROM vibevoice.nodes
                    WHERE id <> %(id)s AND vibevoice.held(turn, turn_until, %(lease_s)s)""",
                values,
            )
            (others,) = cursor.fetchone()
            if last != generation or others >= at_once:
                return False
            cursor.execute(
                """UPDATE vibevoice.nodes SET turn = %(turn)s, state = %(state)s,
                    turn_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
                    WHERE id = %(id)s""",
                values,
            )
            return bool(cursor.rowcount)

        return await self._store.ask(reach)

    async def go_on(self, turn: str) -> bool:
        """Say that a turn goes on; whether it does."""

        def beat(cursor: Any) -> bool:
            cursor.execute(
                """UPDATE vibevoice.nodes
                    SET turn_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
                    WHERE turn = %(turn)s AND vibevoice.held(turn, turn_until, %(lease_s)s)""",
                {"turn": turn, "lease_s": LEASE_S},
            )
            return bool(cursor.rowcount)

        return await self._store.ask(beat)

    async def end_turn(self, turn: str, node: NodeStanding) -> bool:
        """Say how a turn ended, and give it back; whether that counts."""

        def put(cursor: Any) -> bool:
            cursor.execute(
                """UPDATE vibevoice.nodes SET turn_until = NULL,
                    generation = %(generation)s, state = %(state)s, code = %(code)s,
                    model = %(model)s, precision = %(precision)s, turn = NULL
                    WHERE turn = %(turn)s AND vibevoice.held(turn, turn_until, %(lease_s)s)""",
                {**_values(node), "turn": turn, "lease_s": LEASE_S},
            )
            counts = bool(cursor.rowcount)
            cursor.execute(_NOTIFY)
            return counts

        return await self._store.ask(put)

    async def leave(self, node_id: str) -> None:
        """The node ends."""

        def drop(cursor: Any) -> None:
            cursor.execute("DELETE FROM vibevoice.nodes WHERE id = %s", (node_id,))
            cursor.execute(_NOTIFY)

        await self._store.ask(drop)

    async def news(self) -> None:
        """Wait until there may be another wish, or a turn."""
        await self._told.wait()


def _desired(cursor: Any) -> Desired | None:
    cursor.execute("SELECT generation, wanted, at_once FROM vibevoice.desired")
    row = cursor.fetchone()
    if row is None:
        return None
    return Desired(row[0], wish_of_values(json.loads(row[1])), row[2])


def _all(cursor: Any) -> list[NodeStanding]:
    cursor.execute(
        """SELECT id, name, generation, state, code, model, precision,
                extract(epoch FROM clock_timestamp() - seen)::float8
            FROM vibevoice.nodes WHERE vibevoice.there(seen, %s) ORDER BY name, id""",
        (ALIVE_S,),
    )
    return [
        NodeStanding(node, name, generation, Reached(state), code, model, precision, silent_s)
        for node, name, generation, state, code, model, precision, silent_s in cursor.fetchall()
    ]


def _values(node: NodeStanding) -> dict[str, Any]:
    values = dataclasses.asdict(node)
    return {**values, "state": node.state.value}

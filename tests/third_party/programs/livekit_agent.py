"""LiveKit's agent over the Realtime API: `livekit_agent.py PORT`.

It goes on with a conversation that went before, is asked by text, and calls a tool; then it is
asked what comes from standard input, once it has reconnected. It sends its history anew then, and
until that is confirmed it would place a new item before all others (1.8.9).
"""

import asyncio
import sys
from typing import Any

from common import tell
from livekit.agents import Agent, AgentSession, ChatContext, RunContext, function_tool
from livekit.plugins import openai

called: list[str] = []
sessions: list[Any] = []


class RealtimeModel(openai.realtime.RealtimeModel):
    """Model whose sessions can be watched."""

    def session(self, **options: Any) -> Any:
        sessions.append(super().session(**options))
        return sessions[-1]


RECONNECT_S = 60.0


def sent_again(session: Any) -> set[str]:
    """The confirmed items that it sends anew when it reconnects."""
    kept = session.chat_ctx.copy(
        exclude_instructions=True,
        exclude_empty_message=True,
        exclude_handoff=True,
        exclude_config_update=True,
    )
    return {one.id for one in kept.items}


@function_tool
async def weather(context: RunContext, city: str) -> str:
    """How it is outside."""
    called.append(city)
    return "rain"


async def main(port: str) -> None:
    before = ChatContext.empty()
    before.add_message(role="user", content="I am Eve.")
    before.add_message(role="assistant", content="Hello, Eve.")
    model = RealtimeModel(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-none")
    errors: list[str] = []
    async with AgentSession(llm=model) as session:
        session.on("error", lambda event: errors.append(str(event.error)))
        await session.start(Agent(instructions="Be brief.", chat_ctx=before, tools=[weather]))
        reconnected = asyncio.Event()
        sessions[0].on("session_reconnected", lambda event: reconnected.set())
        question = "It asks"
        while question:
            await session.run(user_input=question)
            items = session.history.items
            spoken = [one for one in items if one.type == "message" and one.role == "assistant"]
            said = [one.text_content for one in spoken]
            history = sent_again(sessions[0])
            tell({"said": said, "called": called, "errors": errors})
            question = (await asyncio.to_thread(sys.stdin.readline)).strip()
            if question:
                async with asyncio.timeout(RECONNECT_S):
                    await reconnected.wait()
                    while not history <= sent_again(sessions[0]):  # noqa: ASYNC110 - no event says it
                        await asyncio.sleep(0.01)


asyncio.run(main(*sys.argv[1:]))

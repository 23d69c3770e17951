"""LiveKit's agent over the Realtime API: `livekit_agent.py PORT`.

It goes on with a conversation that went before, is asked by text, and calls a tool; then it is
asked what comes from standard input.
"""

from __future__ import annotations

import asyncio
import sys

from common import tell
from livekit.agents import Agent, AgentSession, ChatContext, RunContext, function_tool
from livekit.plugins import openai

called: list[str] = []


@function_tool
async def weather(context: RunContext, city: str) -> str:
    """How it is outside."""
    called.append(city)
    return "rain"


async def main(port: str) -> None:
    before = ChatContext.empty()
    before.add_message(role="user", content="I am Eve.")
    before.add_message(role="assistant", content="Hello, Eve.")
    model = openai.realtime.RealtimeModel(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-none")
    errors: list[str] = []
    async with AgentSession(llm=model) as session:
        session.on("error", lambda event: errors.append(str(event.error)))
        await session.start(Agent(instructions="Be brief.", chat_ctx=before, tools=[weather]))
        question = "It asks"
        while question:
            await session.run(user_input=question)
            items = session.history.items
            spoken = [one for one in items if one.type == "message" and one.role == "assistant"]
            said = [one.text_content for one in spoken]
            tell({"said": said, "called": called, "errors": errors})
            question = (await asyncio.to_thread(sys.stdin.readline)).strip()


asyncio.run(main(*sys.argv[1:]))

"""OpenAI's agents for Python: `openai_agents.py PORT`, a question that a tool answers."""

import asyncio
import sys

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner
from common import tell

called: list[str] = []


@function_tool
def weather(city: str) -> str:
    """How it is outside."""
    called.append(city)
    return "rain"


async def main(port: str) -> None:
    agent = RealtimeAgent(name="Ada", instructions="Be brief.", tools=[weather])
    url = f"ws://127.0.0.1:{port}/v1/realtime?model=gpt-realtime"
    found = {"errors": [], "audio": 0, "said": ""}
    session = await RealtimeRunner(agent).run(model_config={"url": url, "api_key": "sk-none"})
    async with session:
        await session.send_message("It asks")
        async for event in session:
            match event.type:
                case "error":
                    found["errors"].append(str(event.error))
                case "audio":
                    found["audio"] += len(event.audio.data)
                case "history_updated":
                    parts = [p for one in event.history for p in getattr(one, "content", [])]
                    said = [getattr(part, "transcript", None) for part in parts]
                    found["said"] = next((one for one in reversed(said) if one), "")
                case "agent_end" if found["audio"]:
                    break
    tell({**found, "called": called})


asyncio.run(main(*sys.argv[1:]))

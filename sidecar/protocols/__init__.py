"""Protocols of other servers: OpenAI, Realtime, vvv, yap, gRPC `stt`, speech-to-speech, Wyoming."""

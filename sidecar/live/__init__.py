"""Live speech recognition: the runtime inside an engine, and sessions of clients.

A client's `sessions.session.Session` has a `workers.worker_live_session.WorkerLiveSession` in the
worker process, whose state in the engine is a `runtime.stream_recognizer.StreamRecognizer`.
"""

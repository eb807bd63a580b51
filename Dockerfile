# syntax=docker/dockerfile:1
# Two stages: the first makes a wheel and an environment with it, the second holds only that environment.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY . .
# Only wheels are installed: no compiler is needed here, and none can slip in.
RUN python -m pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/counterfoil \
 && /opt/counterfoil/bin/pip install --only-binary=:all: "$(echo /wheels/*.whl)[notify]"

FROM python:3.13-slim
LABEL org.opencontainers.image.title="counterfoil" \
      org.opencontainers.image.description="Turns a shop's Kafka events into PostgreSQL counts that cannot drift" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin counterfoil
COPY --from=build /opt/counterfoil /opt/counterfoil
ENV PATH=/opt/counterfoil/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    COUNTERFOIL_HTTP_HOST=0.0.0.0 \
    COUNTERFOIL_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8080
# The worker writes what it has taken before it ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('COUNTERFOIL_HTTP_PORT', '8080') + '/livez', timeout=2)"]
ENTRYPOINT ["counterfoil"]
CMD ["run"]

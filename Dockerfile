# A worker that can run every flow of this project, and the `tidegate` and `prefect` commands:
#   docker build -t tidegate .
#   docker run -e PREFECT_API_URL=http://server:4200/api -e TIDEGATE_WAREHOUSE_URL=... tidegate
#   docker run -e PREFECT_API_URL=http://server:4200/api tidegate tidegate deploy
# Deployments made from inside the image point at /app, where its workers find the flows.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /app
COPY requirements-image.lock ./
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY tasks/ tasks/
COPY flows/ flows/
COPY deployments/ deployments/
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --create-home tidegate
WORKDIR /app
COPY --from=build /app /app
COPY prefect.yaml ./
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_HOME=/home/tidegate/.tidegate \
    DO_NOT_TRACK=1
USER 10001
# The worker answers 503 here once it has stopped polling for work.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health', timeout=5)"]
CMD ["prefect", "worker", "start", "--pool", "tidegate", "--with-healthcheck"]

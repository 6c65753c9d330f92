# The servers beside Loupe, each with the versions of requirements.lock that the tests ran with: Prefect's own image
# has the FastAPI and SQLAlchemy of its day, MLflow's lacks the driver of PostgreSQL (docs/adr/0002-pins.md, 0047).
# docker build -f infra/docker/platform.Dockerfile --target mlflow -t loupe-mlflow:1.0.0 .    (or: prefect, evidently)
FROM python:3.11.14-slim-bookworm AS empty
RUN python -m venv /opt/loupe
ENV PATH=/opt/loupe/bin:$PATH
WORKDIR /src
COPY requirements.lock pyproject.toml ./

FROM empty AS build-mlflow
RUN pip install --no-cache-dir -c requirements.lock mlflow "psycopg[binary]" boto3

FROM empty AS build-prefect
RUN pip install --no-cache-dir -c requirements.lock prefect prometheus-client

FROM empty AS build-evidently
RUN pip install --no-cache-dir -c requirements.lock evidently

FROM python:3.11.14-slim-bookworm AS ready
RUN groupadd --gid 10001 loupe \
    && useradd --uid 10001 --gid loupe --no-create-home --home-dir /var/lib/loupe --shell /usr/sbin/nologin loupe \
    && install -d -o loupe -g loupe /var/lib/loupe
COPY infra/docker/with-secrets.sh /usr/local/bin/with-secrets
ENV PATH=/opt/loupe/bin:$PATH HOME=/var/lib/loupe DO_NOT_TRACK=true PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/loupe
ENTRYPOINT ["with-secrets"]

FROM ready AS mlflow
COPY --from=build-mlflow /opt/loupe /opt/loupe
ENV MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
EXPOSE 5001
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5001/health', timeout=2)"]
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5001", "--workers", "1"]

FROM ready AS prefect
COPY --from=build-prefect /opt/loupe /opt/loupe
ENV PREFECT_HOME=/var/lib/loupe/prefect PREFECT_SERVER_ANALYTICS_ENABLED=false PREFECT_SERVER_METRICS_ENABLED=true \
    PREFECT_SERVER_UI_V2_ENABLED=false \
    PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem
EXPOSE 4200
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:4200/api/health', timeout=2)"]
CMD ["prefect", "server", "start", "--host", "0.0.0.0", "--port", "4200"]

FROM ready AS evidently
COPY --from=build-evidently /opt/loupe /opt/loupe
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8001/', timeout=2)"]
CMD ["evidently", "ui", "--workspace", "/project/monitoring/workspace", "--host", "0.0.0.0", "--port", "8001"]

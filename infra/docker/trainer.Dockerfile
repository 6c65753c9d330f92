# Everything that trains, monitors and retrains: a worker of Prefect's pools, and the jobs of the Kubernetes pool.
# docker build -f infra/docker/trainer.Dockerfile --target cpu -t loupe-trainer:1.0.0-cpu .
# docker build -f infra/docker/trainer.Dockerfile --target cuda -t loupe-trainer:1.0.0-cuda .
FROM python:3.11.14-slim-bookworm AS empty
RUN python -m venv /opt/loupe
ENV PATH=/opt/loupe/bin:$PATH
WORKDIR /src
COPY requirements.lock pyproject.toml infra/docker/wanted.py ./
RUN python wanted.py pyproject.toml train tables samples monitor s3 dask openvino ui video kubernetes postgres > wanted.txt

# The wheels of torch's own index hold no CUDA: 200 MB in place of 3 GB.
FROM empty AS torch-cpu
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu \
    torch==2.14.1 torchvision==0.29.1

# Those of PyPI bring CUDA's libraries along, so no image of NVIDIA's is needed; the driver is the host's.
FROM empty AS torch-cuda
RUN pip install --no-cache-dir -c requirements.lock torch==2.14.1 torchvision==0.29.1

FROM torch-cpu AS build-cpu
RUN pip install --no-cache-dir -c requirements.lock -r wanted.txt setuptools
COPY README.md LICENSE ./
COPY components components
COPY flows flows
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM torch-cuda AS build-cuda
RUN pip install --no-cache-dir -c requirements.lock -r wanted.txt setuptools
COPY README.md LICENSE ./
COPY components components
COPY flows flows
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11.14-slim-bookworm AS ready
# DVC asks git; a project need not be a repository.
RUN apt-get update \
    && apt-get install --no-install-recommends -y git=1:2.39.* \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 loupe \
    && useradd --uid 10001 --gid loupe --no-create-home --home-dir /var/lib/loupe --shell /usr/sbin/nologin loupe \
    && install -d -o loupe -g loupe /var/lib/loupe /project
COPY infra/docker/with-secrets.sh /usr/local/bin/with-secrets
COPY prefect.yaml /opt/loupe-prefect.yaml
# What a checkout calls flows.train is loupe.flows.train where Loupe is installed (docs/adr/0045-wheel.md).
RUN sed -i 's/entrypoint: flows[.]/entrypoint: loupe.flows./' /opt/loupe-prefect.yaml
ENV PATH=/opt/loupe/bin:$PATH HOME=/var/lib/loupe LOUPE_CACHE=/var/lib/loupe/cache LOUPE_PROJECT=/project \
    PREFECT_HOME=/var/lib/loupe/prefect MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /project
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health', timeout=3)"]
ENTRYPOINT ["with-secrets"]
CMD ["prefect", "worker", "start", "--pool", "loupe", "--install-policy", "never", "--with-healthcheck"]

FROM ready AS cpu
COPY --from=build-cpu /opt/loupe /opt/loupe

FROM ready AS cuda
COPY --from=build-cuda /opt/loupe /opt/loupe
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

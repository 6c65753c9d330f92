# The scoring service: no torch, no compiler, no shell history; another user than root, a root that may be read-only.
# docker build -f infra/docker/scorer.Dockerfile -t loupe-scorer:1.0.0 .
FROM python:3.11.14-slim-bookworm AS build
RUN python -m venv /opt/loupe
ENV PATH=/opt/loupe/bin:$PATH
WORKDIR /src
COPY requirements.lock infra/docker/scorer.txt ./
RUN pip install --no-cache-dir -c requirements.lock -r scorer.txt setuptools
COPY pyproject.toml README.md LICENSE ./
COPY components components
COPY flows flows
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && pip uninstall -y setuptools pip \
    && python -c "import importlib.util as u; assert u.find_spec('torch') is None"

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 loupe \
    && useradd --uid 10001 --gid loupe --no-create-home --home-dir /var/lib/loupe --shell /usr/sbin/nologin loupe \
    && install -d -o loupe -g loupe /var/lib/loupe
COPY --from=build /opt/loupe /opt/loupe
COPY infra/docker/with-secrets.sh /usr/local/bin/with-secrets
ENV PATH=/opt/loupe/bin:$PATH HOME=/var/lib/loupe LOUPE_CACHE=/var/lib/loupe/cache \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/loupe
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["with-secrets", "loupe"]
CMD ["serve", "bundle", "--host", "0.0.0.0"]

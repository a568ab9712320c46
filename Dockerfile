# Two images from one file: `api` has no torch (slim), `worker` has it. Build: docker compose build
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1 GOMP_SPINCOUNT=1000
WORKDIR /app
RUN groupadd --gid 10001 trainkit && useradd --create-home --uid 10001 --gid 10001 trainkit && \
    mkdir -p /data/storage /data/scratch && chown -R trainkit:trainkit /data && \
    chmod 0700 /data/storage /data/scratch

FROM node:24-slim AS dashboard
WORKDIR /web
COPY service/web/package.json service/web/package-lock.json service/web/.npmrc ./
RUN npm ci --ignore-scripts
COPY service/web ./
# where the sources find them: as far above service/web as here above /web
COPY examples/specs /examples/specs
RUN npm run build

FROM base AS api
COPY requirements-api.lock ./
RUN pip install --require-hashes -r requirements-api.lock && pip install "setuptools>=77"
COPY pyproject.toml README.md ./
COPY trainkit trainkit
COPY service service
COPY client client
COPY migrations migrations
COPY --from=dashboard /web/dist service/web/dist
# compiled now: the image is read-only when it runs
RUN pip install --no-deps --no-build-isolation --editable client --editable . && python -m compileall -q /app
# the documentation as text, for agents
RUN --mount=type=bind,source=docs,target=docs --mount=type=bind,source=mkdocs.yml,target=mkdocs.yml \
    --mount=type=bind,source=worker,target=worker python -m docs.llms service/api_docs/llms
# by number, so that a platform can see that it is not root
USER 10001
EXPOSE 8321
CMD ["trainkit", "api", "--host", "0.0.0.0", "--port", "8321"]

FROM base AS worker
COPY requirements-worker.lock ./
RUN pip install --require-hashes -r requirements-worker.lock
COPY pyproject.toml README.md ./
COPY trainkit trainkit
COPY service service
COPY worker worker
COPY client client
COPY migrations migrations
# compiled now: the image is read-only when it runs
RUN pip install --no-deps --no-build-isolation --editable client --editable . && python -m compileall -q /app
# by number, so that a platform can see that it is not root
USER 10001
CMD ["trainkit", "worker", "--queues", "train"]

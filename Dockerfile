# syntax=docker/dockerfile:1
FROM python:3.12.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/calltally/.venv
WORKDIR /opt/calltally
ENV PATH=/opt/calltally/.venv/bin:$PATH

# What changes seldom comes first: with the same pins this layer is kept.
COPY requirements.txt ./
RUN pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY calls ./calls
COPY ingest ./ingest
COPY streams ./streams
COPY analytics ./analytics
COPY dashboard ./dashboard
COPY cli ./cli
RUN pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

COPY tools/dev_only.py /tmp/
RUN python /tmp/dev_only.py > /tmp/dev_only.txt \
    && pip uninstall --quiet --yes --disable-pip-version-check -r /tmp/dev_only.txt \
    && find .venv -name tests -path '*/site-packages/*' -type d -prune -exec rm -rf {} + \
    && python -m compileall -q -j 0 .venv calls ingest streams analytics dashboard cli


FROM python:3.12.12-slim-bookworm
RUN groupadd --gid 10001 calltally \
    && useradd --uid 10001 --gid calltally --home-dir /tmp --no-create-home --shell /usr/sbin/nologin calltally \
    # A named volume takes over owner and mode of the folder that it is mounted on first.
    && install --directory --owner calltally --group calltally --mode 0700 /data \
    && install --directory /settings
COPY --from=build /opt/calltally /opt/calltally
ENV PATH=/opt/calltally/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CALLTALLY_DATA_DIR=/data
USER 10001:10001
# calltally.toml, if there is one, is read from here.
WORKDIR /settings
VOLUME /data
EXPOSE 8000 8001 8501
# Of ingest, which a container without another command runs; docker-compose.yml has one for each service.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["calltally", "health", "ingest"]
ENTRYPOINT ["calltally"]
CMD ["ingest"]

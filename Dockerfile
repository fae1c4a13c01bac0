# The job's image: a CUDA 12.8 base, the distribution's Python, the packages of uv.lock, the code.
#
#   make image                       the image for this machine
#   make push-image IMAGE=…          the same, pushed
#   make test-image                  the same, tried as it will run: non-root, read-only, offline
#
# Layers from the one that changes least to the one that changes with every commit; a change of the
# code sends kilobytes (docs/image.md). Of CUDA the base brings what must fit the driver (the
# compatibility libraries, the check of the driver's version at start); cuBLAS, cuDNN and the like
# come with torch.
ARG BASE_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04@sha256:133c78a0575303be34164d0b90137a042172bdf60696af01a3c424ab402d86e2

FROM ${BASE_IMAGE} AS base
# gcc and the headers stay: Triton compiles a small C launcher for each kernel while training. Not
# its link-time optimiser and sanitizers, nor the static libpython, nor pages that nobody reads here.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates gcc libc6-dev python3 python3-dev tini \
    && rm -rf /var/lib/apt/lists/* \
    && rm -f /usr/bin/*lto-dump* /usr/bin/*-ld.gold /usr/bin/*-dwp \
        /usr/lib/gcc/*/*/lto1 /usr/libexec/gcc/*/*/lto1 \
        /usr/lib/gcc/*/*/lib*san.a /usr/lib/x86_64-linux-gnu/lib*san.so.* \
    && find /usr/lib -name 'libpython3*.a' -delete \
    && find /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale -type f ! -name copyright -delete

# uv in an environment of its own: the system's Python refuses packages (PEP 668), and uv shall not
# be in the image.
FROM base AS uv
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/uv.txt /opt/uv.txt
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --require-hashes --requirement /opt/uv.txt

FROM base AS release
# Installed here and not copied from a stage: a copy would write the 7 GB a second time. Compiled,
# because a read-only container cannot keep bytecode, and importing Unsloth takes half as long with it.
WORKDIR /build
# Extras of pyproject.toml for JOB_REPORT_TO, e.g. "wandb mlflow"; none by default.
ARG EXTRAS=
RUN --mount=type=bind,from=uv,source=/opt/uv,target=/mnt \
    --mount=type=bind,source=pyproject.toml,target=/build/pyproject.toml \
    --mount=type=bind,source=uv.lock,target=/build/uv.lock \
    --mount=type=bind,source=deploy/trim.sh,target=/build/trim.sh \
    --mount=type=bind,source=deploy/device_code.py,target=/build/device_code.py \
    for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done \
    && UV_PROJECT_ENVIRONMENT=/opt/venv UV_PYTHON=/usr/bin/python3 UV_PYTHON_DOWNLOADS=never \
    UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 \
    /mnt/bin/uv sync --frozen --no-dev --no-install-project "$@" \
    && rm /opt/venv/.lock \
    && sh trim.sh /opt/venv/lib/python3*/site-packages

# What is in it: Python packages with their licences, the distribution's packages by version.
RUN --mount=type=bind,from=uv,source=/opt/uv,target=/mnt \
    --mount=type=bind,source=pyproject.toml,target=/build/pyproject.toml \
    --mount=type=bind,source=uv.lock,target=/build/uv.lock \
    --mount=type=bind,source=deploy/sbom.py,target=/build/sbom.py \
    for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done \
    && UV_NO_CACHE=1 UV_PYTHON=/usr/bin/python3 UV_PYTHON_DOWNLOADS=never \
    /mnt/bin/uv export --quiet --frozen --no-dev --no-emit-project --format cyclonedx1.5 "$@" \
        --output-file /tmp/locked.json \
    && python3 sbom.py /tmp/locked.json /opt/venv/lib/python3*/site-packages uv.lock /usr/share/finetune-job \
        --distribution \
    && rm /tmp/locked.json

# A number, so that Kubernetes can see that it is not root; above 1000, which Ubuntu 24.04 has taken.
# A named volume mounted over /work, /work/cache or /output takes its owner from here.
RUN groupadd --gid 10001 job \
    && useradd --uid 10001 --gid job --no-create-home --home-dir /tmp --shell /usr/sbin/nologin job \
    && install --directory --owner=job --group=job /work /work/cache /output

# RUNPOD_LOG_LEVEL: the SDK's default, DEBUG, logs inputs and addresses.
# HF_HOME: on disk and not in a /tmp that may be memory. Triton, Inductor and Unsloth get their
# caches below the work dir from the job itself, so a noexec /tmp does no harm.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    USER=job \
    HOME=/tmp \
    HF_HOME=/work/cache/huggingface \
    RUNPOD_LOG_LEVEL=INFO \
    UNSLOTH_COMPILE_LOCATION=/tmp/unsloth_compiled_cache

WORKDIR /app
# 0755 for all, whatever the umask of the checkout: the job's user must be able to read them.
COPY --chmod=0755 LICENSE NOTICE entrypoint.py handler.py ./
COPY --chmod=0755 job/ job/

ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
# The receipt of each run names this (job/build.py).
RUN --mount=type=bind,source=uv.lock,target=/build/uv.lock \
    lock="$(sha256sum /build/uv.lock)" \
    && printf '{"version": "%s", "revision": "%s", "lock_sha256": "%.64s"}\n' \
        "${VERSION}" "${REVISION}" "${lock}" > /usr/share/finetune-job/build.json
LABEL org.opencontainers.image.title="finetune-job" \
      org.opencontainers.image.description="One container, one fine-tune, one receipt" \
      org.opencontainers.image.licenses="Apache-2.0 AND LGPL-3.0-or-later AND AGPL-3.0-or-later AND LicenseRef-NVIDIA-EULA" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      finetune-job.licences="/usr/share/finetune-job/licences.txt" \
      finetune-job.sbom="/usr/share/finetune-job/sbom.cdx.json" \
      finetune-job.cuda="12.8" \
      finetune-job.driver.minimum="525" \
      finetune-job.compute-capability.minimum="7.5"

USER 10001:10001
# tini passes SIGTERM to the supervisor alone (no `-g`), which passes it on to the trainer.
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/venv/bin/python", "/app/entrypoint.py"]
# Without a command: `serve` where RunPod hands out serverless jobs, `run` everywhere else.
CMD []

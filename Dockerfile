# Three images from one file; docs/containers.md tells them apart.
#   docker build -t infold:cpu .                        serves on CPUs; the last stage, so what is built by default
#   docker build -t infold:cuda --target cuda .         serves on NVIDIA GPUs
#   docker build -t infold:convert --target convert .   converts what a training framework left on disk
# Everything that comes from a package index is pinned by its hash (deploy/locks). What builds stays
# behind: no image has a compiler, pip or a cache, and each works on a read-only root file system.
ARG PYTHON=3.11

# What builds: pip (in the base), hatchling for our wheel, the writer of the bill of materials, strip.
FROM python:${PYTHON}-slim AS tools
WORKDIR /src
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY deploy/locks/image.txt deploy/locks/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r deploy/locks/image.txt \
 && python -m venv --without-pip /opt/infold

FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# Dependencies, a stage an image. They are built anew only where a lock changes.
FROM tools AS cpu-dependencies
COPY deploy/image/lighten /image/
COPY deploy/locks/serve.txt deploy/locks/
RUN /opt/build/bin/pip --python /opt/infold/bin/python install --no-cache-dir --no-compile \
      --require-hashes -r deploy/locks/serve.txt \
 && /image/lighten /opt/infold

FROM tools AS cuda-dependencies
COPY deploy/image/lighten /image/
COPY deploy/locks/gpu.txt deploy/locks/
RUN /opt/build/bin/pip --python /opt/infold/bin/python install --no-cache-dir --no-compile \
      --require-hashes -r deploy/locks/gpu.txt \
 && /image/lighten /opt/infold

# A folder of wheels for those that the index lacks, as `--build-context wheels=FOLDER`; by default empty.
FROM scratch AS wheels

# torch is locked to its build for CPUs, which the usual index does not have: either give the address of
# the index that does, as its makers tell it (--build-arg EXTRA_INDEX=...), or a folder with the wheel.
FROM cpu-dependencies AS convert-dependencies
ARG FRAMEWORK=torch
ARG EXTRA_INDEX=
COPY deploy/locks/convert-${FRAMEWORK}.txt deploy/locks/
RUN --mount=from=wheels,target=/wheels /opt/build/bin/pip --python /opt/infold/bin/python install --no-cache-dir \
      --no-compile --find-links /wheels ${EXTRA_INDEX:+--extra-index-url "$EXTRA_INDEX"} \
      --require-hashes -r deploy/locks/convert-${FRAMEWORK}.txt \
 && /image/lighten /opt/infold

FROM cpu-dependencies AS cpu-environment
COPY deploy/image/finish /image/
RUN --mount=from=wheel,source=/wheels,target=/wheels /image/finish /opt/infold /wheels /sbom.cdx.json

FROM cuda-dependencies AS cuda-environment
COPY deploy/image/finish /image/
RUN --mount=from=wheel,source=/wheels,target=/wheels /image/finish /opt/infold /wheels /sbom.cdx.json

FROM convert-dependencies AS convert-environment
COPY deploy/image/finish /image/
RUN --mount=from=wheel,source=/wheels,target=/wheels /image/finish /opt/infold /wheels /sbom.cdx.json

# What all three share. The base brings pip, and its own copy of it to install it again; nobody here does.
FROM python:${PYTHON}-slim AS foundation
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip setuptools wheel \
 && python -c 'import ensurepip, pathlib, shutil; shutil.rmtree(pathlib.Path(ensurepip.__file__).parent)' \
 && rm -rf /usr/share/python-wheels /usr/local/bin/pip* \
 && groupadd --system --gid 10001 infold \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin infold \
 && install -d -o 10001 -g 10001 -m 0700 /cache \
 && install -d -o 10001 -g 10001 /models
# Each setting of docs/configuration.md is a variable; these differ from their defaults.
ENV PATH=/opt/infold/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    INFOLD_HOST=0.0.0.0 \
    INFOLD_PORT=8080 \
    INFOLD_REPOSITORY=/models \
    INFOLD_CACHE_DIR=/cache
VOLUME /cache
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --start-interval=1s --retries=3 CMD ["infold", "health"]
ENTRYPOINT ["infold"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="infold" \
      org.opencontainers.image.description="Fold a trained network's batch normalization, prove it, serve it." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM foundation AS cuda
COPY --from=cuda-environment /opt/infold /opt/infold
COPY --from=cuda-environment /sbom.cdx.json /usr/share/doc/infold/sbom.cdx.json
# The two NVIDIA variables tell its container runtime to bring the driver in.
ENV INFOLD_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM foundation AS convert
COPY --from=convert-environment /opt/infold /opt/infold
COPY --from=convert-environment /sbom.cdx.json /usr/share/doc/infold/sbom.cdx.json
HEALTHCHECK NONE
CMD ["convert", "--help"]

FROM foundation AS cpu
COPY --from=cpu-environment /opt/infold /opt/infold
COPY --from=cpu-environment /sbom.cdx.json /usr/share/doc/infold/sbom.cdx.json

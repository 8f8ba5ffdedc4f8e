# Two stages: one that builds, one that serves. The second holds no compiler, no pip cache and no
# build tool; it runs as a user without rights, and its root file system may be read-only.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY deploy/locks/serve.txt deploy/locks/build.txt deploy/locks/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r deploy/locks/build.txt \
 && python -m venv --without-pip /opt/infold \
 && /opt/build/bin/pip --python /opt/infold/bin/python install --no-cache-dir --no-compile \
      --require-hashes -r deploy/locks/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
 && /opt/build/bin/pip --python /opt/infold/bin/python install --no-cache-dir --no-deps /tmp/wheels/*.whl \
 && find /opt/infold -type d \( -name tests -o -path '*/onnx/backend/test' -o -path '*/onnxruntime/transformers' \) -prune -exec rm -rf {} + \
 && find /opt/infold \( -name '*.cpp' -o -name simdjson.h -o -path '*/swagger_ui_bundle/*.map' \) -delete \
 && /opt/infold/bin/python -m compileall -q /opt/infold/lib

FROM python:${PYTHON}-slim AS serve
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin infold
COPY --from=build /opt/infold /opt/infold
COPY models /models
ENV PATH=/opt/infold/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    INFOLD_HOST=0.0.0.0 \
    INFOLD_PORT=8080 \
    INFOLD_REPOSITORY=/models \
    INFOLD_CACHE_DIR=/cache
RUN install -d -o 10001 -m 0700 /cache
VOLUME /cache
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["infold", "health"]
ENTRYPOINT ["infold"]
CMD ["serve"]

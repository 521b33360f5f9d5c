# Two images: `pipeline` (Dagster, its code location, MLflow) and `serving` (the HTTP service alone).
# Both on this one, which has Python: a Debian of your own, say, with the certificates of your proxy.
ARG BASE=python:3.12.12-slim-trixie
FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CXR_DATA_ROOT=/data
# A volume that is new takes owner and mode of the directory that it is mounted on. Nobody becomes
# another user: su, mount and the like lose the bits that would let them.
RUN useradd --uid 1000 --create-home --no-log-init cxr \
    && install --directory --owner cxr --group cxr /data \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

FROM base AS build
WORKDIR /build
# pip installs into /opt/venv from outside: no image holds it.
ENV PATH=/opt/pip/bin:$PATH \
    PIP_PYTHON=/opt/venv/bin/python
RUN python -m venv /opt/pip && python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt deploy/k8s/pins.txt README.md LICENSE NOTICE ./

# Dependencies first, sources after them: a change of code does not install torch again. The secret
# `pip`, if the build is given one, is a pip.conf that names your package index; no image keeps it.
FROM build AS build-serving
# ONNX Runtime computes: neither torch nor transformers is installed.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install -c constraints.txt ".[serving,dicom,s3,redis]"
COPY cxr cxr
COPY cxr_serving cxr_serving
RUN --mount=type=secret,id=pip,target=/etc/pip.conf pip install --no-deps --force-reinstall .

FROM build AS build-pipeline
# For Kubernetes: pipeline,s3,k8s.
ARG EXTRAS=pipeline,s3
# The CPU build of torch. Set it empty for PyPI's build, which brings CUDA.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install -c constraints.txt -c pins.txt ".[$EXTRAS]"
COPY cxr cxr
COPY cxr_serving cxr_serving
COPY cxr_assets cxr_assets
RUN --mount=type=secret,id=pip,target=/etc/pip.conf pip install --no-deps --force-reinstall .

FROM base AS serving
ENV CXR_HOST=0.0.0.0
COPY --from=build-serving /opt/venv /opt/venv
USER cxr
EXPOSE 8000
CMD ["cxr", "serve"]

FROM base AS pipeline
ENV DAGSTER_HOME=/opt/dagster \
    GIT_PYTHON_REFRESH=quiet \
    HF_HOME=/data/huggingface
COPY --from=build-pipeline /opt/venv /opt/venv
COPY --chown=cxr:cxr deploy/dagster.yaml deploy/workspace.yaml /opt/dagster/
RUN chown cxr:cxr /opt/dagster
WORKDIR /opt/dagster
USER cxr
EXPOSE 4000
CMD ["dagster", "code-server", "start", "--host", "0.0.0.0", "--port", "4000", "--location-name", "cxr", "--module-name", "cxr_assets.definitions"]

# The CPU image. The GPU image is the same with the registry's own build of torch, which brings CUDA along:
#   docker build --build-arg TORCH=torch==2.13.0 --build-arg TORCH_INDEX= --tag bids-wmh-uad:cuda .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG TORCH=torch==2.13.0+cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# packages before source: a change of the source repeats only the last, quick step
COPY container /src/container
RUN sh /src/container/install.sh packages /src
ARG VERSION=0.1.0.dev0
COPY pyproject.toml README.md LICENSE /src/
COPY bids_wmh_uad /src/bids_wmh_uad
RUN sh /src/container/install.sh program /src

FROM ${BASE_IMAGE}
COPY --from=build /opt/bids-wmh-uad /opt/bids-wmh-uad
# /usr/local/bin: also a login shell, whose profile resets PATH, finds the command
RUN ln -s /opt/bids-wmh-uad/bin/bids-wmh-uad /usr/local/bin/bids-wmh-uad
# Any uid works: nobody's name is looked up, and nothing is written but output, work and /tmp
ENV HOME=/tmp \
    LANG=C.UTF-8 \
    LOGNAME=bids \
    NO_ET=1 \
    OMP_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    USER=bids
# ./work is where intermediate files go if nothing else is said
WORKDIR /tmp
ENTRYPOINT ["/opt/bids-wmh-uad/bin/bids-wmh-uad"]
CMD ["--help"]
ARG VERSION=0.1.0.dev0
ARG BUILD_DATE=""
ARG VCS_REF=""
LABEL org.opencontainers.image.title="bids-wmh-uad" \
      org.opencontainers.image.description="BIDS App: white matter hyperintensities in T1w + FLAIR MRI without lesion labels" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/bids-apps/bids-wmh-uad" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${VCS_REF}" \
      org.opencontainers.image.created="${BUILD_DATE}"

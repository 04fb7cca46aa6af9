# diffhash with all that its experiments need. From the root of the clone, for CPUs:
#
#   docker build -t diffhash .
#   docker run --rm -v "$PWD/results:/app/results" diffhash train encoder=cubic task=pinn
#
# For CUDA, whose libraries torch's builds on PyPI bring:
#
#   docker build -t diffhash:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#   docker run --rm --gpus all diffhash:cuda train encoder=cubic trainer.accelerator=gpu
FROM python:3.11-slim

# Kernels that the package does not have are compiled when they are needed; Triton compiles, too.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt /build/
RUN pip install --no-cache-dir -c /build/constraints.txt \
    --extra-index-url "$TORCH_INDEX" torch "setuptools>=77.0.3"

COPY CITATION.cff LICENSE MANIFEST.in README.md pyproject.toml setup.py /build/
COPY configs /build/configs
COPY scripts/prebuild_kernels.py /build/scripts/
COPY src /build/src
RUN DIFFHASH_PREBUILT=1 pip install --no-cache-dir --no-build-isolation \
    -c /build/constraints.txt "/build[experiments]" && rm -rf /build

# Of the image: writable for any user that a container runs as, with or without a home.
ENV DIFFHASH_CACHE=/tmp/diffhash-kernels
WORKDIR /app
ENTRYPOINT ["diffhash"]

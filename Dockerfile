# instantvir in a container, for a CPU or for an NVIDIA card:
#
#     docker build --target cpu -t instantvir:cpu --build-arg TORCH_INDEX=ADDRESS .
#     docker run --rm -v "$PWD:/videos" instantvir:cpu restore old.mp4 --task denoise
#
#     docker build --target cuda -t instantvir:cuda .
#     docker run --rm --gpus all -v "$PWD:/videos" instantvir:cuda restore old.mp4 --model deblur/
#
# ADDRESS is that of PyTorch's wheels for the CPU, as its installation page names it; without it the image
# for the CPU works, too, and is 4 GB larger. PyTorch's wheels bring their CUDA libraries along: the host
# needs a driver and the NVIDIA container toolkit, nothing else. The tests run these steps without docker, but
# for Debian's packages; no image has been built from them yet.

FROM python:3.12-slim AS cpu
ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX=""
RUN python3 -m venv /opt/instantvir
RUN /opt/instantvir/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
COPY . /src
RUN /opt/instantvir/bin/pip install --no-cache-dir /src
RUN /opt/instantvir/bin/instantvir info tiny
WORKDIR /videos
ENTRYPOINT ["/opt/instantvir/bin/instantvir"]
CMD ["--help"]

FROM python:3.12-slim AS cuda
ARG TORCH="torch==2.13.0"
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# gcc: Triton builds the launchers of its kernels on the machine that runs them
RUN python3 -m venv /opt/instantvir
RUN /opt/instantvir/bin/pip install --no-cache-dir "$TORCH"
COPY . /src
RUN /opt/instantvir/bin/pip install --no-cache-dir "/src[kernels]"
RUN /opt/instantvir/bin/instantvir info tiny
WORKDIR /videos
ENTRYPOINT ["/opt/instantvir/bin/instantvir"]
CMD ["--help"]

#!/bin/sh
# Take out of a site-packages folder what training, merging and publishing never open, and say how
# much each part was: 1.6 GB (docs/image.md has the table).
#
#   sh trim.sh SITE_PACKAGES
#
# No library that stays links any of it (`readelf -d`) or opens it by name while it trains. Run it in
# the layer that installs the packages: a later layer only hides files. Elsewhere, on a folder made
# with `uv sync --link-mode copy`. A part that is not there ends it: the packages have changed.
set -eu
device_code="$(cd "$(dirname "$0")" && pwd)/device_code.py"
cd "$1"

# What is changed in place would be changed in uv's cache too, and so in every other environment.
if [ "$(stat --format %h torch/lib/libtorch_cuda.so)" != 1 ]; then
  echo "$1 shares its files with uv's cache: install it with --link-mode copy" >&2
  exit 1
fi

before="$(du -sb . | cut -f1)"
gone() {  # what has gone since the last call
  now="$(du -sb . | cut -f1)"
  printf '%8.1f MB  %s\n' "$(((before - now) / 100000))e-1" "$1"
  before="$now"
}

rm nvidia/cusolver/lib/libcusolverMg*
gone "the multi-GPU solver"
rm nvidia/cuda_nvrtc/lib/*alt*
gone "the second NVRTC"
rm nvidia/cublas/lib/libnvblas* nvidia/cufft/lib/libcufftw* nvidia/cufile/lib/libcufile_rdma*
gone "NVBLAS, cuFFT's FFTW interface, GPUDirect RDMA"
(cd nvidia/cuda_cupti/lib && rm libnvperf* libpcsampling* libcheckpoint*)
gone "CUPTI's reader of hardware counters"

# bitsandbytes brings one library for each CUDA version; torch 2.8.0 is the build for 12.8.
find bitsandbytes -name 'libbitsandbytes_*' \
  ! -name 'libbitsandbytes_cpu*' ! -name 'libbitsandbytes_cuda128*' -delete
gone "bitsandbytes for other CUDA versions"

rm torchao/_C*.so
gone "torchao's kernels, which are for CUDA 13"

rm -r studio unsloth_cli
rm -f ../../../bin/unsloth
gone "Unsloth's web interface and its command, both AGPL-3.0"

# Its `ptxas` and `backends/amd` are needed.
rm triton/backends/nvidia/lib/cupti/*.a triton/backends/nvidia/lib/cupti/*.so*
rm triton/_C/libproton.so
rm -r triton/instrumentation
rm triton/backends/nvidia/bin/nvdisasm triton/backends/nvidia/bin/cuobjdump
gone "Triton's profiler, test plug-ins and disassemblers"

# There is no C++ compiler here.
rm -r torch/include pyarrow/include nvidia/*/include
rm torch/bin/protoc*
gone "C++ headers, protoc"

# Arrow's own network protocol.
rm pyarrow/_flight.*.so pyarrow/libarrow_flight* pyarrow/libarrow_python_flight*
gone "Arrow Flight"

# AWS's services but S3 and what signs in to it.
find botocore/data -mindepth 1 -maxdepth 1 -type d \
  ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} +
gone "models of AWS's other services"

rm -r matplotlib/mpl-data/sample_data test
for library in pandas numpy pyarrow sympy matplotlib; do
  find "$library" -type d -name tests -prune -exec rm -r {} +
done
gone "libraries' own tests"

# Declared by Unsloth and imported by nothing a job imports: image models, and a downloader that
# huggingface_hub 1 no longer asks for. Type stubs are for editors.
rm -r diffusers diffusers-*.dist-info hf_transfer hf_transfer-*.dist-info
find . -name '*.pyi' -delete
gone "diffusers, hf_transfer, type stubs"

# The code itself stays, and is compiled if it is imported after all.
for package in \
  transformers/models torch/testing sympy/physics unsloth_zoo/mlx networkx fontTools pygments \
  setuptools sentry_sdk wcwidth prompt_toolkit dns opentelemetry; do
  find "$package" -name '*.pyc' -delete
done
gone "bytecode of what a job does not import"

# Only a debugger reads them. The dynamic ones, by which libraries find each other, stay. Not in
# `*.libs`, which patchelf has changed in a way that `strip` breaks; NVIDIA strips its own.
find . -name '*.so*' -type f -size +1000k ! -path '*.libs/*' ! -path './nvidia/*' \
  -exec strip --strip-unneeded {} +
strip --strip-unneeded nvidia/nccl/lib/libnccl.so.2
gone "symbol tables"

# Free software all five; the CUDA libraries' licence does not allow it. xformers has none of it.
python3 "$device_code" torch/lib/libtorch_cuda.so torch/lib/libtorch_cuda_linalg.so \
  nvidia/nccl/lib/libnccl.so.2 bitsandbytes/libbitsandbytes_cuda128.so torchvision/_C.so

#!/bin/sh
# Take out of a site-packages folder what training, merging and publishing never open: 1.5 GB
# (docs/image.md has the table).
#
#   sh trim.sh SITE_PACKAGES
#
# No library that stays links any of it (`readelf -d`) or opens it by name while it trains. Run it in
# the layer that installs the packages: a later layer only hides files.
set -eu
cd "$1"

# The whole CUDA libraries' side parts: the multi-GPU solver, the second NVRTC, NVBLAS, the FFTW
# interface, the reader of hardware counters and GPUDirect RDMA.
rm nvidia/cusolver/lib/libcusolverMg*
rm nvidia/cuda_nvrtc/lib/*alt*
rm nvidia/cublas/lib/libnvblas* nvidia/cufft/lib/libcufftw* nvidia/cufile/lib/libcufile_rdma*
(cd nvidia/cuda_cupti/lib && rm libnvperf* libpcsampling* libcheckpoint*)

# bitsandbytes brings one library for each CUDA version; torch 2.8.0 is the build for 12.8.
find bitsandbytes -name 'libbitsandbytes_*' \
  ! -name 'libbitsandbytes_cpu*' ! -name 'libbitsandbytes_cuda128*' -delete

# Unsloth's web interface and its command, both AGPL-3.0.
rm -r studio unsloth_cli
rm ../../../bin/unsloth

# Triton's profiler and disassemblers. Its `ptxas` and `backends/amd` are needed.
rm triton/backends/nvidia/lib/cupti/*.a triton/backends/nvidia/lib/cupti/*.so*
rm triton/_C/libproton.so
rm -r triton/instrumentation
rm triton/backends/nvidia/bin/nvdisasm triton/backends/nvidia/bin/cuobjdump

# For compiling C++ extensions; there is no C++ compiler here.
rm -r torch/include pyarrow/include
rm -r nvidia/*/include
rm torch/bin/protoc*

# The libraries' own tests.
rm -r matplotlib/mpl-data/sample_data
for library in pandas numpy pyarrow sympy matplotlib; do
  find "$library" -type d -name tests -prune -exec rm -r {} +
done

# Declared by Unsloth and imported by nothing a job imports: image models, and a downloader that
# huggingface_hub 1 no longer asks for. Type stubs are for editors.
rm -r diffusers diffusers-*.dist-info hf_transfer hf_transfer-*.dist-info
find . -name '*.pyi' -delete

# Bytecode of what a job does not import. The code itself stays, and is compiled if it is.
for package in \
  transformers/models torch/testing sympy/physics unsloth_zoo/mlx networkx fontTools pygments \
  setuptools sentry_sdk wcwidth prompt_toolkit dns opentelemetry; do
  find "$package" -name '*.pyc' -delete
done

# Symbol tables that only a debugger reads. The dynamic ones, by which libraries find each other,
# stay. Not in `*.libs`, which patchelf has changed in a way that `strip` breaks; NVIDIA strips its own.
find . -name '*.so*' -type f -size +1000k ! -path '*.libs/*' ! -path './nvidia/*' \
  -exec strip --strip-unneeded {} +
strip --strip-unneeded nvidia/nccl/lib/libnccl.so.2

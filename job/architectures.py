"""NVIDIA's architectures: what each card gets from this stack, or why it is refused. Pure."""

from __future__ import annotations

from typing import NamedTuple

Capability = tuple[int, int]  # compute capability, e.g. (9, 0), which compilers call sm_90

MIN_CAPABILITY: Capability = (7, 5)  # Turing: the oldest that Unsloth and Triton 3.4 support
MIN_DRIVER = 525  # CUDA 12.x minor-version compatibility (NVIDIA's CUDA compatibility guide)

# What torch 2.8.0+cu128 has machine code for from Turing on: `torch._C._cuda_getArchFlags()`. Code
# for X.Y also runs on X.Z with Z > Y, and on nothing else.
COMPILED: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0))


class Architecture(NamedTuple):
    """One row of the table in docs/image.md."""

    capability: Capability
    name: str
    cards: str
    trains_in: str  # of weights that are not quantised, and of all activations
    gpt_oss: str  # how its experts and attention are run


UNPACKED = "as Unsloth runs it, unpacked"
LOOP = "packed; one product an expert"

TABLE = (
    Architecture((7, 5), "Turing", "T4, RTX 20", "float16", UNPACKED),
    Architecture((8, 0), "Ampere", "A100, A30", "bfloat16", LOOP),
    Architecture((8, 6), "Ampere", "A10, A40, RTX A6000, RTX 30", "bfloat16", LOOP),
    Architecture((8, 9), "Ada", "L4, L40S, RTX 40", "bfloat16", LOOP),
    Architecture((9, 0), "Hopper", "H100, H200", "bfloat16", "packed; grouped products"),
    Architecture((10, 0), "Blackwell", "B200", "bfloat16", LOOP),
    Architecture((10, 3), "Blackwell Ultra", "B300", "bfloat16", LOOP),
    Architecture((12, 0), "Blackwell", "RTX 50, RTX PRO 6000", "bfloat16", LOOP),
)


def spelled(capability: Capability) -> str:
    """As NVIDIA writes it: 9.0."""
    return "{}.{}".format(*capability)


def machine_code(capability: Capability) -> Capability | None:
    """The newest of torch's builds that such a card runs; None if it runs none."""
    major, minor = capability
    fitting = [built for built in COMPILED if built[0] == major and built[1] <= minor]
    return max(fitting, default=None)


def refusal(card: str, capability: Capability, driver: str) -> str | None:
    """Why a card cannot be used, with the way out; None if it can.

    Args:
        driver: its version, e.g. `570.133.20`.
    """
    if capability < MIN_CAPABILITY:
        return (
            f"{card} has compute capability {spelled(capability)}; "
            f"{spelled(MIN_CAPABILITY)} (Turing) or newer is needed."
        )
    if machine_code(capability) is None:
        built = ", ".join(spelled(one) for one in COMPILED)
        return (
            f"{card} has compute capability {spelled(capability)}, for which torch 2.8.0 has no "
            f"machine code; it is built for {built}. Take another card."
        )
    if int(driver.split(".")[0]) < MIN_DRIVER:
        return (
            f"The NVIDIA driver is {driver}; CUDA 12.8 needs {MIN_DRIVER} or newer. "
            "Take a host with a newer driver."
        )
    return None
